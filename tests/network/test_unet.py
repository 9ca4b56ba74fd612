"""The U-Net: every parameter learns, the condition and the noise level reach every block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from calotype.core.errors import UserError
from calotype.core.types import TextEmbedding
from calotype.network import Condition, UNet, UNetConfig, get_network
from calotype.nn import ResidualBlock, sinusoidal_embedding
from calotype.nn.attention import Heads

SMALL = {"channels": (16, 32), "emb_channels": 24, "condition_channels": 20, "head_channels": 8}
PLAIN = {"family": "diffusers", "channels": (16, 32), "head_channels": 8}
NOTHING = {"in_channels": 4, "num_classes": 0, "text_dim": 0, "token_dim": 0, "latent_size": 8}
CONFIGS = {
    "unconditional": UNetConfig(**SMALL),
    "class": UNetConfig(**SMALL, num_classes=3, map_channels=2, map_size=8),
    "pooled text": UNetConfig(**SMALL, text_dim=5, map_channels=2, map_size=8),
    "tiled map": UNetConfig(**SMALL, text_dim=5, map_channels=6, map_kind="tiled"),
    "tokens": UNetConfig(**SMALL, text_dim=5, text_tokens=True),
    "skips of every block": UNetConfig(**SMALL, num_classes=3, skips="block", blocks_per_level=2, middle_blocks=2),
    "two kinds": UNetConfig(**SMALL, num_classes=3, text_dim=5, text_tokens=True, token_dim=7),
    "added embedding, qk norm": UNetConfig(
        **SMALL, num_classes=3, scale_shift=False, norm_groups=4, qk_norm=True, dropout=0.1
    ),
    "transformer": UNetConfig(**SMALL, text_dim=5, text_tokens=True, attention_kind="transformer"),
    "diffusers, nothing": UNetConfig(**PLAIN).for_data(**NOTHING),
    "diffusers, class": UNetConfig(**PLAIN).for_data(**NOTHING | {"num_classes": 3}),
    "diffusers, pooled text": UNetConfig(**PLAIN).for_data(**NOTHING | {"text_dim": 5, "token_dim": 7}),
    "diffusers, tokens": UNetConfig(**PLAIN, text_tokens=True).for_data(**NOTHING | {"text_dim": 5, "token_dim": 7}),
    "three levels": UNetConfig(
        channels=(8, 16, 16), attention=(False, True, True), blocks_per_level=2, emb_channels=16, num_classes=3
    ),
}


def condition(config: UNetConfig, batch: int, seed: int = 0) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    label = (torch.arange(batch) + seed) % 3 if config.num_classes else None
    text = None
    if config.text_dim:
        pooled = torch.randn(batch, config.text_dim, generator=generator)
        tokens = torch.randn(batch, 4, config.token_dim or config.text_dim, generator=generator)
        text = TextEmbedding(pooled, tokens, torch.tensor([[True, True, True, False]]).expand(batch, -1))
    nothing = label is None and text is None
    return Condition(torch.full((batch,), nothing), label, text)


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


CONDITIONAL = [name for name, config in CONFIGS.items() if config.num_classes or config.text_dim]


@pytest.mark.parametrize("name", CONDITIONAL)
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


TOKENS = [name for name in CONDITIONAL if CONFIGS[name].text_tokens]


def weights_of_attention(network: UNet, x_t: Tensor, cond: Condition) -> list[Tensor]:
    """softmax(Q K^T / sqrt(d)) of every cross-attention, from what goes into its Heads."""
    found: list[Tensor] = []

    def remember(heads: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs) == 4:
            q, k, _, mask = inputs
            q, k = (heads_norm(part) for heads_norm, part in ((heads.norm_q, q), (heads.norm_k, k)))
            logits = (q @ k.transpose(1, 2) / 8**0.5).masked_fill(~mask[:, None, :], -torch.inf)
            found.append(logits.softmax(-1).detach())

    hooks = [m.register_forward_pre_hook(remember) for m in network.modules() if isinstance(m, Heads)]
    network(x_t, torch.full((len(x_t),), 100.0), cond)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", TOKENS)
def test_one_word_and_the_picture_both_change_what_is_attended_to(name: str) -> None:
    config = CONFIGS[name]
    network = awake(UNet(config)).eval()
    x_t, cond = torch.randn(2, 4, 8, 8), condition(config, 2)
    assert cond.text is not None
    tokens = cond.text.tokens.clone()
    tokens[:, 1] += 1.0
    other_word = replace(cond, text=replace(cond.text, tokens=tokens))
    maps, word, picture = (
        weights_of_attention(network, *case) for case in ((x_t, cond), (x_t, other_word), (x_t + 1, cond))
    )
    assert len(maps) >= 2
    for before, after_word, after_picture in zip(maps, word, picture, strict=True):
        assert before.shape[-1] == 5, "the zero token and four words"
        assert before[..., 4].abs().max() == 0, "the masked word"
        assert (before - after_word).abs().max() > 1e-5
        assert (before - after_picture).abs().max() > 1e-5
        assert before.std(dim=1).max() > 1e-5, "each position chooses its word"


def test_rows_may_have_a_class_a_text_both_or_neither() -> None:
    network = awake(UNet(CONFIGS["two kinds"])).eval()
    cond = condition(CONFIGS["two kinds"], 1)
    assert cond.label is not None
    both, yes = cond[torch.zeros(4, dtype=torch.long)], torch.tensor([True])
    asked = both.dropped_parts(torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True]))
    assert asked.null.tolist() == [False, False, False, True]
    label_alone = Condition(~yes, label=cond.label)
    text_alone = Condition(~yes, text=cond.text)
    x_t, time = torch.randn(1, 4, 8, 8), torch.tensor([100.0])
    alone = [network(x_t, time, part) for part in (cond, label_alone, text_alone, Condition.nothing(1))]
    together = network(x_t.expand(4, -1, -1, -1), time.expand(4), asked)
    joined = Condition.cat([cond, label_alone, text_alone, Condition.nothing(1)])
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(x_t.expand(4, -1, -1, -1), time.expand(4), joined), together)
    for i in range(4):
        for k in range(i):
            assert (alone[i] - alone[k]).abs().max() > 1e-3


def test_a_row_asks_for_nothing_alone_only_if_there_are_two_parts() -> None:
    with pytest.raises(ValueError, match="one part"):
        Condition.from_pooled(torch.ones(1, 5)).dropped_parts(torch.tensor([True]), torch.tensor([True]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"channels": (16, 32, 32)}, "attention names 2 levels, channels 3"),
        ({"attention_kind": "transformer", "qk_norm": True}, "set qk_norm=false"),
        ({"channels": (16, 32), "scale_shift": False}, "norm_groups is 16, the narrowest level has 16"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        UNetConfig.parse(settings)


def test_an_added_embedding_of_groups_of_two_channels_is_heard() -> None:
    block = awake(ResidualBlock(32, 32, 4, scale_shift=False)).eval()
    x = torch.randn(1, 32, 4, 4)
    assert (block(x, torch.randn(1, 4)) - block(x, torch.randn(1, 4))).abs().max() > 1e-3


def test_settings_reach_every_block() -> None:
    network = UNet(CONFIGS["added embedding, qk norm"])
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    assert all(block.emb is not None and block.emb.out_features == block.conv1.out_channels for block in blocks)
    assert all(isinstance(m.norm_k, nn.RMSNorm) for m in network.modules() if isinstance(m, Heads))
    assert all(block.dropout.p == 0.1 for block in blocks)


def test_without_a_condition_there_is_nothing_to_lay_out() -> None:
    laid_out = UNetConfig(map_channels=8)
    assert laid_out.for_data(**NOTHING).map_channels == 0
    assert laid_out.for_data(**NOTHING | {"num_classes": 2}).map_channels == 8
    assert laid_out.for_data(**NOTHING | {"text_dim": 5}).map_channels == 8


def test_family_diffusers_follows_from_the_data() -> None:
    def filled(**data: Any) -> UNetConfig:
        return UNetConfig(**PLAIN, text_tokens=data.pop("text_tokens", False), map_channels=8).for_data(
            **NOTHING | data
        )

    for config in (filled(), filled(num_classes=2), filled(text_dim=5), filled(text_dim=5, text_tokens=True)):
        assert (config.skips, config.map_channels) == ("block", 0)
        assert (config.emb_channels, config.condition_channels) == (64, 64)
    assert [filled(text_dim=5).middle_blocks, filled(text_dim=5).middle_attention] == [1, False]
    assert [filled(num_classes=2).middle_blocks, filled(num_classes=2).middle_attention] == [2, True]
    tokens = filled(text_dim=5, token_dim=7, text_tokens=True)
    assert (tokens.attention_kind, tokens.token_dim, tokens.middle_blocks) == ("transformer", 7, 2)
    without_captions = filled(text_tokens=True)
    assert (without_captions.text_tokens, without_captions.attention_kind) == (False, "plain")


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


def test_words_unlike_the_captions_are_brought_within_their_reach() -> None:
    torch.manual_seed(0)
    network = UNet(CONFIGS["pooled text"])
    encoder, captions = network.condition, torch.randn(50, 5) @ torch.diag(torch.tensor([1.0, 1.0, 0.1, 0.01, 0.0]))
    far = torch.randn(20, 5) + 3
    assert torch.equal(encoder.within_reach(far), far), "nothing is known yet"
    encoder.fit_text(captions)
    radius = ((captions - encoder.text_mean) @ encoder.text_whitening).norm(dim=1).max()
    torch.testing.assert_close(encoder.within_reach(captions), captions, rtol=1e-4, atol=1e-5)
    brought = encoder.within_reach(far) - encoder.text_mean
    torch.testing.assert_close((brought @ encoder.text_whitening).norm(dim=1), radius.expand(20))
    torch.testing.assert_close(torch.nn.functional.cosine_similarity(brought, far - encoder.text_mean), torch.ones(20))
    encoder.extend_reach(far[:1])
    assert torch.equal(encoder.within_reach(far[:1]), far[:1]), "a model that is trained on takes in new captions"
    encoder.extend_reach(captions)
    assert torch.equal(encoder.within_reach(far[:1]), far[:1]), "and keeps what it reached"
    encoder.fit_text(captions)
    off = torch.tensor([[0.0, 0.0, 0.0, 0.0, 50.0]])  # along an axis on which no two captions differ
    assert ((encoder.text_mean + off - encoder.text_mean) @ encoder.text_whitening).norm() < 0.1 * radius
    null = torch.zeros(1, dtype=torch.bool)
    asked = Condition(null, text=TextEmbedding(far[:1], far[:1, None], null[:, None]))
    nearer = Condition(null, text=TextEmbedding(encoder.within_reach(far[:1]), far[:1, None], null[:, None]))
    torch.testing.assert_close(encoder(asked), encoder(nearer))


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
    assert both.label.tolist() == [7, -1]
    assert both.text is not None
    assert both.text.pooled.sum(1).tolist() == [0.0, 5.0]
