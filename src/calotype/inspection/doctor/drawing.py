"""A few samples looked at: are they pictures, and of the colour and contrast of the real ones?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor

from calotype.inspection.doctor.evidence import Checks, Evidence
from calotype.inspection.doctor.finding import Finding
from calotype.inspection.doctor.probe import Drawn

SPREAD = 1.55  # times the real latents' spread: guidance of 3 brings up to 1.3, of 7.5 up to 1.7
WIDENED = 1.3  # by guidance, times what it is without
FAINT = 0.6
TINT, SHADE, SURE = 0.08, 0.15, 4.0  # of [-1, 1]; standard errors
LEANING = 0.6  # of a channel's std, where there is nothing real to compare with


def check_finite(evidence: Evidence) -> Iterator[Finding]:
    """Samples are numbers."""
    drawn = evidence.drawn
    lost = 1 - float(drawn.x0.isfinite().flatten(1).all(1).float().mean())
    if lost:
        what = f"{lost:.0%} of the samples are not finite numbers"
        remedy = "sample with --guidance 1; if that does not help, train in a new --out with a lower learning rate"
        yield Finding("non-finite-samples", "fault", what, remedy, {"share": lost})


def check_guidance(evidence: Evidence) -> Iterator[Finding]:
    """Whether guidance drives the latents beyond where real ones are."""
    drawn, model = evidence.drawn, evidence.model
    scale = model.recipe.sampling.guidance_scale
    guided, unguided = _spread(drawn, drawn.x0), _spread(drawn, drawn.unguided_x0)
    bound = model.codec.statistics.bound
    beyond = float((drawn.x0.abs() > bound).double().mean())
    if guided > SPREAD and guided > WIDENED * unguided:
        what = (
            f"guidance of {scale:g} overdrives the latents: {guided:.2f} times the spread of real ones "
            f"({unguided:.2f} without), {beyond:.1%} of them beyond the real ones' bound"
        )
        gentler = max(1.5, round(scale * 2 * (1.35 - 1) / max(guided - 1, 0.1)) / 2)
        remedy = f"sample with --guidance {min(gentler, 3):g}, or train with --set sampling.threshold=dynamic"
        figures = {"spread": guided, "unguided": unguided, "beyond": beyond, "guidance_scale": scale}
        yield Finding("saturated-guidance", "warning", what, remedy, figures)


def check_contrast(evidence: Evidence) -> Iterator[Finding]:
    """Whether samples, without guidance, are as varied in their latents as real pictures."""
    drawn = evidence.drawn
    spread = _spread(drawn, drawn.unguided_x0)
    if spread < FAINT or spread > SPREAD:
        how = "faint" if spread < 1 else "overdriven"
        what = f"samples are {how} without any guidance: {spread:.2f} times the spread of real latents"
        again = evidence.again if evidence.kind == "run" else "calotype train"
        remedy = f"train longer (a larger --minutes or --steps): {again}"
        yield Finding("sample-contrast", "warning", what, remedy, {"spread": spread})


def check_tint(evidence: Evidence) -> Iterator[Finding]:
    """Mean red, green and blue of samples beside those of real pictures of the same words."""
    drawn = evidence.drawn
    if drawn.real is None or drawn.rebuilt is None:
        yield from _leaning(drawn)
        return
    bias, error = _bias(drawn.images, drawn.real, drawn.paired)
    by_vae, _ = _bias(drawn.rebuilt, drawn.real, paired=True)
    shade = bias.mean()
    tint = bias - shade
    worst = int(tint.abs().argmax())
    tinted = float(tint.abs().max()) > TINT and float(tint.abs().max()) > SURE * float(error.max())
    shaded = abs(float(shade)) > SHADE and abs(float(shade)) > SURE * float(error.max())
    if tinted or shaded:
        how = f"{'too' if tint[worst] > 0 else 'too little'} {('red', 'green', 'blue')[worst]}" if tinted else ""
        how = how or f"too {'light' if shade > 0 else 'dark'}"
        listed = ", ".join(f"{value:+.2f}" for value in bias.tolist())
        whose = "autoencoder" if float(by_vae.abs().max()) > 0.5 * float(bias.abs().max()) else "denoiser"
        what = f"samples are {how}: red, green, blue are off by {listed} (of [-1, 1]), and the {whose} does it"
        remedy = "train longer, or in a new --out with --set process.schedule=cosine"
        if whose == "autoencoder":
            remedy = "train the VAE longer in a new --out: --set vae.steps=3000"
        figures = {"bias": bias.tolist(), "error": error.tolist(), "autoencoder": by_vae.tolist()}
        yield Finding("tint", "warning", what, remedy, figures)


def _leaning(drawn: Drawn) -> Iterator[Finding]:
    """The same from latents alone, whose mean over the training pictures is 0 in every channel."""
    means = drawn.x0.mean((2, 3))
    lean, error = means.mean(0), means.std(0) / math.sqrt(len(means))
    if bool(((lean.abs() > LEANING) & (lean.abs() > SURE * error)).any()):
        listed = ", ".join(f"{value:+.2f}" for value in lean.tolist())
        what = f"samples lean to one side: the channels of their latents have mean {listed} where 0 is due"
        yield Finding("tint", "warning", what, "get the model anew, or train it longer", {"mean": lean.tolist()})


def _bias(made: Tensor, real: Tensor, paired: bool) -> tuple[Tensor, Tensor]:
    """Mean difference (3,) of red, green and blue, and its standard error."""
    ours, theirs = made.mean((2, 3)), real.mean((2, 3))
    n = min(len(ours), len(theirs))
    if paired:
        apart = ours[:n] - theirs[:n]
        return apart.mean(0), apart.std(0) / math.sqrt(n)
    return ours.mean(0) - theirs.mean(0), ((ours.var(0) + theirs.var(0)) / n).sqrt()


def _spread(drawn: Drawn, x0: Tensor) -> float:
    """Standard deviation of x0 over that of real latents (1, where there are none), geometric mean over channels."""
    own = x0.double().nan_to_num().var((0, 2, 3)).clamp(min=1e-12)
    real = own.new_ones(len(own)) if drawn.real_x0 is None else drawn.real_x0.double().var((0, 2, 3)).clamp(min=1e-12)
    return float((own.log() - real.log()).mean().mul(0.5).exp())


CHECKS: Checks = {
    "finite-samples": check_finite,
    "saturated-guidance": check_guidance,
    "contrast": check_contrast,
    "tint": check_tint,
}
