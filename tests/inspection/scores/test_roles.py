"""Which pictures play which part."""

from __future__ import annotations

import pytest
import torch

from calotype.core.errors import UserError
from calotype.images.dataset import PictureSet
from calotype.inspection.scores.roles import assign, gallery, numbered


def picture_set(count: int, held_out: int, *, captions: bool = True, labels: bool = False) -> PictureSet:
    held = torch.zeros(count, dtype=torch.bool)
    held[:held_out] = True
    return PictureSet(
        pixels=torch.zeros(count, 3, 8, 8, dtype=torch.uint8),
        names=[f"{i}.png" for i in range(count)],
        captions=[f"a {i}" if captions and i % 7 else None for i in range(count)],
        labels=[("left", "right")[i % 2] if labels else None for i in range(count)],
        held_out=held,
        refused=0,
        source="numbers",
        attribution="",
        licence="",
    )


def test_no_picture_is_compared_with_itself() -> None:
    roles = assign(picture_set(200, 20), "captions", 50, 0)
    assert not set(roles.reference.tolist()) & set(roles.asked.tolist())
    assert not set(roles.training.tolist()) & set(roles.held_out.tolist())
    assert len(roles.asked) == 50
    assert len(roles.training) == 180
    assert len(roles.unseen) == sum(1 for i in range(20) if i % 7)
    assert all(row % 7 for row in [*roles.asked.tolist(), *roles.unseen.tolist()])
    assert roles.rows.tolist() == sorted(set(roles.rows.tolist()))


def test_parts_depend_on_the_seed_and_on_no_other_picture() -> None:
    first, again = (assign(picture_set(200, 20), "captions", 50, 0) for _ in range(2))
    assert torch.equal(first.asked, again.asked)
    assert not torch.equal(first.asked, assign(picture_set(200, 20), "captions", 50, 1).asked)
    longer = [row for row in assign(picture_set(201, 20), "captions", 50, 0).reference.tolist() if row != 200]
    assert longer == first.reference.tolist()[: len(longer)]


def test_copies_of_what_was_asked_for_are_looked_for_first() -> None:
    roles = assign(picture_set(200, 20), "captions", 30, 0, most_compared=40)
    assert roles.training[:30].tolist() == roles.asked.tolist()
    assert len(roles.training.unique()) == 40
    assert not torch.isin(roles.training, roles.held_out).any()


def test_few_pictures_play_both_parts() -> None:
    roles = assign(picture_set(20, 2, captions=False), "nothing", 50, 0)
    assert set(roles.reference.tolist()) == set(roles.asked.tolist()) == set(roles.training.tolist())
    assert len(roles.unseen) == 0


def test_what_cannot_be_asked_for_is_refused() -> None:
    with pytest.raises(UserError, match="no picture of numbers has a class"):
        assign(picture_set(100, 10), "classes", 5, 0)
    with pytest.raises(UserError, match="1 training pictures"):
        assign(picture_set(3, 2), "nothing", 5, 0)


def test_a_gallery_has_those_asked_for_first_and_each_once() -> None:
    rows = gallery(torch.tensor([5, 3]), torch.tensor([3, 1, 2, 9]), size=4)
    assert rows.tolist() == [5, 3, 1, 2]
    assert gallery(torch.tensor([5, 3, 8]), torch.tensor([1]), size=2).tolist() == [5, 3, 8]


def test_equal_words_get_equal_numbers() -> None:
    told = numbered(["a", None, "b", "a", None])
    assert told[0] == told[3] != told[2]
    assert len(told.unique()) == 4
