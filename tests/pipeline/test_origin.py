"""A first stage that starts from an autoencoder: which one, whether it learns on, and the same however interrupted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_lines
from calotype.inspection.resume import differences, fingerprint
from calotype.latents import ConvVAE, VAEConfig
from calotype.latents.encoding import weights_sha256
from calotype.pipeline import Run, denoiser_stage, gate, origin, session, stages, vae_stage
from calotype.pipeline.autoencoder import load_autoencoder
from calotype.pipeline.reserve import Ending
from calotype.pipeline.training import full_settings
from calotype.training import loop
from calotype.training.journal import Journal
from tests.pipeline.origins import FEW, PLAIN, Told, first_segment, go, make_autoencoder, paint_weave, put_up, with_vae

Made = tuple[Path, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_autoencoder(tmp_path_factory.mktemp("origin"))


@pytest.fixture
def settled(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What `vae.from` becomes where shapes-32 is shipped."""
    put_up(monkeypatch, tmp_path, made[0])

    def ask(*overrides: str, recipe: str = "calotype", from_model: Path | None = None) -> str:
        run = Run(tmp_path / "run")
        return full_settings(run, recipe, 64, 0, [*PLAIN, *overrides], from_model).vae.origin

    return ask


def test_it_starts_from_what_is_named_and_else_from_nothing(settled: Callable[..., str], made: Made) -> None:
    assert settled() == "scratch"
    assert settled("vae.steps=3") == "scratch"
    assert settled("vae.from=shapes-32") == "shapes-32"
    assert settled("vae.from=shapes-32", "vae.steps=3", recipe="ddpm-64") == "shapes-32"
    assert settled(f"vae.from={made[0]}") == str(made[0])


def test_what_contradicts_itself_is_refused_in_one_line(
    settled: Callable[..., str], class_run: Run, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"vae\.network is not that of vae\.from=shapes-32.*vae\.from=scratch"):
        settled("vae.from=shapes-32", "vae.network.latent_channels=8")
    assert settled("vae.from=shapes-32", "vae.network.channels=[32, 48]") == "shapes-32"  # its own
    with pytest.raises(UserError, match=r"vae\.from=shapes-32 beside vae\.pretrained=x"):
        settled("vae.from=shapes-32", "vae.pretrained=x")
    with pytest.raises(UserError, match=r"brings its own VAE, beside vae\.from=shapes-32"):
        settled("vae.from=shapes-32", from_model=class_run.folder)
    with pytest.raises(UserError, match=r"vae\.tune=never is about an autoencoder to start from"):
        settled("vae.tune=never")
    with pytest.raises(UserError, match=r"no model 'shapes-33': did you mean 'shapes-32'"):
        settled("vae.from=shapes-33")
    assert not (tmp_path / "run").exists()


