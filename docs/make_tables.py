"""Writes docs/orders.md: python docs/make_tables.py, from the root of the repository (half a minute)."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

HEAD = """# Orders of the samplers

Made by `docs/make_tables.py` and compared with a fresh measurement by `tests/sampling/test_way_orders.py`.

The data are normal, N(0, 0.5²), so the denoiser has a closed form and what a solver makes of q(x_t) is again normal:
its standard deviation is carried along exactly, in float64, as the coefficients of x on independent unit noises. There
is no sampling error. A run starts from the exact q(x_t) at t = 0.98 t_max, visits K levels that are even in
log_snr = ln(signal_rate/noise_rate), and ends at t = 0.02 t_max, away from both ends of the range, where log_snr is
infinite or nearly so: the step that lands on t = 0 is measured by itself in `tests/sampling/test_way_gaussian.py`.
The error is that of the standard deviation at the end, relative. The order is the slope of the last doubling,
log2(error at K = {before} / error at K = {last}): 1 for DDPM, DDIM, the seed's alpha step and Euler (the last three are
one step in three notations), 2 for the others.
"""


def orders(measured: dict[tuple[str, str], list[float]]) -> str:
    """The page, from the relative errors at COUNTS of every (family, sampler)."""
    from tests.sampling.oracles import COUNTS, slope

    families, samplers = (list(dict.fromkeys(names)) for names in zip(*measured))
    slopes = [[family, *(f"{slope(*measured[family, name][-2:]):.2f}" for name in samplers)] for family in families]
    errors = [
        [family, name, *(f"{error:.2e}" for error in measured[family, name])]
        for family in families
        for name in samplers
    ]
    return "\n".join(
        [
            HEAD.format(before=COUNTS[-2], last=COUNTS[-1]),
            "## Order\n",
            *table(["family", *samplers], slopes),
            "\n## Error\n",
            *table(["family", "sampler", *(f"K = {count}" for count in COUNTS)], errors),
            "",
        ]
    )


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from tests.sampling.oracles import measured_orders

    (ROOT / "docs" / "orders.md").write_text(orders(measured_orders()))
