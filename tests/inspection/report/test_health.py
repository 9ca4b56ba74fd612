"""The report tells what the gate between the stages found."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from calotype.core.files import write_json
from calotype.inspection.report import write_report
from calotype.inspection.report.health import health_section
from tests.inspection.report.fake_run import FakeModel, make_pictures, write_metrics

KEPT = {"count": 81, "psnr": 23.02, "ssim": 0.886, "mean_picture": 11.2, "blocks": 13.2, "explained": 0.911}
CHANNEL = {"raw_std": 0.89, "signal": 0.995, "kl": 3.2, "skew": -0.7, "excess_kurtosis": 0.25}
FINDING = {
    "check": "scale",
    "level": "refuse",
    "broken": True,
    "what": "the stored scale is <2> times what it should be",
    "remedy": "remove 'latents'",
}


def leave(
    run: Path,
    *,
    verdict: str = "pass",
    findings: list[object] | None = None,
    held_out: bool = True,
    psnr: float | None = 23.02,
) -> None:
    """What the gate writes."""
    kept = KEPT | {"contrast": 0.956, "colour": None, "psnr": psnr}
    features = {"network": "lite", "pictures": 81, "reconstructed": 0.0123, "real": 0.0004}
    measures = {"channels": [CHANNEL] * 3, "held_out": kept if held_out else None, "trained": kept | {"count": 48}}
    record = {"verdict": verdict, "findings": findings or [], "measures": measures | {"features": features}}
    write_json(run / "latents" / "health.json", record)
    Image.effect_noise((1300, 500), 80).convert("RGB").save(run / "latents" / "health.png")


def told(run: Path) -> str:
    section = health_section(run)
    assert section is not None
    return section.html()


def test_a_run_without_a_gate_has_no_such_section(tmp_path: Path) -> None:
    assert health_section(tmp_path) is None


def test_it_says_the_verdict_the_numbers_and_what_is_to_be_seen(tmp_path: Path) -> None:
    leave(tmp_path)
    html = told(tmp_path)
    assert "nothing amiss" in html
    assert "<li>" not in html
    for words in ("23.0 dB", "13.2 dB", "0.886", "95.6%", "81 held-out", "99.5% signal", "12.3 · 10⁻³", "Channel 2"):
        assert words in html
    assert "Colour kept" not in html  # the originals had none
    alt = re.search(r'<img src="data:image/jpeg;base64,[^"]+" alt="([^"]+)">', html)
    assert alt is not None
    assert "histogram" in alt[1]


def test_findings_are_sentences_with_a_remedy(tmp_path: Path) -> None:
    leave(tmp_path, verdict="refuse", findings=[FINDING], held_out=False)
    html = told(tmp_path)
    assert "unfit to train on" in html
    assert "<li>The stored scale is &lt;2&gt; times what it should be. Remedy: remove &#x27;latents&#x27;.</li>" in html
    assert "48 of training" in html


def test_reconstructions_that_are_no_numbers_are_reported_all_the_same(tmp_path: Path) -> None:
    leave(tmp_path, verdict="refuse", findings=[FINDING], psnr=None)
    assert "not a number" in told(tmp_path)


def test_the_report_holds_the_section(tmp_path: Path) -> None:
    make_pictures(tmp_path, [None] * 12)
    write_metrics(tmp_path)
    leave(tmp_path, verdict="warn")
    page = write_report(tmp_path, model=FakeModel(), diagnosed=False).read_text()
    assert page.index("<h2>What the latent keeps") < page.index("<h2>Health of the latents") < page.index("<h2>Facts")
