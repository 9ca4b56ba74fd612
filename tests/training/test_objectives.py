"""Both objectives: pure in (weights, step, ids), equal to their formula, and able to learn one batch by heart."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from calotype.latents import ConvVAE, LatentSet, LatentStatistics, VAEConfig
from calotype.network import Condition, UNet, UNetConfig
from calotype.process import VariancePreserving
from calotype.training.denoiser_objective import DenoiserLossConfig, DenoiserObjective
from calotype.training.vae_objective import VAELossConfig, VAEObjective

CPU = torch.device("cpu")
IDS = torch.arange(4)


def denoiser_objective(parameterization: str = "v", dropout: float = 0.1) -> DenoiserObjective:
    torch.manual_seed(0)
    mean = torch.randn(1, 4, 4, 8, 8)
    mean = mean / mean.std()
    statistics = LatentStatistics(mean=(0.0,) * 4, std=(1.0,) * 4, bound=2.8)
    latents = LatentSet.from_tensors(mean, torch.full_like(mean, 0.01), statistics)
    config = UNetConfig(channels=(16, 32), emb_channels=32, condition_channels=32, num_classes=4, map_channels=4)
    labels = Condition(torch.zeros(4, dtype=torch.bool), label=torch.arange(4))
    loss = DenoiserLossConfig(parameterization=parameterization, condition_dropout=dropout)
    process = VariancePreserving.cosine()
    return DenoiserObjective(UNet(config), process, loss, latents, lambda ids: labels[ids], IDS, IDS[:0], 7, CPU)


def vae_objective(**settings: float) -> VAEObjective:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    vae = ConvVAE(VAEConfig(channels=(8, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1)))
    return VAEObjective(vae, VAELossConfig(**settings), lambda ids: images[ids], IDS, IDS[:2], 7, CPU)


@pytest.mark.parametrize("make", [denoiser_objective, vae_objective])
def test_a_loss_is_a_function_of_step_and_ids(make) -> None:
    objective = make()
    first = objective.losses(3, IDS).terms["loss"]
    torch.randn(5)  # the global generator is not consulted
    assert torch.equal(objective.losses(3, IDS).terms["loss"], first)
    assert not torch.equal(objective.losses(4, IDS).terms["loss"], first)


def test_the_vaes_terms_add_up_and_are_logged_apart() -> None:
    terms = vae_objective(kl_weight=0.5, l1_weight=0.0, l2_weight=1.0).losses(0, IDS).terms
    assert set(terms) == {"loss", "reconstruction", "l1", "l2", "kl"}
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.5 * terms["kl"])


def test_an_untrained_network_has_the_loss_of_predicting_nothing() -> None:
    # The output layer starts at zero, so the loss is the mean square of v, which is 1 for standardised latents.
    losses = torch.stack([denoiser_objective().losses(step, IDS).terms["loss"] for step in range(60)])
    assert abs(float(losses.detach().mean()) - 1) < 0.05


@pytest.mark.parametrize("parameterization", ["eps", "x0", "v"])
def test_one_batch_can_be_learnt_by_heart(parameterization: str) -> None:
    objective = denoiser_objective(parameterization, dropout=0.0)
    optimizer = torch.optim.AdamW(objective.network.parameters(), lr=3e-3)

    def mean_loss() -> float:
        with torch.no_grad():
            return sum(float(objective.losses(step, IDS).terms["loss"]) for step in range(1000, 1020)) / 20

    before = mean_loss()
    for step in range(150):
        optimizer.zero_grad()
        objective.losses(step, IDS).terms["loss"].backward()
        optimizer.step()
    after = mean_loss()
    assert after < 0.4 * before, f"{before:.3f} -> {after:.3f}"


def test_validation_is_repeatable_and_draws_on_no_state() -> None:
    objective = vae_objective()
    first = objective.validate(objective.network)
    objective.losses(9, IDS)
    assert objective.validate(objective.network) == first
    assert set(first) == {"held_out_psnr", "held_out_ssim", "held_out_l1"}


def test_dropped_conditions_reach_the_network_as_null() -> None:
    objective = denoiser_objective(dropout=1.0)
    seen: list[Condition] = []
    objective.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    objective.losses(0, IDS)
    assert bool(seen[0].null.all())
    objective = denoiser_objective(dropout=0.25)
    objective.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    for step in range(100):
        objective.losses(step, IDS)
    share = torch.stack([cond.null.float().mean() for cond in seen[1:]]).mean()
    assert abs(float(share) - 0.25) < 0.07


def echoing(loss: DenoiserLossConfig, condition: Callable[..., Condition], seen: list[Condition]) -> DenoiserObjective:
    """An objective over 2,000 pictures whose network gives back its input and notes what it was asked."""
    torch.manual_seed(0)
    ids = torch.arange(2000)
    statistics = LatentStatistics(mean=(0.0,), std=(1.0,), bound=2.8)
    latents = LatentSet.from_tensors(torch.randn(1, 2000, 1, 2, 2), torch.zeros(1, 2000, 1, 2, 2), statistics)

    class Echo(torch.nn.Module):
        def forward(self, x_t: torch.Tensor, time: torch.Tensor, cond: Condition) -> torch.Tensor:
            seen.append(cond)
            return x_t

    return DenoiserObjective(Echo(), VariancePreserving.cosine(), loss, latents, condition, ids, ids[:8], 7, CPU)


def test_of_text_and_class_either_may_be_left_out_alone() -> None:
    """Rows of both lose one of them at times, never rows of one; all lose everything at times."""
    ids = torch.arange(2000)
    text = Condition.from_pooled(torch.randn(2000, 3))
    both = Condition(text.null, label=ids % 5 - 1, text=text.text, texted=ids % 5 != 3)
    loss = DenoiserLossConfig(condition_dropout=0.2, part_dropout=0.3)
    seen: list[Condition] = []
    objective = echoing(loss, lambda i: both[i], seen)
    objective.losses(3, ids)
    objective.losses(3, ids)
    (cond, again) = seen
    assert torch.equal(cond.with_text, again.with_text)
    with_text, with_class = cond.with_text, (cond.label >= 0) & ~cond.null
    shares = [float(rows.float().mean()) for rows in (cond.null, with_text & ~with_class, with_class & ~with_text)]
    of_one, of_both = 0.2, 0.6
    assert shares == pytest.approx([0.2, *[0.8 * (of_one + of_both * 0.3)] * 2], abs=0.03)
    kept = with_class
    assert torch.equal(cond.label[kept], (ids % 5 - 1)[kept])
    assert bool((with_text | with_class | cond.null).all())


def test_as_many_captions_are_reworded_as_asked_and_the_same_at_every_resume() -> None:
    ids, own = torch.arange(2000), Condition.from_pooled(torch.zeros(2000, 3))
    asked: list[torch.Tensor | None] = []

    def condition(rows: torch.Tensor, wording: torch.Tensor | None = None) -> Condition:
        asked.append(wording)
        return own[rows]

    for share in (0.3, 0.0):
        objective = echoing(DenoiserLossConfig(rewording=share), condition, [])
        for step in (3, 3, 4):
            objective.losses(step, ids)
    first, again, other, *none = asked
    assert none == [None] * 3
    assert first is not None
    assert other is not None
    assert torch.equal(first, again)  # type: ignore[arg-type]
    assert not torch.equal(first, other)
    assert float((first < 1).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(first[first < 1].mean()) == pytest.approx(0.5, abs=0.05)
    objective.validate(objective.network)
    assert asked[-1] is None
