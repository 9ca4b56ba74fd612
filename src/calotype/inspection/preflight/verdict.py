"""What a whole run will take, from what its parts cost: time, memory and disk, what does not fit and what mends it."""

from __future__ import annotations

import math
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from calotype.inspection.data_verdict import Advice
from calotype.inspection.preflight.costs import StageCost, Work
from calotype.inspection.preflight.forecast import Fixed, StageForecast, checkpoint_bytes, forecast_stage, timed_stages
from calotype.inspection.preflight.rehearsal import Parts, Rehearsal
from calotype.inspection.preflight.resources import SAFE
from calotype.latents.cache import MEMORY
from calotype.pipeline.denoiser_stage import LEAST_SHARE
from calotype.pipeline.gate import WORTH_FEATURES
from calotype.training.journal import Budget
from calotype.training.settings import LoopConfig, stage_setting

LEFT_LYING = 1.1  # on a CPU a long run holds up to a tenth more than a few steps do: memory comes back in pieces
ROW_BYTES = 1_000  # of memory for a picture's name, caption and digest
FEATURE_SECONDS = 30.0  # of a feature network's look at the latents
REPORT_BYTES = 4_000_000  # of report.html and the pictures in it
GIB = 2**30

Forecasts = dict[str, StageForecast]


def foreseen(
    rehearsal: Rehearsal, parts: Parts, budget: Budget, room: int | None, free: int, advice: list[Advice]
) -> dict[str, Any]:
    """The figures of the whole run, for JSON; what does not fit is added to `advice`."""
    fixed = _fixed_seconds(rehearsal, parts, budget)
    stages = _stages(rehearsal, parts, budget, fixed)
    memory = _memory(rehearsal, parts, room, advice)
    disk = _disk(rehearsal, parts, stages, free, advice)
    seconds = fixed.total + sum(stage.seconds for stage in stages.values())
    if budget.minutes is not None and seconds > 1.05 * 60 * budget.minutes:
        share = rehearsal.recipe.vae.share  # of what is left; the denoiser takes no less than LEAST_SHARE of its own
        enough = (fixed.total - share * (fixed.before + fixed.after)) / ((1 - share) * (1 - LEAST_SHARE))
        what = f"{fixed.total:.0f} s go by before and after training: the run ends {seconds / 60:.1f} minutes on"
        advice.append(Advice(what, f"give --minutes {math.ceil(enough / 60)} or more, or fewer pictures"))
    found: dict[str, Any] = {
        "vae_from": None if parts.taken is None else {"name": rehearsal.recipe.vae.taken, "learns": parts.taken},
        "pictures": rehearsal.rows,
        "held_out": rehearsal.held_out,
        "stages": {name: _told(rehearsal, parts, name, stage) for name, stage in stages.items()},
        "rates": {
            "files_decoded": _rate(parts.decoding),
            "captions_encoded": None if parts.captions is None else _rate(parts.captions),
            "pictures_encoded": _rate(parts.encoding),
        },
        "seconds": {
            "pictures": round(parts.decoding.seconds.at(rehearsal.listing.total), 1),
            "captions": round(_captions(rehearsal, parts), 1),
            "vae": round(stages["vae"].seconds if "vae" in stages else 0.0, 1),
            "latents": round(parts.looks * parts.encoding.seconds.at(rehearsal.rows), 1),
            "health": round(parts.looks * parts.health, 1),
            "denoiser": round(stages["denoiser"].seconds, 1),
            "finish": round(parts.finish, 1),
            "total": round(seconds, 1),
        },
        "memory": memory,
        "disk": disk,
    }
    return found | {"stops": _look_out(rehearsal, advice)}


def _look_out(rehearsal: Rehearsal, advice: list[Advice]) -> bool:
    """Whether too many files cannot be read; that, and what was not measured, is added to `advice`."""
    total, refused, config = rehearsal.listing.total, rehearsal.refused, rehearsal.recipe.data
    if stops := config.is_stopped_by(round(refused * total), total):
        what = (
            f"{refused:.0%} of the files looked at cannot be read, more than the share {config.max_refused:g} let pass"
        )
        advice.append(Advice(what, "calotype data lists them: mend or remove them"))
    for name, training in _configs(rehearsal).items():
        if training.compile:
            what = f"{stage_setting(name)}.compile is on, and steps were measured without it"
            advice.append(Advice(what, "expect the first step to take a minute, and the others less"))
    return stops


def _fixed_seconds(rehearsal: Rehearsal, parts: Parts, budget: Budget) -> Fixed:
    between = parts.encoding.seconds.at(rehearsal.rows) + parts.health
    long = budget.minutes is not None and 60 * budget.minutes >= WORTH_FEATURES
    if long and find_spec("efficientnet_lite_pytorch") is not None:
        between += FEATURE_SECONDS
    before = parts.decoding.seconds.at(rehearsal.listing.total) + _captions(rehearsal, parts)
    before += (parts.looks - 1) * between  # at what an autoencoder gives before it learns these pictures too
    return Fixed(before, between, parts.finish)


def _captions(rehearsal: Rehearsal, parts: Parts) -> float:
    return 0.0 if parts.captions is None else parts.captions.seconds.at(rehearsal.listing.captions)


def _rate(work: Work) -> float:
    return round(1 / max(work.seconds.each, 1e-9), 1)


def _configs(rehearsal: Rehearsal) -> dict[str, LoopConfig]:
    return {"vae": rehearsal.recipe.vae.training, "denoiser": rehearsal.recipe.training}


def _costs(parts: Parts) -> dict[str, StageCost]:
    return ({} if parts.vae is None else {"vae": parts.vae}) | {"denoiser": parts.denoiser}


