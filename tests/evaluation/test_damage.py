"""Every damage moves the score that should see it, the more the stronger it is: the benchmark on drawn shapes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d

from calotype.core.errors import UserError
from calotype.images.dataset import PictureSet
from tests.evaluation.shapes import draw, numbers

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "damage.py"
COLOURS = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.9, 0.9, 0.1]])


def _features(images: Tensor) -> Tensor:
    """Colour, and what random filters of two sizes find of edges, in each quarter of a picture."""
    generator = torch.Generator().manual_seed(0)
    found = [images]
    for size in (2, 5):
        weights = torch.randn(12, 3, size, size, generator=generator) / (3 * size**2) ** 0.5
        found.append(conv2d(images, weights - weights.mean((2, 3), keepdim=True), padding=size // 2).abs())
    return torch.cat([adaptive_avg_pool2d(part, 2).flatten(1) for part in found], dim=1)


def _pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Woven shapes of four pairs of colours, and the pair of each."""
    groups = torch.arange(count) % len(COLOURS)
    drawn = numbers(count, seed)
    drawn[:, 4:] = torch.cat([COLOURS[groups], COLOURS.roll(1, 0)[groups]], dim=1) + 0.2 * drawn[:, 4:] - 0.1
    weave = (torch.arange(32).view(-1, 1) + torch.arange(32)) % 2
    return 0.8 * draw(drawn) + 0.4 * weave - 0.2, groups


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("damage", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["damage"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table(script: ModuleType):
    (fresh, groups), (spare, spare_groups) = _pictures(160, 0), _pictures(480, 1)
    sets = script.Sets(
        fresh=fresh,
        spare=spare,
        held_out=_pictures(160, 2)[0],
        training=_pictures(320, 3)[0],
        groups=groups,
        spare_groups=spare_groups,
    )
    return script.measure(sets, _features)


@pytest.mark.parametrize(
    ("damage", "score", "sign"),
    [
        ("blur", "kernel", 1),
        ("blur", "Fréchet", 1),
        ("noise", "kernel", 1),
        ("noise", "precision", -1),
        ("noise", "own picture", -1),
        ("tint", "kernel", 1),
        ("tint", "Fréchet", 1),
        ("modes dropped", "kernel", 1),
        ("modes dropped", "coverage", -1),
        ("modes dropped", "own picture", -1),
        ("memorised", "copies (pixels)", 1),
        ("memorised", "nearer (pixels)", 1),
    ],
)
def test_a_stronger_damage_moves_its_score_further(
    script: ModuleType, table, damage: str, score: str, sign: int
) -> None:
    rows = ["none", *[f"{damage} {strength:g}" for strength in script.STRENGTHS[damage]]]
    values = [sign * table[row][score].value for row in rows]
    assert values == sorted(values), dict(zip(rows, values, strict=True))
    assert script.moved(table[rows[-1]][score], table["none"][score])


def test_copies_are_seen_by_nothing_but_the_nearest_pictures(script: ModuleType, table) -> None:
    """Training pictures are real pictures: no distance between sets may rise for them."""
    worst, undamaged = table["memorised 1"], table["none"]
    assert not any(script.moved(worst[name], undamaged[name]) for name in ("kernel", "precision", "recall", "coverage"))


def test_damage_other_than_copying_is_not_called_copying(script: ModuleType, table) -> None:
    rows = [name for name in table if not name.startswith("memorised")]
    undamaged = table["none"]["copies (pixels)"]
    assert all(table[name]["copies (pixels)"].value < undamaged.high for name in rows)


def test_the_table_marks_what_moved(script: ModuleType, table) -> None:
    lines = script.markdown(table).splitlines()
    assert len(lines) == 2 + 1 + 3 * len(script.STRENGTHS)
    assert "**" not in lines[2]
    assert all("**" in line for line in lines if line.startswith(("| tint 0.4", "| noise 0.4", "| blur 2")))


def _set(images: Tensor, labels: list[str | None]) -> PictureSet:
    count = len(images)
    return PictureSet(
        pixels=((images + 1) * 127.5).to(torch.uint8),
        names=[str(i) for i in range(count)],
        captions=[None] * count,
        labels=labels,
        held_out=torch.zeros(count, dtype=torch.bool),
        refused=0,
        source="shapes",
        attribution="",
        licence="",
    )


def test_pictures_are_divided_once_each_and_grouped(script: ModuleType) -> None:
    images, groups = _pictures(200, 4)
    by_class = script.divide(_set(images, [f"colour {k}" for k in groups.tolist()]), _features, 20, 0)
    by_looks = script.divide(_set(images, [None] * 200), lambda x: 10 * x.mean((2, 3)), 20, 0)
    for sets in (by_class, by_looks):
        assert [len(part) for part in (sets.fresh, sets.held_out, sets.training, sets.spare)] == [20, 20, 40, 120]
        parts = torch.cat([sets.fresh, sets.held_out, sets.training, sets.spare]).flatten(1)
        assert len(parts.unique(dim=0)) == 200
        assert (len(sets.groups), len(sets.spare_groups)) == (20, 120)
    assert by_class.spare_groups.unique().tolist() == [0, 1, 2, 3]
    assert 2 < len(by_looks.spare_groups.unique()) <= script.GROUPS
    with pytest.raises(UserError, match="are too few"):
        script.divide(_set(images, [None] * 200), _features, 40, 0)
