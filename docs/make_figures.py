"""Draws the pictures of docs/math.md with the library's own functions: python docs/make_figures.py [--out FOLDER].

Deterministic, half a minute on one core. Needs the extras `plot` and `demo` (pictures: OpenMoji, CC BY-SA 4.0).
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from calotype.core.random import seeded_noise
from calotype.core.types import Denoiser
from calotype.images import SHOWCASE, decode_picture, open_source, to_float, to_uint8
from calotype.network import autoguided, dynamic_thresholding, guided
from calotype.process import (
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    add_noise,
    loss_weight,
    posterior,
    sample_t,
)
from calotype.sampling import ddim_step, ddpm_step, dpmpp_2m_step, sample, sample_frames, timestep_grid
from calotype.sampling.grids import KINDS

INK, GREY = "#24303a", "#8a949c"
BLUE, ORANGE, GREEN, PURPLE, RED, TEAL = "#2b6ca3", "#dd8127", "#4a9a5f", "#7d5aa6", "#c2463f", "#2a9d9d"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, TEAL)


def panels(count: int, width: float = 8.4, height: float = 3.2, **options: Any) -> tuple[Figure, list[Axes]]:
    """A white figure with `count` panels side by side."""
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False, **options)[0])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(GREY)
        ax.tick_params(colors=INK, labelsize=8)
        ax.grid(color="#e8ebed", linewidth=0.8)
        ax.set_axisbelow(True)
    return figure, axes


def label(ax: Axes, title: str, x: str = "", y: str = "") -> None:
    """Words around a panel."""
    ax.set_title(title, fontsize=10, color=INK, loc="left")
    ax.set_xlabel(x, fontsize=9, color=INK)
    ax.set_ylabel(y, fontsize=9, color=INK)


def mixture_denoiser(
    process: Process, points: Tensor, deviation: float = 0.0, labels: Tensor | None = None
) -> Denoiser:
    """E[x0 given x_t] for data spread by `deviation` around `points` (n, d): section 6 of math.md, both cases at once.

    `cond` (b,) asks for the points of one label; -1, or no condition, for all of them.
    """

    def denoiser(x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        x = x_t.flatten(1)
        a, b = process.signal_rate(t)[:, None].to(x), process.noise_rate(t)[:, None].to(x)
        variance = (a * deviation) ** 2 + b**2
        explained = -((a * points.square().sum(1) - 2 * x @ points.T) * a) / (2 * variance)
        if cond is not None and labels is not None:
            explained = explained.masked_fill((cond[:, None] >= 0) & (cond[:, None] != labels), -torch.inf)
        mean = explained.softmax(1) @ points
        return (mean + a * deviation**2 / variance * (x - a * mean)).reshape(x_t.shape)

    return denoiser


def emoji(captions: tuple[str, ...], size: int = 64) -> Tensor:
    """OpenMoji pictures (n, 3, size, size) in [-1, 1] by caption."""
    source = {picture.caption: picture for picture in open_source("openmoji", size=size).pictures}
    return to_float(torch.stack([torch.from_numpy(decode_picture(source[name].read(), size)) for name in captions]))


def in_words(log_snr: Tensor) -> str:
    """A level by its log SNR."""
    return f"$\\lambda$ = {float(log_snr):.1f}".replace("inf", "$\\infty$").replace("-", "\N{MINUS SIGN}")


def show(ax: Axes, image: Tensor, frame: str = "#d5dadd") -> None:
    """One picture (3, h, w) in [-1, 1] without axes."""
    ax.imshow(to_uint8(image).permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color(frame)


def forward() -> Figure:
    """Eq. 1 on a picture, three processes."""
    x0, eps, count = emoji(("owl",)), seeded_noise(torch.tensor([1]), 0, (3, 64, 64)), 8
    rows = {
        "linear": VariancePreserving.linear(),
        "cosine": VariancePreserving.cosine(),
        "straight": RectifiedFlow(),
    }
    figure = Figure(figsize=(8.4, 3.75), dpi=110, layout="constrained")
    grid = figure.subplots(len(rows), count)
    for row, (name, process) in enumerate(rows.items()):
        for column, share in enumerate(torch.linspace(0, 1, count, dtype=torch.float64)):
            t, ax = share * process.t_max, grid[row, column]
            norm = torch.hypot(process.signal_rate(t), process.noise_rate(t)).float()
            show(ax, (add_noise(process, x0, t, eps) / norm)[0])
            ax.set_xlabel(in_words(process.log_snr(t)), fontsize=8, color=INK)
            if row == 0:
                ax.set_title(f"{float(share):.2f}" if column else "$t\\,/\\,t_{max}$ = 0", fontsize=8, color=INK)
        grid[row, 0].set_ylabel(name, fontsize=10, color=INK)
    return figure


def schedules() -> Figure:
    """log SNR along t, and the ways through the plane of signal and noise."""
    processes: dict[str, Process] = {
        "linear": VariancePreserving.linear(),
        "scaled linear": VariancePreserving.scaled_linear(),
        "cosine": VariancePreserving.cosine(),
        "angle": VariancePreserving.angle(),
        "rectified flow": RectifiedFlow(),
        "exploding (EDM)": VarianceExploding(),
    }
    figure, (left, right) = panels(2, height=3.5, width_ratios=(1.35, 1))
    share = torch.linspace(0.001, 1, 999, dtype=torch.float64)
    for (name, process), colour in zip(processes.items(), COLOURS):
        t = share * process.t_max
        left.plot(share, process.log_snr(t), color=colour, label=name, linewidth=1.6)
    no_signal = VariancePreserving.linear(zero_terminal_snr=True).log_snr(share[:-1] * 1000)
    left.plot(share[:-1], no_signal, color=BLUE, linestyle=":", linewidth=1.6, label="linear, zero terminal SNR")
    left.set_ylim(-8, 7)
    left.legend(fontsize=7.5, frameon=False, labelcolor=INK)
    label(left, r"log SNR:  $\lambda = \ln(a/b)$", r"$t\,/\,t_{max}$")
    for log_snr in (-2, -1, 0, 1, 2):
        a, b = torch.tensor(2.0), torch.tensor(2.0 * torch.e ** (-log_snr))
        right.plot([0, a], [0, b], color="#d5dadd", linewidth=1)
        scale = 1.28 / max(float(a), float(b))
        right.text(
            float(a) * scale,
            float(b) * scale,
            f"$\\lambda = {log_snr}$",
            fontsize=7.5,
            color=GREY,
            ha="center",
            va="center",
            backgroundcolor="white",
        )
    for name, colour, text in (
        ("cosine", GREEN, "variance-preserving"),
        ("rectified flow", RED, "rectified flow"),
        ("exploding (EDM)", TEAL, "exploding, up to b = 80"),
    ):
        process = processes[name]
        t = torch.linspace(0, min(process.t_max, 1.2) if name.startswith("ex") else process.t_max, 400).double()
        right.plot(process.signal_rate(t), process.noise_rate(t), color=colour, linewidth=2, label=text)
    right.plot([1], [0], "o", color=INK, markersize=6, zorder=5)
    right.annotate("clean", (1, 0), (1.05, 0.035), fontsize=8, color=INK)
    right.set(xlim=(0, 1.35), ylim=(0, 1.35), aspect="equal")
    right.grid(visible=False)
    right.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="lower left", bbox_to_anchor=(0.0, 0.0))
    label(right, "ways into noise", "a  (signal_rate)", "b  (noise_rate)")
    return figure


def bridge() -> Figure:
    """The posterior q(x_s given x_t, x0) in one dimension."""
    process, t = VariancePreserving.cosine(), torch.tensor(700)
    x0, x_t = torch.tensor([[1.0]], dtype=torch.float64), torch.tensor([[-1.2]], dtype=torch.float64)
    figure, (left, right) = panels(2, height=3.3, width_ratios=(1.25, 1))
    levels = torch.tensor([25, 100, 200, 300, 400, 500, 600, 675])
    x = torch.linspace(-2.2, 2.2, 900, dtype=torch.float64)
    for i, s in enumerate(levels):
        mean, var = posterior(process, x0, x_t, t, s)
        density = torch.exp(-((x - mean[0]) ** 2) / (2 * var)) / var.sqrt()
        shade = i / (len(levels) - 1)
        colour = tuple((1 - shade) * c + shade * d for c, d in zip((0.17, 0.42, 0.64), (0.87, 0.51, 0.15)))
        height = 55 / var.sqrt() / (1 / var.sqrt() + 1.2)  # tall enough to see, low enough to keep apart
        left.fill_between(x, int(s), int(s) + density * var.sqrt() * height, color=colour, alpha=0.75, linewidth=0)
        left.plot(mean[0], [int(s)], "|", color=INK, markersize=5)
    left.plot([-1.2], [700], "o", color=ORANGE)
    left.plot([1.0], [0], "o", color=BLUE)
    left.text(-1.12, 712, "$x_t$", fontsize=10, color=INK)
    left.text(1.08, -6, "$x_0$", fontsize=10, color=INK)
    left.set(xlim=(-2.2, 2.2), ylim=(-30, 770))
    label(left, r"$q(x_s\,|\,x_t, x_0)$ at eight levels $s$", "$x_s$", "$s$")
    s = torch.arange(1, 700)
    deviation = torch.stack([posterior(process, x0, x_t, t, level)[1] for level in s]).sqrt()
    large = torch.stack([(1 - (process.signal_rate(t) / process.signal_rate(level)) ** 2).sqrt() for level in s])
    right.plot(s, process.noise_rate(s), color=GREY, linestyle="--", label=r"$b_s$: $x_0$ known, $x_t$ not")
    right.plot(s, deviation, color=BLUE, linewidth=2, label=r"both known (eq. 14)")
    right.plot(s, large, color=ORANGE, linewidth=1.4, label="large variance (eq. 27)")
    right.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="lower center")
    right.set(xlim=(0, 700), ylim=(0, 1.02))
    label(right, "standard deviation of $x_s$", "$s$")
    return figure


def training() -> Figure:
    """What each weighting makes of the error of x0, and where each density trains."""
    process = VariancePreserving.cosine()
    figure, (left, right) = panels(2, height=3.3)
    t = torch.arange(2, 1000)
    log_snr = process.log_snr(t)
    of_x0 = {name: loss_weight(process, name, "x0", t) for name in ("min-snr", "elbo", "edm")}
    for parameterization in ("x0", "eps", "flow"):  # a constant weight on the prediction is k^2 on x0
        of_x0[f"constant on {parameterization}"] = of_x0["edm"] / loss_weight(process, "edm", parameterization, t)
    names = {"edm": "EDM; constant on v, edm", "elbo": "ELBO", "min-snr": "min-SNR"}
    styles = {"min-snr": "-", "elbo": "-", "edm": "-"}
    middle = int(log_snr.abs().argmin())
    for (name, weight), colour in zip(of_x0.items(), COLOURS):
        shown = weight / weight[middle]
        left.semilogy(log_snr, shown, styles.get(name, "--"), color=colour, linewidth=1.6, label=names.get(name, name))
    left.set(xlim=(-4, 4), ylim=(3e-4, 3e3))
    left.legend(fontsize=7.5, frameon=False, labelcolor=INK)
    label(left, r"weight on the error of $\hat{x}_0$", r"$\lambda$ (noise left, picture right)")
    u = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
    straight = RectifiedFlow()
    for density, colour in zip(("uniform", "logit-normal", "log-normal", "folded-normal"), COLOURS):
        drawn = straight.log_snr(sample_t(straight, u, density))
        height, edges = torch.histogram(drawn, bins=110, range=(-5.5, 5.5), density=True)
        middles = (edges[1:] + edges[:-1]) / 2
        right.plot(middles, height, color=colour, linewidth=1.6, label=density)
    right.set(xlim=(-5, 5), ylim=(0, None))
    right.legend(fontsize=7.5, frameon=False, labelcolor=INK)
    label(right, "density of training levels", r"$\lambda$")
    return figure


def paths() -> Figure:
    """Sample paths over the density of every level, with an exact denoiser of three points."""
    process = VariancePreserving.cosine()
    points = torch.tensor([[-1.5], [0.3], [1.3]], dtype=torch.float64)
    denoiser = mixture_denoiser(process, points, deviation=0.04)
    starts = torch.tensor([[-1.7], [-0.75], [-0.3], [0.35], [0.8], [1.6]], dtype=torch.float64)
    grid = timestep_grid(process, 80, "trailing")
    figure, axes = panels(3, height=3.3, sharey=True)
    x, levels = torch.linspace(-3, 3, 361).double(), torch.linspace(1, 1000, 300).double()
    a, b = process.signal_rate(levels), process.noise_rate(levels)
    deviation = (b**2 + (0.04 * a) ** 2).sqrt()
    spread = (x[:, None, None] - (a[:, None] * points.T)) / deviation[:, None]
    density = torch.exp(-spread.square() / 2).mean(-1) / deviation
    shade = (density / density.max(0).values) ** 0.7
    titles = (r"$x_t$ by DDIM: one way each", r"$\hat{x}_0$ on these ways", r"$x_t$ by DDPM, same starts")
    for ax, title in zip(axes, titles):
        if ax is axes[1]:
            ax.hlines(points, -12, 1000, color=GREY, linewidth=0.8, linestyle=":")
        else:
            ax.imshow(shade, extent=(1, 1000, -3, 3), origin="lower", aspect="auto", cmap="Greys", vmax=2.0, vmin=0)
        ax.grid(visible=False)
        ax.set(xlim=(1000, -12), ylim=(-3, 3))
        label(ax, title, "$t$", "$x$" if ax is axes[0] else "")
    for step, ax in ((ddim_step, axes[0]), (ddpm_step, axes[2])):
        frames = list(
            sample_frames(
                denoiser,
                process,
                starts,
                grid,
                step=step,
                noise=lambda i, x_t: seeded_noise(torch.arange(6), i + 1, (1,)),
            )
        )
        x_t = torch.stack([frame.x_t[:, 0] for frame in frames])
        belief = torch.stack([frame.x0_hat[:, 0] for frame in frames if frame.x0_hat is not None])
        for i, colour in enumerate(COLOURS):
            ax.plot(grid, x_t[:, i], color=colour, linewidth=1.3)
            if step is ddim_step:
                axes[1].plot(grid[:-1], belief[:, i], color=colour, linewidth=1.3)
    return figure


def belief() -> Figure:
    """x_t and x0_hat of an exact denoiser that knows 32 pictures and nothing else."""
    process, pictures = VariancePreserving.cosine(), emoji(SHOWCASE)
    denoiser = mixture_denoiser(process, pictures.flatten(1))
    noise = seeded_noise(torch.tensor([19]), 0, (3, 64, 64))
    middle = process.t_from_log_snr(torch.linspace(-5, -1, 9, dtype=torch.float64))  # where the choice is made
    grid = torch.cat([torch.tensor([process.t_max]), middle, torch.zeros(1)])
    frames = list(sample_frames(denoiser, process, noise, grid, step=dpmpp_2m_step))
    beliefs = [frame.x0_hat for frame in frames[1:]] + [frames[-1].x_t]
    figure = Figure(figsize=(8.4, 1.8), dpi=120, layout="constrained")
    axes = figure.subplots(2, len(frames))
    for column, (frame, x0_hat) in enumerate(zip(frames, beliefs)):
        show(axes[0, column], frame.x_t[0])
        show(axes[1, column], x0_hat[0])
        axes[0, column].set_title(in_words(process.log_snr(frame.t)), fontsize=8, color=INK)
    axes[0, 0].set_ylabel("$x_t$", fontsize=10, color=INK)
    axes[1, 0].set_ylabel(r"$\hat{x}_0$", fontsize=10, color=INK)
    return figure


def grids() -> Figure:
    """The noisy levels of each grid on an axis of log SNR."""
    process = VariancePreserving.cosine()
    figure, (ax,) = panels(1, height=2.7)
    rows = {kind: timestep_grid(process, 12, kind) for kind in KINDS}
    rows["trailing, shift 3"] = timestep_grid(process, 12, "trailing", shift=3.0)
    for row, (levels, colour) in enumerate(zip(rows.values(), (*COLOURS, INK))):
        log_snr = process.log_snr(levels[:-1])
        ax.plot([-10.4, 5.4], [row, row], color="#e8ebed", linewidth=1)
        ax.plot(log_snr, [row] * len(log_snr), "o", color=colour, markersize=5.5)
    ax.set(yticks=range(len(rows)), yticklabels=list(rows), xlim=(-10.4, 5.4), ylim=(len(rows) - 0.5, -0.5))
    ax.grid(visible=False, axis="y")
    label(ax, "twelve steps, seven grids", r"$\lambda$ (noise left, picture right)")
    return figure


def guidance() -> Figure:
    """Guidance in two dimensions: two crescents, samples of the lower one."""
    process = VariancePreserving.cosine()
    angle = torch.linspace(0.0, torch.pi, 60, dtype=torch.float64)
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], 1)
    lower = torch.stack([0.5 - angle.cos(), 0.25 - angle.sin()], 1)
    points, labels = torch.cat([upper, lower]) * 1.3, torch.arange(120) // 60
    strong = mixture_denoiser(process, points, 0.11, labels)
    weak = mixture_denoiser(process, points, 0.45, labels)
    nothing = torch.tensor([-1])
    denoisers: dict[str, Denoiser] = {
        "w = 1": guided(strong, 1.0, nothing),
        "w = 4": guided(strong, 4.0, nothing),
        "w = 4 for 200 < t < 600": guided(strong, 4.0, nothing, interval=(200, 600)),
        "autoguidance, w = 2": autoguided(strong, weak, 2.0),
    }
    figure, axes = panels(4, height=2.05, sharex=True, sharey=True)
    x_t = seeded_noise(torch.arange(500), 0, (2,)).double()
    cloud = points.repeat(8, 1) + 0.11 * seeded_noise(torch.arange(960), 1, (2,))
    for ax, (name, denoiser) in zip(axes, denoisers.items()):
        x0 = sample(denoiser, process, x_t, timestep_grid(process, 40), cond=torch.ones(500, dtype=torch.int64))
        ax.plot(cloud[:, 0], cloud[:, 1], ".", color="#d9dee2", markersize=2.2)
        ax.plot(x0[:, 0], x0[:, 1], ".", color=BLUE, markersize=2.6)
        ax.set(xlim=(-2.45, 2.45), ylim=(-1.75, 1.75), xticks=[], yticks=[], aspect="equal")
        ax.spines[["left", "bottom"]].set_visible(False)
        label(ax, name)
        ax.title.set_fontsize(9)
    return figure


def threshold() -> Figure:
    """Dynamic thresholding against the static clip on an inflated sample."""
    bound = 2.81
    sample_of_data = seeded_noise(torch.tensor([3]), 0, (40_000,)).double()
    inflated = 2 * sample_of_data
    tamed, clamped = dynamic_thresholding(inflated, 99.5, bound), inflated.clamp(-bound, bound)
    figure, (left, right) = panels(2, height=3.2, width_ratios=(1, 1.3))
    order = inflated[0].argsort()
    left.plot(inflated[0, order], inflated[0, order], color=GREY, linewidth=1, linestyle="--", label="as it came")
    left.plot(inflated[0, order], clamped[0, order], color=ORANGE, linewidth=1.8, label="static clip (eq. 41)")
    left.plot(inflated[0, order], tamed[0, order], color=BLUE, linewidth=1.8, label="dynamic (eq. 40)")
    left.set(xlim=(-7.5, 7.5), ylim=(-4.4, 4.4))
    left.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="upper left")
    label(left, "a value before and after", r"$\hat{x}_0$ before", r"$\hat{x}_0$ after")
    for values, colour, name in ((inflated, GREY, "as it came"), (clamped, ORANGE, "static"), (tamed, BLUE, "dynamic")):
        edges = (torch.arange(-37, 37, dtype=torch.float64) + 0.5) * (bound / 14)  # a bound is the middle of a bin
        height, _ = torch.histogram(values[0], bins=edges, density=True)
        right.stairs(height, edges, color=colour, linewidth=1.6, fill=False, label=name)
    for side in (-bound, bound):
        right.axvline(side, color=INK, linewidth=0.8, linestyle=":")
    right.set(xlim=(-7.4, 7.4), ylim=(0, 0.5))
    right.text(bound + 0.12, 0.47, "bound", fontsize=8, color=INK)
    right.legend(fontsize=7.5, frameon=False, labelcolor=INK, loc="upper left")
    label(right, "a sample's values, its spread inflated twofold", r"$\hat{x}_0$")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "math-forward": forward,
    "math-schedules": schedules,
    "math-posterior": bridge,
    "math-training": training,
    "math-paths": paths,
    "math-belief": belief,
    "math-grids": grids,
    "math-guidance": guidance,
    "math-threshold": threshold,
}


def save(figure: Figure, path: Path) -> None:
    """A PNG of 256 colours: a third of the bytes, and the same bytes every time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white", metadata={"Software": None})
    image = Image.open(buffer).convert("RGB")
    image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draw the pictures of docs/math.md.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    parser.add_argument("--only", choices=list(FIGURES), help="draw this one")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        if options.only in (None, name):
            save(draw(), options.out / f"{name}.png")


if __name__ == "__main__":
    main()
