"""The lab: which way of drawing suits a trained model best? Tried, scored, tried again, and made its default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from calotype.core.errors import UserError
from calotype.core.files import write_json
from calotype.core.progress import Reporter, Silent
from calotype.core.tensors import choose_device
from calotype.evaluation import Estimate
from calotype.evaluation.paired import cost_difference, distance_difference, missed_difference
from calotype.features import load_extractor
from calotype.images.dataset import load_prepared
from calotype.inspection.lab.bench import Bench, Result, Task, warm
from calotype.inspection.lab.plan import given
from calotype.inspection.lab.search import Overall, Search, front, quicker
from calotype.inspection.lab.setting import OWN, Setting
from calotype.inspection.lab.words import summary
from calotype.inspection.scores.measure import LEAST_DISTANCE
from calotype.inspection.scores.roles import Asked, assign
from calotype.inspection.scores.subject import denoiser_digest
from calotype.pipeline import Run, load, previews
from calotype.pipeline.bundle import assemble, rewrite_bundle
from calotype.pipeline.reserve import FINAL_SAMPLES

FORMAT = 1
RECORD, RESULTS = "lab.json", "lab"
COUNT, MOST = 256, 24
SEED, FRESH_SEED = 200_000, 300_000
FRESH = 2  # times as many pictures for the last comparison


def sweep(
    target: str | Path,
    *,
    count: int = COUNT,
    most: int = MOST,
    grid: Sequence[str] = (),
    seed: int = 0,
    extractor: str = "efficientnet-lite0",
    device: str = "auto",
    write: bool = True,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Try up to `most` ways of drawing with a finished run, `count` pictures each; returns the record of RUN/lab.json.

    `grid` holds lists such as "guidance_scale=[1, 2, 3]": every combination is tried instead of the plan. The best
    is compared with the model as it is once more, on other prompts and seeds, and if it is better beyond chance and
    worse in nothing beyond chance it is written into the bundle as its default (unless `write` is False). What is
    scored is kept in RUN/lab, so that the same call continues. UserError where there is no finished run.
    """
    reporter = reporter or Silent()
    if count < 2 or most < 2:
        raise UserError("a sweep compares at least 2 settings of 2 pictures", f"such as {MOST} of {COUNT}")
    run, bench = _prepared(target, extractor, device, count, seed, reporter)
    default = Setting(OWN, bench.model.recipe.sampling)
    points = given(grid, default) if grid else []
    first, fresh = tasks(bench, count, seed)
    if points:
        most = len({default, *points})
    measured = denoiser_digest(run.model)
    fewest = min(first.count, len(bench.roles.reference))
    if fewest < LEAST_DISTANCE:
        raise UserError(
            f"{fewest} pictures are too few to tell settings apart",
            f"a sweep needs {LEAST_DISTANCE} samples, and as many training pictures to compare them with",
        )
    reporter.stage("real pictures", f"features by {bench.extractor.name}")
    reporter.say(f"up to {most} settings of {first.count:,} pictures, against {len(bench.reference):,} real ones")
    warm(bench)
    state = Search(bench, first, fresh, most, reporter)
    best = state.best_of_grid(default, points) if points else state.walk(default)
    record = _record(state, best, grid)
    if best is not state.default:
        record |= _again(state, best)
    record["summary"] = summary(record)
    write_json(run.folder / RECORD, record)  # before the bundle: it says why that changed
    if record["better"] and write:
        _write_back(run, bench, best.setting, record, measured)
        reporter.say(f"{run.model} draws like this from now on")
        record["written"] = True
        write_json(run.folder / RECORD, record)
    return record


