"""The one exception a user is meant to read."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """The input is wrong: one line that says what, and how to mend it.

    The command line prints it and exits with status 2; nothing of the user's is lost.
    """

    def __init__(self, what: str, mend: str = "") -> None:
        self.what, self.mend = what, mend
        super().__init__(f"{what}: {mend}" if mend else what)


class CorruptFileError(UserError):
    """A file of ours is truncated, altered or missing."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like `name`, as the end of a sentence: "did you mean 'x'?", else the list of all."""
    known = sorted(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean '{close[0]}'?" if close else f"choose from {', '.join(known)}"
