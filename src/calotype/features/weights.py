"""Networks of the user's own: files named by path, and by sha256 where reading them could otherwise run code."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from calotype.core.errors import CorruptFileError, UserError
from calotype.core.tensors import difference, load_tensors

MIN_DIGITS = 8  # of a sha256 that may stand for all 64: what download pages print


@dataclass(frozen=True)
class Source:
    """`kind:PATH` or `kind:PATH@SHA256` as given: where the network lies, and the hash its user trusts."""

    kind: str
    path: Path
    wanted: str | None

    def check(self, found: str) -> str:
        """The sha256 that was found, if it is the wanted one or none was; CorruptFileError if it is another."""
        if self.wanted is not None and not found.startswith(self.wanted):
            raise CorruptFileError(
                f"{self.path} is not the file that was trusted: its sha256 is {found}, not {self.wanted}",
                f"restore it, or give {self.kind}:{self.path}@{found[:16]} if you trust this one",
            )
        return found


def parse_source(kind: str, place: str) -> Source:
    """`PATH` or `PATH@SHA256` (at least 8 hex digits); UserError for a shorter hash or for nothing."""
    path, at, digits = place.rpartition("@")
    if not at or Path(place).expanduser().exists() or not re.fullmatch("[0-9a-fA-F]{1,64}", digits):
        path, digits = place, ""
    if digits and len(digits) < MIN_DIGITS:
        raise UserError(f"'{digits}' is too little of a sha256", f"give {MIN_DIGITS} of its hex digits or more")
    if not path:
        raise UserError(f"'{kind}:' names no file", f"give {kind}:PATH")
    return Source(kind, Path(path).expanduser(), digits.lower() or None)


def file_sha256(source: Source) -> str:
    """The sha256 of a source that is one file, which must be the wanted one; a one-line error if it is not there."""
    if not source.path.is_file():
        raise UserError(f"{source.path} is not a file", f"give {source.kind}:PATH of the network you have")
    try:
        with open(source.path, "rb") as file:
            return source.check(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise UserError(f"{source.path} cannot be read ({error.strerror})") from None


def read_weights(source: Source) -> tuple[dict[str, Tensor], str]:
    """A state dict and the sha256 of its file: safetensors, or a .pth whose hash the user gave.

    A pickle may name code: without its hash nothing of it is read, with it nothing but tensors is admitted.
    """
    found = file_sha256(source)
    if source.path.suffix == ".safetensors":
        return load_tensors(source.path), found
    if source.wanted is None:
        raise UserError(
            f"{source.path} (sha256 {found}) may hold code, so it is read only if its hash is given",
            f"if you trust it: {source.kind}:{source.path}@{found[:16]}",
        )
    return load_pth(source.path), found


def load_pth(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pth whose sha256 was checked; CorruptFileError for one that is not whole, or holds more."""
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the pickle, the zip archive and torch's own, which differ between releases
        raise CorruptFileError(
            f"{path} is no whole file of weights ({_first_words(error)})", "download it again"
        ) from None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise CorruptFileError(f"{path} holds other things than weights by name", "give the state dict alone")
    return dict(tensors)


def _first_words(error: Exception) -> str:
    if "weights_only" in str(error) or "Weights only" in str(error):
        return "it names code, which is not run"
    return shorten(str(error), 80) or type(error).__name__


def fill(network: nn.Module, tensors: dict[str, Tensor], path: Path, what: str) -> None:
    """Give `network` its weights in float32; one line with the first name that is not as in `what`."""
    own, tensors = _trained(network.state_dict()), _trained(tensors)
    if fault := difference(own, tensors):
        raise CorruptFileError(f"{path} is not {what}: it {fault}", "give the file that belongs to this network")
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)


def _trained(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what batch norms count in training, which not every copy of a file has."""
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".num_batches_tracked")}


def fold_norm(owner: nn.Module, conv: str, norm: str) -> None:
    """Let the convolution `conv` of `owner` do what its batch norm `norm` does to it at rest; the norm is gone then."""
    convolution: Any = owner.get_submodule(conv).eval()
    batch_norm: Any = owner.get_submodule(norm).eval()
    setattr(owner, conv, fuse_conv_bn_eval(convolution, batch_norm))
    setattr(owner, norm, nn.Identity())
