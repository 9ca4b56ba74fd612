"""Several processes as one: the same gradient on each (DDP), or each with a part of the network (FSDP2).

Both are torch's own. A network spread by FSDP2 has DTensors for parameters; `whole` and `like` are the only two ways
between them and the plain tensors of a checkpoint, which is therefore the same file however many processes wrote it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from calotype.core import distributed
from calotype.nn.blocks import ResidualBlock
from calotype.nn.transformer import SpatialTransformer
from calotype.training.objective import Losses, Objective

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

N = TypeVar("N", bound=nn.Module)


class Step(nn.Module):
    """An objective as a module, so that what watches a module's forward pass (DDP) sees the whole of it."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.network, self.auxiliary = objective.network, objective.auxiliary
        self._losses = objective.losses

    def forward(self, step: int, ids: Tensor) -> Losses:
        return self._losses(step, ids)


class Together:
    """Computes losses here, and sees that the gradient of every process is the mean over all of them."""

    def __init__(self, objective: Objective) -> None:
        self.step: nn.Module = Step(objective)
        self._spread: Any = objective.network if any(map(is_spread, objective.network.parameters())) else None
        self._copied = distributed.world_size() > 1 and self._spread is None
        waits = objective.auxiliary is not None  # the discriminator joins later: until then it has no gradient
        # DDP packs gradients anew after its first exchange, and in which order three or more are added depends on how
        # they are packed: a resumed run is exact only if no step that counts is the first.
        self.rehearses = self._copied and not waits and distributed.world_size() > 2
        if self._copied:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", FutureWarning
                )  # the first setting's new name is not known to all torches
                self.step = nn.parallel.DistributedDataParallel(
                    self.step, broadcast_buffers=False, find_unused_parameters=waits
                )

    def losses(self, step: int, ids: Tensor) -> Losses:
        """The objective's, of this process's samples."""
        losses: Losses = self.step(step, ids)
        return losses

    def collecting(self, *, last: bool) -> AbstractContextManager[None]:
        """Around one part of a batch: gradients are exchanged with the last part, once."""
        if self._spread is not None:
            self._spread.set_requires_gradient_sync(last)
        elif self._copied and not last:
            waiting: AbstractContextManager[None] = self.step.no_sync()  # type: ignore[operator]
            return waiting
        return nullcontext()


def spread(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Give every process a part of the networks' parameters, in place; blocks are gathered as they are wanted."""
    from torch.distributed.device_mesh import init_device_mesh  # these take half a second to import
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    for network in networks:
        for block in network.modules():
            if isinstance(block, ResidualBlock | SpatialTransformer):  # not whole levels: those hand lists on
                fully_shard(block, mesh=mesh)
        fully_shard(network, mesh=mesh, reshard_after_forward=True)  # a look at an average must leave it spread
        for method in ("encode", "decode"):  # by which a first stage is used, instead of a call
            if hasattr(network, method):
                register_fsdp_forward_method(network, method)


def is_spread(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether this process has only a part of the tensor."""
    return hasattr(tensor, "to_local")


def whole(tensor: Tensor) -> Tensor:
    """A tensor in full, on the CPU. Of a spread one every process must ask, in the same order."""
    full = tensor.full_tensor() if is_spread(tensor) else tensor
    return full.detach().cpu()


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in full, on the CPU of rank 0; the others, which get nothing, must ask all the same."""
    kept = {}
    for name, tensor in tensors.items():
        if distributed.rank() == 0:
            kept[name] = whole(tensor)
        elif is_spread(tensor):
            whole(tensor)  # its part is wanted
    return kept


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor as `model` is: on its device, and this process's part of it where that is spread."""
    if not is_spread(model) or tensor.shape != model.shape:
        return tensor.to(model.device)
    from torch.distributed.tensor import distribute_tensor

    placed = tensor.to(model.device)  # every process has the same whole, so nothing is sent
    return distribute_tensor(placed, model.device_mesh, model.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """What of a tensor lies in this process, sharing its memory."""
    return tensor.to_local() if is_spread(tensor) else tensor


def plain(network: N, fresh: N) -> N:
    """The network with all its weights here: itself, or `fresh` filled on the CPU; every process must ask."""
    if not any(map(is_spread, network.parameters())):
        return network
    fresh.load_state_dict({name: whole(value) for name, value in network.state_dict().items()})
    return fresh
