"""What a run asks of its pictures."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from calotype.core.config import Config
from calotype.core.errors import UserError
from calotype.images.decode import Transform

Level = Annotated[int, Field(ge=0, le=255)]


class PictureConfig(Config):
    """How picture files become training pictures, and what is not taken in.

    `crop`: the middle square, or `crops` squares a picture at places drawn from its content. `background` (RGB) shows
    where a picture is transparent. `duplicates`: keep them, drop all but the first of equal files, or of pictures that
    look alike too (judged by their first square, so random crops hide most of those). A run stops when more than the
    share `max_refused` of the files cannot be read; a file that takes more than `seconds` to decode cannot.
    """

    crop: Literal["centre", "random"] = "centre"
    crops: int = Field(1, ge=1, le=64)
    background: tuple[Level, Level, Level] = (255, 255, 255)
    duplicates: Literal["keep", "drop-exact", "drop-near"] = "keep"
    max_refused: float = Field(0.2, ge=0, le=1)
    seconds: float = Field(30.0, gt=0)

    @model_validator(mode="after")
    def _crops_differ(self) -> Self:
        """Several middles of a picture would be the same square (UserError)."""
        if self.crops > 1 and self.crop == "centre":
            raise UserError(f"data.crops={self.crops} of the middle are one square", "add --set data.crop=random")
        return self

    def is_stopped_by(self, refused: int, total: int) -> bool:
        """Whether so many refused files of `total` stop a run. One does not, in a small set, unless none may be."""
        return refused > self.max_refused * total and (refused > 1 or self.max_refused == 0)

    def transform(self, size: int) -> Transform:
        """What is done to every file, for pictures of `size` pixels."""
        crops = self.crops if self.crop == "random" else 1
        return Transform(size, self.crop, crops, self.background)
