"""The preflight against a real run of the same command, against arithmetic, and against want of room."""

from __future__ import annotations

import copy
import os
import signal
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calotype.cli.plan import _above
from calotype.core.errors import UserError
from calotype.core.files import read_lines
from calotype.core.progress import Silent
from calotype.images.source import Picture, Source, open_source
from calotype.inspection.data_verdict import Advice
from calotype.inspection.preflight import costs, resources
from calotype.inspection.preflight.costs import Line, StageCost, size_of
from calotype.inspection.preflight.forecast import Fixed, checkpoint_bytes, forecast_stage, steps_within, timed_stages
from calotype.inspection.preflight.listing import SAMPLE, Listing
from calotype.inspection.preflight.plan import plan
from calotype.inspection.preflight.rehearsal import Parts, Rehearsal
from calotype.inspection.preflight.verdict import foreseen
from calotype.latents import ConvVAE, VAEConfig
from calotype.pipeline import train
from calotype.recipes import get_recipe
from calotype.training.engine import Engine
from calotype.training.journal import Budget
from calotype.training.post_hoc import PostHocConfig
from calotype.training.settings import LoopConfig
from tests.pipeline.conftest import QUICK, paint
from tests.pipeline.origins import with_vae

CPU = torch.device("cpu")
SETTINGS = [*QUICK, "training.validate_every=3", "training.checkpoint_seconds=1000"]
SETTINGS += ["training.post_hoc={base: 2, every: 1}", "vae.gate=warn", "sampling.num_steps=4"]
SETTINGS += ["vae.loss.adversarial_plateau=0.99", "vae.training.validate_every=1"]  # its discriminator joins at step 2
COST = StageCost(
    parameters=10,
    batch_size=8,
    step_seconds=0.5,
    asked=8,
    fits=8,
    memory=Line(100.0, 10.0),
    save=(2.0, 1000),
    snapshot=(0.25, 50),
    validation=3.0,
    preview=4.0,
)


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Trials as short as they can be."""
    patch.setattr(costs, "LONGEST", 0.5)
    patch.setattr(costs, "TIMED", 0.01)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(**settings: Any) -> dict[str, Any]:
    return plan("shapes", **{"size": 32, "steps": 7, "overrides": SETTINGS, "device": "cpu", **settings})


@pytest.fixture(scope="module")
def measured_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rehearsal, Parts]:
    """Every part of a small run, measured once for all tests here."""
    home = tmp_path_factory.mktemp("rehearsed")
    shapes = paint(home / "shapes")
    recipe = get_recipe("calotype", 32).with_overrides(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        rehearsal = Rehearsal(home, Listing(open_source(shapes, size=32)), recipe, CPU, Silent(), Budget(steps=100))
        return rehearsal, rehearsal.parts()


def test_what_is_foreseen_is_what_a_run_does(here: Path, measured_run: tuple[Rehearsal, Parts]) -> None:
    """Counts and sizes are those of a real run."""
    paint(here / "shapes")
    found = foreseen(*measured_run, Budget(steps=7), None, 10**12, [])
    run = train("shapes", out="run", size=32, steps=7, overrides=SETTINGS, device="cpu")
    records = list(read_lines(run.metrics))
    for name, measure in (("vae", "held_out_psnr"), ("denoiser", "train_error")):
        stage, folder = found["stages"][name], run.folder / name
        assert stage["steps"] == max(record["step"] for record in records if record["stage"] == name)
        assert stage["validations"] == sum(r["stage"] == name and measure in r for r in records)
        assert stage["previews"] == len(list(run.samples.glob(f"{name}-*[0-9].png")))
        saved = size_of(max(folder.glob("step-*[0-9]")))
        assert stage["checkpoint_bytes"] == pytest.approx(saved, rel=0.02)
        assert stage["snapshots"] == len(list((folder / "averages").glob("step-*"))) - (name == "denoiser")
    parts = found["disk"]["parts"]
    assert parts["pictures"] == pytest.approx(size_of(run.data), rel=0.05)
    shards = sum(path.stat().st_size for path in run.latents.rglob("*.safetensors"))
    assert parts["latents"] == pytest.approx(shards, rel=0.3)
    assert parts["model"] == pytest.approx(size_of(run.model), rel=0.15)
    assert parts["checkpoints"] >= size_of(run.vae) + size_of(run.denoiser)
    assert found["seconds"]["total"] == pytest.approx(
        sum(value for part, value in found["seconds"].items() if part != "total"), abs=0.5
    )
    assert found["pictures"] == 16


def test_what_does_not_fit_is_said_with_the_settings_that_mend_it(measured_run: tuple[Rehearsal, Parts]) -> None:
    rehearsal, parts = measured_run
    roomy, budget = 2**40, Budget(steps=7)
    advice: list[Advice] = []
    found = foreseen(rehearsal, parts, budget, roomy, roomy, advice)
    assert (found["memory"]["fits"], found["disk"]["fits"], advice) == (True, True, [])
    less = replace(parts, denoiser=replace(parts.denoiser, fits=2))
    found = foreseen(rehearsal, less, budget, roomy, roomy, advice)
    assert found["memory"]["micro_batch"]["denoiser"]["fits"] == 2
    assert [each.action for each in advice] == ["--set training.micro_batch=2"]
    needed, spare = found["disk"]["needed"], 2 * parts.denoiser.save[1]
    for free, mend in ((needed - spare, "--set training.keep=1"), (1000, "free 0.0")):
        advice.clear()
        assert foreseen(rehearsal, parts, budget, roomy, free, advice)["disk"]["fits"] is False
        assert mend in advice[0].action
    advice.clear()
    assert foreseen(rehearsal, parts, budget, 1000, roomy, advice)["memory"]["fits"] is False
    assert "that are free" in advice[0].what
    assert foreseen(rehearsal, parts, budget, None, roomy, [])["memory"]["fits"] is None
    advice.clear()
    foreseen(rehearsal, replace(parts, finish=90.0), Budget(minutes=1), roomy, roomy, advice)
    assert "before and after training" in advice[0].what
    enough = int(advice[0].action.split()[2])
    for minutes, late in ((1, True), (enough, False)):
        advice.clear()
        foreseen(rehearsal, replace(parts, finish=90.0), Budget(minutes=minutes), roomy, roomy, advice)
        assert bool(advice) is late


@pytest.mark.parametrize(
    ("room", "seconds", "tried", "fits"),
    [(None, 0.0, [1, 4, 16], 16), (2750, 0.0, [1, 4], 8), (1600, 0.0, [1], 2), (None, 1.0, [1, 4], 16)],
)
def test_micro_batches_are_tried_upwards_and_none_that_will_not_fit_or_takes_long(
    monkeypatch: pytest.MonkeyPatch, room: int | None, seconds: float, tried: list[int], fits: int
) -> None:
    """Of an engine that takes 1,000 bytes and 100 a picture, and `seconds` a picture."""
    sizes: list[int] = []

    @contextmanager
    def seen(device: torch.device) -> Iterator[resources.Use]:
        use = resources.Use(base=1000)
        yield use
        use.peak, use.seconds = 1000 + 100 * sizes[-1], seconds * sizes[-1]

    engine = types.SimpleNamespace(
        objective=types.SimpleNamespace(stage="vae"),
        compute=lambda step, ids, size: sizes.append(size),
        apply=lambda step: sizes.clear(),
        discard=lambda: None,
    )
    monkeypatch.setattr(costs, "measured", seen)
    monkeypatch.setattr(costs, "room", lambda device: room)
    line, _, found = costs._memory_by_size(engine, torch.arange(16), 16, CPU)  # type: ignore[arg-type]
    assert (sizes, found) == (tried, fits)
    assert line.at(8) == 1800


def test_of_an_absurd_batch_a_part_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    taken: list[int] = []

    def at_most(engine: Engine, ids: torch.Tensor, size: int, device: torch.device) -> float:
        taken.append(len(ids))
        return 0.5 * len(ids)

    use = resources.Use(seconds=0.5)
    monkeypatch.setattr(costs, "_memory_by_size", lambda *_: (Line(0.0, 1.0), (1, use), 1000))
    monkeypatch.setattr(costs, "_seconds_a_step", at_most)
    linear = torch.nn.Linear(1, 1)
    objective = types.SimpleNamespace(stage="vae", network=linear, auxiliary=None, num_samples=1000, losses=None)
    config = LoopConfig(batch_size=1000)
    _, cost = costs.measure_stage(objective, config, tmp_path, 0, CPU)  # type: ignore[arg-type]
    assert (taken, cost.step_seconds) == ([16], 500.0)


def test_the_disk_is_that_of_the_folder_itself_where_it_is_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(here / "shapes")
    (here / "mounted").mkdir()

    def looked_at(self: Rehearsal) -> None:
        assert os.listdir(here / "mounted") == [self.folder.name]
        raise KeyboardInterrupt

    monkeypatch.setattr(Rehearsal, "parts", looked_at)
    with pytest.raises(KeyboardInterrupt):
        planned(out=here / "mounted")
    assert os.listdir(here / "mounted") == []


def test_a_network_that_memory_does_not_hold_is_not_even_built(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paint(here / "shapes")
    monkeypatch.setattr(costs, "room", lambda device: 1_000_000)
    monkeypatch.setattr("os.getloadavg", lambda: (999.0, 0.0, 0.0))
    found = planned()
    assert found["verdict"] == "does not fit"
    assert "weights of the vae" in found["mend"][0]["what"]
    assert "999.0 other processes" in found["mend"][1]["what"]
    assert "stages" not in found
    assert sorted(os.listdir(here)) == ["shapes"]


@pytest.mark.parametrize("signalled", [signal.SIGINT, signal.SIGTERM])
def test_stopped_on_the_way_it_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch, signalled: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore Ctrl-C
    paint(here / "shapes")

    def stopped(self: Rehearsal) -> None:
        assert len(os.listdir(here)) == 2
        os.kill(os.getpid(), signalled)
        signal.pause()

    monkeypatch.setattr(Rehearsal, "train_vae", stopped)
    with pytest.raises(KeyboardInterrupt):
        planned()
    assert sorted(os.listdir(here)) == ["shapes"]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"size": 33}, "33 pixels do not fit"),
        ({"overrides": ["training.batchsize=3"]}, "unknown key"),
        ({"overrides": ["condition=text"]}, "no captions"),
        ({"steps": None, "minutes": 3.0, "overrides": ["training.optimizer.decay_share=1"]}, "needs a number of steps"),
    ],
)
def test_what_training_refuses_is_refused(here: Path, settings: dict[str, Any], what: str) -> None:
    paint(here / "shapes")
    with pytest.raises(UserError, match=what):
        planned(**settings)
    assert sorted(os.listdir(here)) == ["shapes"]


def test_the_most_steps_that_fit_into_a_time_are_found() -> None:
    config = LoopConfig(validate_every=100, checkpoint_seconds=20, post_hoc=PostHocConfig(base=50))
    for seconds in (12.0, 100.0, 3333.0):
        steps = steps_within(COST, config, seconds)
        after = forecast_stage(COST, config, steps + 1).seconds
        assert after > seconds
        assert steps == 1 or forecast_stage(COST, config, steps).seconds <= seconds
    stage = forecast_stage(COST, config, 250)
    assert (stage.validations, stage.previews, stage.snapshots) == (3, 3, 5)
    work = 250 * 0.5 + 3 * 3 + 3 * 4 + 5 * 0.25
    assert stage.saves == 2 + 3 + int(work / 20)
    assert stage.seconds == work + 2 * stage.saves
    assert checkpoint_bytes(COST, config, stage) == (3 + 1 + 1) * 1000 + (5 + 2) * 50


def test_a_timed_run_is_shared_out_between_the_stages() -> None:
    config, fixed = LoopConfig(), Fixed(before=60, between=30, after=30)
    vae, denoiser = timed_stages(30, 0.4, fixed, (COST, COST), (config, config))
    assert vae is not None
    assert vae.seconds == pytest.approx(0.4 * (1800 - 90), rel=0.02)
    assert fixed.total + vae.seconds + denoiser.seconds == pytest.approx(1800, rel=0.01)
    none, alone = timed_stages(30, 0.4, fixed, (None, COST), (config, config))
    assert none is None
    assert alone.seconds == pytest.approx(1800 - 120, rel=0.01)
    assert timed_stages(1, 0.4, fixed, (COST, COST), (config, config))[1].seconds > 10  # late, but with a denoiser


def test_trials_grow_until_they_tell_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of work that takes a hundredth of a second each, half a second to begin, and five the first time."""
    amounts: list[int] = []

    @contextmanager
    def timed(device: torch.device) -> Iterator[resources.Use]:
        use = resources.Use(base=100)
        yield use
        use.seconds = 0.5 + 0.01 * amounts[-1] + 5 * (len(amounts) == 1)
        use.peak = 100 + 10 * amounts[-1]

    monkeypatch.setattr(costs, "measured", timed)
    monkeypatch.setattr(costs, "LONGEST", 30.0)
    for room, tried in ((None, [2, 8, 32, 100]), (800 / resources.SAFE, [2, 8, 32])):
        monkeypatch.setattr(costs, "room", lambda device, room=room: room)
        amounts.clear()
        work = costs.measure_work("it", amounts.append, 2, 100, CPU)
        assert amounts == tried
        assert work.seconds.at(1000) == pytest.approx(10.5)
        assert work.memory.at(1000) == pytest.approx(10_100)
    monkeypatch.setattr(costs, "room", lambda device: None)
    for longest, tried in ((8.0, [2]), (1.2, [2]), (12.0, [2, 8, 32, 100])):
        monkeypatch.setattr(costs, "LONGEST", longest)
        amounts.clear()
        costs.measure_work("it", amounts.append, 2, 100, CPU)
        assert amounts == tried
    with pytest.raises(costs.TooLargeError, match="it"):
        costs.measure_work("it", lambda amount: torch.empty(2**50), 2, 100, CPU)


