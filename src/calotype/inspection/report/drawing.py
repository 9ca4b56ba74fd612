"""What the report asks of the model: pictures, drawn once, and some of them on their way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from calotype.core.progress import Reporter
from calotype.core.random import seeded_noise
from calotype.images.pixels import to_float
from calotype.process import add_noise

MOST_FILMED = 8
FILM_FRAMES = 20
STRIP_FRAMES = 9
AT_ONCE = 64


class Model(Protocol):
    """What the report asks of a model; `calotype.load` returns one."""

    classes: list[str]
    facts: dict[str, Any]
    device: torch.device
    recipe: Any

    @property
    def captioned(self) -> bool: ...

    @property
    def process(self) -> Any: ...

    def stream(self, *args: Any, **wishes: Any) -> Iterator[Any]: ...

    def encode(self, images: Tensor) -> Tensor: ...

    def decode(self, x0: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Drawn:
    """`images` (n, 3, H, W) in [-1, 1], picture k from seed `seed` + k.

    `rows` (k) were filmed at `steps`: `held` is what the sampler then held of them, (frames, k, 3, H, W), `believed`
    what the model thought would come of the first one, (frames, 3, H, W). All empty without a film.
    """

    images: Tensor
    seed: int
    rows: list[int]
    steps: list[int]
    held: Tensor
    believed: Tensor

    @property
    def seeds(self) -> str:
        last = self.seed + len(self.images) - 1
        return f"seeds {self.seed:,} to {last:,}" if last > self.seed else f"seed {self.seed:,}"


@torch.no_grad()
def draw(
    model: Model,
    reporter: Reporter,
    *,
    prompts: Sequence[str] = (),
    labels: Sequence[str] = (),
    num_images: int = 1,
    seed: int = 0,
    filmed: Sequence[int] = (),
) -> Drawn:
    """Pictures for these words, at most 64, as the model draws unless told otherwise; `filmed` rows on their way."""
    num_steps = int(model.recipe.sampling.num_steps)
    wanted = set(evenly(range(1, num_steps + 1), FILM_FRAMES))
    steps, x_t, x0_hat = [], [], []
    rows = list(filmed)
    frame = None
    asked: dict[str, Any] = {"labels": list(labels) or None, "num_images": num_images, "seed": seed}
    for frame in model.stream(list(prompts) or None, **asked):
        reporter.update(frame.step, num_steps, unit="steps/s")
        if rows and frame.step in wanted:
            steps.append(int(frame.step))
            x_t.append(frame.x_t[rows].clone())
            x0_hat.append(frame.x0_hat[rows[:1]].clone())
    assert frame is not None
    images = decode(model, frame.x0_hat)
    if not steps:
        return Drawn(images, seed, [], [], images[:0, None], images[:0])
    held = decode(model, torch.cat(x_t)).unflatten(0, (len(steps), len(rows)))
    return Drawn(images, seed, rows, steps, held, decode(model, torch.cat(x0_hat)))


@torch.no_grad()
def decode(model: Model, x0: Tensor) -> Tensor:
    """Latents of any number as pictures on the CPU."""
    return torch.cat([model.decode(part).float().cpu() for part in x0.split(AT_ONCE)]).clamp(-1, 1)


@torch.no_grad()
def encode(model: Model, pixels: Tensor) -> Tensor:
    """Pixels uint8 (b, 3, H, W) as latents on the model's device."""
    return model.encode(to_float(pixels).to(model.device))


@torch.no_grad()
def rebuilt(model: Model, pixels: Tensor) -> Tensor:
    """Pixels uint8 (b, 3, H, W) through the autoencoder, in [-1, 1]."""
    return decode(model, encode(model, pixels))


@torch.no_grad()
def drowned(model: Model, pixels: Tensor, seed: int) -> tuple[Tensor, list[tuple[float, float]]]:
    """One picture's latent on its way into noise, decoded (n, 3, H, W), and (signal rate, noise rate) of each level.

    A latent of more than unit spread is divided by it first, as the decoder knows no other.
    """
    x0 = encode(model, pixels[None])
    eps = seeded_noise(torch.tensor([seed]), 0, tuple(x0.shape[1:])).to(x0)
    noisy, rates = [x0], [(1.0, 0.0)]
    for t in noise_levels(model.process, STRIP_FRAMES)[1:].split(1):
        signal, noise = _rate(model.process.signal_rate, t), _rate(model.process.noise_rate, t)
        noisy.append(add_noise(model.process, x0, t, eps) / max(1.0, math.hypot(signal, noise)))
        rates.append((signal, noise))
    return decode(model, torch.cat(noisy)), rates


def noise_levels(process: Any, count: int) -> Tensor:
    """`count` rising t from clean to t_max, even in the angle atan(noise_rate / signal_rate), for any process."""
    fine = torch.linspace(0, float(process.t_max), 2001, dtype=torch.float64)[1:]
    angle = torch.atan2(process.noise_rate(fine), process.signal_rate(fine))
    wanted = torch.linspace(0, float(angle[-1]), count, dtype=torch.float64)[1:]
    nearest = (angle[None] - wanted[:, None]).abs().argmin(dim=1)
    return torch.cat([torch.zeros(1, dtype=torch.float64), fine[nearest]])


def _rate(rate: Any, t: Tensor) -> float:
    return float(rate(t).reshape(-1)[0])


def evenly(ids: Sequence[int], count: int) -> list[int]:
    """`count` elements, first and last among them where more than one is asked for."""
    if len(ids) <= count:
        return list(ids)
    gap = (len(ids) - 1) / max(count - 1, 1)
    return [ids[round(i * gap)] for i in range(count)]


def how_drawn(model: Model, drawn: Drawn) -> str:
    """Sampler, steps, guidance, weights and seeds, as small print."""
    return f"{settings_in_words(model.recipe.sampling, weights_of(model))}; {drawn.seeds}, none chosen by hand."


def weights_of(model: Model) -> str:
    return str(model.facts.get("weights", "averaged"))


def settings_in_words(sampling: Any, weights: str) -> str:
    """A sampling section as one reads it: what always matters, then whatever is not as usual."""
    values = sampling if isinstance(sampling, dict) else sampling.model_dump()
    words = [f"{values.get('sampler', '?')}, {values.get('num_steps', '?')} steps"]
    words.append(f"guidance {values.get('guidance_scale', 1):g}")
    usual = {"sampler", "num_steps", "guidance_scale", "autoguidance_scale", "percentile"}
    odd = {name: value for name, value in values.items() if name not in usual and value not in _USUAL.get(name, ())}
    words += [f"{name.replace('_', ' ')} {value}" for name, value in odd.items()]
    return ", ".join([*words, f"{weights} weights"])


_USUAL: dict[str, tuple[Any, ...]] = {
    "grid": (None,),
    "shift": (1.0,),
    "guidance_interval": (None,),
    "guidance_rescale": (0.0,),
    "threshold": ("none",),
}
