"""A model ready to draw: codec, denoiser, text encoder and defaults in one object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
from torch import Tensor

from calotype.core.errors import UserError
from calotype.core.random import seeded_noise
from calotype.core.types import Denoiser, TextEncoder
from calotype.images.pixels import to_uint8
from calotype.latents import Codec, decode_latents
from calotype.network.conditioning import Condition
from calotype.network.denoiser import NetworkDenoiser
from calotype.network.unet import UNet
from calotype.pipeline.diffuser import Diffuser
from calotype.pipeline.order import Order, Words, words_asked
from calotype.process import Process
from calotype.recipes import Recipe, SamplingSection
from calotype.sampling import get_sampler

if TYPE_CHECKING:
    from PIL import Image

BATCH = 64  # pictures sampled at once: memory stays bounded whatever the user asks for


@dataclass(frozen=True)
class Frame:
    """One visited level of a sampling in progress: x_t and the model's present guess x0_hat, (b, c, h, w) each."""

    step: int
    t: float
    x_t: Tensor
    x0_hat: Tensor
    codec: Codec = field(repr=False)

    def images(self) -> list[Image.Image]:
        """The guess as pictures."""
        return to_pil(decode_latents(self.codec, self.x0_hat))


class Wishes(TypedDict, total=False):
    """What `sample`, `sample_tensor` and `stream` take besides the prompts. None is the recipe's own choice.

    `settings` are any other fields of the recipe's sampling section, as {"threshold": "dynamic"}. `weak` is an earlier
    or smaller model of the same latents to be guided away from (autoguidance).
    """

    labels: str | Sequence[str] | None
    negative: str | None
    num_images: int
    seed: int
    num_steps: int | None
    guidance_scale: float | None
    sampler: str | None
    settings: Mapping[str, Any] | None
    weak: Pipeline | None


