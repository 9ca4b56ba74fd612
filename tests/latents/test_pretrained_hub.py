"""VAEs of the hub: a cache made by hand, and a hub of our own on this host that the real client talks to."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from calotype.core.errors import UserError
from calotype.latents.pretrained import load_pretrained_vae
from tests.latents.pretrained_making import WEIGHTS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """What the hub's client asks of huggingface.co: the revision, the list of files, and each file."""

    files: dict[str, bytes]
    refusal: tuple[int, str] | None
    asked: list[str]
    agents: set[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.agents.add(self.headers["User-Agent"])
        path = self.path.split("?")[0]
        self.asked.append(path)
        _, _, name = path.partition(f"/resolve/{COMMIT}/")
        if self.refusal is not None:
            self.answer(self.refusal[0], b"{}", {"X-Error-Code": self.refusal[1]})
        elif "/tree/" in path:
            entries = [{"type": "file", "path": n, "size": len(c), "oid": COMMIT} for n, c in self.files.items()]
            self.answer(200, json.dumps(entries).encode())
        elif path.startswith("/api/models/"):
            self.answer(200, json.dumps({"id": "owner/name", "modelId": "owner/name", "sha": COMMIT}).encode())
        elif name in self.files:
            self.answer(200, self.files[name], {"ETag": f'"{name.replace("/", "-")}"', "X-Repo-Commit": COMMIT})
        else:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and the network not switched off by the environment that runs the tests."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "cache"


def keep(cache: Path, saved: Path, inside: str = "") -> Path:
    """Put the saved folder into the cache as the model owner/name; its snapshot."""
    model = cache / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    shutil.copytree(saved, model / "snapshots" / COMMIT / inside)
    return model / "snapshots" / COMMIT


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub on this host, its address given to the client; nothing of it is left afterwards."""
    import huggingface_hub
    from huggingface_hub import constants

    handler = type("OneHub", (Hub,), {"files": {}, "refusal": None, "asked": [], "agents": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    huggingface_hub.close_session()
    yield handler
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("inside", ["", "vae"])
def test_cached_copy_needs_no_network(cache: Path, saved: Path, hub: type[Hub], inside: str) -> None:
    keep(cache, saved, inside)
    vae = load_pretrained_vae("owner/name")
    assert vae.config.source == "owner/name"
    assert vae.fingerprint == load_pretrained_vae(saved).fingerprint
    assert hub.asked == []


def test_cached_half_precision_copy(cache: Path, saved: Path, hub: type[Hub]) -> None:
    snapshot = keep(cache, saved)
    (snapshot / WEIGHTS).rename(snapshot / "diffusion_pytorch_model.fp16.safetensors")
    assert load_pretrained_vae("owner/name").fingerprint == load_pretrained_vae(saved).fingerprint
    assert hub.asked == []


@pytest.mark.parametrize("inside", ["", "vae/"])
def test_user_who_is_online_downloads_what_is_needed_and_no_more(
    cache: Path, saved: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    needed = {f"{inside}{name}": (saved / name).read_bytes() for name in ("config.json", WEIGHTS)}
    beside = ["v1-5-pruned.safetensors", "diffusion_pytorch_model.bin", "unet/config.json", f"unet/{WEIGHTS}"]
    hub.files = {**needed, **dict.fromkeys(beside, b"{}")}
    vae = load_pretrained_vae("owner/name")
    assert vae.config.source == "owner/name"
    assert vae.fingerprint == load_pretrained_vae(saved).fingerprint
    assert {path.partition(COMMIT + "/")[2] for path in hub.asked if "/resolve/" in path} == set(needed)
    assert not any("torch/" in agent or "agent/" in agent for agent in hub.agents), "nothing told of the user's tools"
    assert constants.HF_HUB_DISABLE_TELEMETRY is False, "the user's own choice stands"
    assert constants.HF_HUB_OFFLINE is False
    hub.asked.clear()
    load_pretrained_vae("owner/name")
    assert hub.asked == [], "the second time from the cache"


def test_half_a_cached_copy_is_completed(cache: Path, saved: Path, hub: type[Hub]) -> None:
    (keep(cache, saved) / WEIGHTS).unlink()
    hub.files = {name: (saved / name).read_bytes() for name in ("config.json", WEIGHTS)}
    assert load_pretrained_vae("owner/name").fingerprint == load_pretrained_vae(saved).fingerprint


def test_offline_says_what_to_download_and_where_to_put_it(
    cache: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError) as caught:
        load_pretrained_vae("owner/name")
    assert str(caught.value) == (
        f"'owner/name' is neither a folder nor in {cache}, and not to be had now (HF_HUB_OFFLINE is set): "
        f"download config.json and {WEIGHTS} (a pipeline has them in vae/) of {constants.ENDPOINT}/owner/name "
        "into a folder and give that"
    )
    assert hub.asked == []


def test_half_a_cached_copy_without_a_connection_says_so(
    cache: Path, saved: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    (keep(cache, saved) / WEIGHTS).unlink()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=rf"'owner/name' is here in part, without {WEIGHTS} .*: go online once"):
        load_pretrained_vae("owner/name")


def test_no_connection(cache: Path, hub: type[Hub], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the port where nobody answers
    with pytest.raises(UserError, match=r"not to be had now \(ConnectError\): download config.json and"):
        load_pretrained_vae("owner/name")
    assert hub.asked == []


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((404, "RepoNotFound"), r"^'owner/name' is neither a folder nor a public model of the hub: check the name"),
        ((403, "GatedRepo"), r"http://127.0.0.1:\d+/owner/name asks its users to agree first: .* hf auth login"),
    ],
)
def test_refused_by_the_hub(hub: type[Hub], refusal: tuple[int, str], words: str) -> None:
    hub.refusal = refusal
    with pytest.raises(UserError, match=words):
        load_pretrained_vae("owner/name")


def test_model_without_a_vae(hub: type[Hub]) -> None:
    hub.files = {"unet/config.json": b"{}"}
    with pytest.raises(UserError, match=r"'owner/name' has no config.json, of its own or in vae/: choose an Autoenc"):
        load_pretrained_vae("owner/name")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_stays_a_full_disk(hub: type[Hub], monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    import huggingface_hub

    def full(*_: Any, **__: Any) -> str:
        raise OSError(number, "full")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(OSError, match="full"):
        load_pretrained_vae("owner/name")
