"""Mirrored unless left and right, or writing, are part of the pictures."""

import pytest

from calotype.images.mirroring import mirror_matters


@pytest.mark.parametrize(
    ("captions", "classes", "reason"),
    [
        (["a left arrow", "a cat"], [], "captions tell left from right ('a left arrow')"),
        (["a man facing RIGHT"], [], "captions tell left from right ('a man facing RIGHT')"),
        (["rightwards arrow", None], ["cat"], "captions tell left from right ('rightwards arrow')"),
        (["anticlockwise arrows"], [], "captions speak of turning ('anticlockwise arrows')"),
        (["five o’clock"], [], "captions speak of turning ('five o’clock')"),
        (["handwritten digits"], [], "captions speak of writing ('handwritten digits')"),
        ([], ["0", "1", "2"], "classes are letters or digits ('0', '1')"),
        ([], ["cat", "arrow_left"], "classes tell left from right ('arrow_left')"),
        ([], ["TurnRight", "stop"], "classes tell left from right ('TurnRight')"),
        (["a cat", None], ["cat", "dog"], ""),
        (["a copyright notice upright, all right now"], [], ""),
        (["what is left over", "right here, bright leftovers"], [], ""),
        ([], ["x"], ""),
        ([None], [], ""),
        ([], [], ""),
    ],
)
def test_reasons(captions: list[str | None], classes: list[str], reason: str) -> None:
    assert mirror_matters(captions, classes) == reason


def test_a_rare_word_decides_nothing() -> None:
    assert mirror_matters(["a left shoe", *["a shoe"] * 199], []) != ""
    assert mirror_matters(["a left shoe", *["a shoe"] * 200], []) == ""


def test_a_long_example_is_cut() -> None:
    assert len(mirror_matters(["left of " + "a very long " * 20 + "wall"], [])) < 90
