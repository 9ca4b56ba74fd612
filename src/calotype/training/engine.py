"""One step of a stage: losses and gradient of a global batch, then the update; on one process or several."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn, optim

from calotype.core import distributed
from calotype.core.errors import CorruptFileError, UserError
from calotype.training.ema import EMA, PowerAverages
from calotype.training.objective import Losses, Objective
from calotype.training.optimizers import build_optimizers, set_lr
from calotype.training.parallel import Together, gathered, like, local, spread, whole
from calotype.training.precision import Arithmetic
from calotype.training.settings import LoopConfig, stage_setting

AUXILIARY_RATE = 0.25  # of the network's AdamW rate: stable in a short trial, not tuned
NOISE_BINS = 8  # of the noise angle (eq. 54), equally wide
Tensors = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Outcome:
    """What a batch gave, the same on every process: mean `terms`, gradient `norms`; `bins` are sums and counts of
    errors by noise. `parts` are this process's own samples, for whoever looks for a culprit."""

    terms: dict[str, float]
    norms: list[float]
    bins: tuple[list[float], list[float]] | None
    ids: Tensor
    parts: list[Losses]

    @property
    def finite(self) -> bool:
        return all(map(math.isfinite, [*self.terms.values(), *self.norms]))

    @property
    def overflow(self) -> bool:
        """Whether every loss is a number and the gradient is not: with fp16, a scale that was too large."""
        return not self.finite and all(map(math.isfinite, self.terms.values()))

    def culprits(self) -> list[tuple[int, int | None]]:
        """Samples whose own error is not finite, with the noise bin it was taken in; every process must ask."""
        each = torch.cat([part.each for part in self.parts]).cpu()
        noise = [part.noise for part in self.parts if part.noise is not None]
        bins = _bin(torch.cat(noise)).cpu() if noise else torch.full((len(each),), -1)
        found = torch.zeros(distributed.world_size(), 2, len(each))
        found[distributed.rank()] = torch.stack([(~each.isfinite()).float(), bins.float()])
        bad, where = (rows.flatten() for rows in distributed.total(found).unbind(1))
        rows = bad.nonzero().flatten().tolist()
        return [(int(self.ids[row]), int(where[row]) if noise else None) for row in rows]


