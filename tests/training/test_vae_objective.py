"""The terms of the VAE's loss: each against its formula, and the discriminator in its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.core.errors import UserError
from calotype.latents import ConvVAE, VAEConfig
from calotype.training import vae_objective as module
from calotype.training.adversarial import PatchDiscriminator, adversarial_loss, balance, competence, discriminator_loss
from calotype.training.vae_objective import VAELossConfig, VAEObjective, multiscale_loss

IDS = torch.arange(4)


def objective(**settings: Any) -> VAEObjective:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    vae = ConvVAE(VAEConfig(channels=(8, 16)))
    return VAEObjective(vae, VAELossConfig(**settings), lambda ids: images[ids], IDS, IDS[:2], 7, torch.device("cpu"))


def test_the_kl_term_warms_up_linearly() -> None:
    warming = objective(kl_weight=0.5, kl_warmup=4)
    shares = []
    for step in range(6):
        terms = {name: value.detach() for name, value in warming.losses(step, IDS).terms.items()}
        shares.append(float((terms["loss"] - terms["reconstruction"]) / terms["kl"]))
    assert shares == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5, 0.5], rel=1e-3)


def test_terms_are_logged_before_their_weights() -> None:
    terms = objective(l1_weight=3.0, l2_weight=2.0, kl_weight=0.5, multiscale_weight=0.25).losses(0, IDS).terms
    assert list(terms) == ["loss", "reconstruction", "l1", "l2", "multiscale", "kl"]
    torch.testing.assert_close(terms["reconstruction"], 2 * terms["l2"] + 3 * terms["l1"])
    whole = terms["reconstruction"] + 0.5 * terms["kl"] + 0.25 * terms["multiscale"]
    torch.testing.assert_close(terms["loss"], whole)
    doubled = objective(l1_weight=3.0, l2_weight=2.0, kl_weight=0.5, multiscale_weight=0.5).losses(0, IDS).terms
    torch.testing.assert_close(doubled["multiscale"], terms["multiscale"])


def test_multiscale_by_hand() -> None:
    images, decoded = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    decoded[0, 0, :2, :2] = 4.0  # one square of 2 x 2: averages 4, 0, 0, 0; of 4 x 4: 1
    squared = VAELossConfig(l1_weight=0.0, l2_weight=1.0)
    assert float(multiscale_loss(squared, images, decoded)) == (16 / 4 + 1) / 2
    absolute = VAELossConfig(l1_weight=1.0, l2_weight=0.0)
    assert float(multiscale_loss(absolute, images, decoded)) == 1
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None, None]
    assert float(multiscale_loss(squared, images, board)) == 0, "fine texture is the business of the whole picture"


def test_perceptual_term_is_the_distance_of_the_named_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def edges(images: Tensor) -> list[Tensor]:
        return [images.diff(dim=-1)]

    loaded: list[str] = []
    monkeypatch.setattr(module, "load_feature_maps", lambda name, device: loaded.append(name) or edges)
    terms = objective(perceptual_weight=0.1).losses(0, IDS).terms
    assert loaded == ["efficientnet-lite0"]
    rest = terms["reconstruction"] + 1e-3 * terms["kl"]
    torch.testing.assert_close(terms["loss"], rest + 0.1 * terms["perceptual"])
    with pytest.raises(UserError, match="no feature network 'efficientnet-lite9': did you mean 'efficientnet-lite0'"):
        VAELossConfig(perceptual="efficientnet-lite9")


def test_hinge_losses_by_hand() -> None:
    class Sum(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.sum((1, 2, 3))

    real, decoded = torch.full((1, 1, 1, 2), 0.25), torch.full((1, 1, 1, 2), 0.75)
    assert float(discriminator_loss(Sum(), real, decoded)) == 0.5 * (0.5 + 2.5)
    assert float(discriminator_loss(Sum(), 4 * real, -2 * decoded)) == 0, "sure and right: nothing to learn"
    assert float(adversarial_loss(Sum(), decoded)) == -1.5


def test_each_network_has_the_gradient_of_its_own_loss_alone() -> None:
    torch.manual_seed(0)
    discriminator, images = PatchDiscriminator(8), torch.rand(2, 3, 16, 16)
    reconstructed = torch.rand(2, 3, 16, 16, requires_grad=True)
    adversarial_loss(discriminator, reconstructed).backward()
    assert reconstructed.grad is not None
    assert all(parameter.grad is None for parameter in discriminator.parameters())
    reconstructed.grad = None
    nn.init.constant_(discriminator.layers[-1].bias, 2.0)  # sure of the real ones, or its two biases would cancel
    discriminator_loss(discriminator, images, reconstructed).backward()
    assert reconstructed.grad is None
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in discriminator.parameters())


def test_a_judgement_sees_a_patch_of_34_pixels() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8)
    norms = [layer for layer in discriminator.layers if isinstance(layer, nn.GroupNorm)]
    for norm in norms:  # a normalisation sees the whole picture
        norm.forward = lambda x: x  # type: ignore[method-assign]
    images = torch.rand(1, 3, 96, 96, requires_grad=True)
    judgements = discriminator(images)
    assert judgements.shape == (1, 1, 22, 22)
    judgements[0, 0, 11, 11].backward()
    assert images.grad is not None
    seen = images.grad.abs().amax((0, 1))
    assert (int((seen.amax(0) > 0).sum()), int((seen.amax(1) > 0).sum())) == (34, 34)


def test_balance_makes_both_pull_equally_hard() -> None:
    weight, direction = torch.randn(3, 3, requires_grad=True), torch.randn(3, 3)
    near, far = (3 * weight * direction).sum(), (1e-2 * weight * direction).sum()
    pull, length = balance(near, far, weight), float(direction.norm())
    assert not pull.requires_grad
    assert float(pull) == pytest.approx(3 * length / (1e-2 * length + 1e-4), rel=1e-5)
    assert float(balance(1e9 * near, far, weight)) == 1e4
    assert float(balance(near, 0 * far, weight)) == 1e4


def test_the_discriminator_joins_at_the_first_validation_without_progress() -> None:
    waiting = objective(adversarial_weight=0.5, adversarial_plateau=0.1)
    assert "adversarial" not in waiting.losses(0, IDS).terms
    joined = []
    for l1 in (0.5, 0.4, 0.35, 0.32, 0.2):  # the second validation after 0.35 is the first that gains less than a tenth
        waiting.observe({"held_out_l1": l1})
        joined.append(waiting.adversarial)
    assert joined == [False, False, False, True, True]
    terms = waiting.losses(1, IDS).terms
    assert list(terms)[-3:] == ["adversarial", "balance", "discriminator"]
    rest = terms["reconstruction"] + 1e-3 * terms["kl"]
    torch.testing.assert_close(terms["loss"], rest + 0.5 * terms["balance"] * terms["adversarial"])
    again = objective(adversarial_weight=0.5, adversarial_plateau=0.1)
    again.restore(waiting.state())
    assert again.state() == waiting.state() == {"adversarial": True, "last_l1": 0.2}


def test_without_a_discriminator_nothing_is_noted() -> None:
    plain = objective()
    for _ in range(3):
        plain.observe({"held_out_l1": 0.5})
    assert plain.auxiliary is None
    assert plain.state() == {}
    assert "adversarial" not in plain.losses(0, IDS).terms


def test_the_decoder_listens_as_far_as_the_discriminator_can_tell() -> None:
    """At weight 1 the adversarial part of the decoder's last gradient is 1 - L_D times as long as the rest."""
    mixed = objective(adversarial_weight=1.0)
    assert isinstance(mixed.network, ConvVAE)
    assert mixed.auxiliary is not None
    for parameter in mixed.network.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    mixed.adversarial = True
    told: list[float] = []
    teacher = torch.optim.Adam(mixed.auxiliary.parameters(), lr=3e-3)
    for step in range(30):
        terms, weight = mixed.losses(0, IDS).terms, mixed.network.last_weight
        plain = terms["reconstruction"] + 1e-3 * terms["kl"]
        whole, rest = (torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in (terms["loss"], plain))
        told.append(float(terms["discriminator"].detach()))
        assert float((whole - rest).norm() / rest.norm()) == pytest.approx(max(0.0, 1 - told[-1]), abs=0.05), step
        teacher.zero_grad()
        terms["discriminator"].backward()
        teacher.step()
    assert told[-1] < 0.5 < 0.9 < told[0], "the trial saw one that cannot tell and one that can"


def test_a_discriminator_that_cannot_tell_is_not_heard() -> None:
    assert [float(competence(torch.tensor(loss))) for loss in (0.0, 0.25, 1.0, 1.5)] == [1.0, 0.75, 0.0, 0.0]


def test_making_an_objective_draws_nothing_of_the_callers() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    objective(adversarial_weight=0.0)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    VAEObjective(
        nn.Identity(), VAELossConfig(adversarial_weight=1.0), lambda ids: ids, IDS, IDS, 7, torch.device("cpu")
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(torch.rand(3), expected)


def test_l1_and_l2_are_torchs() -> None:
    images, decoded = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    terms = objective()._likeness(images, decoded)
    assert torch.equal(terms["l1"], F.l1_loss(images, decoded))
    assert torch.equal(terms["l2"], F.mse_loss(images, decoded))
