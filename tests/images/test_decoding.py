"""Decoding in other processes: in order, the same as here, and no decoder's end is the run's."""

import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from calotype.core.errors import UserError
from calotype.images import decoding
from calotype.images.decode import Transform, UnreadablePictureError, decode
from calotype.images.decoder_pool import DecoderPool, decoder_command
from calotype.images.decoding import Outcome, decode_pictures
from calotype.images.source import Picture
from tests.images.exotic import corners, exotic_files
from tests.images.making import noise_png

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "mutated_pictures.py"

# A decoder that does what the file's bytes say, to be started in place of the real one.
FAKE = """
import os, signal, sys, time
sys.path[:0] = {path!r}
from calotype.images import decoder_process
from calotype.images.decode import Transform, UnreadablePictureError
def decode(content, transform):
    if content == b"sleep":
        time.sleep(60)
    elif content == b"spin":
        while True: pass
    elif content == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif content == b"crash":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif content == b"exit":
        os._exit(3)
    elif content == b"allocate":
        bytearray(64 * 2**30)
    elif content == b"print":
        os.write(1, b"x" * 100)
        print("y" * 100, flush=True)
    elif content == b"nonsense":
        os.write(3, b"z" * 100)
    raise UnreadablePictureError(f"{{content.decode()}} by {{os.getpid()}}")
decoder_process.decode = decode
decoder_process.serve({{"size": 8, "background": [0, 0, 0]}}, {seconds})
"""


def fake(seconds: float = 60.0) -> list[str]:
    code = FAKE.format(path=[path for path in sys.path if path], seconds=seconds)
    return [sys.executable, "-I", "-S", "-c", code]


def reason(pool: DecoderPool, content: bytes) -> str:
    with pytest.raises(UnreadablePictureError) as caught:
        pool.decode(content)
    return str(caught.value)


def pictures(contents: list[bytes]) -> list[Picture]:
    return [Picture(str(number), lambda content=content: content) for number, content in enumerate(contents)]  # type: ignore[misc]


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_exotic_file_is_accepted_and_looks_right() -> None:
    files = exotic_files()
    assert len(files) >= 80
    given = [Picture(name, lambda file=file: file.content) for name, file in files.items()]  # type: ignore[misc]
    for picture, outcome in decode_pictures(given, Transform(32)):
        assert outcome.decoded is not None, (picture.name, outcome.reason)
        file, found = files[picture.name], corners(outcome.decoded.pixels[0])
        assert np.abs(found - np.array(file.expected)).max() <= file.within, (picture.name, found)


def test_outcomes_are_in_order_and_the_same_as_here() -> None:
    contents = [noise_png(number, size=16 + number) for number in range(40)]
    contents[7] = contents[7][:50]
    transform = Transform(8, "random", 3, (10, 20, 30))
    found = list(decode_pictures(pictures(contents), transform))
    assert [picture.name for picture, _ in found] == [str(number) for number in range(40)]
    for content, (_, outcome) in zip(contents, found, strict=True):
        assert (outcome.digest, outcome.bytes) == (sha256(content).hexdigest(), len(content))
        if len(content) == 50:
            assert outcome.decoded is None
            assert "truncated" in outcome.reason
            continue
        here = decode(content, transform)
        assert outcome.decoded is not None
        assert np.array_equal(outcome.decoded.pixels, here.pixels)
        assert vars(outcome.decoded) | {"pixels": None} == vars(here) | {"pixels": None}
        assert outcome.decoded.pixels.flags.writeable


def test_facts_of_an_animation() -> None:
    found = decode(exotic_files()["gif animated"].content, Transform(8))
    assert (found.format, found.mode, found.width, found.height, found.frames) == ("GIF", "P", 32, 32, 3)
    lying = decode(exotic_files()["jpeg turned 6"].content, Transform(8))
    assert (lying.format, lying.mode, lying.width, lying.height, lying.frames) == ("JPEG", "RGB", 48, 32, 1)
    large = decode(exotic_files()["jpeg large cmyk"].content, Transform(8))
    assert (large.mode, large.width, large.height) == ("CMYK", 1500, 1500)  # not what the draft was


def test_nothing_to_decode_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert list(decode_pictures([], Transform(8))) == []


def test_what_cannot_be_read_is_refused_and_other_errors_come_out() -> None:
    def failing(error: BaseException) -> Callable[[], bytes]:
        def read() -> bytes:
            raise error

        return read

    given = [
        Picture("disk", failing(OSError("input/output error"))),
        Picture("member", failing(UnreadablePictureError("too large"))),
        Picture("fine", lambda: noise_png(1)),
    ]
    outcomes = [outcome for _, outcome in decode_pictures(given, Transform(8))]
    assert outcomes[:2] == [Outcome(None, reason="input/output error"), Outcome(None, reason="too large")]
    assert outcomes[2].decoded is not None
    with pytest.raises(KeyboardInterrupt):
        list(decode_pictures([*given, Picture("last", failing(KeyboardInterrupt()))], Transform(8)))


def test_closing_early_leaves_no_process() -> None:
    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield Picture("x", lambda: noise_png(1))

    before = threading.active_count()
    with closing(decode_pictures(endless(), Transform(8))) as outcomes:
        next(outcomes)
    assert threading.active_count() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no child is left, not even a dead one


@pytest.mark.timeout(60)
def test_closing_early_gives_up_a_hanging_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "decoder_command", lambda *_: fake(seconds=1e5))
    with closing(decode_pictures(pictures([b"fine"] + [b"spin"] * 20), Transform(8), seconds=1e5)) as outcomes:
        assert next(outcomes)[1].reason.startswith("fine by")


