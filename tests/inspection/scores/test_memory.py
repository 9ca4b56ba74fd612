"""Whether samples are copies, with captions: which picture is whose."""

from __future__ import annotations

from dataclasses import replace

import torch

from calotype.inspection.scores.gathered import Gathered, Rows
from calotype.inspection.scores.memory import memory
from calotype.inspection.scores.roles import assign
from tests.inspection.scores.test_roles import picture_set


def drawn_by_a_copier(num_images: int = 2) -> tuple[Gathered, torch.Tensor]:
    """For every caption its own training picture, and for captions never seen, noise of its own."""
    noise = torch.Generator().manual_seed(0)
    pictures = picture_set(200, 40)
    pixels = torch.randint(0, 256, (200, 3, 8, 8), generator=noise, dtype=torch.uint8)
    roles = assign(pictures, "captions", 50, 0)
    rows = Rows(pixels, {row: row for row in range(200)})
    made = pixels[roles.asked].repeat_interleave(num_images, dim=0)
    unseen = torch.randint(0, 256, (len(roles.unseen) * num_images, 3, 8, 8), generator=noise, dtype=torch.uint8)
    flat = Rows(pixels.flatten(1).float(), rows.place)
    features = (made.flatten(1).float(), unseen.flatten(1).float())
    return Gathered(roles, num_images, made, unseen, rows, *features, flat, flat, thorough=True), roles.asked


def test_every_sample_is_known_as_the_picture_of_its_own_caption() -> None:
    gathered, asked = drawn_by_a_copier()
    pictures = picture_set(200, 40)
    found = memory(gathered, pictures)
    told = found["memorization"]
    assert told["verdict"] == "memory"
    assert told["pixels"]["recalled"]["value"] == told["features"]["recalled"]["value"] == 1
    assert told["held_out_captions"]["copies"]["value"] == 0
    assert "Of samples of captions it never saw, 0 % do." in told["summary"]
    assert [near["row"] for near in found["nearest"]] == asked.repeat_interleave(2)[:32].tolist()
    assert [near["prompt"] for near in found["nearest"][:2]] == [pictures.captions[int(asked[0])]] * 2


def test_pictures_of_other_captions_are_copies_but_not_recalled() -> None:
    gathered, _ = drawn_by_a_copier()
    told = memory(replace(gathered, made=gathered.made.roll(2, dims=0)), picture_set(200, 40))["memorization"]
    assert told["pixels"]["copies"]["value"] == 1
    assert told["pixels"]["recalled"]["value"] == 0
