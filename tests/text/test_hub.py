"""An encoder by hub id: the cache first, without the network; else downloaded, or told how to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from calotype.core.errors import UserError
from calotype.text import encoder_fingerprint, load_text_encoder
from tests.text import encoders

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, the client not switched off, and no hub at the other end."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "cache"


@pytest.fixture
def snapshot(cache: Path) -> Path:
    """The encoder owner/name in the cache."""
    model = cache / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    return encoders.save(model / "snapshots" / COMMIT)


def test_a_cached_copy_needs_no_network(snapshot: Path, tmp_path: Path) -> None:
    encoder = load_text_encoder("owner/name")
    assert encoder.id == "owner/name"
    assert encoder.encode(["a cat"]).pooled.shape == (1, 12)
    copy = shutil.copytree(snapshot, tmp_path / "copy")
    assert encoder.fingerprint == encoder_fingerprint("owner/name") == encoder_fingerprint(str(copy))


def test_half_a_cached_copy_is_completed_with_what_is_needed(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    whole = tmp_path / "whole"
    shutil.copytree(snapshot, whole)
    (snapshot / "model.safetensors").unlink()
    asked: list[list[str]] = []

    def download(hub_id: str, *, allow_patterns: list[str]) -> str:
        assert constants.HF_HUB_DISABLE_TELEMETRY, "nothing is told of the user's tools"
        asked.append(allow_patterns)
        shutil.copy(whole / "model.safetensors", snapshot)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert encoder_fingerprint("owner/name") == encoder_fingerprint(str(whole))
    assert len(asked) == 1
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(asked[0])
    assert not [name for name in asked[0] if name.endswith((".bin", ".py", "*"))]
    assert constants.HF_HUB_DISABLE_TELEMETRY is False, "the user's own choice stands"


def test_half_a_cached_copy_without_a_network_says_so(snapshot: Path) -> None:
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"'owner/name' is in the hub's cache in part .*: go online once, or download"):
        load_text_encoder("owner/name")


@pytest.mark.parametrize(("offline", "reason"), [(True, "HF_HUB_OFFLINE is set"), (False, "ConnectError")])
def test_without_a_network_it_says_what_to_download_and_where_to_put_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, offline: bool, reason: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(UserError) as caught:
        load_text_encoder("owner/name")
    assert str(caught.value) == (
        f"'owner/name' is neither a folder nor in {cache}, and not to be had now ({reason}): download config.json, "
        "model.safetensors and tokenizer.json of http://127.0.0.1:9/owner/name into a folder and give that"
    )