def test_the_line_through_two_trials() -> None:
    assert Line.through((2, 5.0), (6, 9.0)) == Line(3.0, 1.0)
    assert Line.through((2, 5.0), (6, 5.0)) == Line(0.0, 5 / 6)  # noise hid the slope
    assert Line.through((1, 1.0), (2, 9.0)) == Line(0.0, 4.5)  # or made it too steep


@pytest.mark.parametrize("watched", [False, True])
def test_the_highest_memory_of_a_block_is_seen(monkeypatch: pytest.MonkeyPatch, watched: bool) -> None:
    if watched:
        monkeypatch.setattr(resources, "_forget_highest", lambda: False)
    with resources.measured(CPU) as use:
        held = torch.ones(25_000_000)
        if watched:
            time.sleep(0.05)
        del held
    assert use.peak - use.base > 95e6
    with resources.measured(CPU) as after:
        pass
    assert after.peak - after.base < 50e6


def test_an_allocation_beyond_the_room_fails_instead_of_taking_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "room", lambda device: resources.resident() + 100_000_000)
    with resources.bounded(CPU), pytest.raises(RuntimeError) as caught:
        torch.ones(250_000_000)
    assert resources.is_out_of_memory(caught.value)
    assert not resources.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    torch.empty(250_000_000)


