"""The U-Net: every parameter learns, the condition and the noise level reach every block."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from calotype.core.types import TextEmbedding
from calotype.network import Condition, UNet, UNetConfig, get_network
from calotype.nn import ResidualBlock, sinusoidal_embedding

SMALL = {"channels": (16, 32), "emb_channels": 24, "condition_channels": 20, "head_channels": 8}
CONFIGS = {
    "unconditional": UNetConfig(**SMALL),
    "class": UNetConfig(**SMALL, num_classes=3, map_channels=2, map_size=8),
    "pooled text": UNetConfig(**SMALL, text_dim=5, map_channels=2, map_size=8),
    "tiled map": UNetConfig(**SMALL, text_dim=5, map_channels=6, map_kind="tiled"),
    "tokens": UNetConfig(**SMALL, text_dim=5, text_tokens=True),
    "skips of every block": UNetConfig(**SMALL, num_classes=3, skips="block", blocks_per_level=2, middle_blocks=2),
    "three levels": UNetConfig(
        channels=(8, 16, 16), attention=(False, True, True), blocks_per_level=2, emb_channels=16, num_classes=3
    ),
}


def condition(config: UNetConfig, batch: int, seed: int = 0) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    null = torch.zeros(batch, dtype=torch.bool)
    if config.text_dim:
        tokens = torch.randn(batch, 4, 5, generator=generator)
        mask = torch.tensor([[True, True, True, False]]).expand(batch, -1)
        return Condition(null, text=TextEmbedding(tokens.mean(1), tokens, mask))
    if config.num_classes:
        return Condition(null, label=torch.arange(batch) % 3)
    return Condition.nothing(batch)


def awake(network: nn.Module) -> nn.Module:
    """The network with its zero-initialised layers set to work."""
    torch.manual_seed(5)
    for parameter in network.parameters():
        if parameter.detach().abs().max() == 0:
            nn.init.normal_(parameter, std=0.1)
    return network


@pytest.mark.parametrize("name", CONFIGS)
def test_shape_and_gradient_of_every_parameter(name: str) -> None:
    config = CONFIGS[name]
    network = awake(UNet(config))
    cond = condition(config, 4).dropped(torch.tensor([False, False, False, True]))
    out = network(torch.randn(4, 4, 8, 8), torch.tensor([0.0, 10.0, 500.0, 999.0]), cond)
    assert out.shape == (4, 4, 8, 8)
    (out * torch.randn_like(out)).sum().backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def outputs_of_blocks(network: nn.Module, time: Tensor, cond: Condition) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda m, i, out, name=name: found.__setitem__(name, out.detach().clone()))
        for name, module in network.named_modules()
        if isinstance(module, ResidualBlock)
    ]
    torch.manual_seed(9)
    network(torch.randn(2, 4, 8, 8), time, cond)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", ["class", "pooled text"])
def test_condition_and_noise_level_enter_every_block_directly(name: str) -> None:
    config = CONFIGS[name]
    network = awake(UNet(config)).eval()
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    assert all(block.emb is not None for block in blocks)
    time = torch.tensor([100.0, 100.0])
    before = outputs_of_blocks(network, time, condition(config, 2, seed=0))
    other_level = outputs_of_blocks(network, time + 300, condition(config, 2, seed=0))
    null = outputs_of_blocks(network, time, condition(config, 2, seed=0).dropped())
    assert len(before) == len(blocks)
    for block in before:
        assert (before[block] - other_level[block]).abs().max() > 1e-5, block
        assert (before[block] - null[block]).abs().max() > 1e-5, block


def test_a_null_row_does_not_see_its_words() -> None:
    config = CONFIGS["tokens"]
    network = awake(UNet(config)).eval()
    x_t, time = torch.randn(2, 4, 8, 8), torch.tensor([5.0, 5.0])
    one = network(x_t, time, condition(config, 2, seed=0).dropped())
    other = network(x_t, time, condition(config, 2, seed=1).dropped())
    assert torch.equal(one, other)
    assert not torch.equal(network(x_t, time, condition(config, 2, seed=1)), other)


def test_the_map_tells_positions_apart() -> None:
    config = CONFIGS["class"]
    network = awake(UNet(config))
    assert network.map is not None
    layout = network.map(network.condition(condition(config, 3)), torch.zeros(3), torch.zeros(3, 4, 8, 8))
    assert layout.shape == (3, 2, 8, 8)
    assert layout.flatten(2).std(dim=2).min() > 0


@pytest.mark.parametrize(("power", "spread"), [(0.0, 100.0), (0.5, 10.0), (1.0, 1.0)])
def test_text_is_whitened_by_the_training_captions(power: float, spread: float) -> None:
    torch.manual_seed(0)
    network = UNet(CONFIGS["pooled text"])
    pooled = 3 + 0.01 * torch.randn(5000, 5) * torch.tensor([1.0, 1.0, 1.0, 1.0, 100.0])
    network.condition.fit_text(pooled, power)
    scaled = (pooled - network.condition.text_mean) @ network.condition.text_whitening
    assert scaled.mean(0).abs().max() < 1e-3
    assert abs(float(scaled.var(0).mean()) - 1) < 0.05
    measured = float(scaled.std(0).max() / scaled.std(0).min())
    assert spread * 0.5 < measured < spread * 2.0


def test_the_tiled_map_is_level_and_condition_at_every_position() -> None:
    network = awake(UNet(CONFIGS["tiled map"]))
    assert network.map is not None
    assert network.conv_in.in_channels == 4 + 32 + 6
    asked = network.condition(condition(CONFIGS["tiled map"], 2))
    tiled = network.map(asked, torch.tensor([100.0, 900.0]), torch.zeros(2, 4, 3, 5))
    assert tiled.shape == (2, 38, 3, 5)
    assert torch.equal(tiled, tiled[:, :, :1, :1].expand_as(tiled))
    torch.testing.assert_close(tiled[:, :32, 1, 2], sinusoidal_embedding(torch.tensor([0.1, 0.9])))
    torch.testing.assert_close(tiled[:, 32:, 1, 2], network.map.project(asked))


def test_get_network_is_the_walkthroughs() -> None:
    network = get_network(latent_image_size=8, block_depth=1, emb_size=5, latent_channels=4)
    assert network.config.channels == (128, 256, 512)
    assert network.conv_in.in_channels == 4 + 32 + 256
    text = Condition.from_pooled(torch.randn(2, 5))
    assert network(torch.randn(2, 4, 8, 8), torch.tensor([5.0, 900.0]), text).shape == (2, 4, 8, 8)
    with pytest.raises(ValueError, match="divisible by 4"):
        get_network(latent_image_size=10)


def test_batches_of_different_conditions_are_joined() -> None:
    """A negative prompt where nothing was asked for must not lose its words."""
    nothing, text = Condition.nothing(2), Condition.from_pooled(torch.ones(1, 5))
    for parts, row in (([nothing, text], 2), ([text, nothing], 0)):
        joined = Condition.cat(parts)
        assert joined.text is not None
        assert joined.null.tolist() == [i != row for i in range(3)]
        assert joined.text.pooled.sum(1).tolist() == [5.0 * (i == row) for i in range(3)]
        assert joined.text.tokens.shape == (3, 0, 5)
    label = Condition(torch.zeros(1, dtype=torch.bool), label=torch.tensor([7]))
    both = Condition.cat([label, text])
    assert both.label is not None
    assert both.label.tolist() == [7, 0]
    assert both.text is not None
    assert both.text.pooled.sum(1).tolist() == [0.0, 5.0]