@dataclass
class Pipeline:
    """What `calotype.load` returns. `facts` says how and on what it was trained; `examples` are prompts to try."""

    recipe: Recipe
    codec: Codec
    network: UNet
    denoiser: NetworkDenoiser
    classes: list[str]
    facts: dict[str, Any]
    device: torch.device

    @property
    def size(self) -> int:
        """Side of a picture in pixels."""
        return self.codec.image_size

    @property
    def process(self) -> Process:
        """The noise process that the denoiser was trained with."""
        return self.denoiser.process

    @property
    def captioned(self) -> bool:
        """Whether the model takes prompts."""
        return bool(self.network.config.text_dim)

    @property
    def examples(self) -> list[str]:
        """Captions to try, of the kind it was trained on."""
        return list(self.facts.get("examples", []))

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """The encoder that the captions of its training went through, loaded when first needed."""
        from calotype.text import encoder_fingerprint, load_text_encoder

        known = self.facts.get("text_encoder", {})
        try:
            found = encoder_fingerprint(self.recipe.text_encoder)
        except UserError as error:
            raise UserError(
                f"the model needs text encoder {known.get('id', self.recipe.text_encoder)}, but {error.what}",
                f"{error.mend}, as --text-encoder FOLDER_OR_ID (in Python: load(..., text_encoder=...))",
            ) from None
        if known.get("sha256", found) != found:
            raise UserError(
                f"text encoder '{self.recipe.text_encoder}' is not the {known.get('id')} of the training "
                f"(sha256 {found[:12]}, expected {known['sha256'][:12]})",
                "give that one with --text-encoder FOLDER_OR_ID",
            )
        return load_text_encoder(self.recipe.text_encoder)

    def sample(
        self,
        prompts: str | Sequence[str] | None = None,
        *,
        labels: str | Sequence[str] | None = None,
        negative: str | None = None,
        num_images: int = 1,
        seed: int = 0,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        settings: Mapping[str, Any] | None = None,
        weak: Pipeline | None = None,
    ) -> list[Image.Image]:
        """Pictures for each prompt, label, or pair of the two (or unconditional ones), `num_images` of each.

        A model that takes both may be asked for either alone; one label goes with all prompts, one prompt with all
        labels.

        Picture k of the call is drawn from seed + k: alone or in a batch it is the same picture. Each carries its
        prompt, seed and settings in `image.info`. `settings` and `weak`: see `Wishes`. Raises UserError where the
        model cannot do what is asked.
        """
        order = self._order(
            prompts,
            labels=labels,
            negative=negative,
            num_images=num_images,
            seed=seed,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            settings=settings,
            weak=weak,
        )
        images = to_pil(self._draw(order))
        common = {"negative": negative, **order.sampling.model_dump(mode="json"), "model": self.facts.get("name", "")}
        for image, words, number in zip(images, order.words, order.seeds.tolist(), strict=True):
            image.info["calotype"] = {**words._asdict(), "seed": number, **common}
        return images

    def sample_tensor(self, prompts: str | Sequence[str] | None = None, **wishes: Unpack[Wishes]) -> Tensor:
        """As `sample`, but (n, 3, H, W) float in [-1, 1] on the CPU."""
        return self._draw(self._order(prompts, **wishes))

    def stream(self, prompts: str | Sequence[str] | None = None, **wishes: Unpack[Wishes]) -> Iterator[Frame]:
        """As `sample`, level by level: the last frame's `images()` are the pictures. One batch of at most 64."""
        order = self._order(prompts, **wishes)
        if len(order.seeds) > BATCH:
            raise UserError(f"{len(order.seeds)} pictures are too many to stream at once", f"ask for {BATCH} or fewer")
        return self._frames(order)

    def encode(self, images: Tensor) -> Tensor:
        """images (b, 3, H, W) in [-1, 1] -> x0 (b, c, h, w). UserError for another size: `codec` takes them all."""
        self._check_shape("pictures", images, (3, self.size, self.size))
        return self.codec.encode(images)

    def decode(self, x0: Tensor) -> Tensor:
        """x0 (b, c, h, w) -> images (b, 3, H, W) in [-1, 1]. UserError for another size: `codec` takes them all."""
        self._check_shape("latents", x0, self.codec.latent_shape)
        return decode_latents(self.codec, x0)

    @staticmethod
    def _check_shape(what: str, given: Tensor, shape: tuple[int, int, int]) -> None:
        if given.shape[1:] != shape or len(given) == 0:
            raise UserError(
                f"{what} of shape {tuple(given.shape)} do not fit this model", f"give (b, {', '.join(map(str, shape))})"
            )

    def _draw(self, order: Order) -> Tensor:
        drawn = []
        for rows in torch.arange(len(order.seeds)).split(BATCH):
            *_, last = self._frames(order.rows(rows))
            drawn.append(decode_latents(self.codec, last.x0_hat).cpu())
        return torch.cat(drawn)

    def _frames(self, order: Order) -> Iterator[Frame]:
        """What cannot be sampled is refused here, before the first frame is asked for."""
        shape, settings = self.codec.latent_shape, order.sampling
        null_cond = order.negative if order.negative is not None else order.condition.dropped()
        diffuser = Diffuser(
            self.denoiser,
            settings.guidance_scale,
            settings.num_steps,
            settings=settings,
            null_cond=null_cond.to(self.device),
            weak=order.weak,
            bound=self.codec.statistics.bound,
        )

        def noise(i: int, x_t: Tensor) -> Tensor:
            return seeded_noise(order.seeds, i + 1, shape).to(x_t)

        seeds = seeded_noise(order.seeds, 0, shape).to(self.device)
        fresh = noise if get_sampler(settings.sampler).needs_noise else None
        return self._shown(diffuser.frames(seeds, order.condition.to(self.device), fresh), settings.num_steps)

    def _shown(self, frames: Iterator[Any], num_steps: int) -> Iterator[Frame]:
        for frame in frames:
            if frame.x0_hat is not None:
                landed = frame.step == num_steps
                yield Frame(frame.step, float(frame.t), frame.x_t, frame.x_t if landed else frame.x0_hat, self.codec)

    def _order(
        self,
        prompts: str | Sequence[str] | None = None,
        *,
        labels: str | Sequence[str] | None = None,
        negative: str | None = None,
        num_images: int = 1,
        seed: int = 0,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        sampler: str | None = None,
        settings: Mapping[str, Any] | None = None,
        weak: Pipeline | None = None,
    ) -> Order:
        sampling = self._sampling(num_steps, guidance_scale, sampler, settings or {})
        if num_images < 1:
            raise UserError(f"{num_images} pictures were asked for", "ask for at least 1")
        words = words_asked(prompts, labels, self.captioned, self.classes)
        condition = self._condition(words)
        repeat = torch.arange(len(condition)).repeat_interleave(num_images)
        refused = None
        if negative is not None:
            if not self.captioned:
                raise UserError("this model takes no negative prompt", "it was trained without captions")
            refused = self._condition([Words(negative)])[torch.zeros(len(repeat), dtype=torch.long)]
        seeds = torch.arange(seed, seed + len(repeat))
        repeated = [words[row] for row in repeat.tolist()]
        return Order(condition[repeat], refused, seeds, repeated, sampling, self._weaker(weak))

    def _sampling(
        self, num_steps: int | None, guidance_scale: float | None, sampler: str | None, settings: Mapping[str, Any]
    ) -> SamplingSection:
        """The recipe's sampling section with what was asked for; another sampler brings its own number of steps."""
        own = self.recipe.sampling
        if num_steps is not None and num_steps < 1:
            raise UserError(f"sampling in {num_steps} steps", "it takes at least 1")
        asked: dict[str, Any] = dict(settings)
        if sampler is not None and get_sampler(sampler).name != own.sampler:
            asked |= {"sampler": sampler, "num_steps": get_sampler(sampler).num_steps}
        asked |= {} if num_steps is None else {"num_steps": num_steps}
        asked |= {} if guidance_scale is None else {"guidance_scale": guidance_scale}
        return SamplingSection.parse({**own.model_dump(), **asked}, "sampling")

    def _weaker(self, weak: Pipeline | None) -> Denoiser | None:
        """The denoiser of a model that this one may be guided away from."""
        if weak is None:
            return None
        same = weak.codec.statistics == self.codec.statistics and weak.classes == self.classes
        if not same or weak.network.config.text_dim != self.network.config.text_dim:
            raise UserError(
                "the weak model has other latents or conditions", "take an earlier or smaller model on the same VAE"
            )
        return weak.denoiser

    def _condition(self, words: list[Words]) -> Condition:
        """The condition that asks for `words`, all of one kind."""
        prompts = [given.prompt for given in words if given.prompt is not None]
        numbers = [self.classes.index(given.label) for given in words if given.label is not None]
        return Condition(
            torch.full((len(words),), not prompts and not numbers),
            label=torch.tensor(numbers) if numbers else None,
            text=self.text_encoder.encode(prompts) if prompts else None,
        )


def to_pil(images: Tensor) -> list[Image.Image]:
    """images (n, 3, H, W) in [-1, 1] -> pictures."""
    from PIL import Image

    return [Image.fromarray(pixels.permute(1, 2, 0).numpy()) for pixels in to_uint8(images.cpu())]