def test_a_dead_decoder_costs_one_picture() -> None:
    with DecoderPool(fake(), processes=1, seconds=60) as pool:
        first = reason(pool, b"fine")
        os.kill(int(first.split()[-1]), signal.SIGINT)  # Ctrl-C is not meant for it
        assert reason(pool, b"fine") == first
        assert reason(pool, b"kill") == "its decoder was killed by SIGKILL (out of memory?)"
        second = reason(pool, b"fine")
        assert second.startswith("fine by")
        assert second != first
        assert reason(pool, b"crash") == "its decoder was killed by SIGSEGV"
        assert reason(pool, b"exit") == "its decoder ended with status 3"
        assert reason(pool, b"allocate") == "its decoder ended with status 1"  # MemoryError, at 2 GiB
        assert reason(pool, b"nonsense") == "its decoder's answer made no sense"
        assert reason(pool, b"print").startswith("print by")  # what libraries print is not taken for an answer


def test_a_hanging_decoder_costs_one_picture() -> None:
    with DecoderPool(fake(), processes=1, seconds=0.5) as pool:
        for how in (b"sleep", b"spin"):
            assert reason(pool, how) == "its decoder took more than 0.5 s"
            assert reason(pool, b"fine").startswith("fine by")


def test_a_decoder_that_died_while_idle_is_replaced() -> None:
    with DecoderPool(fake(), processes=1, seconds=60) as pool:
        process = int(reason(pool, b"fine").split()[-1])
        os.kill(process, signal.SIGKILL)
        os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert reason(pool, b"fine").startswith("fine by")


def test_stopping_does_not_wait_for_a_hanging_decoder() -> None:
    with DecoderPool(fake(), processes=1, seconds=60) as pool:
        process = int(reason(pool, b"fine").split()[-1])
        heard: list[str] = []
        thread = threading.Thread(target=lambda: heard.append(reason(pool, b"sleep")))
        thread.start()
        pool.stop()
        thread.join(20)
        assert reason(pool, b"fine") == "stopped"
    assert len(heard) == 1
    assert not alive(process)


def test_a_decoder_that_does_not_start_is_one_line() -> None:
    with (
        DecoderPool([sys.executable, "-c", "raise SystemExit(5)"], processes=1, seconds=1) as pool,
        pytest.raises(UserError, match=r"does not start: its decoder ended with status 5: see what .*import calotype"),
    ):
        pool.decode(b"x")
    with (
        DecoderPool(["/no/such/python"], processes=1, seconds=1) as pool,
        pytest.raises(UserError, match="No such file"),
    ):
        pool.decode(b"x")


def test_the_real_decoder_bounds_its_memory_and_loads_little() -> None:
    """What the real command imports; and that a picture which takes too much is a refusal in plain words."""
    command = decoder_command(Transform(8), 30.0)
    code = command[4].replace(
        "serve(transform",
        "import calotype.images.decode as d\nd._decoded = lambda *_: bytearray(3 * 2**30)\nserve(transform",
    )
    with DecoderPool([*command[:4], code, *command[5:]], processes=1, seconds=30) as pool:
        assert "more memory than is allowed" in reason(pool, noise_png(1))
    code = command[4].replace("serve(transform, seconds)", "print(*sys.modules)")
    loaded = subprocess.run(
        [*command[:4], code, *command[5:]], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "calotype.images.decode" in loaded
    assert not {"torch", "pydantic", "multiprocessing", "site"} & set(loaded)


def test_a_script_without_a_guard_is_run_once_and_its_kill_leaves_no_decoder(tmp_path: Path) -> None:
    """The decoders of a parent that is gone at once (kill -9) go too, the hanging one by its own alarm."""
    script = tmp_path / "own.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal, sys
        from calotype.images.decode import Transform
        from calotype.images.decoding import decode_pictures
        from calotype.images.source import Picture
        print("run", flush=True)
        content = open(sys.argv[1], "rb").read()
        outcomes = decode_pictures([Picture(str(i), lambda: content) for i in range(99)], Transform(8))
        print(next(outcomes)[1].decoded.pixels.shape, flush=True)
        children = open(f"/proc/self/task/{os.getpid()}/children").read() if os.path.exists("/proc/self") else ""
        print(children, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    (tmp_path / "one.png").write_bytes(noise_png(1))
    done = subprocess.run([sys.executable, script, tmp_path / "one.png"], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    said = done.stdout.splitlines()
    assert said[:2] == ["run", "(1, 3, 8, 8)"]
    until = time.monotonic() + 20
    while any(alive(int(process)) for process in said[2].split()):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_alarm_ends_a_decoder_whose_parent_is_gone() -> None:
    """It is armed in the process itself: here it goes off below the parent's own, far longer limit."""
    command = fake(seconds=-4.5)  # with the grace of 5 s: half a second
    with DecoderPool(command, processes=1, seconds=60) as pool:
        assert reason(pool, b"spin") == "its decoder was killed by SIGALRM"


def test_mutated_pictures(tmp_path: Path) -> None:
    """The benchmark's damages and bombs, a few of each: every file is a row or refused, and what is whole a row."""
    spec = importlib.util.spec_from_file_location("mutated_pictures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.trial(tmp_path, 160, 0, 16, 30.0)
    assert (found["crashes"], found["intact_refused"], found["files"]) == ([], [], 160)
    assert found["intact"] == found["accepted_by_kind"]["intact"] >= 80
    assert found["refused"] > 20
    assert set(script.HOSTILE) <= {*found["refused_by_kind"], *found["accepted_by_kind"]}
