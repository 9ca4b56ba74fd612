"""The bench: draws with one setting, scores what came out, and keeps the result, so that a sweep can be continued."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, write_bytes, write_json
from calotype.core.progress import Reporter, Silent
from calotype.core.tensors import load_tensors, load_weights
from calotype.evaluation import Estimate, class_agreement, estimate_kernel_distance, frechet_distance, own_concept
from calotype.evaluation.paired import Drawn, drawn
from calotype.features import FeatureExtractor, cached_features
from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float
from calotype.inspection.lab.setting import OWN, Setting
from calotype.inspection.scores.drawing import Settings, draw, reconstruct
from calotype.inspection.scores.gathered import Rows, by_row
from calotype.inspection.scores.roles import Roles, gallery, numbered
from calotype.network.unet import UNet
from calotype.pipeline import Pipeline, Run
from calotype.pipeline.bundle import assemble
from calotype.pipeline.weights import denoiser_weights

FORMAT = 1  # of a result; it grows when drawing or scoring changes
NEIGHBOURS = 5


@dataclass(frozen=True)
class Result:
    """What one setting scored. `seconds` and `passes` (of the network) are for one picture.

    `kernel` is that of the first picture of each prompt, so that they are independent; `measured` knows them all.
    """

    setting: Setting
    key: str
    kernel: Estimate
    frechet: float
    fidelity: Estimate | None
    seconds: float
    passes: float
    measured: Drawn = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "key": self.key,
            "setting": self.setting.plain(),
            "kernel": self.kernel.plain(),
            "frechet": self.frechet,
            "fidelity": None if self.fidelity is None else self.fidelity.plain(),
            "seconds": self.seconds,
            "passes": self.passes,
        }


@dataclass(frozen=True)
class Task:
    """Pictures `rows` of the set whose captions or classes are asked for, `num_images` each, from `seed` on."""

    rows: Tensor
    num_images: int
    seed: int

    @property
    def count(self) -> int:
        return len(self.rows) * self.num_images


@dataclass
class Bench:
    """All that settings of one run share: its model, real pictures' features, and where results are kept."""

    run: Run
    model: Pipeline
    pictures: PictureSet
    roles: Roles
    extractor: FeatureExtractor
    folder: Path
    reporter: Reporter
    models: dict[str, tuple[Pipeline, str]] = field(default_factory=dict, repr=False)

    @cached_property
    def real(self) -> Rows:
        """Features of the real pictures that samples are compared with."""
        rows = torch.cat([self.roles.reference, self.roles.asked]).unique()
        pixels = self.pictures.pixels[rows]
        return by_row(rows, cached_features(self.extractor, pixels, self.run.features, reporter=self.reporter))

    @cached_property
    def reference(self) -> Tensor:
        """Features (k, d) of the real pictures that distances are taken to."""
        return self.real[self.roles.reference]

    @cached_property
    def voters(self) -> Tensor:
        """Features (k, d) of the same as the autoencoder gives them back, which vote on the class of a sample."""
        rebuilt = reconstruct(self.model, self.pictures.pixels[self.roles.reference])
        return cached_features(self.extractor, rebuilt, self.run.features, reporter=self.reporter)

    @cached_property
    def vae_digest(self) -> str:
        """Of the autoencoder that all settings share."""
        return digest_of(self.model.codec.vae)

    def score(self, setting: Setting, task: Task, reporter: Reporter) -> Result:
        """The setting's result for a task: read, if an earlier sweep left it, or drawn, scored and kept."""
        model, digest = self.model_of(setting.weights)
        key = setting.key(
            format=FORMAT,
            weights=digest,
            vae=self.vae_digest,
            asked=[self.pictures.captions[row] or self.pictures.labels[row] for row in task.rows.tolist()],
            num_images=task.num_images,
            seed=task.seed,
            extractor=self.extractor.sha256,
            device=self.model.device.type,
        )
        found = self._read(key, task.count)
        if found is None:
            found = self._draw(model, setting, task, reporter)
            self._keep(key, setting, *found)
        return self._scored(setting, key, task, *found)

    @torch.no_grad()
    def ceiling(self, task: Task) -> Drawn:
        """The same for the task's own real pictures as the autoencoder gives them back: no denoiser does better."""
        rebuilt = reconstruct(self.model, self.pictures.pixels[task.rows])
        features = cached_features(self.extractor, rebuilt, self.run.features).repeat_interleave(task.num_images, 0)
        return self._measured(features, task)[0]

    def model_of(self, weights: str) -> tuple[Pipeline, str]:
        """The model with these weights, and their digest. UserError where the run has none such."""
        if weights not in self.models:
            model = self.model
            if weights != OWN:
                network = UNet(model.recipe.network)
                load_weights(network, denoiser_weights(self.run.denoiser, weights), self.run.denoiser)
                model = assemble(model.recipe, model.codec, network, model.classes, model.facts, model.device)
                if model.captioned:
                    model.text_encoder = self.model.text_encoder
            self.models[weights] = model, digest_of(model.network)
        return self.models[weights]

    def available(self, names: tuple[str, ...]) -> list[str]:
        """Those weights of `names` that the run has, and that are not the ones it draws with."""
        own, found = self.model_of(OWN)[1], []
        for name in names:
            with suppress(UserError):
                if self.model_of(name)[1] != own:
                    found.append(name)
        return found

    def _draw(self, model: Pipeline, setting: Setting, task: Task, reporter: Reporter) -> tuple[Tensor, float, float]:
        """Features (n, d), then seconds and passes a picture."""
        rows_asked = 0

        def count(_: Any, inputs: tuple[Tensor, ...]) -> None:
            nonlocal rows_asked
            rows_asked += len(inputs[0])

        hook = model.network.register_forward_pre_hook(count)
        settings = Settings(task.seed, task.num_images, setting.sampling.model_dump())
        try:
            images, seconds = draw(model, self.pictures, task.rows, self.roles.kind, settings, reporter)
        finally:
            hook.remove()
        return self.extractor(to_float(images)), seconds / task.count, rows_asked / task.count

    def _scored(
        self, setting: Setting, key: str, task: Task, features: Tensor, seconds: float, passes: float
    ) -> Result:
        measured, fidelity = self._measured(features, task)
        return Result(
            setting,
            key,
            estimate_kernel_distance(features[:: task.num_images], self.reference),
            frechet_distance(features, self.reference),
            fidelity,
            seconds,
            passes,
            measured,
        )

    def _measured(self, features: Tensor, task: Task) -> tuple[Drawn, Estimate | None]:
        """What is compared, and the share of pictures that are what was asked for."""
        hits = self._hits(features, task)
        group = torch.arange(len(task.rows)).repeat_interleave(task.num_images)
        measured = drawn(features, self.reference, None if hits is None else 1 - hits[0], group)
        return measured, None if hits is None else hits[1]

    def _hits(self, features: Tensor, task: Task) -> tuple[Tensor, Estimate] | None:
        """Which samples (n,) are what was asked for, own caption among the first five or own class; and their share."""
        if self.roles.kind == "nothing":
            return None
        if self.roles.kind == "captions":
            rows = gallery(task.rows, self.roles.reference)
            own = torch.arange(len(task.rows)).repeat_interleave(task.num_images)
            told = numbered([self.pictures.captions[row] for row in rows.tolist()])
            captions = told if len(told.unique()) < len(told) else None
            found = own_concept(features, own, self.real[rows], captions=captions)
            return (found.ranks < 5).double(), found.top5
        number = {label: k for k, label in enumerate(self.pictures.classes)}
        voters, asked = (
            torch.tensor([number.get(str(self.pictures.labels[row]), -1) for row in rows.tolist()])
            for rows in (self.roles.reference, task.rows)
        )
        asked, known = asked.repeat_interleave(task.num_images), voters >= 0
        agreed = class_agreement(features, asked, self.voters[known], voters[known], neighbours=NEIGHBOURS)
        return agreed.hits, agreed.right

    def _keep(self, key: str, setting: Setting, features: Tensor, seconds: float, passes: float) -> None:
        """Features first: a result is there when its JSON is."""
        from safetensors.torch import save

        write_bytes(self.folder / f"{key}.safetensors", save({"features": features.contiguous()}))
        write_json(
            self.folder / f"{key}.json",
            {
                "format": FORMAT,
                "setting": setting.plain(),
                "seconds": seconds,
                "passes": passes,
                "sha256": _digest(features),
                "time": round(time.time()),
            },
        )

    def _read(self, key: str, count: int) -> tuple[Tensor, float, float] | None:
        """What was kept under this key, whole; else None."""
        try:
            said: Mapping[str, Any] = read_json(self.folder / f"{key}.json")
            features = load_tensors(self.folder / f"{key}.safetensors")["features"]
            whole = said["sha256"] == _digest(features)
            found = features, float(said["seconds"]), float(said["passes"])
        except (CorruptFileError, KeyError, TypeError, ValueError):
            return None
        return found if whole and features.shape == (count, self.extractor.dim) else None


def digest_of(network: torch.nn.Module) -> str:
    """sha256 over a network's weights, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def warm(bench: Bench) -> None:
    """Draw a picture for nothing: whatever is first pays for what all share."""
    draw(bench.model, bench.pictures, bench.roles.asked[:1], bench.roles.kind, Settings(), Silent())
