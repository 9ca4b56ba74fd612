"""The whole path: what a run folder holds, how it goes on, what it refuses."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from PIL import Image

from calotype.core.errors import UserError
from calotype.core.files import read_lines, verify_folder
from calotype.core.progress import Silent
from calotype.latents import read_statistics
from calotype.pipeline import Run, load, train
from calotype.training.journal import Journal
from tests.pipeline.conftest import QUICK, paint


def weights(run: Run) -> bytes:
    return (run.model / "denoiser.safetensors").read_bytes() + (run.model / "vae.safetensors").read_bytes()


def again(run: Run, steps: int = 4, **changed: object) -> Run:
    settings: dict[str, object] = {"size": 32, "overrides": QUICK, **changed}
    return train(run.folder.parent / "shapes", out=run.folder, steps=steps, **settings)  # type: ignore[arg-type]


def test_a_run_folder_is_complete(class_run: Run) -> None:
    verify_folder(class_run.model)
    assert read_statistics(class_run.latents) is not None
    description = json.loads((class_run.model / "model.json").read_text())
    assert description["format_version"] == 2
    assert description["classes"] == ["disc", "stripe"]
    assert len(description["latents"]["mean"]) == 4
    assert description["facts"]["data"]["pictures"] == 16
    assert description["facts"]["denoiser_steps"] == 4
    card = (class_run.model / "README.md").read_text()
    assert "calotype sample" in card
    for sheet in ("vae-00000006.png", "denoiser-00000004.png", "final.png"):
        with Image.open(class_run.samples / sheet) as image:
            assert image.width > 32
    stages = [record["stage"] for record in read_lines(class_run.metrics)]
    assert set(stages) == {"vae", "denoiser"}
    losses = [record for record in read_lines(class_run.metrics) if "reconstruction" in record]
    assert losses
    assert all({"kl", "loss", "lr", "rate"} <= set(record) for record in losses)


def test_the_same_command_changes_nothing_and_other_settings_are_refused(class_run: Run) -> None:
    before = weights(class_run)
    again(class_run)
    assert weights(class_run) == before
    with pytest.raises(UserError, match=r"recipe\.seed = 0, not 1"):
        again(class_run, seed=1)
    with pytest.raises(UserError, match=r"recipe\.size = 32, not 48"):
        again(class_run, size=48)
    with pytest.raises(UserError, match="already given --steps 4"):
        again(class_run, steps=3)
    with pytest.raises(UserError, match="started with --steps 4, not --minutes 1"):
        train(class_run.folder.parent / "shapes", out=class_run.folder, minutes=1, size=32, overrides=QUICK)
    assert weights(class_run) == before


def test_a_larger_budget_trains_on_with_the_same_vae(tmp_path: Path) -> None:
    run = train(paint(tmp_path / "shapes"), out=tmp_path / "run", size=32, steps=3, overrides=QUICK)
    vae = (run.model / "vae.safetensors").read_bytes()
    denoiser = (run.model / "denoiser.safetensors").read_bytes()
    again(run, steps=5)
    assert (run.model / "vae.safetensors").read_bytes() == vae
    assert (run.model / "denoiser.safetensors").read_bytes() != denoiser
    segments = Journal(run.folder / "journal.jsonl").segments("denoiser")
    assert [(segment.start, segment.end) for segment in segments] == [(0, 3), (3, 5)]


def test_a_run_without_classes_or_captions_is_unconditional(tmp_path: Path) -> None:
    source = paint(tmp_path / "plain", classes=("disc",))
    run = train(source / "disc", out=tmp_path / "run", size=32, steps=2, overrides=QUICK)
    model = run.load("cpu")
    assert not model.classes
    assert not model.captioned
    assert len(model.sample(num_images=3, num_steps=2)) == 3
    with pytest.raises(UserError, match=r"takes no prompt.*leave the prompt out"):
        model.sample(["a disc"])


def test_a_timed_run_decides_its_steps_once(tmp_path: Path) -> None:
    run = train(paint(tmp_path / "shapes"), out=tmp_path / "run", size=32, minutes=0.3, overrides=QUICK[1:])
    events = Journal(run.folder / "journal.jsonl").events
    assert [event["event"] for event in events if event.get("stage") == "vae"] == ["segment", "decided"]
    assert [event["event"] for event in events if event.get("stage") == "denoiser"] == ["segment", "decided"]
    segments = Journal(run.folder / "journal.jsonl").segments("denoiser")
    assert segments[-1].end == run.facts()["denoiser_steps"]


def test_a_late_first_stage_leaves_the_denoiser_half_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late is better than a denoiser that has learned nothing, and it is said."""
    said: list[str] = []

    class Listening(Silent):
        def warn(self, message: str) -> None:
            said.append(message)

    monkeypatch.setattr("calotype.pipeline.denoiser_stage.spent_on", lambda folder: 120.0)
    shapes, settings = paint(tmp_path / "shapes"), {"size": 32, "minutes": 0.1, "overrides": QUICK[1:]}
    run = train(shapes, out=tmp_path / "run", reporter=Listening(), **settings)  # type: ignore[arg-type]
    share = 1 - run.recipe.vae.share
    planned = [event for event in Journal(run.folder / "journal.jsonl").events if event["event"] == "segment"]
    assert planned[1]["seconds"] == pytest.approx(0.5 * share * 6)
    assert any("ends 2." in message and "minutes late" in message for message in said), said


