"""Folders of the Hugging Face hub: a copy in its cache is used without the network, else one is downloaded."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calotype.core.errors import UserError

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)


def cached(hub_id: str, names: Sequence[str]) -> Path | None:
    """This id's folder in the cache, if one of the files `names` is there; never asks the network.

    The hub's own look-up of whole snapshots takes one for missing that was downloaded in part, as all of ours are.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(hub_id, name)
        if isinstance(found, str):
            return Path(found.removesuffix(name))
    return None


def downloaded(hub_id: str, patterns: list[str], wanted: str) -> Path:
    """Download the files that fit `patterns`. What went wrong is one line, with the way without a network: `wanted`."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    page = f"{constants.ENDPOINT}/{hub_id}"
    try:
        with _no_telemetry(constants):
            return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except GatedRepoError:
        raise UserError(f"{page} asks its users to agree first", "do so there, then: hf auth login") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"'{hub_id}' is neither a folder nor a public model of the hub", "check the name; if private: hf auth login"
        ) from None
    except Exception as error:  # the hub's HTTP library, and so its errors, differ between releases
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else type(error.__cause__ or error).__name__
        raise UserError(
            f"'{hub_id}' is neither a folder nor in {constants.HF_HUB_CACHE}, and not to be had now ({reason})",
            f"download {wanted} of {page} into a folder and give that",
        ) from None


@contextmanager
def _no_telemetry(constants: Any) -> Iterator[None]:
    """Keep the hub's client from telling the versions and the tool it runs under; the user's own choice is restored."""
    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before