class Engine:
    """The networks, optimisers and averages of a stage. `compute` leaves a gradient, `apply` uses it."""

    def __init__(self, objective: Objective, config: LoopConfig) -> None:
        self.objective, self.config = objective, config
        self.network, self.auxiliary = objective.network.train(), objective.auxiliary
        self.device = next(self.network.parameters()).device
        self.arithmetic = Arithmetic(config.precision, self.device, tf32=config.tf32)
        self.ema = EMA(self.network, config.ema_halflife)
        if config.sharding == "fsdp" and distributed.world_size() > 1:
            self._refuse_unspreadable()
            spread((self.network, self.ema.network), self.device)
        self.powers = None if config.post_hoc is None else PowerAverages(self.network, config.post_hoc)
        self.optimizers: list[optim.Optimizer] = build_optimizers(self.network, config.optimizer)
        if self.auxiliary is not None:
            its_own = {"name": "adamw", "lr": AUXILIARY_RATE * config.optimizer.lr}
            self.optimizers += build_optimizers(self.auxiliary, config.optimizer.model_copy(update=its_own))
        self.together = Together(objective)
        if config.compile:
            self.network.compile()
        self.lr, self._unscaled = 0.0, False

    def compute(self, step: int, ids: Tensor, micro_batch: int | None = None) -> Outcome:
        """Losses and gradient of the global batch ids (b,), of which this process takes its share.

        At most `micro_batch` samples at a time: gradients of the parts add up to that of the whole. Raises
        torch.OutOfMemoryError, with nothing changed, where that is still too many.
        """
        mine = distributed.my_part(ids)
        try:
            if self.together.rehearses:
                self._accumulate(step, mine, micro_batch or len(mine))
                self.discard()
                self.together.rehearses = False
            parts = self._accumulate(step, mine, micro_batch or len(mine))
        except BaseException:
            self.discard()
            raise
        return self._shared(ids, parts, len(mine))

    def set_rate(self, factor: float) -> None:
        """Learn at the share `factor` of the peak rates from here on."""
        self.lr = set_lr(self.optimizers, factor)

    def apply(self, step: int) -> None:
        """Update the weights by the gradient, and take them into the averages."""
        for optimizer in self._with_gradient():
            self.arithmetic.scaler.step(optimizer)
        self.discard()
        self.ema.update(self.network, step, self.config.batch_size)
        if self.powers is not None:
            self.powers.update(self.network, step)

    def discard(self) -> None:
        """Forget the gradient."""
        if self._unscaled:
            self.arithmetic.scaler.update()
            self._unscaled = False
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> Tensors:
        """Everything that a checkpoint holds of tensors, whole and on the CPU, for rank 0; every process must ask."""
        modules = {"network": self.network, "ema": self.ema.network, "auxiliary": self.auxiliary}
        found = {name: gathered(module.state_dict()) for name, module in modules.items() if module is not None}
        if self.powers is not None:
            found["averages"] = self.averages()
        return found | {"optimizer": self._optimizer_tensors()}

    def restore(self, tensors: Tensors) -> None:
        """Take back what `tensors` gave, in place. CorruptFileError if it is of another network."""
        _fill(self.network, tensors.get("network", {}))
        _fill(self.ema.network, tensors.get("ema", {}))
        if self.auxiliary is not None:
            _fill(self.auxiliary, tensors.get("auxiliary", {}))
        if self.powers is not None and "averages" in tensors:
            self.powers.load(tensors["averages"])
        self._restore_optimizers(tensors.get("optimizer", {}))

    def averages(self) -> dict[str, Tensor]:
        """The power-function averages, whole and on the CPU, for rank 0; every process must ask."""
        return {} if self.powers is None else gathered(self.powers.tensors())

    def _accumulate(self, step: int, mine: Tensor, size: int) -> list[Losses]:
        parts: list[Losses] = []
        pieces = mine.split(size)
        for number, piece in enumerate(pieces, 1):
            with distributed.told_if_lost(), self.together.collecting(last=number == len(pieces)):
                with self.arithmetic.casting():
                    losses = self.together.losses(step, piece)
                minimised = losses.terms["loss"]
                if "discriminator" in losses.terms:  # neither has a gradient in the other's network
                    minimised = minimised + losses.terms["discriminator"]
                self.arithmetic.scaler.scale(minimised * (len(piece) / len(mine))).backward()
            terms = {name: value.detach() for name, value in losses.terms.items()}
            parts.append(Losses(terms, losses.each, losses.noise))
        return parts

    def _shared(self, ids: Tensor, parts: list[Losses], count: int) -> Outcome:
        """The outcome of all processes, by one exchange and one wait for the device."""
        names = list(parts[0].terms)
        weights = [len(part.each) / count for part in parts]
        terms = [sum(weight * part.terms[name] for weight, part in zip(weights, parts, strict=True)) for name in names]
        norms = self._clip()
        rows = [torch.stack([torch.as_tensor(value) for value in (*terms, *norms)])]
        if parts[0].noise is not None:
            each = torch.cat([part.each for part in parts])
            bins = _bin(torch.cat([part.noise for part in parts if part.noise is not None])).to(each.device)
            sums = torch.zeros(NOISE_BINS, device=each.device).index_add_(0, bins, each.float())
            rows += [sums, torch.zeros_like(sums).index_add_(0, bins, torch.ones_like(each, dtype=sums.dtype))]
        vector = distributed.total(torch.cat([row.float().cpu() for row in rows]).double()).tolist()
        means = [value / distributed.world_size() for value in vector[: len(names) + len(norms)]]
        rest = vector[len(means) :]
        return Outcome(
            dict(zip(names, means, strict=False)),
            means[len(names) :],
            (rest[:NOISE_BINS], rest[NOISE_BINS:]) if rest else None,
            ids,
            parts,
        )

    def _clip(self) -> list[Tensor]:
        """Gradient norms, before they are clipped, of the network and of the auxiliary where it has a gradient."""
        for optimizer in self._with_gradient():
            self.arithmetic.scaler.unscale_(optimizer)
            self._unscaled = True
        limit = self.config.optimizer.clip_norm
        norms = [nn.utils.clip_grad_norm_(self.network.parameters(), limit)]
        if self.auxiliary is not None and any(p.grad is not None for p in self.auxiliary.parameters()):
            norms.append(nn.utils.clip_grad_norm_(self.auxiliary.parameters(), limit))
        return [whole(norm) for norm in norms]

    def _with_gradient(self) -> list[optim.Optimizer]:
        """The optimisers that have something to do in this step."""
        return [
            optimizer
            for optimizer in self.optimizers
            if any(p.grad is not None for group in optimizer.param_groups for p in group["params"])
        ]

    def _refuse_unspreadable(self) -> None:
        stage = stage_setting(self.objective.stage)
        mends = {
            f"--set {stage}.optimizer.name=adamw": self.config.optimizer.name == "muon",
            "--set vae.loss.adversarial_weight=0": self.auxiliary is not None,
            f"--set {stage}.precision=bf16": self.arithmetic.name == "fp16",
        }
        if any(mends.values()):
            raise UserError(
                "a network spread over processes takes AdamW, no discriminator and no fp16",
                f"{' '.join(mend for mend, wanted in mends.items() if wanted)}, or --set {stage}.sharding=ddp",
            )

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        """Optimiser state as flat tensors named optimizer/parameter/key. Hyperparameters come from the config."""
        tensors = {}
        for k, optimizer in enumerate(self.optimizers):
            for index, entries in optimizer.state_dict()["state"].items():
                for key, value in entries.items():
                    tensors[f"{k}/{index}/{key}"] = torch.as_tensor(value)
        return gathered(tensors)

    def _restore_optimizers(self, tensors: dict[str, Tensor]) -> None:
        for k, optimizer in enumerate(self.optimizers):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                number, index, key = name.split("/")
                if int(number) == k:
                    state.setdefault(int(index), {})[key] = like(tensor, parameters[int(index)])
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@torch.no_grad()
def _fill(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a module, spread or not, its weights by name."""
    own = module.state_dict()
    for name in sorted({*own, *tensors}):
        if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
            raise CorruptFileError(f"the checkpoint is of another network: '{name}' differs", "restore it")
    for name, tensor in own.items():
        local(tensor).copy_(local(like(tensors[name], tensor)))


def _bin(noise: Tensor) -> Tensor:
    """Noise angles (b,) in [0, 1] -> bins (b,), from 0."""
    return (noise * NOISE_BINS).long().clamp(0, NOISE_BINS - 1)
