"""The page is whole, self-contained, readable without seeing it, and true to the run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from PIL import Image

from calotype.core.errors import UserError
from calotype.images.openmoji import SHOWCASE
from calotype.inspection.doctor import Diagnosis, Finding
from calotype.inspection.report import facts, write_progress_report, writing
from calotype.inspection.report.advice import doctor_section
from calotype.inspection.report.page import number
from calotype.recipes import get_recipe
from tests.inspection.report.fake_run import (
    Copier,
    FakeModel,
    make_pictures,
    quarantine,
    write_metrics,
    write_scores,
)

HOSTILE = '<script>alert("1 & 2")</script>'
VOID = {"meta", "img", "path", "circle", "line", "input"}


class Reader(HTMLParser):
    """Collects what a browser would see; fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self) -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "img"]

    def alts(self, start: str) -> list[str]:
        return [str(attrs["alt"]) for attrs in self.images() if str(attrs["alt"]).startswith(start)]


def write_report(run: Path, model: FakeModel) -> Path:
    """As the doors write it, but for the doctor, whom a made-up run would keep busy."""
    return writing.write_report(run, model=model, diagnosed=False)


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reader]:
    run = tmp_path_factory.mktemp("report") / "runs" / "tiny"
    make_pictures(run, [HOSTILE, *(f"thing {k}" for k in range(79))])
    write_metrics(run)
    write_scores(run)
    config = {"data": "sketches/", "from": None, "recipe": get_recipe("calotype", 16).model_dump(mode="json")}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    quarantine(run, "bad <b>.jpg", "worse.png")
    for step in (10, 20, 90):
        sheet = Image.new("RGB", (40, 30), (step, 0, 0))
        (run / "samples").mkdir(exist_ok=True)
        sheet.save(run / "samples" / f"denoiser-{step:08}.png")
    path = write_report(run, FakeModel(captioned=True))
    return path, Reader(path.read_text())


def test_the_page_asks_nobody_for_anything(captioned: tuple[Path, Reader]) -> None:
    path, reader = captioned
    assert path.name == "report.html"
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in reader.tags}
    for tag, attrs in reader.tags:
        assert not {"srcset", "onload", "onclick"} & set(attrs), tag
        assert str(attrs.get("href", "#")).startswith("#")
        assert str(attrs.get("src", "data:")).startswith("data:image/") or "src" not in attrs
    assert "url(" not in path.read_text()
    assert "@import" not in path.read_text()


def test_the_contents_lead_to_every_section(captioned: tuple[Path, Reader]) -> None:
    _, reader = captioned
    links = [attrs["href"] for tag, attrs in reader.tags if tag == "a"]
    anchors = [f"#{attrs['id']}" for tag, attrs in reader.tags if tag == "section"]
    assert links == anchors
    assert len(set(anchors)) == len(anchors) == 10


def test_every_picture_can_be_read_aloud(captioned: tuple[Path, Reader]) -> None:
    _, reader = captioned
    assert len(reader.images()) > 100
    assert all(attrs.get("alt") for attrs in reader.images())
    assert all(
        attrs.get("aria-label") for tag, attrs in reader.tags if tag == "svg" and attrs.get("aria-hidden") != "true"
    )


def test_captions_and_file_names_are_text_never_markup(captioned: tuple[Path, Reader]) -> None:
    path, reader = captioned
    assert HOSTILE in reader.text
    assert HOSTILE not in path.read_text()
    assert "bad <b>.jpg: truncated" in reader.text
    assert "Drawn by A & B. Licence: CC0." in reader.text


def test_all_parts_are_there_pictures_first(captioned: tuple[Path, Reader]) -> None:
    path, reader = captioned
    assert len(reader.alts("Made by the model from the words")) == 32 + 16
    assert len(reader.alts("The real picture")) == 32 + 16
    assert len(reader.alts("Nearest training picture")) == 32 + 16
    assert len(reader.alts("Film from noise")) == 8
    assert len(reader.alts("The same samples while")) == 1
    assert len(reader.alts("Through the autoencoder")) == 16
    assert len(reader.alts("Signal rate")) == 9
    assert len(reader.alts("What the model believes")) == 9
    headings = re.findall("<h2>(.*)</h2>", path.read_text())
    assert headings == [
        "Made from words",
        "Words it never saw",
        "How a picture comes about",
        "It mostly remembers",
        "How good they are",
        "What the latent keeps",
        "How it learned",
        "Facts",
        "How to make it again",
        "How to go on",
    ]
    for title in ("Loss by noise", "Kernel distance of 64 samples", "Error on fixed noise", "Pictures per second"):
        assert title in reader.text
    for words in (
        "80: 60 to train on, 20 held out",
        "56,789",
        "25 dB",
        "0.0.7",
        "After 10, 20, 90 steps",
        "--steps 77",
    ):
        assert words in reader.text
    assert "dpm++2m, 20 steps, guidance 2.5, averaged weights; seeds 0 to 31, none chosen by hand." in reader.text
    assert "75% of the samples are <copies>." in reader.text[: reader.text.index("Made from words", 300)]


