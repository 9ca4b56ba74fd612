"""Networks that other libraries run for us: quietly, on as many threads as torch uses, faults told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

from calotype.core.errors import UserError


def onnx_session(onnxruntime: Any, model: str | bytes, *, log_severity: int = 3, threads: int | None = None) -> Any:
    """An inference session of a file's path or content, whose threads do not spin while they wait; nothing is reported.

    `log_severity`: of the messages that reach stderr, 3 errors, 4 none but the fatal ones. `threads`: as many as torch
    uses where it is None, which is when torch has to be loaded.
    """
    if threads is None:
        import torch

        threads = torch.get_num_threads()
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = log_severity
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """What transformers says of a folder that it cannot use, as a UserError that begins with `what`."""
    try:
        yield
    except Exception as error:  # it raises OSError, ValueError, KeyError, RuntimeError and SafetensorError alike
        if isinstance(error, UserError):
            raise
        raise UserError(f"{what} ({shorten(str(error), 160)})", "restore its files, or choose another") from None


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """No progress bars or reports of transformers; the user's own choice is restored."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
