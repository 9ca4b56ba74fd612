"""The public door: load a model, sample it; train one."""

from calotype.pipeline.bundle import list_models, load
from calotype.pipeline.diffuser import Diffuser
from calotype.pipeline.pipeline import Frame, Pipeline
from calotype.pipeline.run import Run
from calotype.pipeline.training import train

__all__ = ["Diffuser", "Frame", "Pipeline", "Run", "list_models", "load", "train"]
