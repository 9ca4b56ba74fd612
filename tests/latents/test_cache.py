"""Latents as the denoiser gets them: in memory or on disk, standardised by what was measured over all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from calotype.core.errors import CorruptFileError
from calotype.core.shards import OpenFiles, ShardStore
from calotype.latents import Codec, LatentSet, LatentStatistics, cache, encode_pictures
from calotype.latents.cache import HeldRows, StoredRows, measure, open_rows
from tests.latents.encoding_making import picture_set, tiny_vae

NONE = LatentStatistics(mean=(0.0, 0.0), std=(1.0, 1.0), bound=3.0)


def stored(folder: Path, values: Tensor, size: int) -> StoredRows:
    """`values` (n, v, 2, c, h, w) in shards of `size`, their last rows first."""
    store = ShardStore(folder)
    keys = torch.arange(len(values)).view(-1, 1).expand(-1, 4).contiguous().view(torch.uint8).numpy()
    for rows in reversed(torch.arange(len(values)).split(size)):
        store.add(keys[rows.numpy()], {"values": values[rows]})
    return StoredRows(store.locate(keys))


def test_statistics_standardise_what_the_denoiser_sees() -> None:
    torch.manual_seed(0)
    scale, shift = torch.tensor([3.0, 0.2])[:, None, None], torch.tensor([5.0, -1.0])[:, None, None]
    mean = torch.randn(1, 4000, 2, 4, 4) * scale + shift
    std = torch.full_like(mean, 0.5)
    ids = torch.arange(4000)
    statistics = measure(LatentSet.from_tensors(mean, std, NONE).rows, ids)
    latents = LatentSet.from_tensors(mean, std, statistics)
    x0 = latents.draw(ids, None, torch.randn(4000, 2, 4, 4))
    assert x0.mean((0, 2, 3)).abs().max() < 0.02
    assert (x0.std((0, 2, 3)) - 1).abs().max() < 0.02
    assert 2.5 < latents.statistics.bound < 3.1, "the 99.5 % quantile of |x| of nearly Gaussian latents"


def test_statistics_in_pieces_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the formulas over all values at once, every eleventh value for the quantile."""
    torch.manual_seed(0)
    monkeypatch.setattr(cache, "VALUES_AT_ONCE", 7 * 60)
    monkeypatch.setattr(cache, "QUANTILE_VALUES", 2 * 50 * 3 * 20 // 11 + 1)
    mean, std = torch.randn(2, 60, 3, 4, 5) * 4 + 9, torch.rand(2, 60, 3, 4, 5)
    ids = torch.randperm(60)[:50]
    measured = measure(LatentSet.from_tensors(mean, std, NONE).rows, ids)
    mean, std = mean[:, ids].double(), std[:, ids].double()
    center = mean.mean((0, 1, 3, 4))
    spread = (mean.var((0, 1, 3, 4), unbiased=False) + std.square().mean((0, 1, 3, 4))).sqrt()
    away = ((mean - center[:, None, None]) / spread[:, None, None]).abs().flatten()[::11]
    assert measured.mean == pytest.approx(center.tolist(), rel=1e-9)
    assert measured.std == pytest.approx(spread.tolist(), rel=1e-9)
    assert measured.bound == pytest.approx(float(torch.quantile(away, 0.995)), rel=1e-9)


def test_the_bound_is_of_every_channel_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where one value in every 60, as many as a latent has, would be enough."""
    torch.manual_seed(0)
    monkeypatch.setattr(cache, "QUANTILE_VALUES", 5 * 200)
    mean = torch.randn(1, 1000, 3, 4, 5)
    mean[:, :, 0, 0, 0] = 0  # a corner that never changes
    measured = measure(LatentSet.from_tensors(mean, torch.zeros_like(mean), NONE).rows, torch.arange(1000))
    assert 2.3 < measured.bound < 3.3


@pytest.mark.parametrize("open_files", [3, 100])
@pytest.mark.parametrize("variants", [1, 2])
def test_latents_on_disk_are_those_in_memory(
    tmp_path: Path, variants: int, open_files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few files the system lets a process open."""
    limit = OpenFiles.SPARED + open_files
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, limit))
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    torch.manual_seed(0)
    values = torch.randn(50, variants, 2, 3, 4, 2).half()
    on_disk, held = stored(tmp_path, values, 8), LatentSet(HeldRows(values.float()), NONE)
    latents = LatentSet(on_disk, NONE)
    assert (len(latents), latents.shape) == (len(held), held.shape) == (50, (3, 4, 2))
    for _ in range(6):
        ids, flipped = torch.randint(0, 50, (9,)), torch.rand(9) < 0.5
        for sides in (flipped, None):
            for one, other in zip(latents.posterior(ids, sides), held.posterior(ids, sides), strict=True):
                assert one.dtype == torch.float32
                assert torch.equal(one, other)
    mean, std = held.posterior(torch.tensor([7]), torch.tensor([True]))
    assert torch.equal(torch.stack([mean[0], std[0]]), values[7, -1].float()), "mirrored ones are the last variant"
    assert torch.equal(on_disk.hold(), values)
    assert on_disk.hold(torch.device("meta")).is_meta, "it is put together where it is to lie"