def test_control_groups_are_heeded(tmp_path: Path) -> None:
    own, root = tmp_path / "own", tmp_path / "cgroup"
    own.write_text("4:memory:/a/b\n3:cpu,cpuacct:/\n0::/c\n")
    for folder, limit, used, name in (
        ("memory/a/b", 900, 300, "memory.{}_in_bytes"),
        ("memory/a", 500, 400, "memory.{}_in_bytes"),
        ("c", "max", 10, "memory.{}"),
        (".", 700, 100, "memory.{}"),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        words = ("limit", "usage") if "bytes" in name else ("max", "current")
        (root / folder / name.format(words[0])).write_text(f"{limit}\n")
        (root / folder / name.format(words[1])).write_text(f"{used}\n")
        (root / folder / "memory.stat").write_text("inactive_file 20\nactive_file 30\nanon 7\n")
    assert sorted(resources._groups_left(root, own)) == [150, 650, 650]


def test_the_sample_has_captions_and_classes_where_there_are_any() -> None:
    def read() -> bytes:
        raise AssertionError

    pictures = [Picture(f"{i}.png", read, "a cat" if i == 777 else None, "b" if i == 901 else "a") for i in range(1000)]
    listing = Listing(Source("made", pictures))
    sample = listing.sample()
    assert len(sample) <= SAMPLE + 3
    assert len({picture.name for picture in sample}) == len(sample)
    assert {picture.label for picture in sample[:3]} == {"a", "b"}
    assert "a cat" in {picture.caption for picture in sample[:3]}
    assert (listing.captions, listing.classes, listing.held_out_share) == (1, ["a", "b"], 0.05)


def test_a_set_of_which_little_can_be_read_is_measured_and_told(
    here: Path, measured_run: tuple[Rehearsal, Parts]
) -> None:
    paint(here / "shapes", each=2)
    for number in range(9):
        (here / "shapes" / "disc" / f"bad{number}.png").write_text("no picture")
    rehearsed, parts = measured_run
    rehearsal = Rehearsal(
        here, Listing(open_source("shapes", size=32)), rehearsed.recipe, CPU, Silent(), Budget(steps=100)
    )
    rehearsal.take_in()
    assert (rehearsal.rows, rehearsal.listing.total) == (4, 13)
    advice: list[Advice] = []
    told = copy.copy(rehearsed)
    told.refused = rehearsal.refused
    assert foreseen(told, parts, Budget(steps=7), None, 10**12, advice)["stops"]
    assert "69% of the files" in advice[0].what


@pytest.mark.parametrize("tune", ["auto", "always", "never"])
def test_an_autoencoder_to_start_from_costs_training_only_where_it_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune: str
) -> None:
    """Of one that does not serve: two looks at the latents, and both counted; forced either way, one."""
    shorten(monkeypatch)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with_vae(ConvVAE(VAEConfig()), tmp_path / "raw")
    recipe = get_recipe("calotype", 32).with_overrides([*SETTINGS, f"vae.from={tmp_path / 'raw'}", f"vae.tune={tune}"])
    source = open_source(paint(tmp_path / "shapes"), size=32)
    rehearsal = Rehearsal(tmp_path, Listing(source), recipe, CPU, Silent(), Budget(steps=7))
    parts = replace(rehearsal.parts(), encoding=costs.Work(Line(0.0, 0.5), Line(0.0, 1.0)), health=3.0)
    found = foreseen(rehearsal, parts, Budget(steps=7), None, 10**12, [])
    assert ("vae" in found["stages"]) is (tune != "never")
    assert found["vae_from"]["name"] == str(tmp_path / "raw")
    assert found["vae_from"]["learns"].startswith(
        {"auto": "the VAE, trained elsewhere", "always": "vae.tune=always"}.get(tune, "")
    )
    assert bool(found["vae_from"]["learns"]) is (tune != "never")
    looks = 2 if tune == "auto" else 1
    assert (found["seconds"]["latents"], found["seconds"]["health"]) == (looks * 0.5 * rehearsal.rows, looks * 3.0)
    assert found["seconds"]["total"] == pytest.approx(
        sum(value for part, value in found["seconds"].items() if part != "total"), abs=0.5
    )


