"""Settings by which a model is sampled, beside those it was trained with."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from calotype.core.files import read_json
from calotype.inspection.doctor.evidence import Checks, Evidence, Unknown, changes
from calotype.inspection.doctor.finding import Finding
from calotype.process import Process, noise_angle, sample_t, terminal_snr
from calotype.sampling import get_sampler, timestep_grid
from calotype.training.engine import NOISE_BINS

SIGNAL_LEFT = 0.03  # of the picture at the noisiest level, beyond which brightness is given away
FEWEST = {"ddpm": 50, "ddim": 10, "alpha": 20, "euler": 10, "dpm++2m": 6, "dpm++2m-sde": 10, "heun": 5}
STRONG = 12.0
DRAWS = 10_000
MET = 0.003  # share of the training that a bin of noise should have had


def check_terminal(evidence: Evidence) -> Iterator[Finding]:
    """How much signal is left where sampling starts from pure noise."""
    terminal = terminal_snr(evidence.recipe.process.build())
    if terminal.share > SIGNAL_LEFT:
        what = f"{terminal.share:.1%} of the picture is left at the noisiest level, but sampling starts from pure noise"
        remedy = "train in a new --out with --set process.zero_terminal_snr=true, or --set process.schedule=cosine"
        figures = {"share": terminal.share, "log_snr": terminal.log_snr, "t_max": terminal.t_max}
        yield Finding("terminal-snr", "warning", f"{what}: very dark or bright pictures come out grey", remedy, figures)


def check_own_settings(evidence: Evidence) -> Iterator[Finding]:
    """Whether the bundle is sampled with the process and the network that its run was trained with."""
    folder = evidence.path if evidence.kind == "model" else evidence.run.model
    if not (folder / "model.json").is_file():
        raise Unknown
    described, recipe = read_json(folder / "model.json"), evidence.model.recipe
    differing = {}
    if described.get("process") != evidence.model.process.config():
        differing["process"] = [described.get("process"), evidence.model.process.config()]
    if evidence.kind == "run":
        own, bundled = (r.model_dump(mode="json") for r in (evidence.run.recipe, recipe))
        for name in changes(own, bundled):
            if name.startswith(("process.", "loss.parameterization", "size", "vae.network.")):
                differing[name] = [changes(bundled, own)[name], changes(own, bundled)[name]]
    if differing:
        listed = "; ".join(f"{name} was {old}, is {new}" for name, (old, new) in differing.items())
        what = f"the bundle is not sampled as it was trained: {listed}"
        again = f"rm -r {evidence.name}/model, then {evidence.again} {evidence.budget}"
        remedy = again if evidence.kind == "run" else "get the model anew"
        yield Finding("bundle-settings", "fault", what, remedy, differing)


def check_guidance(evidence: Evidence) -> Iterator[Finding]:
    """Guidance needs a model that has learned to do without its condition."""
    model = evidence.model
    own, loss = model.recipe.sampling, model.recipe.loss
    if not (model.captioned or model.classes):
        raise Unknown
    off = f"sample with --guidance 1, or train in a new --out with --set loss.condition_dropout={0.12:g}"
    figures = {"guidance_scale": own.guidance_scale, "condition_dropout": loss.condition_dropout}
    if own.guidance_scale != 1 and loss.condition_dropout < 0.01:
        what = (
            f"guidance is {own.guidance_scale:g}, but the model never learned to do without its condition "
            f"(condition_dropout {loss.condition_dropout:g})"
        )
        yield Finding("guidance-untrained", "fault", what, off, figures)
    if loss.condition_dropout > 0.5:
        what = f"in {loss.condition_dropout:.0%} of its training the model was not told what to draw"
        yield Finding("guidance-untrained", "warning", what, f"train with {off.rpartition('with ')[2]}", figures)
    if own.guidance_scale < 1 or own.guidance_scale > STRONG:
        way = "away from what is asked for" if own.guidance_scale < 1 else "far beyond what it was trained on"
        what = f"the guidance of {own.guidance_scale:g} leads {way}"
        yield Finding("guidance-range", "warning", what, "sample with --guidance 3", figures)
    if own.guidance_interval is not None and own.guidance_scale != 1:
        levels = _levels(evidence)
        low, high = own.guidance_interval
        inside = int(((levels >= low) & (levels <= high)).sum())
        if inside == 0:
            ends = f"{float(levels.min()):g} to {float(levels.max()):g}"
            what = f"the guidance interval {low:g} to {high:g} holds none of the levels visited ({ends})"
            yield Finding("guidance-range", "warning", what, "choose another guidance_interval, or null", figures)


def check_sampler(evidence: Evidence) -> Iterator[Finding]:
    """As many steps as the sampler needs, on levels that the process has."""
    own = evidence.model.recipe.sampling
    least = FEWEST[get_sampler(own.sampler).name]
    if own.num_steps < least:
        what = f"{own.num_steps} steps are fewer than the sampler {own.sampler} can do with"
        remedy = f"sample with --steps {get_sampler(own.sampler).num_steps}, or with --sampler dpm++2m --steps 20"
        yield Finding("few-steps", "warning", what, remedy, {"num_steps": own.num_steps, "least": least})
    levels = _levels(evidence)
    top = float(levels.max())
    if top > evidence.model.denoiser.t_max * (1 + 1e-6):
        what = f"sampling starts at t = {top:g}, the model was trained up to {evidence.model.denoiser.t_max:g}"
        yield Finding("untrained-levels", "fault", what, "choose another grid: null is the sampler's own")


def check_levels(evidence: Evidence) -> Iterator[Finding]:
    """Every level of noise that sampling visits was met in training, by the density of training levels."""
    model = evidence.model
    process, loss = model.process, model.recipe.loss
    u = (torch.arange(DRAWS, dtype=torch.float64) + 0.5) / DRAWS
    trained = sample_t(process, u, loss.density, loc=loss.density_loc, scale=loss.density_scale)
    met = _bins(process, trained) / DRAWS
    visited = _bins(process, _levels(evidence))
    missed = [k for k in range(NOISE_BINS) if visited[k] and met[k] < MET]
    if missed:
        shares = ", ".join(f"{float(met[k]):.2%}" for k in missed)
        bins = ", ".join(str(k + 1) for k in missed)
        what = (
            f"sampling visits levels of noise that training hardly met: bin {bins} of {NOISE_BINS} had {shares} of it"
        )
        remedy = "train in a new --out with --set loss.density=null, or a larger loss.density_scale"
        figures = {"met": met.tolist(), "visited": visited.tolist()}
        yield Finding("untrained-levels", "warning", what, remedy, figures)


def _bins(process: Process, t: Tensor) -> Tensor:
    """How many of the levels t (n,) are in each bin of the noise angle, as the metrics have them: (8,)."""
    angle = noise_angle(process, t.double())
    return torch.bincount((angle * NOISE_BINS).long().clamp(0, NOISE_BINS - 1), minlength=NOISE_BINS).double()


def _levels(evidence: Evidence) -> Tensor:
    """The levels at which sampling asks the network."""
    own = evidence.model.recipe.sampling
    kind = own.grid or get_sampler(own.sampler).grid
    return timestep_grid(evidence.model.process, own.num_steps, kind, shift=own.shift)[:-1]


CHECKS: Checks = {
    "terminal-snr": check_terminal,
    "own-settings": check_own_settings,
    "guidance": check_guidance,
    "sampler": check_sampler,
    "levels": check_levels,
}
