"""What work costs, by how much of it there is: seconds and memory from two trials, a small and a larger one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from calotype.core.random import batch_ids
from calotype.inspection.preflight.resources import SAFE, Use, is_out_of_memory, measured, room
from calotype.network.unet import count_parameters
from calotype.training.checkpoint import Checkpoint, Retention, save_checkpoint
from calotype.training.engine import Engine
from calotype.training.objective import Objective
from calotype.training.post_hoc import save_snapshot
from calotype.training.settings import LoopConfig

LONGEST = 5.0  # seconds of a trial, about
GROWTH = 4  # from one trial to the next
TIMED = 4.0  # seconds of training steps that are timed
LONGEST_STEP = 8.0  # of a trial step: of larger batches a part is timed
FEWEST, MOST = 2, 40  # of them


class TooLargeError(Exception):
    """Not even the smallest trial of `what` fits into memory."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(what)


@contextmanager
def tried(what: str) -> Iterator[None]:
    """Want of memory as TooLargeError."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise TooLargeError(what) from None
        raise


@dataclass(frozen=True)
class Line:
    """fixed + each * amount."""

    fixed: float
    each: float

    @staticmethod
    def through(one: tuple[int, float], two: tuple[int, float]) -> Line:
        """Through (amount, value) of a small and a larger trial; where noise hides the slope, through the origin."""
        each = (two[1] - one[1]) / max(two[0] - one[0], 1)
        if two[0] <= one[0] or each <= 0 or two[1] < each * two[0]:
            return Line(0.0, two[1] / max(two[0], 1))
        return Line(two[1] - each * two[0], each)

    def at(self, amount: float) -> float:
        return self.fixed + self.each * amount


@dataclass(frozen=True)
class Work:
    """A kind of work: `seconds` for an amount of it, and the most memory while that is done."""

    seconds: Line
    memory: Line

    @staticmethod
    def of(few: tuple[int, Use], many: tuple[int, Use]) -> Work:
        one, two = few[1], many[1]
        growth = max(two.peak - one.peak, 0) / max(many[0] - few[0], 1)
        memory = Line(two.peak - growth * many[0], growth)
        return Work(Line.through((few[0], one.seconds), (many[0], two.seconds)), memory)


@dataclass(frozen=True)
class StageCost:
    """What training of one stage costs. `memory` is by micro-batch, `save` and `snapshot` are (seconds, bytes).

    `fits`: the largest micro-batch for which memory suffices, by halving the one asked for.
    """

    parameters: int
    batch_size: int
    step_seconds: float
    asked: int
    fits: int
    memory: Line
    save: tuple[float, int]
    snapshot: tuple[float, int]
    validation: float = 0.0
    validation_memory: float = 0.0
    preview: float = 0.0


def measure_work(what: str, work: Callable[[int], object], few: int, most: int, device: torch.device) -> Work:
    """Do `few` of the work, then ever more up to `most`, as long as that is expected to fit and to take seconds."""
    trials: list[tuple[int, Use]] = []
    amount = few
    while True:
        with tried(what), measured(device) as use:
            work(amount)
        trials.append((amount, use))
        limit, after = room(device), min(most, GROWTH * amount)
        grown = use.base + (use.peak - use.base) * after / amount
        if amount >= most or (limit is not None and grown > SAFE * limit) or _takes_long(trials, after):
            warm = trials[1:] if len(trials) > 2 else trials  # the first also loads what the others find there
            return Work.of(warm[0], warm[-1])
        amount = after


def _takes_long(trials: list[tuple[int, Use]], amount: int) -> bool:
    """Whether a trial of so much is expected to take long; the first one's time may be that of loading alone."""
    done, use = trials[-1]
    if len(trials) == 1:
        return use.seconds * amount / done > 2 * LONGEST
    return Work.of(trials[-2], trials[-1]).seconds.at(amount) > LONGEST


