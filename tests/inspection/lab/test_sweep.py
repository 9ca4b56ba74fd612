"""The lab finds a planted best, is not fooled by luck, goes on where it was stopped, and writes back what holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from calotype.core.errors import UserError
from calotype.core.files import read_json, verify_folder
from calotype.core.progress import Silent
from calotype.inspection.lab import sweep, table
from calotype.inspection.lab.trials import FRESH_SEED
from calotype.pipeline import Run, load, train
from calotype.pipeline.bundle import rewrite_bundle
from tests.inspection.lab.conftest import AVERAGES, Known
from tests.pipeline.conftest import QUICK

COUNT = 48


def model_json(run: Run) -> dict[str, Any]:
    return dict(json.loads((run.model / "model.json").read_text()))


def test_a_planted_best_is_found_proven_and_written(run: Run, known: Known) -> None:
    before = load(run.folder, "cpu")
    record = sweep(run.folder, count=COUNT, device="cpu")
    assert len(record["settings"]) == len({one["key"] for one in record["settings"]}) <= 24
    best = next(one for one in record["settings"] if one["key"] == record["best"])["setting"]
    assert (best["guidance_scale"], best["weights"], best["sampler"]) == (2.0, "own", "dpm++2m")
    assert best["threshold"] in ("dynamic", "static")
    assert record["better"]
    assert record["written"]
    again = record["again"]
    assert again["seed"] == FRESH_SEED
    assert again["cost"]["high"] < 0
    assert read_json(run.folder / "lab.json") == record
    verify_folder(run.model, sealed=True)
    after = load(run.folder, "cpu")
    assert after.recipe.sampling.model_dump(mode="json") == {k: v for k, v in best.items() if k != "weights"}
    assert after.recipe.model_copy(update={"sampling": before.recipe.sampling}) == before.recipe
    assert after.facts["lab"]["summary"] == record["summary"]
    assert record["summary"] in (run.model / "README.md").read_text()
    assert (run.samples / "lab.png").is_file()


def test_the_same_train_command_leaves_the_new_default_alone(run: Run, known: Known) -> None:
    assert sweep(run.folder, count=COUNT, device="cpu", grid=["guidance_scale=[2]"])["written"]
    written = model_json(run)
    source = run.read_config()["data"]
    train(source, out=run.folder, size=32, steps=8, overrides=[*QUICK, *AVERAGES])
    assert model_json(run) == written


def test_nothing_beats_a_default_that_is_best(run: Run, known: Known) -> None:
    own = load(run.folder, "cpu").recipe.sampling
    rewrite_bundle(run.model, sampling=own.model_copy(update={"guidance_scale": 2.0, "threshold": "dynamic"}))
    written = model_json(run)
    record = sweep(run.folder, count=COUNT, most=14, device="cpu")
    assert not record["better"]
    assert record["again"] is None
    assert "stays as it is" in record["summary"]
    assert model_json(run) == written


def test_luck_is_found_out_on_fresh_seeds(run: Run, known: Known) -> None:
    """A setting that shines on the sweep's own seeds alone is not written."""
    written = model_json(run)
    honest = Known.error

    def lucky(setting: Any) -> float:
        fresh = bool(known.calls) and known.calls[-1][1].seed == FRESH_SEED
        return 0.5 if fresh else honest(setting)

    known.error = lucky  # type: ignore[method-assign]
    record = sweep(run.folder, count=COUNT, most=14, device="cpu")
    assert record["again"] is not None
    assert not record["better"]
    assert "looked best" in record["summary"]
    assert model_json(run) == written


def test_settings_that_differ_by_luck_alone_change_nothing(run: Run, known: Known) -> None:
    """All settings are equally good, each with luck of its own: over three sweeps none is written."""
    written, tried_again = model_json(run), 0

    def lucky(bench: Any, _: Any, setting: Any, task: Any, *__: Any) -> Any:
        draws = torch.Generator().manual_seed(int(setting.key(seed=task.seed), 16) % 2**31)
        real = bench.real[task.rows].repeat_interleave(task.num_images, 0)
        return real + 0.5 + 0.6 * torch.randn(real.shape, generator=draws), 0.1, 20.0

    known.draw = lucky  # type: ignore[method-assign]
    for seed in range(3):
        record = sweep(run.folder, count=COUNT, most=10, seed=seed, device="cpu")
        tried_again += record["again"] is not None
        assert not record["better"], record["summary"]
    assert tried_again > 0  # there was luck to be found out
    assert model_json(run) == written