def test_films_stand_still_for_who_asks_for_less_motion(captioned: tuple[Path, Reader]) -> None:
    path, reader = captioned
    page = path.read_text()
    assert "@media (prefers-reduced-motion: reduce) { .film img { animation: none;" in page
    styles = [str(attrs["style"]) for attrs in reader.images() if attrs.get("style")]
    assert len(styles) == 8 + 1
    assert styles[0] == "--frames:20;--time:3.7s;animation-timing-function:steps(20,jump-none)"
    assert len([1 for tag, attrs in reader.tags if tag == "input" and attrs["type"] == "checkbox"]) == 2


def test_a_copier_is_flagged_picture_by_picture(tmp_path: Path) -> None:
    """It gives back the first pictures, of which every fourth is held out."""
    pictures = make_pictures(tmp_path, [f"thing {k}" for k in range(80)], blocks=4)
    model = Copier(pictures, captioned=True)
    shown = [int(name.split()[1]) for name in _asked(write_report(tmp_path, model), model)]
    reader = Reader((tmp_path / "report.html").read_text())
    for k in range(32):
        note = "this very picture" if shown[k] == k else f"thing {k}"
        assert bool(re.search(rf"memory of {note}\b", reader.text)) == (k % 4 != 3), k
    assert "Memory: 24 of 32 lie as near to one training picture as copies do." in reader.text
    alts = [f"Nearest training picture, as near as a copy: thing {k}" for k in range(3)]
    assert reader.alts("Nearest training picture")[:3] == alts


def _asked(path: Path, model: FakeModel) -> list[str]:
    assert path.exists()
    return list(model.calls[0]["prompts"])


def test_new_pictures_are_not_flagged(tmp_path: Path) -> None:
    make_pictures(tmp_path, [f"thing {k}" for k in range(80)], blocks=4)
    other = make_pictures(tmp_path / "other", [None] * 200, blocks=4)
    other.pixels[:40] = other.pixels[160:]
    page = write_report(tmp_path, Copier(other, captioned=True)).read_text()
    assert "Memory: 0 of 32 lie as near" in page
    assert "memory</span>" not in page


def test_the_demonstration_shows_its_own_prompts(tmp_path: Path) -> None:
    make_pictures(tmp_path, [word for prompt in SHOWCASE for word in (prompt, f"no {prompt}")])
    model = FakeModel(captioned=True)
    write_report(tmp_path, model)
    assert model.calls[0]["prompts"] == list(SHOWCASE)


def test_a_class_model_gets_a_sheet_for_every_class(tmp_path: Path) -> None:
    make_pictures(tmp_path, [None] * 40, ["cat", "dog", "owl", "fish"] * 10)
    model = FakeModel(classes=["cat", "dog", "fish", "owl"])
    reader = Reader(write_report(tmp_path, model).read_text())
    assert model.calls == [{"prompts": None, "labels": ["cat", "dog", "fish", "owl"], "num_images": 8, "seed": 0}]
    assert [len(reader.alts(f"Made by the model: {label} (seed")) for label in model.classes] == [8] * 4
    assert "Made by the model: owl (seed 31)" in reader.alts("Made by the model: owl")
    assert len(reader.alts("Film from noise to the picture: ")) == 4
    assert "--label cat" in reader.text


def test_copies_on_a_sheet_are_outlined(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, [None] * 80, blocks=4)
    page = write_report(tmp_path, Copier(pictures)).read_text()
    assert page.count('class="flagged"') == 24
    assert "Memory: 24 of 32" in page


def test_a_model_of_words_and_classes_is_asked_with_both(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, [f"thing {k}" for k in range(40)], ["cat", "dog"] * 20)
    model = FakeModel(captioned=True, classes=["cat", "dog"])
    write_report(tmp_path, model)
    told = dict(zip(pictures.captions, pictures.labels, strict=True))
    for call in model.calls:
        assert call["labels"] == [told[prompt] for prompt in call["prompts"]]