def test_fine_tuning_starts_from_the_models_weights(class_run: Run, tmp_path: Path) -> None:
    shapes = class_run.folder.parent / "shapes"
    settings = {"size": 32, "overrides": QUICK, "from_model": class_run.folder}
    run = train(shapes, out=tmp_path / "tuned", steps=1, **settings)  # type: ignore[arg-type]
    assert (run.model / "vae.safetensors").read_bytes() == (class_run.model / "vae.safetensors").read_bytes()
    assert run.facts()["vae_steps"] == 0
    known, adopted = (sorted(path.rglob("*.safetensors")) for path in (class_run.latents, run.latents))
    assert [path.stat().st_ino for path in adopted] == [path.stat().st_ino for path in known], "encoded once"
    with pytest.raises(UserError, match="does not fit this data"):
        train(shapes / "disc", out=tmp_path / "other", steps=1, **settings)  # type: ignore[arg-type]


def test_unfinished_runs_can_be_sampled_and_empty_ones_say_so(class_run: Run, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(class_run.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    assert len(load(tmp_path / "run", "cpu").sample(labels=["disc"], num_steps=2)) == 1
    shutil.rmtree(tmp_path / "run" / "latents")
    with pytest.raises(UserError, match="first stage is not done"):
        load(tmp_path / "run", "cpu")


def test_a_run_in_use_is_refused(class_run: Run) -> None:
    with class_run.locked(), pytest.raises(UserError, match="in use by another process"):
        again(class_run)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from calotype.training import checkpoint

    shapes = paint(tmp_path / "shapes")
    whole = train(shapes, out=tmp_path / "whole", size=32, steps=4, overrides=QUICK)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "step-00000004")

    with monkeypatch.context() as patch:
        saved = checkpoint.save_tensors
        calls = []

        def sometimes_full(path: Path, tensors: object) -> None:
            calls.append(path)
            full() if len(calls) > 4 else saved(path, tensors)  # type: ignore[arg-type]

        patch.setattr(checkpoint, "save_tensors", sometimes_full)
        with pytest.raises(UserError, match="the disk is full"):
            train(shapes, out=tmp_path / "run", size=32, steps=4, overrides=QUICK)
    run = train(shapes, out=tmp_path / "run", size=32, steps=4, overrides=QUICK)
    assert weights(run) == weights(whole)
    assert not list(run.folder.rglob("*.tmp"))


def test_wrong_input_is_one_clear_line(tmp_path: Path) -> None:
    shapes = paint(tmp_path / "shapes", each=2)
    with pytest.raises(UserError, match=r"unknown key 'training\.batchsize'.*did you mean 'training\.batch_size'"):
        train(shapes, out=tmp_path / "a", overrides=["training.batchsize=3"])
    with pytest.raises(UserError, match=r"unknown recipe 'caltype'.*did you mean 'calotype'"):
        train(shapes, out=tmp_path / "a", recipe="caltype")
    with pytest.raises(UserError, match="multiple of 16"):
        train(shapes, out=tmp_path / "a", size=50)
    with pytest.raises(UserError, match=r"no such file or folder"):
        train(tmp_path / "nowhere", out=tmp_path / "a", size=32)
    with pytest.raises(UserError, match="give one of them"):
        train(shapes, out=tmp_path / "a", minutes=1, steps=1)
    with pytest.raises(UserError, match="above 0"):
        train(shapes, out=tmp_path / "a", steps=0)
    with pytest.raises(UserError, match="no captions"):
        train(shapes, out=tmp_path / "b", size=32, steps=1, overrides=["condition=text"], reporter=Silent())


def test_a_first_try_can_be_mended_and_a_strangers_folder_is_left_alone(tmp_path: Path) -> None:
    shapes, out = paint(tmp_path / "shapes"), tmp_path / "run"
    with pytest.raises(UserError, match="no such file"):
        train(tmp_path / "shaeps", out=out, size=32, steps=1, overrides=QUICK)
    with pytest.raises(UserError, match="no captions"):
        train(shapes, out=out, size=48, steps=1, overrides=[*QUICK, "condition=text"])
    run = train(shapes, out=out, size=32, steps=1, overrides=QUICK)
    assert run.load("cpu").size == 32
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(UserError, match="is not a run"):
        train(shapes, out=tmp_path / "mine", size=32, steps=1)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_kill_before_the_very_first_file_is_whole_leaves_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    for name in (".lock", ".config.yaml.77.tmp"):
        (run.folder / name).write_text("")
    with run.locked():
        assert [path.name for path in run.folder.iterdir()] == [".lock"]


def test_what_a_kill_left_aside_is_put_right(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.write_config({"recipe": {}})
    (run.folder / ".model.77.old").mkdir(parents=True)
    (run.folder / ".model.77.old" / "model.json").write_text("{}")
    (run.folder / "latents").mkdir()
    (run.folder / ".latents.77.old").mkdir()
    (run.folder / ".config.yaml.77.tmp").write_text("half")
    with run.locked():
        assert sorted(path.name for path in run.folder.iterdir()) == [".lock", "config.yaml", "latents", "model"]
        assert (run.model / "model.json").exists()


def test_a_look_at_previews_that_fails_does_not_cost_the_run(tmp_path: Path) -> None:
    class Told(Silent):
        def warn(self, message: str) -> None:
            warnings.append(message)

    def look(run: Run) -> None:
        looks.append(run.folder)
        raise KeyError("a page's own fault")

    looks: list[Path] = []
    warnings: list[str] = []
    data, out = paint(tmp_path / "shapes"), tmp_path / "run"
    run = train(data, out=out, size=32, steps=2, overrides=QUICK, reporter=Told(), look=look)
    assert looks == [out]
    assert [message for message in warnings if "page's own fault" in message]
    verify_folder(run.model)
