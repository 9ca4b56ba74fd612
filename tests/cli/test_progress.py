"""Plain lines where there is no terminal, live rows where there is one."""

import io

import pytest

from calotype.cli.progress import PlainReporter, clock, open_reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (-1, "0:00")]
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_plain_lines_come_every_ten_seconds_and_at_the_end() -> None:
    stream, time = io.StringIO(), iter(range(1000))
    reporter = PlainReporter(stream, now=lambda: float(next(time)))
    reporter.stage("vae", "0.7 M parameters")
    for done in range(1, 26):
        reporter.update(done, 25, rate=101.4, eta=25 - done, losses={"reconstruction": 0.0712345})
    assert stream.getvalue().splitlines() == [
        "vae: 0.7 M parameters",
        "vae: 10/25, 101 pictures/s, 0:15 left, reconstruction 0.0712",
        "vae: 20/25, 101 pictures/s, 0:05 left, reconstruction 0.0712",
        "vae: 25/25, 101 pictures/s, 0:00 left, reconstruction 0.0712",
    ]


def test_an_unknown_total_and_hostile_words_are_shown_plainly() -> None:
    stream = io.StringIO()
    with open_reporter(stream) as reporter:
        reporter.say("read a\nb\x1b[2J")
        reporter.stage("pictures")
        reporter.update(1234, None, unit="files/s", rate=3.14159)
    assert stream.getvalue().splitlines() == ["read a b [2J", "pictures"]


def test_a_terminal_shows_each_stage_and_is_given_back() -> None:
    stream = Terminal()

    def work() -> None:
        with open_reporter(stream) as reporter:
            reporter.update(1, None)
            reporter.stage("vae", "note [bold]")
            reporter.update(5, 10, rate=250, eta=61, losses={"kl": 0.5})
            reporter.warn("a [red]file[/red] was refused")
            reporter.stage("denoiser")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    shown = stream.getvalue()
    for part in ("vae", "denoiser", "5/10, 250 pictures/s", "a [red]file[/red] was refused"):
        assert part in shown
    assert shown.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"
