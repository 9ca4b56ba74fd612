"""Weights under two sets of names, ours and diffusers': one table of modules, read in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Names = Sequence[tuple[str, tuple[str, ...]]]  # our module; theirs, several where ours holds them in one matrix
Table = Mapping[str, tuple[str, ...]]

BLOCK: Table = {
    "norm1": ("norm1",),
    "conv1": ("conv1",),
    "emb": ("time_emb_proj",),
    "norm2": ("norm2",),
    "conv2": ("conv2",),
    "skip": ("conv_shortcut",),
}
ATTENTION: Table = {"norm": ("group_norm",), "to_qkv": ("to_q", "to_k", "to_v"), "to_out": ("to_out.0",)}
_INNER = "transformer_blocks.0"
TRANSFORMER: Table = {
    "norm": ("norm",),
    "proj_in": ("proj_in",),
    "norm1": (f"{_INNER}.norm1",),
    "self_qkv": (f"{_INNER}.attn1.to_q", f"{_INNER}.attn1.to_k", f"{_INNER}.attn1.to_v"),
    "self_out": (f"{_INNER}.attn1.to_out.0",),
    "norm2": (f"{_INNER}.norm2",),
    "cross_q": (f"{_INNER}.attn2.to_q",),
    "cross_kv": (f"{_INNER}.attn2.to_k", f"{_INNER}.attn2.to_v"),
    "cross_out": (f"{_INNER}.attn2.to_out.0",),
    "norm3": (f"{_INNER}.norm3",),
    "ff_in": (f"{_INNER}.ff.net.0.proj",),
    "ff_out": (f"{_INNER}.ff.net.2",),
    "proj_out": ("proj_out",),
}


def within(ours: str, theirs: str, table: Table) -> Names:
    """The names of a block that stands at `ours` here and at `theirs` there."""
    return [(f"{ours}.{name}", tuple(f"{theirs}.{part}" for part in parts)) for name, parts in table.items()]


def renamed(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Our weights under their names; a matrix of ours that is several of theirs is split by rows."""
    out: dict[str, Tensor] = {}
    for ours, theirs in names:
        for leaf in ("weight", "bias"):
            if f"{ours}.{leaf}" in state:
                parts = state[f"{ours}.{leaf}"].chunk(len(theirs))
                out |= {f"{name}.{leaf}": part.contiguous() for name, part in zip(theirs, parts, strict=True)}
    return out


def restored(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Their weights under our names, the inverse of `renamed`."""
    out: dict[str, Tensor] = {}
    for ours, theirs in names:
        for leaf in ("weight", "bias"):
            if f"{theirs[0]}.{leaf}" in state:
                out[f"{ours}.{leaf}"] = torch.cat([state[f"{name}.{leaf}"] for name in theirs])
    return out
