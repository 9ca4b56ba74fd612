"""A model and a training that answer at once, in place of the real ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image


@dataclass
class Frame:
    step: int
    pictures: list[Image.Image]

    def images(self) -> list[Image.Image]:
        return self.pictures


class Model:
    """Draws plain squares whose shade is the seed, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []

    def sample(self, prompts: list[str] | None = None, **settings: Any) -> list[Image.Image]:
        self.requests.append({"prompts": prompts, **settings})
        pictures = []
        for prompt in prompts or [None]:
            for _ in range(settings["num_images"]):
                seed = settings["seed"] + len(pictures)
                picture = Image.new("RGB", (16, 16), (seed, seed, seed))
                picture.info["calotype"] = {"prompt": prompt, "seed": seed, "num_steps": settings["num_steps"]}
                pictures.append(picture)
        return pictures

    def stream(self, prompts: list[str] | None = None, **settings: Any) -> Iterator[Frame]:
        count = len(prompts or [None]) * settings["num_images"]
        for step in range(settings["num_steps"] or 20):
            yield Frame(step, [Image.new("RGB", (16, 16), (step % 256, 0, place)) for place in range(count)])


@dataclass
class Run:
    folder: Path
    known: dict[str, Any]

    def facts(self) -> dict[str, Any]:
        return self.known

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def model(self) -> Path:
        return self.folder / "model"


class Training:
    """Writes what a run leaves behind, or raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.settings, self.facts = error, dict[str, Any](), dict[str, Any]()

    def __call__(self, data: str, *, reporter: Any, **settings: Any) -> Run:
        self.settings = {"data": data, **settings}
        reporter.stage("vae", "0.7 M parameters")
        reporter.update(10, 10, rate=101.4, eta=0, losses={"loss": 0.25})
        reporter.warn("2 of 60 pictures could not be read")
        if self.error is not None:
            raise self.error
        folder = Path(settings["out"] or "runs/pictures")
        (folder / "samples").mkdir(parents=True)
        (folder / "samples" / "step-10.png").touch()
        (folder / "report.html").touch()
        (folder / "metrics.jsonl").write_text(
            '{"stage": "vae", "step": 5, "loss": 0.5, "time": 1}\n'
            '{"stage": "vae", "step": 10, "loss": 0.25, "time": 2}\n'
            '{"stage": "vae", "step": 10, "held_out_psnr": 22.0, "time": 3}\n'
            '{"stage": "denoiser", "step": 7, "loss": 0.3, "time": 4}\n'
        )
        return Run(folder, self.facts)
