"""The wrapper that makes a network D(x_t, t, cond) = x0_hat: the only place where network and process meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from calotype.process import Parameterization, check_parameterization, x0_from_prediction
from calotype.process.forward import broadcast


class NetworkDenoiser:
    """Dresses `network(x_in, time, cond)` as a denoiser.

    x_in = c_in x_t has about unit variance, time is `process.network_time(t)` (b,) float32: t - 1 for tables, 1000 t
    for flows, ln(sigma)/4 for variance-exploding. With v on the latter the output is divided by c_in, which is EDM's
    preconditioning: c_skip = 1/(1 + sigma^2), |c_out| = sigma/sqrt(1 + sigma^2) (Karras et al. 2022, table 1,
    sigma_data = 1). `t_max` is the noisiest level the network was trained on; samplers refuse to start above it.
    Raises UserError for eps where the noisiest level carries no signal.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor, Any], Tensor],
        process: Any,
        parameterization: Parameterization = "v",
        *,
        t_max: float | None = None,
    ) -> None:
        check_parameterization(parameterization, process)
        self.network, self.process, self.parameterization = network, process, parameterization
        self.t_max = process.t_max if t_max is None else float(t_max)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x0_hat, shaped and typed like x_t (b, c, h, w); t is () or (b,)."""
        return x0_from_prediction(self.parameterization, self.process, x_t, t, self.predict(x_t, t, cond))

    def predict(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The network's estimate of `target(parameterization, ...)`, shaped and typed like x_t: for the loss."""
        t = torch.as_tensor(t)
        t = t.expand(len(x_t)) if t.ndim == 0 else t
        scale = broadcast(self.process.input_scale(t), x_t)
        time = self.process.network_time(t).to(torch.float32).to(x_t.device)
        prediction = self.network((x_t * scale).to(self._dtype(x_t)), time, cond).to(x_t.dtype)
        return prediction / scale if self.parameterization == "v" else prediction

    def _dtype(self, x_t: Tensor) -> torch.dtype:
        """The dtype of the network's weights; a plain function takes what comes."""
        if isinstance(self.network, nn.Module):
            for parameter in self.network.parameters():
                if parameter.is_floating_point():
                    return parameter.dtype
        return x_t.dtype
