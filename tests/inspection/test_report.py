"""The page is whole, self-contained, readable without seeing it, and true to the run."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from calotype.core.errors import UserError
from calotype.images.openmoji import SHOWCASE
from calotype.inspection import facts
from calotype.inspection.page import number
from calotype.inspection.report import write_report
from tests.inspection.fake_run import FakeModel, make_pictures, quarantine, write_metrics

HOSTILE = '<script>alert("1 & 2")</script>'
VOID = {"meta", "img", "path", "circle", "line"}


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


@pytest.fixture
def captioned(tmp_path: Path) -> tuple[Path, Reader]:
    run = tmp_path / "runs" / "tiny"
    make_pictures(run, [HOSTILE, *(f"thing {k}" for k in range(79))])
    write_metrics(run)
    quarantine(run, "bad <b>.jpg", "worse.png")
    path = write_report(run, model=FakeModel(captioned=True))
    return path, Reader(path.read_text())


def test_the_page_asks_nobody_for_anything(captioned: tuple[Path, Reader]) -> None:
    path, reader = captioned
    assert path.name == "report.html"
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in reader.tags}
    for tag, attrs in reader.tags:
        assert not {"href", "srcset", "onload", "onclick"} & set(attrs), tag
        assert str(attrs.get("src", "data:")).startswith("data:image/") or "src" not in attrs
    assert "url(" not in path.read_text()
    assert "@import" not in path.read_text()


def test_every_picture_can_be_read_aloud(captioned: tuple[Path, Reader]) -> None:
    _, reader = captioned
    assert len(reader.images()) > 100
    assert all(attrs.get("alt") for attrs in reader.images())
    assert all(attrs.get("aria-label") for tag, attrs in reader.tags if tag == "svg")


def test_captions_and_file_names_are_text_never_markup(captioned: tuple[Path, Reader]) -> None:
    path, reader = captioned
    assert HOSTILE in reader.text
    assert HOSTILE not in path.read_text()
    assert "bad <b>.jpg: truncated" in reader.text
    assert "Drawn by A & B. Licence: CC0." in reader.text


def test_prompts_held_out_words_reconstructions_strips_curves_and_facts_are_there(
    captioned: tuple[Path, Reader],
) -> None:
    _, reader = captioned
    assert len(reader.alts("Made by the model from the words")) == 32 + 16
    assert len(reader.alts("The real picture")) == 32 + 16
    assert len(reader.alts("Through the autoencoder")) == 16
    assert len(reader.alts("Signal rate")) == 9
    assert len(reader.alts("The model's belief")) == 27
    assert len([1 for tag, _ in reader.tags if tag == "svg"]) == 9
    for words in (
        "Made from words",
        "Words it never saw",
        "80: 60 to train on, 20 held out",
        "56,789",
        "25 dB",
        "0.0.7",
    ):
        assert words in reader.text
    assert "calotype train sketches --out" in reader.text


def test_the_demonstration_shows_its_own_prompts(tmp_path: Path) -> None:
    make_pictures(tmp_path, [word for prompt in SHOWCASE for word in (prompt, f"no {prompt}")])
    model = FakeModel(captioned=True)
    write_report(tmp_path, model=model)
    assert model.calls[0]["prompts"] == list(SHOWCASE)


def test_a_class_model_gets_a_sheet_for_every_class(tmp_path: Path) -> None:
    make_pictures(tmp_path, [None] * 40, ["cat", "dog", "owl", "fish"] * 10)
    model = FakeModel(classes=["cat", "dog", "fish", "owl"])
    reader = Reader(write_report(tmp_path, model=model).read_text())
    assert [call["labels"] for call in model.calls] == [["cat"], ["dog"], ["fish"], ["owl"]]
    assert len(reader.alts("Made by the model: ")) == 32
    seeds = [call["seed"] + k for call in model.calls for k in range(call["num_images"])]
    assert seeds == list(range(32))
    assert "--label cat" in reader.text


def test_an_unconditional_model_gets_a_plain_sheet_beside_real_ones(tmp_path: Path) -> None:
    make_pictures(tmp_path, [None] * 60)
    reader = Reader(write_report(tmp_path, model=FakeModel()).read_text())
    assert len(reader.alts("Made by the model (seed")) == 32
    assert len(reader.alts("Real picture")) == 32
    assert "How it learned" not in reader.text


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_handful_of_pictures_is_enough(tmp_path: Path, count: int) -> None:
    make_pictures(tmp_path, [f"thing {k}" for k in range(count)])
    Reader(write_report(tmp_path, model=FakeModel(captioned=True)).read_text())


def test_the_page_stays_small_with_the_hardest_pictures_to_compress(tmp_path: Path) -> None:
    make_pictures(tmp_path, [f"thing {k}" for k in range(80)], size=64)
    assert write_report(tmp_path, model=FakeModel(captioned=True)).stat().st_size < 4e6


def test_a_folder_without_pictures_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no prepared pictures"):
        write_report(tmp_path, model=FakeModel())


def test_minutes_leave_out_the_pause_of_a_resumed_run() -> None:
    times = [0.0, 30.0, 60.0, 90.0, 10_000.0, 10_030.0]
    records = [{"stage": "vae", "time": time} for time in times]
    assert facts.minutes(records, "vae") == pytest.approx(2.0)
    assert facts.minutes(records, "denoiser") == 0.0


def test_the_run_is_named_as_the_reader_would_type_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert facts.run_name(tmp_path / "runs" / "a b") == "runs/a b"
    model, pictures = FakeModel(captioned=True), make_pictures(tmp_path / "runs" / "a b", ["an owl's nest"] * 4)
    commands = dict(facts.next_commands(tmp_path / "runs" / "a b", model, pictures, "an owl's nest", 40.0))
    assert commands["More pictures"].startswith("""calotype sample 'runs/a b' 'an owl'"'"'s nest' """)
    again = "calotype train sketches --out 'runs/a b' --size 16 --minutes 60"
    assert commands["Train on, with the same settings"] == again
    assert 'sample(["an owl\'s nest"], ' in commands["In Python"]
    python = re.sub(r"calotype\.load\(.*\)", "None", commands["In Python"])
    compile(python, "report", "exec")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.6, "12,346"), (0.27, "0.270"), (22.24, "22.2"), (2e-5, "2e-05"), (999.9, "1,000")],
)
def test_numbers_are_written_as_one_reads_them(value: float, text: str) -> None:
    assert number(value) == text