def test_a_plan_says_what_becomes_of_the_autoencoder(
    here: Path, monkeypatch: pytest.MonkeyPatch, measured_run: tuple[Rehearsal, Parts]
) -> None:
    """One that serves is not trained, all minutes are the denoiser's, and the lines of the command tell it."""
    rehearsal, parts = measured_run
    recipe = rehearsal.recipe.with_overrides(["vae.from=shapes-32"])
    taking = copy.copy(rehearsal)
    taking.recipe = recipe
    found = foreseen(taking, replace(parts, vae=None, taken=""), Budget(minutes=5), None, 10**12, [])
    own = foreseen(rehearsal, parts, Budget(minutes=5), None, 10**12, [])
    assert list(found["stages"]) == ["denoiser"]
    assert found["stages"]["denoiser"]["steps"] > 1.3 * own["stages"]["denoiser"]["steps"]
    told = {"data": "x", "files": 1, "size": 32, "recipe": "calotype", "budget": "", "device": "cuda"}
    assert "vae         shapes-32, which is not trained" in _above({**told, **found})
    asks = {"vae_from": {"name": "shapes-32", "learns": "it loses much"}}
    assert "vae         shapes-32, which learns these pictures too: it loses much" in _above({**told, **asks})
    assert len(_above({**told, **own})) == 2
