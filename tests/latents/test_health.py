"""The gate passes what is whole and names what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from calotype.core.errors import UserError
from calotype.images.dataset import PictureSet
from calotype.images.pixels import to_float, to_uint8
from calotype.latents import Codec, ConvVAE, LatentSet, LatentStatistics, VAEConfig
from calotype.latents.health import Health, examine, read_verdict
from calotype.latents.health_checks import check_kept
from calotype.latents.health_kept import Kept

SIZE, FACTOR, COUNT = 32, 4, 96
ORDER = (1, 2, 0, 3)


class PoolingVAE(ConvVAE):
    """Red, green, blue and the vertical slope of brightness, averaged over squares; a VAE that can be reasoned about.

    `encoded` and `decoded` are faults to plant.
    """

    def __init__(self) -> None:
        super().__init__(VAEConfig(latent_channels=4, patch=FACTOR, channels=(16,)))
        self.encoded: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda mean, logvar: (mean, logvar)
        self.decoded: Callable[[Tensor], Tensor] = lambda images: images

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        squares = images.unfold(2, FACTOR, FACTOR).unfold(3, FACTOR, FACTOR)
        half = FACTOR // 2
        slope = (squares[..., half:, :].mean((1, 4, 5)) - squares[..., :half, :].mean((1, 4, 5)))[:, None]
        mean = torch.cat([squares.mean((4, 5)) * torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1), slope], dim=1)
        return self.encoded(mean, torch.full_like(mean, -5.0))

    def decode(self, z_raw: Tensor) -> Tensor:
        colours = z_raw[:, :3] / torch.tensor([1.0, 2.0, 4.0]).reshape(3, 1, 1)
        ramp = (torch.arange(FACTOR) >= FACTOR // 2).float().repeat(z_raw.shape[-2]).reshape(-1, 1) - 0.5
        grown = interpolate(torch.cat([colours, z_raw[:, 3:]], dim=1), scale_factor=float(FACTOR))
        return self.decoded(grown[:, :3] + ramp * grown[:, 3:])


@dataclass(frozen=True)
class Case:
    """What the gate is given."""

    vae: ConvVAE
    mean: Tensor
    std: Tensor
    statistics: LatentStatistics
    pictures: PictureSet

    def examined(self, codec_statistics: LatentStatistics | None = None) -> Health:
        latents = LatentSet.from_tensors(self.mean.half(), self.std.half(), self.statistics)
        return examine(Codec(self.vae, codec_statistics or self.statistics, SIZE), latents, self.pictures)


def checks(health: Health) -> set[str]:
    return {finding.check for finding in health.findings}


def scenes(count: int, seed: int = 0) -> Tensor:
    """Smooth coloured pictures (count, 3, SIZE, SIZE), uint8, with a little grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 6, 6, generator=generator)
    grown = interpolate(coarse, (SIZE, SIZE), mode="bilinear") * 0.45
    return to_uint8((grown + 0.03 * torch.randn(grown.shape, generator=generator)).clamp(-1, 1))


def picture_set(pixels: Tensor, held_out_every: int = 4) -> PictureSet:
    held = torch.arange(len(pixels)) % held_out_every == held_out_every - 1
    names = [f"{k}.png" for k in range(len(pixels))]
    nothing: list[str | None] = [None] * len(pixels)
    known: Any = {"pixels": pixels, "names": names, "captions": nothing, "labels": nothing, "held_out": held}
    others = {field.name: None for field in fields(PictureSet) if field.name not in known}
    return PictureSet(**known, **others)  # type: ignore[arg-type]  # the gate asks for nothing else


def case(vae: PoolingVAE | None = None, pixels: Tensor | None = None) -> Case:
    vae = vae or PoolingVAE()
    pictures = picture_set(scenes(COUNT) if pixels is None else pixels)
    images = to_float(pictures.pixels)
    with torch.no_grad():
        posteriors = [vae.encode(images), vae.encode(images.flip(-1))]
    mean = torch.stack([posterior[0] for posterior in posteriors])
    std = torch.stack([(0.5 * posterior[1]).exp() for posterior in posteriors])
    return Case(vae, mean, std, measured(mean[:, pictures.train_ids], std[:, pictures.train_ids]), pictures)


