"""Copies: found whatever was done to them on their way, and nothing called one that is only alike."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from calotype.images import duplicates
from calotype.images.decode import decode_picture
from calotype.images.duplicates import Copies, Views, find_copies, thumbnail
from tests.images.making import encoded

SIZE = 64


@lru_cache
def scene(seed: int, width: int = 240) -> Image.Image:
    """A smooth picture unlike any other seed's: hills of colour with a few discs."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    image = coarse.resize((width, width), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = random.integers(10, width - 10, 2).tolist()
        radius = int(random.integers(6, 40))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(random.integers(0, 256, 3).tolist()))
    return image


def clock(minute: int) -> Image.Image:
    """A face with one hand: of sixty, two neighbours differ by a small turn of it."""
    image = Image.new("RGB", (240, 240), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 10, 230, 230), fill=(255, 230, 80), outline=(0, 0, 0), width=8)
    angle = 2 * np.pi * minute / 60
    draw.line((120, 120, 120 + 90 * np.sin(angle), 120 - 90 * np.cos(angle)), fill=(0, 0, 0), width=10)
    return image


def face(slant: int) -> Image.Image:
    """A large disc with two eyes and a thin mouth, lower on one side by twice `slant` pixels."""
    image = Image.new("RGB", (240, 240), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 10, 230, 230), fill=(255, 220, 60), outline=(0, 0, 0), width=8)
    for x in (85, 155):
        draw.ellipse((x - 9, 81, x + 9, 99), fill=(0, 0, 0))
    draw.line((95, 160 + slant, 145, 160 - slant), fill=(0, 0, 0), width=3)
    return image


def dotted(seed: int, colour: tuple[int, int, int]) -> Image.Image:
    image = scene(seed).copy()
    ImageDraw.Draw(image).ellipse((111, 111, 129, 129), fill=colour)
    return image


