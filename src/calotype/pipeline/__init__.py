"""The public door: load a model, sample it; train one. Names are looked up when first used."""

from typing import TYPE_CHECKING

from calotype.core.lazy import lazy_names

if TYPE_CHECKING:
    from calotype.pipeline.bundle import load
    from calotype.pipeline.diffuser import Diffuser
    from calotype.pipeline.pipeline import Frame, Pipeline
    from calotype.pipeline.run import Run
    from calotype.pipeline.shipped import list_models
    from calotype.pipeline.training import train

_HOMES = {
    "calotype.pipeline.bundle": ["load"],
    "calotype.pipeline.diffuser": ["Diffuser"],
    "calotype.pipeline.pipeline": ["Frame", "Pipeline"],
    "calotype.pipeline.run": ["Run"],
    "calotype.pipeline.shipped": ["list_models"],
    "calotype.pipeline.training": ["train"],
}
__all__ = ["Diffuser", "Frame", "Pipeline", "Run", "list_models", "load", "train"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