def measured(mean: Tensor, std: Tensor) -> LatentStatistics:
    center = mean.mean((0, 1, 3, 4))
    spread = (mean.var((0, 1, 3, 4), correction=0) + std.square().mean((0, 1, 3, 4))).sqrt().clamp(min=1e-6)
    bound = ((mean - center.reshape(-1, 1, 1)) / spread.reshape(-1, 1, 1)).abs().flatten().quantile(0.995)
    return LatentStatistics(mean=tuple(center.tolist()), std=tuple(spread.tolist()), bound=float(bound))


def rescaled(statistics: LatentStatistics, factor: float = 1.0, shift: float = 0.0) -> LatentStatistics:
    mean = tuple(m + shift * s for m, s in zip(statistics.mean, statistics.std))
    return statistics.model_copy(update={"mean": mean, "std": tuple(factor * s for s in statistics.std)})


def planted(
    encoded: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    decoded: Callable[[Tensor], Tensor] | None = None,
) -> Case:
    vae = PoolingVAE()
    vae.encoded, vae.decoded = encoded or vae.encoded, decoded or vae.decoded
    return case(vae)


@pytest.fixture(scope="module")
def whole() -> Case:
    return case()


def test_what_is_whole_passes(whole: Case) -> None:
    health = whole.examined()
    assert health.findings == ()
    assert health.verdict == "pass"
    assert not health.broken
    kept = health.measures["held_out"]
    assert kept["count"] == COUNT // 4
    assert kept["psnr"] > kept["blocks"] > kept["mean_picture"] + 3


def test_the_numbers_are_those_of_the_posteriors(whole: Case) -> None:
    trained = whole.pictures.train_ids
    for c, channel in enumerate(whole.examined().measures["channels"]):
        mean, std = (t.half().double()[:, trained, c] for t in (whole.mean, whole.std))
        variance = mean.var(correction=0) + std.square().mean()
        assert channel["raw_mean"] == pytest.approx(float(mean.mean()), abs=1e-3)
        assert channel["raw_std"] == pytest.approx(float(variance.sqrt()), rel=1e-3)
        assert channel["signal"] == pytest.approx(float(mean.var(correction=0) / variance), rel=1e-3)
        kl = 0.5 * (mean.square() + std.square() - 1 - std.square().log()).mean()
        assert channel["kl"] == pytest.approx(float(kl), rel=1e-3)
        assert channel["mean"] == pytest.approx(0, abs=1e-3)
        assert channel["std"] == pytest.approx(1, abs=1e-3)
        assert channel["excess_kurtosis"] < 3
        assert channel["use"] > 0.01


@pytest.mark.parametrize("kind", ["twenty", "eight", "black and white"])
def test_small_sets_and_black_and_white_pictures_pass(kind: str) -> None:
    grey = scenes(COUNT).float().mean(1, keepdim=True).expand(-1, 3, -1, -1).byte()
    pixels = {"twenty": scenes(20), "eight": scenes(8), "black and white": grey}[kind]
    assert case(pixels=pixels).examined().findings == ()


def test_it_is_deterministic(whole: Case) -> None:
    assert whole.examined().measures == whole.examined().measures


