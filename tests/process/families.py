"""One process of every family, for tests that hold for all of them."""

import torch

from calotype.process import Process, RectifiedFlow, VarianceExploding, VariancePreserving

FAMILIES: dict[str, Process] = {
    "linear": VariancePreserving.linear(),
    "scaled-linear": VariancePreserving.scaled_linear(),
    "cosine": VariancePreserving.cosine(),
    "linear-zero-terminal": VariancePreserving.linear(zero_terminal_snr=True),
    "short-table": VariancePreserving.linear(20, 0.005, 0.6),
    "angle": VariancePreserving.angle(),
    "flow": RectifiedFlow(),
    "exploding": VarianceExploding(),
}


def float64(*values: float) -> torch.Tensor:
    """A list of numbers in double precision."""
    return torch.tensor(values, dtype=torch.float64)


def close(actual: torch.Tensor, expected: torch.Tensor, rtol: float = 1e-12, atol: float = 0.0) -> None:
    """torch.testing.assert_close without its first call's seconds of imports; shape and dtype must agree too."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    near = torch.isclose(actual, expected, rtol=rtol, atol=atol)
    assert near.all(), f"{actual[~near][:5].tolist()} should be {expected[~near][:5].tolist()}"


def read(name: str) -> str:
    """The same word as a new object, as names read from a file are: `is` must not pass for `==`."""
    return "".join(list(name))
