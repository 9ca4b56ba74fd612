"""Any network of pictures in a folder that Hugging Face's transformers saved: DINOv2, CLIP, SigLIP, ViT, ResNet."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.files import read_json, sha256
from calotype.core.runtimes import one_line, quiet
from calotype.features.preparing import in_batches, normalised, resized
from calotype.features.weights import Source

CONFIG, PREPARING = "config.json", "preprocessor_config.json"
BILINEAR = 2  # of Pillow's numbers for `resample`
BATCH_SIZE = 32


class TransformersNetwork:
    """Images -> the network's pooled vector, or the mean over its positions where it has none that was trained.

    Pictures are brought to the network's size whole, bilinearly where `resample` says so and else bicubically: nothing
    is cropped, for what a sampler drew at the border counts too. Only safetensors are read, and no code that comes
    with them is run.
    """

    def __init__(self, source: Source, device: torch.device | str = "cpu") -> None:
        folder = source.path
        if not (folder / CONFIG).is_file() or not (folder / PREPARING).is_file():
            raise UserError(f"{folder} is no folder with {CONFIG} and {PREPARING}", f"give {source.kind}:FOLDER")
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise UserError(f"{folder} has no model.safetensors", "only safetensors are read: save it again as such")
        self.sha256 = source.check(_joint_sha256([folder / CONFIG, folder / PREPARING, *weights]))
        self._size, self._bilinear, self._mean, self._std = _preparing(folder / PREPARING)
        self._network, self._pooled = _load(source)
        self._network = self._network.to(device)
        self.device = device
        self.name = f"{self._network.config.model_type} ({folder.resolve().name})"
        self.dim = self._probed(folder)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1] -> (n, dim) float32 on the CPU, in batches, whatever n is."""
        return in_batches(self._forward, images, dim=self.dim, batch_size=BATCH_SIZE, device=self.device)

    def _forward(self, images: Tensor) -> Tensor:
        size = resized(images, self._size, "bilinear" if self._bilinear else "bicubic")
        pixels = normalised(size, self._mean, self._std)
        if hasattr(self._network, "get_image_features"):
            answer = self._network.get_image_features(pixel_values=pixels)
            return getattr(answer, "pooler_output", answer)
        answer = self._network(pixel_values=pixels)
        if self._pooled and getattr(answer, "pooler_output", None) is not None:
            return answer.pooler_output.flatten(1)
        states: Tensor = answer.last_hidden_state  # (b, positions, d), or (b, d, h, w)
        return states.mean(dim=1) if states.ndim == 3 else states.mean(dim=(2, 3))

    @torch.no_grad()
    def _probed(self, folder: Path) -> int:
        """d, from one picture seen twice. A network that hides patches by chance, as MAE's does, shows here."""
        ramp = torch.linspace(-1, 1, 3 * self._size[0] * self._size[1], device=self.device).reshape(1, 3, *self._size)
        with one_line(f"the network in {folder} cannot be used"):
            once, again = self._forward(ramp), self._forward(ramp)
        if once.ndim != 2 or not torch.equal(once, again):
            what = "gives no vector a picture" if once.ndim != 2 else "sees the same picture differently each time"
            raise UserError(f"the network in {folder} {what}", "choose another")
        return int(once.shape[1])


def _load(source: Source) -> tuple[Any, bool]:
    """The network in float32, frozen, and whether the weights of what pools its positions came with it."""
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"'hf:' needs package '{error.name}'", "pip install 'calotype[hf]'") from None
    with one_line(f"the network in {source.path} cannot be used"), quiet(transformers):
        config = transformers.AutoConfig.from_pretrained(source.path, local_files_only=True, trust_remote_code=False)
        # "eager", lest the config name a kernel of the hub, which is code.
        network, report = transformers.AutoModel.from_pretrained(
            source.path,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation="eager",
            output_loading_info=True,
        )
    missing = [key for key in report["missing_keys"] if "pooler." not in key]
    if missing or report["mismatched_keys"]:
        fault = f"lacks '{min(missing)}'" if missing else "has weights of other shapes than its config"
        raise CorruptFileError(f"{source.path} is not whole: it {fault}", "restore its files")
    if network.main_input_name != "pixel_values" and not hasattr(network, "get_image_features"):
        raise UserError(f"{source.path} is a {config.model_type}, which sees no pictures", "choose a network that does")
    pooled = not any("pooler." in key for key in report["missing_keys"])
    return network.float().eval().requires_grad_(False), pooled


def _preparing(path: Path) -> tuple[tuple[int, int], bool, tuple[float, ...], tuple[float, ...]]:
    """Height and width, whether bilinear, mean and deviation of intensities in [0, 1], as the file says."""
    said = read_json(path)
    try:
        size = said["crop_size"] if said.get("do_center_crop", "crop_size" in said) else said["size"]
        if isinstance(size, dict):
            size = (size["height"], size["width"]) if "height" in size else (size["shortest_edge"],) * 2
        height, width = (int(side) for side in (size if isinstance(size, list | tuple) else (size, size)))
        asked = said.get("do_normalize", True)
        mean, std = (
            tuple(map(float, said[key])) if asked else (k,) * 3 for key, k in (("image_mean", 0.0), ("image_std", 1.0))
        )
        usual = abs(255 * said.get("rescale_factor", 1 / 255) - 1) < 1e-3
        if not usual or len(mean) != 3 or len(std) != 3 or min(std) <= 0 or not 0 < min(height, width) <= 2048:
            raise ValueError("none of ours")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{path} does not say how a picture is made ready", "give size, image_mean, image_std"
        ) from None
    return (height, width), said.get("resample") == BILINEAR, mean, std


def _joint_sha256(paths: list[Path]) -> str:
    """sha256 over the files' own, in this order."""
    return hashlib.sha256(b"".join(bytes.fromhex(sha256(path)) for path in paths)).hexdigest()
