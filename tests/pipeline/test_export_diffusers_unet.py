"""Our U-Nets in diffusers' classes: the same weights give the same answer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from calotype.core.errors import UserError
from calotype.core.types import TextEmbedding
from calotype.network import Condition, UNet, UNetConfig
from calotype.pipeline.export.unet import condition_rows, diffusers_arguments, to_diffusers, why_not_unet

ROWS = 5


def config(*, classes: int = 0, text: int = 0, tokens: int = 0, **shape: object) -> UNetConfig:
    """A small U-Net of the exportable family."""
    small: dict[str, object] = {"channels": (16, 32), "norm_groups": 8, "head_channels": 8, "attention": (False, True)}
    chosen = UNetConfig.parse({**small, "family": "diffusers", "text_tokens": tokens > 0, **shape}, "the test")
    return chosen.for_data(in_channels=4, num_classes=classes, text_dim=text, token_dim=tokens, latent_size=8)


CONFIGS = {
    "unconditional": config(),
    "unconditional, added, one level": config(channels=(16,), attention=(True,), scale_shift=False, norm_groups=4),
    "unconditional, three levels, no attention": config(
        channels=(8, 16, 16), attention=(False,) * 3, middle_attention=False, blocks_per_level=2, norm_eps=1e-6
    ),
    "class": config(classes=3, blocks_per_level=2),
    "class, added, four levels": config(
        classes=2, channels=(16, 16, 32, 48), attention=(False, False, True, True), scale_shift=False, head_channels=16
    ),
    "pooled": config(text=12),
    "pooled, added, three levels": config(
        text=12, channels=(16, 24, 32), attention=(True, False, True), scale_shift=False, blocks_per_level=2
    ),
    "pooled and class": config(text=12, classes=3, head_channels=16),
    "tokens": config(text=12, tokens=20),
    "tokens, added, three levels": config(
        text=12, tokens=12, channels=(16, 24, 32), attention=(True, True, False), scale_shift=False, blocks_per_level=2
    ),
    "tokens and class": config(text=12, tokens=20, classes=3, head_channels=16),
}


def scrambled(network: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every weight and buffer random, those that start at zero or one too."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * (0.5 / max(1, math.prod(tensor.shape[1:])) ** 0.5)
        + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for name, tensor in network.state_dict().items()
        if not name.endswith("text_limit")  # a length: left at infinity
    }
    network.load_state_dict(state, strict=False)
    return network.eval()


def conditions(chosen: UNetConfig) -> Condition:
    """Rows with all the model takes, one part of it, the other part, nothing, and all again."""
    generator = torch.Generator().manual_seed(1)
    label = torch.tensor([1, -1, 0, -1, 1]) if chosen.num_classes else None
    text = texted = None
    if chosen.text_dim:
        mask = torch.arange(4) < torch.tensor([4, 2, 3, 4, 1])[:, None]
        pooled = torch.randn(ROWS, chosen.text_dim, generator=generator)
        tokens = torch.randn(ROWS, 4, chosen.token_dim or chosen.text_dim, generator=generator)
        text, texted = TextEmbedding(pooled, tokens, mask), torch.tensor([True, True, False, True, True])
    asked = torch.zeros(ROWS, dtype=torch.bool)
    asked |= label >= 0 if label is not None else False
    asked |= texted if texted is not None else False
    asked[3] = False
    return Condition(~asked, label, text, texted)


@pytest.mark.parametrize("chosen", CONFIGS.values(), ids=CONFIGS)
def test_same_answer(chosen: UNetConfig) -> None:
    network = scrambled(UNet(chosen))
    if chosen.text_dim:
        network.condition.text_limit.fill_(1.0)  # most of the texts here lie further out
    theirs = to_diffusers(network, sample_size=8)
    assert isinstance(theirs, UNet2DConditionModel if chosen.text_dim else UNet2DModel)
    assert sum(p.numel() for p in theirs.parameters()) > 10_000
    x_t = torch.randn(ROWS, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    time = torch.tensor([0.0, 3.0, 250.5, 700.0, 999.0])
    cond = conditions(chosen)
    with torch.no_grad():
        ours = network(x_t, time, cond)
        given = theirs(x_t, time, **diffusers_arguments(network, cond)).sample
    assert float((ours - given).abs().max() / ours.abs().max()) < 1e-5
    if chosen.num_classes or chosen.text_dim:  # and the condition was not lost on both sides
        with torch.no_grad():
            bare = network(x_t, time, cond.dropped())
        changed = (ours - bare).abs().amax((1, 2, 3)) > 1e-3 * ours.abs().max()
        assert changed.tolist() == (~cond.null).tolist()


def test_rows_of_the_projection() -> None:
    chosen = config(text=2, classes=2)
    text = TextEmbedding(torch.tensor([[5.0, 6.0]]).expand(4, 2), torch.zeros(4, 0, 2), torch.zeros(4, 0).bool())
    null = torch.tensor([False, False, False, True])
    cond = Condition(null, torch.tensor([1, -1, 0, 1]), text, torch.tensor([True, True, False, True]))
    rows = [[5, 6, 0, 1, 1, 0], [5, 6, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
    network = UNet(chosen)
    assert condition_rows(network, cond).tolist() == rows
    assert condition_rows(network, replace(cond, label=None))[0].tolist() == [5, 6, 0, 0, 1, 0]
    network.condition.text_limit.fill_(61**0.5 / 2)
    assert condition_rows(network, cond)[0].tolist() == pytest.approx([2.5, 3, 0, 1, 1, 0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"skips": "level"}, "skips"),
        ({"map_channels": 4}, "condition map"),
        ({"qk_norm": True}, "queries and keys"),
        ({"middle_blocks": 1}, "1 blocks"),
        ({"channels": (12, 32)}, "do not divide"),
        ({"channels": (16, 24), "attention": (True, True), "head_channels": 16}, "one width"),
    ],
)
def test_what_diffusers_cannot_express_is_refused(change: dict[str, object], reason: str) -> None:
    chosen = config().model_copy(update=change)
    assert reason in why_not_unet(chosen)
    with pytest.raises(UserError, match=reason):
        to_diffusers(UNet(chosen))


def test_crossing_outside_of_transformer_blocks_is_refused() -> None:
    chosen = config(text=8, tokens=8).model_copy(update={"attention_kind": "plain"})
    assert "words" in why_not_unet(chosen)
