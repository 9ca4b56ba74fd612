"""Other words for the same thing, so that a model learns what a caption names rather than its very words."""

from __future__ import annotations

ARTICLES = ("a", "an", "the")
LONGEST_NAME = 4  # words; a longer caption is a sentence, and those come in many wordings by themselves


def rewordings(caption: str) -> tuple[str, ...]:
    """How else one may ask for what a short caption names: "owl" -> "an owl", "the owl", "a picture of an owl".

    One of them is the name without its article. Nothing for a caption of more than LONGEST_NAME words. English.
    """
    words = caption.split()
    name = " ".join(words[1:] if len(words) > 1 and words[0].lower() in ARTICLES else words)
    if not 0 < len(name.split()) <= LONGEST_NAME:
        return ()
    named = f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
    forms = (name, named, f"the {name}", f"a picture of {named}")
    return tuple(form for form in forms if form != caption)
