"""The forward process: how pictures turn into noise, exactly. No weights, float64."""

from calotype.process.config import process_from_config
from calotype.process.forward import add_noise, posterior
from calotype.process.gaussian import Process, RectifiedFlow, VarianceExploding, VariancePreserving, check_prior
from calotype.process.parameterization import (
    Parameterization,
    check_parameterization,
    eps_from_x0,
    target,
    x0_from_prediction,
)
from calotype.process.schedule import NoiseSchedule
from calotype.process.training_levels import sample_t

__all__ = [
    "NoiseSchedule",
    "Parameterization",
    "Process",
    "RectifiedFlow",
    "VarianceExploding",
    "VariancePreserving",
    "add_noise",
    "check_parameterization",
    "check_prior",
    "eps_from_x0",
    "posterior",
    "process_from_config",
    "sample_t",
    "target",
    "x0_from_prediction",
]
