"""The report's section on the gate between the two stages, from what it left in the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calotype.core.files import read_json
from calotype.inspection.report.gallery import data_uri, open_sheet
from calotype.inspection.report.page import Plate, Section, listing, section, table

Rows = list[tuple[str, str]]

LARGEST_SIDE = 1200
_WORDS = {
    "pass": "The gate between the two stages found nothing amiss with these latents.",
    "warn": "The gate between the two stages let these latents pass, with a warning.",
    "refuse": "The gate between the two stages found these latents unfit to train on; the run went on all the same.",
}
_SEEN = (
    "Rows from above: originals, what their cached latents give back, and the latents channel by channel. The last "
    "column holds what is to be beaten, and how often each value occurs beside a normal distribution's curve."
)


def health_section(run: Path) -> Section | None:
    """Verdict, findings, picture and numbers; none for a run without `latents/health.json`."""
    path = run / "latents" / "health.json"
    if not path.is_file():
        return None
    record = read_json(path)
    found = listing(_sentence(finding) for finding in record["findings"]) if record["findings"] else ""
    tables = "".join(table(caption, rows) for caption, rows in _tables(record["measures"]).items() if rows)
    return section(
        "Health of the latents",
        f"{_WORDS[record['verdict']]} {_SEEN}",
        found,
        _picture(path.with_suffix(".png")),
        f'<div class="facts">\n{tables}</div>\n',
    )


def _sentence(finding: Mapping[str, Any]) -> str:
    what, remedy = str(finding["what"]), str(finding["remedy"])
    return f"{what[:1].upper()}{what[1:]}. Remedy: {remedy}."


def _picture(path: Path) -> str:
    sheet = open_sheet(path)
    if sheet is None:
        return ""
    alt = (
        "Originals, their reconstructions, and one map a latent channel; in the last column the mean picture, averages "
        "of blocks, and a histogram a channel"
    )
    return f"<figure>{Plate(data_uri(sheet, LARGEST_SIDE), alt).html()}</figure>\n"


def _tables(measures: Mapping[str, Any]) -> dict[str, Rows]:
    """What pictures keep on their way through the latent, and a row a channel."""
    held_out = measures["held_out"]
    kept = held_out or measures["trained"]
    rows = [
        ("Pictures looked at", f"{kept['count']:,} {'held-out' if held_out else 'of training'}"),
        ("PSNR of reconstructions", "not a number" if kept["psnr"] is None else f"{kept['psnr']:.1f} dB"),
        ("PSNR of averages of blocks", f"{kept['blocks']:.1f} dB"),
        ("PSNR of the mean picture", f"{kept['mean_picture']:.1f} dB"),
        ("SSIM", "" if kept["ssim"] is None else f"{kept['ssim']:.3f}"),
        ("Differences between pictures kept", _share(kept["explained"])),
        ("Contrast kept", _share(kept["contrast"])),
        ("Colour kept", _share(kept["colour"])),
    ]
    if features := measures["features"]:
        rows.append((f"Kernel distance, {features['network']}", f"{1000 * features['reconstructed']:.3g} · 10⁻³"))
        rows.append(("The same between real pictures", f"{1000 * features['real']:.3g} · 10⁻³"))
    channels = [
        (
            f"Channel {c}",
            f"std {channel['raw_std']:.3g}, {_share(channel['signal'])} signal, KL {channel['kl']:.3g} nats, "
            f"skew {channel['skew']:.2f}, excess kurtosis {channel['excess_kurtosis']:.2f}",
        )
        for c, channel in enumerate(measures["channels"])
    ]
    return {"What pictures keep": [(name, text) for name, text in rows if text], "Latent channels": channels}


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