def measure_stage(
    objective: Objective, config: LoopConfig, folder: Path, seed: int, device: torch.device
) -> tuple[Engine, StageCost]:
    """Take a few steps and write a checkpoint into `folder`; the engine, and all costs but validation and preview."""
    gc.collect()  # of a stage before this one nothing may be left
    with tried(f"the {objective.stage}'s weights"):
        engine = Engine(objective, config.model_copy(update={"compile": False}))
    engine.set_rate(0.0)
    ids = batch_ids(seed, 0, config.batch_size, objective.num_samples)
    asked = min(config.micro_batch or len(ids), len(ids))
    memory, (done, use), fits = _memory_by_size(engine, ids, asked, device)
    at_once = min(done, fits)
    timed = min(len(ids), max(at_once, int(LONGEST_STEP / max(use.seconds, 1e-6) * done)))
    seconds = _seconds_a_step(engine, ids[:timed], at_once, device) * len(ids) / timed
    cost = StageCost(
        parameters=count_parameters(engine.network),
        batch_size=config.batch_size,
        step_seconds=seconds,
        asked=asked,
        fits=fits,
        memory=memory,
        save=_saved(engine, folder / "checkpoint"),
        snapshot=_snapshot(engine, config, folder / "snapshot"),
    )
    return engine, cost


def _memory_by_size(
    engine: Engine, ids: torch.Tensor, asked: int, device: torch.device
) -> tuple[Line, tuple[int, Use], int]:
    """Memory by micro-batch, the largest one tried and its use, and the largest that fits: from one picture upwards.

    What is expected not to fit, or to take long, is not tried.
    """
    what = f"a step of the {engine.objective.stage} with one picture"
    with tried(what):
        engine.compute(0, ids[:1], 1)
        engine.apply(0)  # the optimisers' state is made here
    limit, found, failed = room(device), list[tuple[int, Use]](), False
    most = None if limit is None else SAFE * limit
    for size in sorted({min(4**power, asked) for power in range(12)}):
        if len(found) > 1 and most is not None and _memory(found).at(size) > most:
            break
        if len(found) == 1 and most is not None:
            _, use = found[0]
            if use.base + (use.peak - use.base) * size > most:
                break
        if found and found[-1][1].seconds / found[-1][0] * size > LONGEST_STEP:
            break
        try:
            with tried(what), measured(device) as use:
                engine.compute(0, ids[:size], size)
        except TooLargeError:
            if not found:
                raise
            failed = True
            break
        engine.discard()
        found.append((size, use))
    line, fits = _memory(found), asked
    while fits > 1 and ((failed and fits > found[-1][0]) or (most is not None and line.at(fits) > most)):
        fits = (fits + 1) // 2
    return line, found[-1], fits


def _memory(found: list[tuple[int, Use]]) -> Line:
    """The line through the first and the last trial; one alone says what a picture takes at most."""
    if len(found) == 1:
        size, use = found[0]
        return Line(use.base, max(use.peak - use.base, 0) / size)
    return Work.of(found[0], found[-1]).memory


def _seconds_a_step(engine: Engine, ids: torch.Tensor, size: int, device: torch.device) -> float:
    """The mean of some whole steps after a first one."""
    with tried(f"a step of the {engine.objective.stage}"):
        started = time.monotonic()
        engine.compute(1, ids, size)
        engine.apply(1)
        first, count = time.monotonic() - started, 0
        if first > 2 * TIMED:
            return first
        with measured(device) as use:
            started = time.monotonic()
            while count < FEWEST or (count < MOST and time.monotonic() - started < TIMED):
                engine.compute(2 + count, ids, size)
                engine.apply(2 + count)
                count += 1
    return use.seconds / count


def _saved(engine: Engine, folder: Path) -> tuple[float, int]:
    started = time.monotonic()
    save_checkpoint(folder, Checkpoint(0, engine.tensors(), {}), Retention())
    return time.monotonic() - started, size_of(folder)


def _snapshot(engine: Engine, config: LoopConfig, folder: Path) -> tuple[float, int]:
    if config.post_hoc is None:
        return 0.0, 0
    started = time.monotonic()
    save_snapshot(folder, 0, engine.averages(), config.post_hoc)
    return time.monotonic() - started, size_of(folder)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_weights(build: Callable[[], nn.Module], stage: str, config: LoopConfig, device: torch.device) -> None:
    """TooLargeError where a network's weights, gradient, averages and optimiser state alone do not fit."""
    with torch.device("meta"):
        network = build()
    copies = 5 + (0 if config.post_hoc is None else len(config.post_hoc.widths))
    limit = room(device)
    if limit is not None and copies * weight_bytes(network) > SAFE * limit:
        raise TooLargeError(f"training {count_parameters(network):,} weights of the {stage}")


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))