@pytest.mark.parametrize(
    ("statistics", "cause"),
    [
        (lambda s: rescaled(s, 0.5), "stored scale is 0.5 times"),
        (lambda s: rescaled(s, 2), "stored scale is 2 times"),
        (lambda s: rescaled(s, 10), "stored scale is 10 times"),
        (lambda s: rescaled(s, 1.1), "stored scale is 1.1 times"),
        (lambda s: rescaled(s, 1, 0.5), "not those of these latents"),
        (lambda s: s.model_copy(update={"mean": (0.0,) * 4, "std": (1.0,) * 4}), "constant from elsewhere"),
        (
            lambda s: s.model_copy(
                update={"mean": tuple(s.mean[i] for i in ORDER), "std": tuple(s.std[i] for i in ORDER)}
            ),
            "in another order, (1, 2, 0, 3)",
        ),
        (lambda s: s.model_copy(update={"bound": 0.1}), "stored bound"),
    ],
)
def test_a_wrong_stored_scale_is_named(
    whole: Case, statistics: Callable[[LatentStatistics], LatentStatistics], cause: str
) -> None:
    health = replace(whole, statistics=statistics(whole.statistics)).examined()
    assert [finding.check for finding in health.findings] == ["scale"]
    assert cause in health.findings[0].what
    assert health.broken
    assert health.verdict == "refuse"


def test_a_mean_and_std_that_pictures_have_outgrown_are_a_warning(whole: Case) -> None:
    health = replace(whole, statistics=rescaled(whole.statistics, 1, 0.1)).examined()
    assert [(finding.check, finding.broken) for finding in health.findings] == [("scale", False)]
    assert health.verdict == "warn"


def test_a_codec_with_another_scale_than_the_cache_is_refused(whole: Case) -> None:
    health = whole.examined(rescaled(whole.statistics, 1.01))
    assert [(finding.check, finding.broken) for finding in health.findings] == [("scale", True)]


def spoilt_cache(whole: Case, how: str) -> Case:
    mean, std, trained = whole.mean.clone(), whole.std.clone(), whole.pictures.train_ids
    if how == "channels":
        mean, std = mean[:, :, list(ORDER)], std[:, :, list(ORDER)]
    elif how == "rows":
        mean, std = mean.roll(1, 1), std.roll(1, 1)
    elif how == "scaled":
        mean, std = 0.18 * mean, 0.18 * std
    elif how == "deviations":
        std = std * 20
    elif how == "another":
        mean = (
            torch.randn(mean.shape, generator=torch.Generator().manual_seed(1)) * mean.std((0, 1, 3, 4))[:, None, None]
        )
    elif how == "some":
        mean[:, ::3] = mean[:, ::3].flip(-2)
    elif how == "one channel":
        mean[:, :, 2] = 0
    return replace(whole, mean=mean, std=std, statistics=measured(mean[:, trained], std[:, trained]))


@pytest.mark.parametrize(
    ("how", "check", "cause"),
    [
        ("channels", "latent-channels", "another order, (1, 2, 0, 3)"),
        ("rows", "cache", "out of step"),
        ("scaled", "cache", "0.18 times"),
        ("deviations", "cache", "deviations are not those"),
        ("another", "cache", "not those that this VAE gives"),
        ("some", "cache", "damaged"),
        ("one channel", "cache", "in latent channel 2"),
    ],
)
def test_a_cache_that_is_not_this_vaes_is_named(whole: Case, how: str, check: str, cause: str) -> None:
    health = spoilt_cache(whole, how).examined()
    assert (health.findings[0].check, health.findings[0].broken) == (check, True)
    assert cause in health.findings[0].what
    assert "latents" in health.findings[0].remedy


@pytest.mark.parametrize("share", ["one", "all"])
def test_numbers_that_are_none_are_refused(whole: Case, share: str) -> None:
    mean = whole.mean.clone()
    mean[:, 0 if share == "one" else slice(None)] = torch.inf
    health = replace(whole, mean=mean).examined()
    assert checks(health) == {"non-finite"}
    assert health.broken


def test_weights_that_diverged_are_told_from_a_damaged_cache() -> None:
    spoilt = case()
    torch.nn.init.constant_(next(spoilt.vae.parameters()), torch.nan)
    assert "weights" in spoilt.examined().findings[0].what

    vae = PoolingVAE()
    vae.decoded = lambda images: images * torch.nan
    health = case(vae).examined()
    assert "back" not in health.summary
    assert "reconstructions are not finite" in " ".join(map(str, health.findings))


