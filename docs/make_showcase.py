"""Draws the pictures at the top of the README with the models that come with the package.

    python docs/make_showcase.py [--emoji openmoji-64] [--landscapes landscapes-128] [--out docs/images]

Prompts are fixed and seeds count up from 0: nothing is chosen. Half a minute on one core.
"""

import argparse
from pathlib import Path

import calotype
from calotype.images import SHOWCASE
from calotype.images.grid import plot_images, save_gif, save_png
from calotype.pipeline import Pipeline

FILMED = ("red heart", "red apple", "owl", "rocket", "hamburger", "guitar", "mushroom", "frog")
PLACES = ("forest", "glacier", "mountain", "sea")
EACH = 2


def emoji(model: Pipeline, out: Path) -> None:
    """The 32 prompts of every report, and eight of them on their way from noise."""
    save_png(plot_images(model.sample(list(SHOWCASE), seed=0), columns=8, captions=SHOWCASE), out / "openmoji-64.png")
    stages = [model.decode(frame.x_t) for frame in model.stream(list(FILMED), seed=0)]
    shown = [plot_images(pictures, columns=len(FILMED), captions=FILMED) for pictures in stages]
    save_gif(shown, out / "film.gif", milliseconds=120)


def landscapes(model: Pipeline, out: Path) -> None:
    """A row: two of each class."""
    labels = [place for place in PLACES for _ in range(EACH)]
    pictures = model.sample(labels=labels, seed=0)
    save_png(plot_images(pictures, columns=len(labels), captions=labels), out / "landscapes-128.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emoji", default="openmoji-64", metavar="MODEL")
    parser.add_argument("--landscapes", default="landscapes-128", metavar="MODEL")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    emoji(calotype.load(options.emoji), options.out)
    landscapes(calotype.load(options.landscapes), options.out)


if __name__ == "__main__":
    main()