def flag(colours: list[tuple[int, int, int]]) -> Image.Image:
    image = Image.new("RGB", (240, 240), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for place, colour in enumerate(colours):
        draw.rectangle((20, 60 + 40 * place, 220, 100 + 40 * place), fill=colour)
    return image


def found(images: list[Image.Image | bytes], digests: list[str] | None = None) -> Copies:
    contents = [image if isinstance(image, bytes) else encoded(image) for image in images]
    return among([decode_picture(content, SIZE) for content in contents], digests)


def among(squares: list[NDArray[np.uint8]], digests: list[str] | None = None) -> Copies:
    thumbnails = np.stack([thumbnail(square) for square in squares])
    digests = digests or [str(row) for row in range(len(squares))]
    return find_copies(digests, Views(thumbnails, np.stack(squares), np.arange(len(squares))))


def as_jpeg(quality: int) -> Callable[[Image.Image], bytes]:
    return lambda image: encoded(image, "JPEG", quality=quality)


CHANGES: dict[str, Callable[[Image.Image], Any]] = {
    "jpeg 85": as_jpeg(85),
    "jpeg 40": as_jpeg(40),
    "half the size": lambda image: image.resize((120, 120), Image.Resampling.LANCZOS),
    "three times the size, jpeg": lambda image: as_jpeg(80)(image.resize((720, 720), Image.Resampling.BICUBIC)),
    "webp": lambda image: encoded(image, "WEBP", quality=60),
    "a little brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_among_strangers(change: str) -> None:
    scenes = [scene(seed) for seed in range(30)]
    copies = found([*scenes, *(CHANGES[change](image) for image in scenes[:10])])
    assert copies.like.tolist() == [*range(30), *range(10)]
    assert copies.near.tolist() == [False] * 30 + [True] * 10
    assert not copies.equal.any()


def test_drawings_that_differ_in_a_small_thing_are_no_copies() -> None:
    red, white, blue, green, gold = (210, 20, 40), (255, 255, 255), (20, 60, 160), (0, 120, 70), (250, 200, 0)
    flags = [[red, white, blue], [blue, white, red], [red, white, green], [gold, blue, red], [red, white, red]]
    drawings = [*(clock(minute) for minute in range(0, 60, 5)), *(flag(colours) for colours in flags)]
    drawings += [face(slant) for slant in (-10, 10)]
    drawings += [dotted(4, colour) for colour in ((220, 60, 60), (60, 220, 60), (60, 60, 220))]
    drawings += [Image.new("RGB", (64, 64), shade) for shade in (red, white, blue, green, gold, (250, 160, 0))]
    copies = found(list(drawings))
    assert not copies.near.any()
    assert found([*drawings, *(as_jpeg(90)(drawing) for drawing in drawings)]).near.sum() == len(drawings)


def test_a_turned_or_mirrored_picture_and_another_of_the_same_place_are_no_copies() -> None:
    image = scene(3)
    others = [image.transpose(turn) for turn in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90)]
    assert not found([image, *others, image.crop((30, 30, 240, 240))]).near.any()


def test_equal_bytes_are_told_from_near_ones() -> None:
    """a, its jpeg, a again, the jpeg again, b."""
    jpeg = as_jpeg(80)(scene(1))
    copies = found([scene(1), jpeg, scene(1), jpeg, scene(2)], ["a", "j", "a", "j", "b"])
    assert copies.equal_to.tolist() == [0, 1, 0, 1, 4]
    assert copies.like.tolist() == [0, 0, 0, 0, 4]
    assert copies.equal.tolist() == [False, False, True, True, False]
    assert copies.near.tolist() == [False, True, False, False, False]


def test_a_row_of_small_changes_does_not_join_its_ends() -> None:
    """A film that fades from one scene to another: each frame is like the first of its group."""
    start, end = (np.asarray(scene(seed, SIZE), dtype=np.float64) for seed in (1, 2))
    frames = [((1 - k / 60) * start + k / 60 * end).astype(np.uint8).transpose(2, 0, 1) for k in range(61)]
    copies = among(frames)
    assert copies.near.sum() > 20
    assert copies.like[60] > 0
    for row, first in enumerate(copies.like.tolist()):
        assert np.abs(frames[row].astype(int) - frames[first]).mean() < 20


def test_a_copy_of_a_copy_is_held_against_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four on a line, alike when no more than 1 apart; 0 and 1 are found to be alike by way of 3, when 2 is with 1."""
    place = np.array([0.0, 1.0, 1.9, 0.5])

    class Line:
        def alike(self, one: NDArray[np.int64], two: NDArray[np.int64]) -> NDArray[np.bool_]:
            return np.abs(place[one] - place[two]) <= 1

    monkeypatch.setattr(duplicates, "_alike_pairs", lambda *_: np.array([[1, 2], [0, 3], [1, 3]]))
    assert find_copies(list("abcd"), Line()).like.tolist() == [0, 0, 2, 0]  # type: ignore[arg-type]


def test_prints_that_differ_in_few_bits_are_always_proposed() -> None:
    """Fewer different bits than there are parts, wherever they are: some part agrees, and brings the two together."""
    random = np.random.default_rng(0)
    prints = random.integers(0, 256, (3000, 32), dtype=np.uint8)
    pairs = random.permutation(3000).reshape(-1, 2)
    for one, two in pairs:
        bits = np.unpackbits(prints[one])
        bits[random.permutation(256)[: random.integers(0, 8)]] ^= 1
        prints[two] = np.packbits(bits)
    proposed = set(np.concatenate([duplicates._neighbours(prints, part) for part in range(8)]).tolist())
    assert {int(pair.max() * 3000 + pair.min()) for pair in pairs} <= proposed


def test_a_crowd_of_the_same_picture_is_one_group() -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (300, 3, SIZE, SIZE))
    base = np.asarray(scene(5, SIZE)).transpose(2, 0, 1)
    copies = among([(base + each).clip(0, 255).astype(np.uint8) for each in noise])
    assert set(copies.like.tolist()) == {0}


def test_few_pictures_and_small_ones() -> None:
    assert among([np.zeros((3, 4, 4), dtype=np.uint8)]).like.tolist() == [0]
    pair = [np.asarray(scene(seed).resize((4, 4))).transpose(2, 0, 1) for seed in (1, 2, 1)]
    assert among(pair).like.tolist() == [0, 1, 0]
    assert find_copies([], Views(*(np.empty((0, 3, 16, 16), np.uint8),) * 2, np.empty(0, np.int64))).like.tolist() == []


def test_a_thumbnail_is_the_mean_of_areas() -> None:
    square = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    means = square.reshape(3, 16, 4, 16, 4).mean(axis=(2, 4))
    assert np.abs(thumbnail(square) - means).max() <= 0.5 + 1e-3
    uneven = np.arange(24, dtype=np.uint8)[None, None].repeat(3, 0).repeat(24, 1)  # areas of one and a half pixels
    assert thumbnail(uneven)[0, 0, :2].tolist() == [0, 2]  # (0 + ½·1) / 1.5 = 1/3, (½·1 + 2) / 1.5 = 5/3
