"""`calotype evaluate`: what a model's pictures are worth, in numbers, and which way of drawing is best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calotype.cli import options, output
from calotype.cli.progress import open_reporter
from calotype.core.errors import UserError

if TYPE_CHECKING:
    from calotype.core.progress import Reporter


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A run, a bundle folder or a name from 'models'.")],
    data: Annotated[
        str | None, typer.Option("--data", metavar="DATA", help="Pictures to measure against (default: the run's own).")
    ] = None,
    prompts: Annotated[
        int | None, typer.Option("--prompts", min=2, help="Captions, or pictures, to ask for (512; 256 in a sweep).")
    ] = None,
    num_images: Annotated[int, typer.Option("-n", "--num-images", min=1, help="Pictures of each.")] = 1,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31, help="Chooses prompts; of the first picture.")] = 0,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of sampling, as guidance_scale=2."),
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", help="Of a run: averaged, live, best, or an average's relative width, as 0.08.")
    ] = "averaged",
    extractor: Annotated[
        str, typer.Option("--extractor", help="What looks at the pictures: inception:FILE@SHA256, dinov2:..., hf:...")
    ] = "efficientnet-lite0",
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Try ways of drawing, and make the best one the model's default.")
    ] = False,
    lists: Annotated[
        list[str] | None,
        typer.Option("--try", metavar="KEY=[...]", help="In a sweep: values to try instead of its plan; repeatable."),
    ] = None,
    settings: Annotated[int, typer.Option("--settings", min=2, help="In a sweep: how many to try at most.")] = 24,
    keep: Annotated[bool, typer.Option("--keep", help="In a sweep: leave the model's default as it is.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file (default: MODEL/evaluation.json).")] = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Score a model: distances with floor and ceiling, prompt fidelity, memory; every number with its interval.

    With --sweep, score many ways of drawing with it, again the best one, and write that into the model.
    """
    given = {"--try": bool(lists), "--keep": keep, "--settings": settings != 24}
    refused = {"--data": data is not None, "--set": bool(overrides), "--weights": weights != "averaged"}
    refused |= {"--out": out is not None, "--num-images": num_images != 1}
    for option, there in (refused if sweep else given).items():
        if there:
            mend = "leave one of them out" if sweep else "give both, or leave it out"
            raise UserError(f"{option} goes {'without' if sweep else 'with'} --sweep", mend)
    with open_reporter() as reporter:
        from calotype.inspection.scores import evaluate as run_evaluation
        from calotype.inspection.scores.words import describe

        lines: list[str] = []
        told: dict[str, Any] = {}
        if sweep:
            told = _swept(model, prompts, settings, lists or [], seed, extractor, device, not keep, reporter)
            lines = [*told.pop("table"), "", told["summary"], ""]
        if not sweep or told["written"]:  # scores of the old default would mislead
            record = run_evaluation(
                model,
                data=data,
                prompts=512 if sweep else prompts or 512,
                num_images=num_images,
                seed=seed,
                sampling=_asked(overrides or []),
                weights=weights,
                extractor=extractor,
                device=device,
                out=out,
                reporter=reporter,
            )
            lines += output.layout(describe(record))
            told = {**told, "evaluation": record} if sweep else record
        if (Path(model) / "report.html").is_file() and (sweep or not (overrides or data or out)):
            from calotype.inspection.report import write_report

            write_report(Path(model), reporter)
    output.result(told, lines, as_json=as_json)


def _swept(
    model: str,
    prompts: int | None,
    settings: int,
    lists: list[str],
    seed: int,
    extractor: str,
    device: str,
    write: bool,
    reporter: Reporter,
) -> dict[str, Any]:
    from calotype.inspection.lab import sweep, table

    record = sweep(
        model,
        count=prompts or 256,
        most=settings,
        grid=lists,
        seed=seed,
        extractor=extractor,
        device=device,
        write=write,
        reporter=reporter,
    )
    return {**record, "table": table(record)}


def _asked(overrides: list[str]) -> dict[str, Any]:
    """The settings of sampling that were named, checked."""
    from calotype.recipes import SamplingSection

    values = SamplingSection().with_overrides(overrides).model_dump() if overrides else {}
    named = {assignment.split("=", 1)[0].strip() for assignment in overrides}
    return {key: value for key, value in values.items() if key in named}
