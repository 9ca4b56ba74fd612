"""docs/math.md: numbered without gaps, cited truly, drawn from the library, and safe for GitHub's renderer."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

from calotype.process import RectifiedFlow

ROOT = Path(__file__).parents[2]
MATH = (ROOT / "docs" / "math.md").read_text()
EQUATIONS = 71
NUMBERS = r"\d+(?:(?:-|, | and )\d+)*"
OF_A_PAPER = re.compile(rf"\b(?:19|20)\d\d\b[^.;]{{0,20}}\beqs?\.\s{NUMBERS}")
OURS = re.compile(rf"\b[Ee]qs?\.\s({NUMBERS})")

CITED = {
    "process.add_noise": [1],
    "process.noise_angle": [54],
    "process.posterior": [13, 14],
    "process.NoiseSchedule": [11],
    "process.NoiseSchedule.from_betas": [6],
    "process.VariancePreserving.linear": [3],
    "process.VariancePreserving.scaled_linear": [4],
    "process.VariancePreserving.cosine": [5],
    "process.VariancePreserving.angle": [8],
    "process.RectifiedFlow": [9],
    "process.VarianceExploding": [10],
    "process.check_prior": [12],
    "process.target": [15, 16, 17],
    "process.x0_from_prediction": [18],
    "process.eps_from_x0": [19],
    "process.loss_weight": [21, 22, 23],
    "process.sample_t": [24],
    "nn.sinusoidal_embedding": [25],
    "nn.timestep_embedding": [47],
    "sampling.ddpm_step": [26, 27],
    "sampling.ddim_step": [28],
    "sampling.alpha_step": [29],
    "sampling.euler_step": [30],
    "sampling.dpmpp_2m_step": [31],
    "sampling.dpmpp_2m_sde_step": [32],
    "sampling.heun_step": [33],
    "sampling.timestep_grid": [34, 35],
    "network.guided": [36, 37, 38],
    "network.autoguided": [39],
    "network.dynamic_thresholding": [40],
    "network.clipped": [41],
    "network.dress": [42],
    "latents.reparameterize": [43],
    "latents.kl_divergence": [44],
    "training.vae_objective.VAELossConfig": [45, 48, 49, 50, 51],
    "training.vae_objective.VAELossConfig.kl_weight_at": [48],
    "training.vae_objective.multiscale_loss": [49],
    "features.perceptual_distance": [50],
    "training.adversarial.adversarial_loss": [51],
    "training.adversarial.discriminator_loss": [51],
    "training.adversarial.balance": [51],
    "training.adversarial.competence": [51],
    "training.ema.PowerAverages": [55],
    "training.post_hoc.exponent": [56],
    "training.post_hoc.solve": [58, 59],
    "training.optimizers.lr_factor": [60],
    "latents.Codec.standardize": [46],
    "evaluation.kernel_distance": [61],
    "evaluation.estimate_kernel_distance": [61, 62, 63, 64],
    "evaluation.frechet_distance": [65],
    "evaluation.estimate_frechet": [66, 67],
    "evaluation.share_estimate": [68],
    "evaluation.own_concept": [69],
    "evaluation.support": [70, 71],
}


def cited(text: str) -> set[int]:
    """The numbers of math.md in a docstring; equations of papers ("Ho et al. 2020, eq. 4") are left out."""
    found: set[int] = set()
    for match in OURS.finditer(OF_A_PAPER.sub("", text)):
        ends = [[int(end) for end in part.split("-")] for part in re.split(", | and ", match[1])]
        found |= {number for part in ends for number in range(part[0], part[-1] + 1)}
    return found


def test_citations_are_told_from_those_of_papers() -> None:
    assert cited("x (eq. 13). Eqs. 15-17, and (eqs. 34 and 36); eqs. 1, 4") == {13, 15, 16, 17, 34, 36, 1, 4}
    assert cited("(Ho et al. 2020, eqs. 6-7, 11; any stride), Song et al. 2021 (DDIM), eqs. 12 and 16, eq. 28") == {28}


def test_equations_are_numbered_in_order_without_gaps() -> None:
    assert [int(number) for number in re.findall(r"\\tag\{(\d+)\}", MATH)] == list(range(1, EQUATIONS + 1))


def test_every_citation_in_the_source_exists() -> None:
    wrong = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                missing = cited(ast.get_docstring(node) or "") - set(range(1, EQUATIONS + 1))
                wrong += [f"{path.name}: eq. {number}" for number in missing]
    assert not wrong


@pytest.mark.parametrize("name", CITED)
def test_a_public_piece_cites_its_equation(name: str) -> None:
    room, *attributes = name.split(".")
    piece = importlib.import_module(f"calotype.{room}")
    if room == "training":
        importlib.import_module(f"calotype.training.{attributes[0]}")
    for attribute in attributes:
        piece = getattr(piece, attribute)
    assert cited(piece.__doc__ or "") >= set(CITED[name])


def test_names_in_code_letters_exist() -> None:
    """Every name that math.md sets in code letters is a word of the source, a file of docs/, or a recipe's name."""
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    words = set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", source)) | set(re.findall(r"\"([a-z0-9-]+)\"", source))
    named = {name.split("/")[-1] for name in re.findall(r"`([^`]+)`", MATH)}
    unknown = {name for name in named if name.split(".")[-1] not in words and not (ROOT / "docs" / name).exists()}
    assert not unknown