def _stages(rehearsal: Rehearsal, parts: Parts, budget: Budget, fixed: Fixed) -> Forecasts:
    recipe, configs = rehearsal.recipe, _configs(rehearsal)
    if budget.minutes is not None:
        both = timed_stages(
            budget.minutes, recipe.vae.share, fixed, (parts.vae, parts.denoiser), tuple(configs.values())
        )
        return {name: stage for name, stage in zip(configs, both, strict=True) if stage is not None}
    steps = {"vae": recipe.vae.steps, "denoiser": budget.steps or 0}
    return {name: forecast_stage(cost, configs[name], steps[name]) for name, cost in _costs(parts).items()}


def _told(rehearsal: Rehearsal, parts: Parts, name: str, stage: StageForecast) -> dict[str, Any]:
    """A stage for JSON."""
    cost = _costs(parts)[name]
    trained = max(rehearsal.rows - rehearsal.held_out, 1)
    return {
        **asdict(stage),
        "seconds": round(stage.seconds, 1),
        "epochs": round(stage.steps * cost.batch_size / trained, 2),
        "parameters": cost.parameters,
        "batch_size": cost.batch_size,
        "step_seconds": round(cost.step_seconds, 5),
        "steps_per_second": round(1 / cost.step_seconds, 2),
        "pictures_per_second": round(cost.batch_size / cost.step_seconds, 1),
        "validation_seconds": round(cost.validation, 3),
        "preview_seconds": round(cost.preview, 3),
        "checkpoint_seconds": round(cost.save[0], 3),
        "checkpoint_bytes": cost.save[1],
        "snapshot_bytes": cost.snapshot[1],
        "discriminator": name == "vae" and rehearsal.recipe.vae.loss.adversarial_weight > 0,
    }


def _memory(rehearsal: Rehearsal, parts: Parts, room: int | None, advice: list[Advice]) -> dict[str, Any]:
    """Bytes that the whole process will hold in each part, of the `room` there is."""
    recipe, cpu = rehearsal.recipe, rehearsal.device.type != "cuda"
    unique, rows = rehearsal.conditions.unique, rehearsal.conditions.rows
    texts = 0 if unique is None else sum(t.nbytes for t in (unique.pooled, unique.tokens, unique.mask))
    known = texts / max(len(rows[rows >= 0].unique()), 1) * rehearsal.listing.captions
    known += ROW_BYTES * rehearsal.rows * cpu
    latents = rehearsal.disk["latents"] * rehearsal.rows
    held = latents if latents <= MEMORY else 0.0
    if room is not None and not cpu:
        held = latents if latents <= room / 4 else 0.0
    peaks = {"pictures": parts.decoding.memory.at(rehearsal.files), "latents": parts.encoding.memory.at(64)}
    if parts.captions is not None:
        peaks["captions"] = parts.captions.memory.at(min(rehearsal.listing.captions, 1024))
    micro = {}
    for name, cost in _costs(parts).items():
        micro[name] = {"asked": cost.asked, "fits": cost.fits, "bytes_each": round(cost.memory.each)}
        peaks[name] = max(cost.memory.at(cost.fits), cost.validation_memory)
        if cost.fits < cost.asked:
            what = f"memory does not suffice for {cost.asked} pictures at once in a step of the {name}"
            advice.append(Advice(what, f"--set {stage_setting(name)}.micro_batch={cost.fits}"))
    peaks["samples"] = float(parts.sampling.peak)
    slack = LEFT_LYING if cpu else 1.0
    peaks = {name: slack * peak + known + held * (name in ("denoiser", "samples")) for name, peak in peaks.items()}
    needed = round(max(peaks.values()))
    fits = None if room is None else needed <= room
    if room is not None and needed > SAFE * room:
        part = max(peaks, key=lambda name: peaks[name])
        what = f"memory: {part} take {needed / GIB:.1f} GiB of {room / GIB:.1f} GiB that are free"
        advice.append(Advice(what, f"close other programs, or choose a --size below {recipe.size}"))
    parts_of = {name: round(peak) for name, peak in peaks.items()}
    return {"free": room, "needed": needed, "fits": fits, "parts": parts_of, "micro_batch": micro}


def _disk(rehearsal: Rehearsal, parts: Parts, stages: Forecasts, free: int, advice: list[Advice]) -> dict[str, Any]:
    """Bytes that the run's folder will take at most, of those that are free."""
    disk, configs, costs = rehearsal.disk, _configs(rehearsal), _costs(parts)
    sizes = {
        "pictures": disk["pictures"] * rehearsal.rows,
        "captions": disk.get("captions", 0.0) * rehearsal.listing.captions * (parts.captions is not None),
        "latents": parts.looks * disk["latents"] * rehearsal.rows,  # the old ones go when the new ones are there
        "checkpoints": float(sum(checkpoint_bytes(costs[name], configs[name], stages[name]) for name in costs)),
        "model": disk["bundle"],
        "samples": REPORT_BYTES + sum(disk.get(f"{name} sheet", 0) * (s.previews + 2) for name, s in stages.items()),
    }
    needed = round(sum(sizes.values()))
    if needed > free:
        spare = sum(costs[name].save[1] * (configs[name].keep + configs[name].keep_best - 1) for name in costs)
        what = f"the run takes {needed / 1e9:.2g} GB of disk, {free / 1e9:.2g} GB are free"
        fewer = " ".join(
            f"--set {stage_setting(name)}.keep=1 --set {stage_setting(name)}.keep_best=false" for name in costs
        )
        mend = fewer if needed - spare <= free else f"free {(needed - free) / 1e9:.2g} GB, or choose an --out elsewhere"
        advice.append(Advice(what, mend))
    rounded = {name: round(size) for name, size in sizes.items()}
    return {"free": free, "needed": needed, "fits": needed <= free, "parts": rounded}
