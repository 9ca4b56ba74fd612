"""An evaluation's record in words, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ASKED = {"captions": "training captions", "classes": "its classes", "nothing": "no words or classes"}
DISTANCES = {  # key of the record: (what it is called, the factor it is shown with, digits after the point)
    "kernel": ("kernel distance, 10⁻³", 1000.0, 1),
    "frechet_infinity": ("Fréchet distance, N → ∞", 1.0, 1),
    "frechet": ("Fréchet distance at this N", 1.0, 1),
    "precision": ("precision", 1.0, 2),
    "recall": ("recall", 1.0, 2),
    "density": ("density", 1.0, 2),
    "coverage": ("coverage", 1.0, 2),
}
_NAME, _COLUMN = 28, 22


def describe(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(heading, text) pairs, a line or paragraph each; an empty pair is a gap."""
    made, extractor = record["made"], record["extractor"]
    lines = [
        ("made", how_made(made)),
        ("seen by", f"{extractor['name']} (sha256 {extractor['sha256'][:12]})"),
        ("data", str(record["data"])),
        ("", ""),
        *_distances(record["distances"], extractor["dim"]),
        *_fidelity(record["fidelity"]),
        ("memory", record["memorization"]["summary"] or "unknown: too few held-out pictures to tell"),
        ("seconds", ", ".join(f"{name} {value:.0f}" for name, value in record["seconds"].items())),
    ]
    return lines


def how_made(made: Mapping[str, Any]) -> str:
    """Everything that the numbers depend on."""
    sampling, seed = made["sampling"], made["seed"]
    guided = f", guidance {sampling['guidance_scale']:g}" if made["asked"] != "nothing" else ""
    return (
        f"{made['count']:,} pictures of {ASKED[made['asked']]}, seeds {seed} to {seed + made['count'] - 1}, "
        f"{sampling['sampler']}, {sampling['num_steps']} steps{guided}, {made['weights']} weights"
    )


def share(estimate: Mapping[str, Any] | None) -> str:
    """An estimate as per cent with its interval."""
    if estimate is None:
        return "-"
    return f"{estimate['value']:.0%} [{estimate['low']:.0%}, {estimate['high']:.0%}]".replace("%", " %")


def shown(estimate: Mapping[str, Any] | None, factor: float, digits: int) -> str:
    """An estimate with its interval; "-" where there is none."""
    if estimate is None:
        return "-"
    value, low, high = (f"{factor * estimate[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def _distances(found: Mapping[str, Any], dim: int) -> list[tuple[str, str]]:
    columns = {name: found[name] for name in ("samples", "ceiling", "floor") if found[name] is not None}
    titles = {"samples": "samples", "ceiling": "reconstructions", "floor": "held-out pictures"}
    if not columns:
        return [("distances", "none: too few pictures, of which a distance says nothing"), ("", "")]
    head = f"{'':{_NAME}}" + "".join(f"{titles[name]:{_COLUMN}}" for name in columns)
    count = f"{'pictures':{_NAME}}" + "".join(f"{one['kernel']['count']:<{_COLUMN}}" for one in columns.values())
    rows = [
        f"{called:{_NAME}}" + "".join(f"{shown(one[key], factor, digits):{_COLUMN}}" for one in columns.values())
        for key, (called, factor, digits) in DISTANCES.items()
    ]
    told = f"each against {found['reference']:,} other training pictures, with 95 % intervals"
    fewest = min(one["kernel"]["count"] for one in columns.values())
    biased = [("", f"Fréchet distances are too high for fewer than {2 * dim:,} pictures: go by the kernel distance")]
    return [("distances", told), *(("|", row) for row in [head, count, *rows]), *biased * (fewest < 2 * dim), ("", "")]


def _fidelity(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, called in (("captions", "training captions"), ("held_out_captions", "captions never seen")):
        if one := found[key]:
            lines.append(
                (
                    "as asked" if not lines else "",
                    f"{called}: the right one of {one['gallery']} first {share(one['top1'])}, among five "
                    f"{share(one['top5'])}; reconstructions {share(one['ceiling5'])}, "
                    f"chance {100 * one['chance5']:.1f} %; {one['prompts']} prompts",
                )
            )
    if one := found["classes"]:
        lines.append(
            (
                "classes",
                f"among pictures of the class asked for, as the autoencoder gives them back: {share(one['right'])}; "
                f"reconstructions {share(one['ceiling'])}, chance {100 * one['chance']:.0f} %; among the pictures as "
                f"they are {share(one.get('among_real'))}, held-out pictures {share(one['real'])}",
            )
        )
    return [*lines, ("", "")] if lines else []