def test_one_that_serves_is_taken_as_it_is(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, told = put_up(monkeypatch, tmp_path, made[0]), Told()
    looks: list[object] = []
    examine = gate.examine
    monkeypatch.setattr(gate, "examine", lambda *a, **k: (looks.append(k), examine(*a, **k))[1])
    run = go(made[1], tmp_path / "run", "vae.from=shapes-32", reporter=told)
    taken = load_autoencoder(shelf / "shapes-32")
    segment = first_segment(run)
    assert (segment["end"], segment["why"]) == (0, "")
    assert run.read_config()["recipe"]["vae"]["from"] == "shapes-32"
    assert run.recipe.vae.network == taken.config
    assert weights_sha256(run.load("cpu").codec.vae) == weights_sha256(taken)
    assert len(looks) == 1  # encoded once, looked at once
    assert json.loads((run.latents / "health.json").read_text())["verdict"] == "pass"
    line = next(line for line in told.lines if "shapes-32" in line)
    assert "the autoencoder shapes-32 serves these pictures" in line
    assert "dB; it is not trained" in line
    assert not any("nothing to encode" in line for line in told.lines)

    with Image.open(run.samples / "vae-00000000.png") as sheet:
        assert sheet.width > 32
    measured = next(record for record in read_lines(run.metrics) if record["stage"] == "vae")
    facts = run.facts()
    assert facts["measured"]["held_out_psnr"] == measured["held_out_psnr"] > 15
    assert (facts["vae_from"], facts["vae_steps"]) == ("shapes-32", 0)
    assert facts["vae_from_sha256"] == weights_sha256(taken)
    assert run.load("cpu").recipe.vae.origin == "shapes-32"

    shutil.rmtree(shelf / "shapes-32")  # another package, without it: the run has what it needs, and goes on as it was
    again = go(made[1], tmp_path / "run", "vae.from=shapes-32", steps=3)
    assert again.facts()["denoiser_steps"] == 3
    assert weights_sha256(again.load("cpu").codec.vae) == weights_sha256(taken)


def test_one_that_does_not_serve_learns_these_pictures_too(made: Made, tmp_path: Path) -> None:
    told = Told()
    run = go(paint_weave(tmp_path / "weave"), tmp_path / "run", f"vae.from={made[0]}", *FEW, reporter=told)
    segment, taken = first_segment(run), load_autoencoder(made[0])
    assert segment["end"] == 4
    assert "PSNR" in segment["why"]
    assert any("does not serve these pictures as it is, and learns them too: " in line for line in told.lines)
    vae = run.load("cpu").codec.vae
    assert weights_sha256(vae) != weights_sha256(taken)
    weights, begun = vae.state_dict(), taken.state_dict()
    apart = max(float((weights[name] - begun[name]).abs().max()) for name in begun)
    assert apart < 0.1  # four steps away from where it started, not somewhere else
    keys = [path.name for path in run.latents.iterdir() if path.is_dir()]
    assert len(keys) == 1
    key = json.loads((run.latents / keys[0] / "key.json").read_text())
    assert key["vae_sha256"] == weights_sha256(vae)
    record = json.loads((run.latents / "health.json").read_text())
    assert record["verdict"] == "refuse"
    assert "vae.steps" in record["findings"][0]["remedy"]  # it was trained here, and longer is a remedy
    assert run.facts()["vae_steps"] == 4


def test_one_that_does_not_serve_is_used_as_it_is_where_that_is_asked_for(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "what_training_mends", lambda *a: pytest.fail("looked at"))
    weave, told = paint_weave(tmp_path / "weave"), Told()
    run = go(weave, tmp_path / "never", f"vae.from={made[0]}", "vae.tune=never", reporter=told)
    assert first_segment(run)["end"] == 0
    assert weights_sha256(run.load("cpu").codec.vae) == weights_sha256(load_autoencoder(made[0]))
    assert any("trained elsewhere, does not know such pictures" in line for line in told.lines)


def test_a_timed_run_gives_all_minutes_to_the_denoiser_or_the_usual_share(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 2.4 s of which 1 s went by besides training and 0.3 s in the first stage."""
    for stage in (vae_stage, denoiser_stage):
        monkeypatch.setattr(stage, "plan_ending", lambda *a: Ending(0, 0.0))
    monkeypatch.setattr(denoiser_stage, "spent_on", lambda folder: 0.3)
    monkeypatch.setattr(session.Session, "overhead", lambda self: 1.0)
    run = go(made[1], tmp_path / "serves", f"vae.from={made[0]}", steps=None, minutes=0.04)
    assert first_segment(run)["end"] == 0
    assert Journal(run.journal).segments("denoiser")[0].seconds == pytest.approx(2.4 - 1 - 0.3, abs=0.06)
    monkeypatch.setattr(origin, "what_training_mends", lambda *a: pytest.fail("looked at"))
    always = ["vae.tune=always", "vae.training.batch_size=4", f"vae.from={made[0]}"]
    run = go(made[1], tmp_path / "always", *always, steps=None, minutes=0.04)
    assert first_segment(run)["seconds"] == pytest.approx(0.4 * (2.4 - 1), abs=0.06)
    assert first_segment(run)["why"] == "vae.tune=always"
    assert run.facts()["vae_steps"] > 0


def test_a_run_that_was_begun_without_the_choice_goes_on_from_scratch(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = go(made[1], tmp_path / "run", *FEW, "vae.gate=warn")
    config = run.read_config()
    assert config["recipe"]["vae"].pop("from") == "scratch"
    del config["recipe"]["vae"]["tune"]
    described = json.loads((run.model / "model.json").read_text())
    for name in ("from", "tune"):
        del described["recipe"]["vae"][name]
    run.config.write_text(yaml.safe_dump(config))
    put_up(monkeypatch, tmp_path, made[0])
    before = (run.model / "vae.safetensors").read_bytes()
    go(made[1], tmp_path / "run", *FEW, "vae.gate=warn", steps=3)
    assert (run.model / "vae.safetensors").read_bytes() == before
    assert "vae_from" not in run.facts()
    (run.model / "model.json").write_text(json.dumps(described))
    (run.model / "manifest.json").unlink()
    assert run.load("cpu").recipe.vae.origin == "scratch"  # an old bundle still loads


class Stopped(BaseException):
    """As good as a kill: nothing catches it."""


def stopped_at(monkeypatch: pytest.MonkeyPatch, where: object, name: str, call: Callable[[], Run], nth: int) -> None:
    """Make `call`, and stop it when `where.name` is called for the nth time."""
    inner, calls = getattr(where, name), []

    def stop(*arguments: object, **options: object) -> object:
        calls.append(name)
        if len(calls) == nth:
            raise Stopped
        return inner(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, stop)
        with pytest.raises(Stopped):
            call()


@pytest.mark.parametrize("serves", [True, False])
def test_a_run_stopped_around_the_decision_ends_as_one_left_alone(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serves: bool
) -> None:
    data = made[1] if serves else paint_weave(tmp_path / "weave")
    settings = [f"vae.from={made[0]}", *FEW, "vae.training.checkpoint_seconds=0"]
    whole = go(data, tmp_path / "whole" / "run", *settings)

    def call() -> Run:
        return go(data, tmp_path / "stopped" / "run", *settings)

    stopped_at(monkeypatch, origin, "latents_of", call, 1)  # before anything is encoded
    stopped_at(monkeypatch, gate, "examine", call, 1)  # before the look
    stopped_at(monkeypatch, stages.Journal, "add", call, 1)  # after it, before the word is written
    assert not Journal(tmp_path / "stopped" / "run" / "journal.jsonl").segments("vae")
    stopped_at(monkeypatch, session, "train_stage", call, 1)  # after it, before a checkpoint
    assert first_segment(Run(tmp_path / "stopped" / "run"))["end"] == (0 if serves else 4)
    monkeypatch.setattr(origin, "what_training_mends", lambda *a: pytest.fail("decided again"))
    stopped_at(monkeypatch, loop, "save_checkpoint", call, 1 if serves else 3)
    stopped_at(monkeypatch, stages, "latents_of", call, 1)  # before all is encoded by what it has become
    run = call()
    assert differences(fingerprint(whole.folder), fingerprint(run.folder)) == []


def test_an_autoencoder_that_changes_under_a_run_is_refused(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made[0], tmp_path / "own")

    def call() -> Run:
        return go(made[1], tmp_path / "run", f"vae.from={tmp_path / 'own'}")

    stopped_at(monkeypatch, session, "train_stage", call, 1)
    other = ConvVAE(VAEConfig(channels=(32, 48)))
    with torch.no_grad():
        other.last_weight.zero_()
    with_vae(other, tmp_path / "own")
    with pytest.raises(CorruptFileError, match="own has changed since this run began with it"):
        call()
    shutil.rmtree(tmp_path / "own")
    with pytest.raises(UserError, match="no model"):
        call()
    shutil.copytree(made[0], tmp_path / "own")
    assert call().facts()["vae_steps"] == 0