def without_channel(logvar: float, level: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def encoded(mean: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        mean, widths = mean.clone(), widths.clone()
        mean[:, 1], widths[:, 1] = level, logvar
        return mean, widths

    return encoded


@pytest.mark.parametrize(("logvar", "level"), [(0.0, 0.0), (-20.0, 0.3)])
def test_a_dead_channel_is_a_warning_that_names_it(logvar: float, level: float) -> None:
    health = planted(without_channel(logvar, level)).examined()
    dead = [finding for finding in health.findings if finding.check == "dead-channel"]
    assert [finding.level for finding in dead] == ["warn"]
    assert "latent channel 1 is dead" in dead[0].what
    assert "latent_channels=3" in dead[0].remedy
    assert not health.broken


def test_a_channel_that_the_decoder_ignores_is_named() -> None:
    def deaf(mean: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([mean[:, :3], mean[:, :3].mean(1, keepdim=True)], dim=1), logvar

    vae = PoolingVAE()
    vae.encoded = deaf
    hears_all = vae.decode
    vae.decode = lambda z_raw: hears_all(torch.cat([z_raw[:, :3], 0 * z_raw[:, 3:]], dim=1))  # type: ignore[method-assign]
    assert "ignores latent channel 3" in case(vae).examined().findings[0].what


def test_latents_that_are_all_dead_are_refused() -> None:
    health = planted(lambda mean, logvar: (0 * mean, 0 * logvar)).examined()
    assert "every latent channel is dead" in " ".join(map(str, health.findings))
    assert health.verdict == "refuse"


@pytest.mark.parametrize(
    ("encoded", "check", "words"),
    [
        (lambda mean, logvar: (mean, torch.full_like(logvar, -20)), "saturation", "lower limit"),
        (lambda mean, logvar: (20 * mean, torch.full_like(logvar, 5)), "saturation", "upper limit"),
        (lambda mean, logvar: (mean.clamp(-0.2, 0.2), logvar), "saturation", "clipped"),
        (lambda mean, logvar: (torch.where(mean > 2.2, 30 * mean, mean), logvar), "outliers", "far from Gaussian"),
    ],
)
def test_saturated_and_stray_values_are_a_warning(
    encoded: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], check: str, words: str
) -> None:
    found = [finding for finding in planted(encoded).examined().findings if finding.check == check]
    assert [finding.level for finding in found] == ["warn"]
    assert words in found[0].what


@pytest.mark.parametrize(
    ("decoded", "check"),
    [
        (lambda images: images.flip(1), "colour-channels"),
        (lambda images: 0 * images, "undertrained"),
        (lambda images: 0 * images, "grey"),
        (lambda images: images.mean(1, keepdim=True).expand_as(images), "grey"),
        (lambda images: images.flip(-1), "undertrained"),
    ],
)
def test_reconstructions_that_teach_nothing_are_refused(decoded: Callable[[Tensor], Tensor], check: str) -> None:
    health = planted(decoded=decoded).examined()
    found = [finding for finding in health.findings if finding.check == check]
    assert [finding.level for finding in found] == ["refuse"]
    assert found[0].broken == (check == "colour-channels")


def test_weaker_faults_of_reconstructions_are_a_warning() -> None:
    assert {f.level for f in planted(decoded=lambda images: 0.5 * images).examined().findings} == {"warn"}


@pytest.mark.parametrize("flat", ["every one grey", "each another colour", "all the same"])
def test_pictures_with_nothing_in_them_are_refused(flat: str) -> None:
    colours = torch.randint(0, 256, (COUNT, 3, 1, 1), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    pixels = {
        "every one grey": torch.full((COUNT, 3, SIZE, SIZE), 128, dtype=torch.uint8),
        "each another colour": colours.expand(-1, -1, SIZE, SIZE).contiguous(),
        "all the same": scenes(1).expand(COUNT, -1, -1, -1).contiguous(),
    }[flat]
    health = case(pixels=pixels).examined()
    assert checks(health) == {"flat-pictures"}
    assert health.verdict == "refuse"


def test_a_cache_of_another_number_of_pictures_is_refused(whole: Case) -> None:
    with pytest.raises(UserError, match="96 pictures, the data 20"):
        replace(whole, pictures=picture_set(scenes(20))).examined()


def test_features_measure_the_ceiling_and_a_floor(whole: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    class Colours:
        name, dim = "colours", 3

        def __call__(self, images: Tensor) -> Tensor:
            return images.mean((2, 3))

    monkeypatch.setattr("calotype.features.load_extractor", Colours)
    latents = LatentSet.from_tensors(whole.mean.half(), whole.std.half(), whole.statistics)
    codec = Codec(whole.vae, whole.statistics, SIZE)
    health = examine(codec, latents, whole.pictures, distance=lambda a, b: float((a - b).abs().max()))
    told = health.measures["features"]
    assert (told["network"], told["pictures"]) == ("colours", COUNT // 4)
    assert 0 < told["reconstructed"] < 0.02 < told["real"]


def test_it_leaves_a_record_and_a_picture(whole: Case, tmp_path: Path) -> None:
    health = replace(whole, statistics=rescaled(whole.statistics, 2)).examined()
    health.write(tmp_path)
    record = json.loads((tmp_path / "health.json").read_text())
    assert record["verdict"] == "refuse"
    assert record["findings"][0]["check"] == "scale"
    assert len(record["measures"]["channels"]) == 4
    with Image.open(tmp_path / "health.png") as picture:
        assert picture.width > 9 * 128
        assert picture.height > 6 * 128
        assert np.asarray(picture).std() > 20


def test_a_verdict_holds_for_the_statistics_it_was_given_on(whole: Case, tmp_path: Path) -> None:
    assert read_verdict(tmp_path, whole.statistics) is None
    whole.examined().write(tmp_path)
    assert read_verdict(tmp_path, whole.statistics) == "pass"
    assert read_verdict(tmp_path, rescaled(whole.statistics, 2)) is None
    (tmp_path / "health.json").write_text("{")
    assert read_verdict(tmp_path, whole.statistics) is None


def test_a_vae_that_knows_its_pictures_by_heart_is_a_warning() -> None:
    numbers = {"ssim": 0.9, "mean_picture": 12.0, "blocks": 18.0, "explained": 0.9, "contrast": 0.95, "colour": 0.95}
    colours = torch.ones(3, 3) - 0.9 * torch.eye(3)
    trained = Kept(count=48, psnr=32.0, colours=colours, **numbers)
    told = [check_kept(trained, replace(trained, count=count, psnr=22.0), pretrained=False) for count in (8, 1)]
    assert [[finding.check for finding in findings] for findings in told] == [["memorised"], []]  # one may be odd


@pytest.mark.parametrize(
    ("steps", "psnr", "explained", "contrast", "levels"),
    [
        (20, 7.7, -1.18, 0.27, {"undertrained": "refuse", "grey": "refuse"}),
        (50, 12.0, 0.19, 0.56, {"undertrained": "refuse", "grey": "warn"}),
        (100, 16.0, 0.66, 0.83, {"undertrained": "warn"}),
        (200, 18.9, 0.80, 0.90, {}),
    ],
)
def test_measured_vaes_of_icons_are_judged_by_their_steps(
    steps: int, psnr: float, explained: float, contrast: float, levels: dict[str, str]
) -> None:
    colours = torch.ones(3, 3) - 0.1 * torch.eye(3)
    rivals = {"count": 81, "ssim": 0.5, "mean_picture": 11.2, "blocks": 13.2, "colour": 0.8, "colours": colours}
    kept = Kept(psnr=psnr, explained=explained, contrast=contrast, **rivals)
    found = check_kept(kept, kept, pretrained=False)
    assert {finding.check: finding.level for finding in found} == levels


def test_what_cannot_be_drawn_is_still_written(whole: Case, tmp_path: Path) -> None:
    replace(whole, mean=torch.full_like(whole.mean, torch.nan)).examined().write(tmp_path)
    record = json.loads((tmp_path / "health.json").read_text())
    assert record["verdict"] == "refuse"
    assert (tmp_path / "health.png").is_file()
