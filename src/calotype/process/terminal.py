"""How much of the signal is left at the noisiest level, and the refusal to start from a prior never reached."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from calotype.core.errors import UserError

PRIOR_SIGNAL_LIMIT = 0.1


@dataclass(frozen=True)
class TerminalSNR:
    """The rates at t_max; `share` = a / sqrt(a^2 + b^2) is what is left of the signal (eq. 12)."""

    t_max: float
    signal_rate: float
    noise_rate: float
    log_snr: float
    share: float

    @property
    def reaches_prior(self) -> bool:
        """Whether sampling may start from the prior: at most 0.1 of the signal is left."""
        return self.share <= PRIOR_SIGNAL_LIMIT

    def __str__(self) -> str:
        verdict = "may" if self.reaches_prior else "must not"
        return (
            f"at t = {self.t_max:g} {self.share:.3g} of the signal is left (log_snr {self.log_snr:.3g}, "
            f"limit {PRIOR_SIGNAL_LIMIT:g}): sampling {verdict} start from pure noise"
        )


def terminal_snr(process: Any) -> TerminalSNR:
    """The report for the noisiest level of `process`; log_snr is -inf where no signal is left."""
    t = torch.tensor(process.t_max, dtype=torch.float64)
    a, b = float(process.signal_rate(t)), float(process.noise_rate(t))
    return TerminalSNR(float(process.t_max), a, b, float(process.log_snr(t)), a / math.hypot(a, b))


def check_prior(process: Any) -> None:
    """Refuse (UserError) a start from the prior that q(x_T) has not reached (eq. 12), naming both numbers."""
    terminal = terminal_snr(process)
    if not terminal.reaches_prior:
        raise UserError(
            f"the process keeps signal_rate {terminal.share:.3g} at its noisiest t = {terminal.t_max:g}, "
            f"but starting from pure noise needs at most {PRIOR_SIGNAL_LIMIT:g}",
            "train with more noise (betas belong to T: scale them by 1000/T) or start from a noised picture",
        )