def test_an_unconditional_model_gets_a_plain_sheet_beside_real_ones(tmp_path: Path) -> None:
    make_pictures(tmp_path, [None] * 60)
    reader = Reader(write_report(tmp_path, FakeModel()).read_text())
    assert len(reader.alts("Made by the model (seed")) == 32
    assert len(reader.alts("Real picture")) == 32
    assert len(reader.alts("Film from noise to the picture: seed ")) == 8
    assert "How it learned" not in reader.text


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_handful_of_pictures_is_enough(tmp_path: Path, count: int) -> None:
    make_pictures(tmp_path, [f"thing {k}" for k in range(count)])
    reader = Reader(write_report(tmp_path, FakeModel(captioned=True)).read_text())
    assert "Left on each mount" in reader.text  # too few to name a nearest one
    assert "Memory:" not in reader.text


def test_the_page_stays_small_with_the_hardest_pictures_to_compress(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path, [f"thing {k}" for k in range(80)], size=64)
    assert write_report(tmp_path, Copier(pictures, captioned=True)).stat().st_size < 6e6


def test_while_training_it_shows_previews_and_curves_and_draws_nothing(tmp_path: Path) -> None:
    make_pictures(tmp_path, [f"thing {k}" for k in range(80)])
    write_progress_report(tmp_path)  # before the first step
    write_metrics(tmp_path)
    (tmp_path / "samples").mkdir()
    for name in ("vae-00000010", "denoiser-00000020", "denoiser-00000100", "denoiser-00000100-live", "denoiser-junk"):
        Image.new("RGB", (40, 30), (len(name), 0, 0)).save(tmp_path / "samples" / f"{name}.png")
    (tmp_path / "samples" / "vae-00000020.png").write_bytes(b"half")
    reader = Reader(write_progress_report(tmp_path).read_text())
    assert "in training, on 60 pictures (sketches). The autoencoder is at step 100. The denoiser" in reader.text
    assert reader.alts("Samples, after") == ["Samples, after 100 steps"]
    assert reader.alts("The autoencoder") == []  # its newest sheet is damaged
    assert reader.alts("The same samples") == ["The same samples while the denoiser was trained, after 20, 100 steps"]
    assert "Error on fixed noise" in reader.text


def test_findings_stand_with_their_remedy(tmp_path: Path) -> None:
    finding = Finding("tint", "fault", "the <samples> are too green", "calotype train more")
    section = doctor_section(Diagnosis("run", "x", (finding,), ("tint", "files"), {}))
    assert section is not None
    assert '<li class="fault">The &lt;samples&gt; are too green. Remedy: calotype train more.</li>' in section.html()
    healthy = doctor_section(Diagnosis("run", "x", (), ("tint", "files"), {}))
    assert healthy is not None
    assert "Nothing amiss in 2 checks." in healthy.html()
    assert doctor_section(None) is None


def test_the_doctor_is_asked_about_a_finished_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pictures(tmp_path, [None] * 20)
    diagnosis = Diagnosis("run", "x", (Finding("tint", "fault", "too green", "wait"),), ("tint",), {})
    monkeypatch.setattr("calotype.inspection.doctor.diagnose", lambda run, **settings: diagnosis)
    assert "Too green. Remedy: wait." in writing.write_report(tmp_path, model=FakeModel()).read_text()


def test_what_a_section_tells_is_not_told_again_among_the_facts(tmp_path: Path) -> None:
    model = FakeModel()
    model.facts |= {"scores": write_scores(tmp_path), "text_encoder": {"id": "minilm"}}
    rows = dict(facts.model_rows(tmp_path, model, (3, 4, 4)))
    assert rows["Text encoder, id"] == "minilm"
    assert not any("istance" in name for name in rows)


def test_scores_of_another_model_are_not_shown(tmp_path: Path) -> None:
    make_pictures(tmp_path, [None] * 20)
    write_scores(tmp_path, model="of older weights")
    page = write_report(tmp_path, model=FakeModel()).read_text()
    assert "How good they are" not in page
    assert "Not scored yet" in page
    assert "calotype evaluate" in page


def test_a_folder_without_pictures_is_refused_in_one_line(tmp_path: Path) -> None:
    for write in (write_progress_report, lambda run: write_report(run, FakeModel())):
        with pytest.raises(UserError, match="holds no prepared pictures"):
            write(tmp_path)


def test_minutes_leave_out_the_pause_of_a_resumed_run() -> None:
    times = [0.0, 30.0, 60.0, 90.0, 10_000.0, 10_030.0]
    records = [{"stage": "vae", "time": time} for time in times]
    assert facts.minutes(records, "vae") == pytest.approx(2.0)
    assert facts.minutes(records, "denoiser") == 0.0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.6, "12,346"), (0.27, "0.270"), (22.24, "22.2"), (2e-5, "2e-05"), (999.9, "1,000")],
)
def test_numbers_are_written_as_one_reads_them(value: float, text: str) -> None:
    assert number(value) == text
