"""DINOv2's vision transformer (Oquab et al. 2023), from the state dicts its authors published."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, scaled_dot_product_attention

from calotype.core.errors import CorruptFileError
from calotype.features.preparing import in_batches, normalised, resized
from calotype.features.weights import Source, fill, read_weights

IMAGE_SIZE = 224
BATCH_SIZE = 32
HEAD_WIDTH = 64  # of every published size
OFFSET = 0.1  # added by the authors to the wanted number of positions; the published features are those with it
BLOCK = re.compile(r"blocks\.(\d+)\.")
WHAT = "a DINOv2 of its authors' (dinov2_vits14, vitb14 or vitl14)"


class Dinov2:
    """Images -> the class token after the last norm, on 224 x 224 pixels (as Stein et al. 2023 compute FD-DINOv2)."""

    def __init__(self, source: Source, device: torch.device | str = "cpu") -> None:
        tensors, self.sha256 = read_weights(source)
        tensors.pop("mask_token", None)  # of the training alone
        try:
            network = Network(tensors)
        except (KeyError, ValueError, IndexError):
            raise CorruptFileError(
                f"{source.path} is not {WHAT}", "for a folder of transformers give hf:FOLDER"
            ) from None
        fill(network, tensors, source.path, WHAT)
        network.set_positions(IMAGE_SIZE)
        self.name = f"dinov2 ({source.path.name})"
        self.dim = network.dim
        self.device = device
        self._network = network.eval().requires_grad_(False).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """Images (n, 3, h, w) in [-1, 1] -> (n, dim) float32 on the CPU, in batches, whatever n is."""
        return in_batches(self._forward, images, dim=self.dim, batch_size=BATCH_SIZE, device=self.device)

    def _forward(self, images: Tensor) -> Tensor:
        features: Tensor = self._network(normalised(resized(images, (IMAGE_SIZE, IMAGE_SIZE))))
        return features


class Network(nn.Module):
    """(b, 3, h, w) -> (b, d). Its width, depth and patches are read off the shapes of the weights."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.dim, _, self.patch, _ = tensors["patch_embed.proj.weight"].shape
        depth = 1 + max(int(found[1]) for found in map(BLOCK.match, tensors) if found)
        positions, hidden = tensors["pos_embed"].shape[1], tensors["blocks.0.mlp.fc1.weight"].shape[0]
        if self.dim % HEAD_WIDTH or depth > len(tensors) or math.isqrt(positions - 1) ** 2 != positions - 1:
            raise ValueError("not the shapes of a vision transformer")
        self.cls_token = nn.Parameter(torch.zeros(1, 1, self.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, positions, self.dim))
        if "register_tokens" in tensors:  # Darcet et al. 2023
            self.register_tokens = nn.Parameter(torch.zeros(1, tensors["register_tokens"].shape[1], self.dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, self.dim, self.patch, stride=self.patch)})
        self.blocks = nn.ModuleList(Block(self.dim, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(self.dim, eps=1e-6)

    def set_positions(self, image_size: int) -> None:
        """Bring the learned positions to those of pictures of this size (bicubic), once and for all.

        As published: with registers antialiased, without them by a factor of (n + 0.1) over the learned number.
        """
        wanted, learned = image_size // self.patch, math.isqrt(self.pos_embed.shape[1] - 1)
        if wanted == learned:
            return
        grid = self.pos_embed.detach()[:, 1:].unflatten(1, (learned, learned)).permute(0, 3, 1, 2)
        if hasattr(self, "register_tokens"):
            grid = interpolate(grid, (wanted, wanted), mode="bicubic", antialias=True)
        else:
            grid = interpolate(grid, scale_factor=(wanted + OFFSET) / learned, mode="bicubic")
        patches = grid.flatten(2).transpose(1, 2)
        self.pos_embed = nn.Parameter(torch.cat([self.pos_embed.detach()[:, :1], patches], dim=1))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        first = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.pos_embed
        if hasattr(self, "register_tokens"):
            registers = self.register_tokens.expand(len(images), -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])


class Block(nn.Module):
    """x + g1 attention(norm(x)), then x + g2 mlp(norm(x)), each channel with its own g (Touvron et al. 2021)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.ls1 = nn.ParameterDict({"gamma": torch.ones(dim)})
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})
        self.ls2 = nn.ParameterDict({"gamma": torch.ones(dim)})

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.ls1["gamma"] * self.attn["proj"](mixed)
        return x + self.ls2["gamma"] * self.mlp["fc2"](gelu(self.mlp["fc1"](self.norm2(x))))