def test_many_latents_stay_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = picture_set(*range(6))
    encode_pictures(tiny_vae(), pictures, tmp_path, mirrored=True)
    (store,) = (ShardStore(path) for path in tmp_path.iterdir() if path.is_dir())
    small = open_rows(store, pictures.keys)
    monkeypatch.setattr(cache, "MEMORY", 6 * 2 * 2 * 4 * 2 * 2 * 2 - 1)
    large = open_rows(store, pictures.keys)
    assert isinstance(small, HeldRows)
    assert isinstance(large, StoredRows)
    assert torch.equal(small.values, large.hold())
    with pytest.raises(CorruptFileError, match="lacks latents of 1 pictures"):
        open_rows(store, picture_set(0, 1, 9).keys)


def test_latents_are_the_codecs_own(tmp_path: Path) -> None:
    vae, pictures = tiny_vae(), picture_set(*range(6), held_out=2)
    latents = encode_pictures(vae, pictures, tmp_path, mirrored=True)
    codec = Codec(vae, latents.statistics, 16)
    assert codec.latent_shape == latents.shape == (4, 2, 2)
    images = pictures.pixels.float() / 127.5 - 1
    x0 = codec.encode(images)
    torch.testing.assert_close(x0, latents.standardize(latents.posterior(torch.arange(6))[0]), rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(codec.decode(x0), vae.decode(vae.encode(images)[0]).clamp(-1, 1), rtol=1e-4, atol=1e-5)
    mirrored = latents.draw(torch.tensor([2]), torch.tensor([True]), torch.zeros(1, 4, 2, 2))
    torch.testing.assert_close(mirrored, codec.encode(images[2:3].flip(-1)), rtol=1e-3, atol=2e-3)
    logvar = vae.encode(images)[1]
    torch.testing.assert_close(latents.posterior(torch.arange(6))[1], torch.exp(logvar / 2), rtol=1e-3, atol=1e-4)


def test_other_things_than_latents_of_one_shape_are_refused(tmp_path: Path) -> None:
    stored(tmp_path, torch.zeros(3, 1, 2, 4, 2, 2).half(), 3)
    for name, other in {".": torch.ones(3, 1, 2, 4, 4, 4).half(), "flat": torch.ones(3, 4).half()}.items():
        with pytest.raises(CorruptFileError, match="other things than latents of one shape"):
            stored(tmp_path / name, other, 3)
    with pytest.raises(CorruptFileError, match="other things"):
        stored(tmp_path / "wide", torch.ones(3, 1, 2, 4, 2, 2), 3)


def test_a_shard_cut_short_under_way_is_named(tmp_path: Path) -> None:
    rows = stored(tmp_path, torch.randn(8, 1, 2, 3, 4, 2).half(), 4)
    path = rows.places.paths[0]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CorruptFileError, match=rf"{path.name} was cut short"):
        rows.take(torch.arange(8), None)
