"""One process of every family, for tests that hold for all of them."""

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