def tasks(bench: Bench, count: int, seed: int) -> tuple[Task, Task]:
    """The pictures of the sweep, and of the last comparison: of other prompts where there are enough, other seeds."""
    rows = bench.roles.asked
    first = rows[:count]
    fresh = rows[count : count * (1 + FRESH)] if len(rows) >= 2 * count else rows[: count * FRESH]
    each, again = -(-count // len(first)), -(-count * FRESH // len(fresh))
    return Task(first, each, SEED + seed), Task(fresh, again, FRESH_SEED + seed)


def _prepared(
    target: str | Path, extractor: str, device: str, count: int, seed: int, reporter: Reporter
) -> tuple[Run, Bench]:
    run = Run(Path(target).expanduser())
    pictures = load_prepared(run.data) if run.config.is_file() else None
    if pictures is None or not (run.model / "model.json").is_file():
        raise UserError(f"{target} is not a finished run", "a sweep needs its pictures, its averages and its model")
    network, model = load_extractor(extractor, choose_device(device)), load(run.folder, device)
    kind: Asked = "captions" if model.captioned else "classes" if model.classes else "nothing"
    roles = assign(pictures, kind, count * (1 + FRESH), seed)
    return run, Bench(run, model, pictures, roles, network, run.folder / RESULTS, reporter)


def _record(state: Search, best: Result, grid: Sequence[str]) -> dict[str, Any]:
    """What was tried, as RUN/lab.json has it."""
    bench, first, faster = state.bench, state.task, quicker(state, best)
    return {
        "format": FORMAT,
        "made": {
            "count": first.count,
            "prompts": len(first.rows),
            "seed": first.seed,
            "asked": bench.roles.kind,
            "reference": len(bench.reference),
            "extractor": {"name": bench.extractor.name, "sha256": bench.extractor.sha256},
            "device": bench.model.device.type,
            "threads": torch.get_num_threads(),
            "grid": list(grid),
            "scale": asdict(state.scale),
        },
        "settings": [_told(state, one) for one in state.results.values()],
        "front": [one.key for one in front(state)],
        "path": state.path,
        "default": state.default.key,
        "best": best.key,
        "quicker": None if faster is None else _told(state, faster),
        "again": None,
        "better": False,
        "written": False,
    }


def _told(state: Search, one: Result) -> dict[str, Any]:
    """A result as the record has it, beside the default."""
    difference = cost_difference(one.measured, state.default.measured, state.scale)
    value = state.cost(one)
    low, high = value - difference.value + difference.low, value - difference.value + difference.high
    return {
        **one.plain(),
        "words": one.setting.words(state.default.setting),
        "cost": Estimate(value, low, high, difference.count).plain(),
    }


def _again(state: Search, best: Result) -> dict[str, Any]:
    """The best and the default once more: whatever came first of many was lucky as well."""
    first, fresh, reporter, base = state.task, state.fresh, state.reporter, state.default.setting
    reporter.stage("once more", f"{best.setting.words(base)}, and as it is: {fresh.count:,} pictures each")
    state.ahead = 2 * fresh.count
    old = state.bench.score(base, fresh, Overall(state, reporter))
    state.ahead = fresh.count
    new = state.bench.score(best.setting, fresh, Overall(state, reporter))
    difference = cost_difference(new.measured, old.measured, state.scale)
    distance, missed = (
        distance_difference(new.measured, old.measured),
        missed_difference(new.measured, old.measured),
    )
    worse = distance.low > 0 or (missed is not None and missed.low > 0)
    return {
        "again": {
            "count": fresh.count,
            "seed": fresh.seed,
            "other_prompts": not bool(torch.isin(fresh.rows, first.rows).any()),
            "default": old.plain(),
            "best": {**new.plain(), "words": best.setting.words(base)},
            "cost": difference.plain(),
            "kernel": distance.plain(),
            "missed": None if missed is None else missed.plain(),
        },
        "better": difference.high < 0 and not worse,
    }


def _write_back(run: Run, bench: Bench, best: Setting, record: Mapping[str, Any], measured: str | None) -> None:
    """Make the best setting the default of the run's bundle, with its weights, card and sheet of samples.

    UserError where the bundle is not the one with digest `measured` any more, or the run is in use.
    """
    model, _ = bench.model_of(best.weights)
    facts: dict[str, Any] = {"lab": {"summary": record["summary"], "made": record["made"], "again": record["again"]}}
    if best.weights != OWN:
        facts["weights"] = best.weights
    recipe = model.recipe.model_copy(update={"sampling": best.sampling})
    chosen = assemble(recipe, model.codec, model.network, model.classes, model.facts, model.device)
    if model.captioned:
        chosen.text_encoder = model.text_encoder
    sheet = previews.samples(chosen, run.samples / "lab.png", limit=FINAL_SAMPLES)
    with run.locked():
        if denoiser_digest(run.model) != measured:
            raise UserError(f"{run.model} was changed while its settings were tried", "give the same command again")
        rewrite_bundle(
            run.model,
            sampling=best.sampling,
            weights=None if best.weights == OWN else model.network.state_dict(),
            facts=facts,
            samples=sheet,
        )
