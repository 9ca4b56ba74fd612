"""Tensors on disk: safetensors only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from calotype.core.errors import CorruptFileError, UserError


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write `tensors` to `path`. Serialised by safetensors, written by Python: a full disk is an ordinary OSError."""
    path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}))


def load_tensors(path: Path, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Read what `save_tensors` wrote; a missing or broken file is a CorruptFileError."""
    try:
        return load_file(path, device=str(device))
    except FileNotFoundError:
        raise CorruptFileError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path} is not whole ({error})", "it was truncated or altered") from None


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` with those of floating point as float16; a UserError names the first that float16 cannot hold."""
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name, tensor in half.items():
        lost = ~tensor.isfinite() & ~tensors[name].isinf()  # a limit that was never set is infinite in both
        if bool(lost.any()):
            largest = float(tensors[name].detach().abs().max())
            raise UserError(f"'{name}' reaches {largest:.3g}, which float16 cannot hold", "keep it in float32")
    return half


def is_half(path: Path) -> bool:
    """Whether the file's tensors of floating point are float16; its header alone is read."""
    try:
        with safe_open(path, framework="pt") as file:
            return any(file.get_slice(name).get_dtype() == "F16" for name in file.keys())  # noqa: SIM118
    except FileNotFoundError:
        raise CorruptFileError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise CorruptFileError(f"{path} is not whole ({error})", "it was truncated or altered") from None


def load_weights(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Give a module the weights read from `path`; another architecture's are refused by the first name that differs."""
    if what := difference(module.state_dict(), tensors):
        raise CorruptFileError(
            f"{path} is of another architecture than its config: it {what}", "restore both, or train again"
        )
    module.load_state_dict(tensors)


def difference(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """How `tensors` are not what a network has as its `own`: the first name that differs; empty where all fits."""
    for name in sorted({*own, *tensors}):
        if name not in own:
            return f"has '{name}', which the network lacks"
        if name not in tensors:
            return f"lacks '{name}'"
        if own[name].shape != tensors[name].shape:
            return f"has '{name}' of shape {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
    return ""


def choose_device(name: str = "auto") -> torch.device:
    """'auto' is CUDA, then Apple's MPS, then the CPU; anything else is taken at its word and checked."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UserError(f"device '{name}' is not available here", "choose auto, cpu, cuda or mps") from None
    return device
