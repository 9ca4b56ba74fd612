"""The forward process: how pictures turn into noise, exactly. No weights, float64. docs/math.md derives it."""

from calotype.process.config import process_from_config
from calotype.process.forward import add_noise, noise_angle, posterior
from calotype.process.gaussian import Process, RectifiedFlow, VarianceExploding, VariancePreserving
from calotype.process.parameterization import (
    Parameterization,
    check_parameterization,
    eps_from_x0,
    target,
    x0_from_prediction,
)
from calotype.process.schedule import NoiseSchedule
from calotype.process.terminal import TerminalSNR, check_prior, terminal_snr
from calotype.process.training_levels import Density, check_density, sample_t
from calotype.process.weighting import Weighting, check_weighting, loss_weight

__all__ = [
    "Density",
    "NoiseSchedule",
    "Parameterization",
    "Process",
    "RectifiedFlow",
    "TerminalSNR",
    "VarianceExploding",
    "VariancePreserving",
    "Weighting",
    "add_noise",
    "check_density",
    "check_parameterization",
    "check_prior",
    "check_weighting",
    "eps_from_x0",
    "loss_weight",
    "noise_angle",
    "posterior",
    "process_from_config",
    "sample_t",
    "target",
    "terminal_snr",
    "x0_from_prediction",
]