def test_a_sweep_that_was_stopped_goes_on(run: Run, known: Known) -> None:
    draw, stop_after = known.draw, 5

    def stopping(*asked: Any) -> Any:
        if len(known.calls) >= stop_after:
            raise KeyboardInterrupt
        return draw(*asked)

    known.draw = stopping  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        sweep(run.folder, count=COUNT, most=12, device="cpu", write=False)
    assert len(list((run.folder / "lab").glob("*.json"))) == stop_after
    kept = sorted((run.folder / "lab").glob("*.safetensors"))[0]
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")  # a damaged result is drawn again
    known.draw = draw  # type: ignore[method-assign]
    record = sweep(run.folder, count=COUNT, most=12, device="cpu", write=False)
    total = len(record["settings"]) + 2
    assert len(known.calls) == total + 1
    again = sweep(run.folder, count=COUNT, most=12, device="cpu", write=False)
    assert len(known.calls) == total + 1  # nothing is drawn twice
    assert again == record
    assert not record["written"]


def test_slower_settings_are_shown_but_never_made_the_default(run: Run, known: Known) -> None:
    known.error = lambda setting: 20 / setting.sampling.num_steps  # type: ignore[method-assign, assignment]
    grid = ["num_steps=[10, 20, 30, 80]"]
    record = sweep(run.folder, count=COUNT, device="cpu", grid=grid)
    steps = {one["key"]: one["setting"]["num_steps"] for one in record["settings"]}
    assert len(steps) == 4
    assert steps[record["best"]] == 30
    assert sorted(steps[key] for key in record["front"]) == [10, 20, 30, 80]
    assert load(run.folder, "cpu").recipe.sampling.num_steps == 30
    assert record["quicker"] is None


def test_what_is_as_good_in_less_time_is_told_but_not_made_the_default(run: Run, known: Known) -> None:
    known.error = lambda setting: 2.0 if setting.sampling.num_steps < 10 else 1.0  # type: ignore[method-assign, assignment]
    record = sweep(run.folder, count=COUNT, device="cpu", grid=["num_steps=[8, 10, 15, 20]"])
    assert record["quicker"]["setting"]["num_steps"] == 10
    assert "About as good in 50 % of the time: 10 steps." in record["summary"]
    assert not record["written"]


def test_other_weights_are_written_with_the_settings(run: Run, known: Known) -> None:
    old = load(run.folder, "cpu").network.state_dict()
    known.error = lambda setting: 0.2 if setting.weights == "live" else 1.5  # type: ignore[method-assign, assignment]
    record = sweep(run.folder, count=COUNT, device="cpu", grid=["weights=[own, live]"])
    assert record["written"]
    after = load(run.folder, "cpu")
    live = load(run.folder, "cpu", weights="live").network.state_dict()
    now = after.network.state_dict()
    assert all(torch.equal(now[name], live[name]) for name in live)
    assert any(not torch.equal(now[name], old[name]) for name in old)
    assert after.facts["weights"] == "live"


def test_a_bundle_that_changed_meanwhile_is_not_overwritten(run: Run, known: Known) -> None:
    draw = known.draw

    def changing(*asked: Any) -> Any:
        weights = load(run.folder, "cpu").network.state_dict()
        rewrite_bundle(run.model, weights={name: tensor + 1 for name, tensor in weights.items()})
        known.draw = draw  # type: ignore[method-assign]
        return draw(*asked)

    known.draw = changing  # type: ignore[method-assign]
    with pytest.raises(UserError, match="was changed while its settings were tried"):
        sweep(run.folder, count=COUNT, most=8, device="cpu")


def test_it_draws_for_real(run: Run) -> None:
    """No stand-in: two settings, a handful of pictures, and passes as they should be."""
    record = sweep(run.folder, count=16, device="cpu", grid=["num_steps=[3, 5]", "guidance_scale=[1, 3]"], write=False)
    passes = {(o["setting"]["num_steps"], o["setting"]["guidance_scale"]): o["passes"] for o in record["settings"]}
    assert passes == {(20, 3.0): 40, (3, 1.0): 3, (5, 1.0): 5, (3, 3.0): 6, (5, 3.0): 10}
    assert all(one["seconds"] > 0 for one in record["settings"])
    lines = table(record)
    assert len(lines) == 6
    assert any("as it is" in line for line in lines)


def test_too_few_pictures_to_tell_settings_apart_is_one_line(run: Run) -> None:
    with pytest.raises(UserError, match=r"^15 pictures are too few"):
        sweep(run.folder, count=15, most=2, device="cpu")


def test_what_is_no_finished_run_is_one_line(tmp_path: Path, run: Run) -> None:
    with pytest.raises(UserError, match="is not a finished run"):
        sweep(tmp_path / "nothing")
    (run.model / "model.json").unlink()
    with pytest.raises(UserError, match="is not a finished run"):
        sweep(run.folder, reporter=Silent())