def test_github_can_render_it() -> None:
    for block in re.findall(r"\$\$.*?\$\$", MATH, flags=re.DOTALL):
        assert "\n" not in block  # one equation a block, nothing blank inside
    assert not re.findall(r"\\(?:big|Big|,|;|!|_|\\|\{|\})", MATH)  # Markdown eats these, or GitHub's page does
    assert "}_" not in MATH  # with another _ in the paragraph, Markdown would set what lies between in italics
    for line in MATH.splitlines():
        assert line.count("$") % 2 == 0, line  # inline formulas do not run over the end of a line


def test_pictures_are_there_described_and_small() -> None:
    pictures = re.findall(r"!\[([^\]]*)\]\(images/([\w-]+)\.png\)\n\n(\*.*?\*)\n\n", MATH, flags=re.DOTALL)
    assert len(pictures) == MATH.count("![") == 9
    for alt, name, caption in pictures:
        assert len(alt) > 60
        assert (ROOT / "docs" / "images" / f"{name}.png").stat().st_size < 150_000
        if name in ("math-forward", "math-belief"):
            assert "[OpenMoji](https://openmoji.org), CC BY-SA 4.0" in " ".join(caption.split())


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    """docs/make_figures.py as a module."""
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("make_figures", ROOT / "docs" / "make_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_picture_has_its_function(figures: ModuleType) -> None:
    assert set(figures.FIGURES) == set(re.findall(r"images/(math-[\w-]+)\.png", MATH))


def test_figures_are_deterministic(figures: ModuleType, tmp_path: Path) -> None:
    for folder in ("first", "second"):
        figures.main(["--only", "math-grids", "--out", str(tmp_path / folder)])
    first, second = (tmp_path / folder / "math-grids.png" for folder in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_the_exact_denoiser_is_the_mean_of_bayes_rule(figures: ModuleType) -> None:
    """Against sums over a fine lattice of x0, for data spread around two points, all of them and one label alone."""
    process, deviation = RectifiedFlow(), 0.3
    points, t = torch.tensor([[-1.0], [0.5]], dtype=torch.float64), torch.tensor([0.4, 0.8], dtype=torch.float64)
    denoiser = figures.mixture_denoiser(process, points, deviation, torch.tensor([0, 1]))
    x_t = torch.tensor([[0.2], [-0.7]], dtype=torch.float64)
    x0 = torch.linspace(-6, 6, 40_001, dtype=torch.float64)
    explained = torch.exp(-((x_t - (1 - t[:, None]) * x0) ** 2) / (2 * t[:, None] ** 2))
    around = torch.exp(-((x0 - points) ** 2) / (2 * deviation**2))
    for cond, prior in ((None, around.sum(0)), (torch.tensor([1, 1]), around[1])):
        weight = explained * prior
        expected = (weight * x0).sum(1) / weight.sum(1)
        assert torch.allclose(denoiser(x_t, t, cond)[:, 0], expected, rtol=1e-9)
