"""Other words for short captions."""

import pytest

from calotype.text import rewordings


@pytest.mark.parametrize(
    ("caption", "forms"),
    [
        ("owl", ("an owl", "the owl", "a picture of an owl")),
        ("red heart", ("a red heart", "the red heart", "a picture of a red heart")),
        ("a red heart", ("red heart", "the red heart", "a picture of a red heart")),
        ("The owl", ("owl", "an owl", "the owl", "a picture of an owl")),
        ("a", ("an a", "the a", "a picture of an a")),
        ("red heart on a card", ()),
        ("a boat in thick fog", ("boat in thick fog", "the boat in thick fog", "a picture of a boat in thick fog")),
        ("", ()),
        ("   ", ()),
    ],
)
def test_a_name_is_asked_for_with_and_without_its_article(caption: str, forms: tuple[str, ...]) -> None:
    assert rewordings(caption) == forms
