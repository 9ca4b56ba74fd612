"""Draw pictures with a model that calotype exported to ONNX.

    python sample.py "a red heart" -n 4 --seed 0 --out pictures

It needs numpy, onnxruntime and pillow, and tokenizers if the model takes words; neither torch nor calotype. The same
seed and settings draw the picture that calotype draws. As a library: Model(FOLDER).sample(["a red heart"]).
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Rows = dict[str, Array]  # the condition, one row a picture: the denoiser's inputs but for x and time
BATCH = 16  # pictures drawn at once


class Refused(ValueError):
    """What was asked for cannot be drawn; the message says why."""


class Level(NamedTuple):
    """One noise level: x_t = a x0 + b eps. The network is given `scale` x_t and `time`, and x0_hat is
    from_x x_t + from_prediction F for its answer F.
    """

    t: float
    a: float
    b: float
    time: float
    scale: float
    from_x: float
    from_prediction: float

    @property
    def log_snr(self) -> float:
        return math.log(self.a / self.b) if self.a and self.b else math.inf if self.a else -math.inf


class Model:
    """An export in memory."""

    def __init__(self, folder: Path) -> None:
        self.settings: dict[str, Any] = json.loads((folder / "model.json").read_text())
        self.denoiser, self.decoder = session(folder / "denoiser.onnx"), session(folder / "decoder.onnx")
        self.parts = [entry.name for entry in self.denoiser.get_inputs() if entry.name not in ("x", "time")]
        self.words = Words(folder, self.settings["text"]) if self.settings["text"] else None

    def sample(
        self,
        prompts: Sequence[str] = (),
        labels: Sequence[str] = (),
        *,
        negative: str | None = None,
        num_images: int = 1,
        seed: int = 0,
        num_steps: int | None = None,
        sampler: str | None = None,
        guidance_scale: float | None = None,
    ) -> NDArray[np.uint8]:
        """Pictures (n, height, width, 3), `num_images` of each prompt or label; the k-th is drawn from seed + k."""
        if num_images < 1:
            raise Refused(f"{num_images} pictures were asked for: ask for at least 1")
        name = sampler or self.settings["sampling"]["sampler"]
        steps = Steps(self.settings, name, num_steps, guidance_scale)
        asked, away = self.conditions(list(prompts), list(labels), negative)
        rows = np.repeat(np.arange(max(len(prompts), len(labels), 1)), num_images)
        seeds = np.arange(seed, seed + len(rows))
        pictures = []
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            x0 = self.draw(steps, seeds[start : start + BATCH], pick(asked, some), pick(away, some))
            images = self.decoder.run(None, {"x0": x0})[0].transpose(0, 2, 3, 1)
            pictures.append(np.round((images + 1) * np.float32(127.5)).clip(0, 255).astype(np.uint8))
        return np.concatenate(pictures)

    def draw(self, steps: Steps, seeds: Array, asked: Rows, away: Rows) -> Array:
        """x0 (b, c, h, w) from the noise of `seeds` (b,)."""
        shape = self.settings["latent_shape"]

        def estimate(x_t: Array, level: Level) -> Array:
            weight = steps.weight(level) if asked else 1.0
            if weight == 1:
                return steps.tamed(self.denoise(x_t, level, asked))
            both = {name: np.concatenate([asked[name], away[name]]) for name in asked}
            towards, null = np.split(self.denoise(np.concatenate([x_t, x_t]), level, both), 2)
            return steps.tamed(steps.rescaled(weight * towards + (1 - weight) * null, towards))

        x_t = normal(seeds, 0, shape) * self.settings["prior_scale"]
        past: tuple[Array, Level] | None = None
        for i, (now, then) in enumerate(zip(steps.levels[:-1], steps.levels[1:], strict=True)):
            x0_hat = estimate(x_t, now)
            noise = normal(seeds, i + 1, shape) if steps.stochastic and then.b else None
            x_next = steps.next(x_t, x0_hat, now, then, past, noise)
            if steps.heun:
                x_next = steps.corrected(x_next, x_t, x0_hat, now, then, estimate)
            past, x_t = (x0_hat, now), x_next
        return x_t

    def denoise(self, x_t: Array, level: Level, rows: Rows) -> Array:
        """x0_hat (b, c, h, w)."""
        time = np.full(len(x_t), level.time, np.float32)
        prediction = self.denoiser.run(None, {"x": x_t * level.scale, "time": time, **rows})[0]
        return level.from_x * x_t + level.from_prediction * prediction

    def conditions(self, prompts: list[str], labels: list[str], negative: str | None) -> tuple[Rows, Rows]:
        """One row a picture's words and class, and what guidance leads away from: the negative prompt, or nothing."""
        count = max(len(prompts), len(labels), 1)
        if prompts and labels and min(len(prompts), len(labels)) not in (1, count):
            raise Refused(f"{len(prompts)} prompts and {len(labels)} labels: give as many, or one of either")
        if (prompts or negative is not None) and self.words is None:
            raise Refused("this model takes no words")
        unknown = [label for label in labels if label not in self.settings["classes"]]
        if unknown:
            known = ", ".join(self.settings["classes"]) or "none"
            raise Refused(f"unknown class '{unknown[0]}': this model knows {known}")
        if not self.parts:
            return {}, {}
        words = prompts * (count // max(len(prompts), 1)) + ([] if negative is None else [negative])
        rows: Rows = {
            "null": np.full(2 * count, True),
            "label": np.full(2 * count, -1),
            "texted": np.full(2 * count, False),
        }
        if labels:
            places = [self.settings["classes"].index(label) for label in labels]
            rows["label"][:count] = places * (count // len(labels))
        rows["texted"][:count] = bool(prompts)
        rows["texted"][count:] = negative is not None
        rows["null"] = ~rows["texted"] & (rows["label"] < 0)
        if self.words is not None:
            place = np.full(2 * count, 0)
            place[:count] = np.arange(count) if prompts else 0
            place[count:] = len(words) - 1
            rows |= pick(self.words.encode(words or [""]), place.clip(min=0))
        rows = {name: rows[name] for name in self.parts}
        return pick(rows, slice(count)), pick(rows, slice(count, None))


class Steps:
    """A sampler on its levels.

    One formula serves all: x_s = a_s D + (b_s/b) k (x_t - a D) + b_s sqrt(1 - e^(-2h)) noise, h = the step in log_snr.
    ddim, alpha, euler: D = x0_hat, k = 1, no noise. ddpm: k = e^(-h). The two dpm++2m are these with D extrapolated
    from the level before; heun corrects the first by the mean of both ends' slopes.
    """

    def __init__(
        self, settings: dict[str, Any], name: str, num_steps: int | None, guidance_scale: float | None
    ) -> None:
        if name not in settings["samplers"]:
            raise Refused(f"unknown sampler '{name}': choose from {', '.join(settings['samplers'])}")
        own, kind = settings["sampling"], settings["samplers"][name]
        tables = settings["levels"][kind["grid"]]
        if num_steps is None:
            num_steps = own["num_steps"] if name == own["sampler"] else kind["num_steps"]
        if str(num_steps) not in tables:
            raise Refused(f"{num_steps} steps were not exported: choose from {', '.join(tables)}")
        self.levels = [Level(*row) for row in tables[str(num_steps)]]
        self.multistep, self.stochastic, self.heun = name.startswith("dpm++2m"), kind["stochastic"], name == "heun"
        self.straight = settings["straight"]
        self.scale = own["guidance_scale"] if guidance_scale is None else guidance_scale
        self.interval = own["guidance_interval"] or [0, math.inf]
        self.rescale, self.threshold = own["guidance_rescale"], own["threshold"]
        self.percentile, self.bound = own["percentile"], own["bound"]

    def next(
        self, x_t: Array, x0_hat: Array, now: Level, then: Level, past: tuple[Array, Level] | None, noise: Array | None
    ) -> Array:
        """x_s, one step on."""
        kept = (now.a * then.b) / (then.a * now.b)
        if self.multistep and past is not None and then.b:
            before, level = past
            half = (then.log_snr - now.log_snr) / (now.log_snr - level.log_snr) / 2
            x0_hat = (1 + half) * x0_hat - half * before
        gain = then.b / now.b * (kept if self.stochastic else 1)
        x_next = then.a * x0_hat + gain * (x_t - now.a * x0_hat)
        return x_next if noise is None else x_next + then.b * math.sqrt(1 - kept**2) * noise

    def corrected(self, x_next: Array, x_t: Array, x0_hat: Array, now: Level, then: Level, estimate: Any) -> Array:
        """Heun's second half: the mean of the slopes at both ends, in y = x_t/a against b/a (flows: x_t against t)."""
        scale, scale_then = (1.0, 1.0) if self.straight else (now.a, then.a)
        if not (scale and then.b):
            return x_next
        slope = (x_t / scale - x0_hat) / (now.b / scale)
        slope_then = (x_next / scale_then - estimate(x_next, then)) / (then.b / scale_then)
        width = then.b / scale_then - now.b / scale
        corrected: Array = scale_then * (x_t / scale + width * (slope + slope_then) / 2)
        return corrected

    def weight(self, level: Level) -> float:
        """The guidance at this level."""
        low, high = self.interval
        return float(self.scale) if low <= level.t <= high else 1.0

    def rescaled(self, x0_hat: Array, towards: Array) -> Array:
        """Part of the spread that guidance added, taken back from each picture."""
        if not self.rescale:
            return x0_hat
        spread, wanted = (rows.std(axis=(1, 2, 3), keepdims=True) for rows in (x0_hat, towards))
        ratio = np.divide(wanted, spread, out=np.ones_like(spread), where=spread != 0)
        return x0_hat * (1 + self.rescale * (ratio - 1))

    def tamed(self, x0_hat: Array) -> Array:
        """x0_hat within the range of the data, as the model's threshold wants it."""
        if self.threshold == "none":
            return x0_hat
        if self.threshold == "static":
            return x0_hat.clip(-self.bound, self.bound)
        limit = np.quantile(abs(x0_hat), self.percentile / 100, axis=(1, 2, 3), keepdims=True)
        limit = limit.clip(min=self.bound).astype(x0_hat.dtype)
        return x0_hat.clip(-limit, limit) * (self.bound / limit)


class Words:
    """The text encoder: captions -> pooled (b, d), tokens (b, n, e) and mask (b, n)."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.session, self.outputs = session(folder / "text_encoder.onnx"), settings["outputs"]
        self.inputs = [entry.name for entry in self.session.get_inputs()]
        self.dim, self.token_dim = settings["dim"], settings["token_dim"]

    def encode(self, captions: Sequence[str]) -> Rows:
        read = [self.read(caption) for caption in captions]
        lengths = np.array([len(tokens) for tokens, _ in read])
        mask = np.arange(lengths.max()) < lengths[:, None]
        states = np.zeros((*mask.shape, read[0][0].shape[1]), np.float32)
        states[mask] = np.concatenate([tokens for tokens, _ in read])
        return {"pooled": np.stack([pooled for _, pooled in read]), "tokens": states, "mask": mask}

    def read(self, caption: str) -> tuple[Array, Array]:
        """Its tokens (n, e) and its pooled vector (d,): the encoder's own, or else the tokens' mean."""
        ids = np.array([self.tokenizer.encode(caption).ids], np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        if not ids.size:  # some tokenizers make nothing of an empty caption
            return np.zeros((0, self.token_dim), np.float32), np.zeros(self.dim, np.float32)
        tokens, *pooled = self.session.run(self.outputs, {name: given[name] for name in self.inputs})
        return tokens[0], pooled[0][0] if pooled else tokens[0].mean(axis=0)


def normal(seeds: Array, step: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """The noise (b, *shape) that pictures with these seeds (b,) see at sampling step `step`; step 0 is x_T.

    Box-Muller over the words of Philox4x32-10, which counts on (position, step, seed, stream).
    """
    count = math.prod(shape)
    half = -(-count // 2)
    positions = np.arange(-(-2 * half // 4), dtype=np.uint64)[None]
    counter: list[Any] = [
        positions,
        np.uint64(step),
        seeds.astype(np.uint64)[:, None] & MASK,
        np.uint64(crc32(b"sampling")),
    ]
    words = np.stack(philox([np.broadcast_to(word, (len(seeds), positions.size)) for word in counter]), axis=-1)
    numbers = (words.reshape(len(seeds), -1)[:, : 2 * half].astype(np.float64) + 0.5) / 2**32
    radius, angle = np.sqrt(-2 * np.log(numbers[:, :half])), 2 * math.pi * numbers[:, half:]
    draws = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return draws[:, :count].reshape(len(seeds), *shape).astype(np.float32)


MASK = np.uint64(0xFFFFFFFF)


def philox(counter: Sequence[Array]) -> Sequence[Array]:
    """Ten rounds of Philox4x32 with key 0 (Salmon et al. 2011): four arrays of 32-bit words, held in 64, -> four."""
    c0, c1, c2, c3 = counter
    for i in range(10):
        k0, k1 = (np.uint64(i * weyl & 0xFFFFFFFF) for weyl in (0x9E3779B9, 0xBB67AE85))
        first, second = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second & MASK, (first >> 32) ^ c3 ^ k1, first & MASK
    return c0, c1, c2, c3


def pick(rows: Rows, places: Any) -> Rows:
    return {name: values[places] for name, values in rows.items()}


def session(path: Path) -> Any:
    """An inference session on the processor that reports nothing."""
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def options(settings: dict[str, Any]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Draw pictures with {settings['name']}.")
    parser.add_argument("prompts", nargs="*", help="what to draw, each in quotes")
    parser.add_argument("--label", dest="labels", action="append", default=[], help="a class; may be repeated")
    parser.add_argument("--negative", help="what to steer away from")
    parser.add_argument("-n", dest="num_images", type=int, default=1, help="pictures of each")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture")
    parser.add_argument("--steps", dest="num_steps", type=int, help="steps of the sampler")
    parser.add_argument("--sampler", choices=list(settings["samplers"]))
    parser.add_argument("--guidance", dest="guidance_scale", type=float, help="1 turns it off")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder of the pictures")
    return parser


def main() -> None:
    folder = Path(__file__).resolve().parent
    model = Model(folder)
    parser = options(model.settings)
    wishes = vars(parser.parse_args())
    out: Path = wishes.pop("out")
    prompts, labels = wishes.pop("prompts"), wishes.pop("labels")
    try:
        pictures = model.sample(prompts, labels, **wishes)
    except Refused as reason:
        parser.error(str(reason))
    out.mkdir(parents=True, exist_ok=True)
    asked = max(prompts, labels, key=len) or ["picture"]
    for number, pixels in enumerate(pictures):
        words = re.sub(r"\W+", "-", asked[number // wishes["num_images"]].lower()).strip("-")[:60]
        path = out / f"{words or 'picture'}-{wishes['seed'] + number}.png"
        Image.fromarray(pixels).save(path)
        print(path)  # noqa: T201


if __name__ == "__main__":
    main()
