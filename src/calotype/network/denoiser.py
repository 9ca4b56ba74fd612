"""The wrapper that makes a network D(x_t, t, cond) = x0_hat: the only place where network and process meet."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from calotype.process import Parameterization, check_parameterization, x0_from_prediction
from calotype.process.forward import broadcast


class NetworkDenoiser:
    """Dresses `network(x_in, time, cond)` as a denoiser.

    x_in = c_in x_t has about unit variance, time is `process.network_time(t)` (b,) float32: t - 1 for tables, 1000 t
    for flows, ln(sigma)/4 for variance-exploding. The network's output is what `target(parameterization, ...)` says,
    and eq. 18 takes it to x0_hat; "edm" is the whole preconditioning of Karras et al. 2022 (eq. 17, sigma_data = 1) and
    what a variance-exploding process wants. `t_max` is the noisiest level the network was trained on; samplers refuse
    to start above it. Raises UserError for eps where the noisiest level carries no signal.
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
        self.t_max = float(t_max or process.t_max)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """x0_hat, shaped and typed like x_t (b, c, h, w); t is () or (b,)."""
        return x0_from_prediction(self.parameterization, self.process, x_t, t, self.predict(x_t, t, cond))

    def predict(self, x_t: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """The network's estimate of `target(parameterization, ...)`, shaped and typed like x_t: for the loss.

        Raises ValueError if t is neither () nor (b,), or if the network's answer is not shaped like x_t.
        """
        t = per_row(t, x_t)
        x_in = x_t * broadcast(self.process.input_scale(t), x_t)
        time = self.process.network_time(t).to(torch.float32).to(x_t.device)
        prediction = self.network(x_in.to(self._dtype(x_t)), time, cond)
        if prediction.shape != x_t.shape:
            raise ValueError(f"the network answered {tuple(prediction.shape)} to an x_t of {tuple(x_t.shape)}")
        return prediction.to(x_t.dtype)

    def _dtype(self, x_t: Tensor) -> torch.dtype:
        """The dtype of the network's weights; a plain function takes what comes."""
        if isinstance(self.network, nn.Module):
            for parameter in self.network.parameters():
                if parameter.is_floating_point():
                    return parameter.dtype
        return x_t.dtype


def per_row(t: Tensor, x_t: Tensor) -> Tensor:
    """Levels t, () or (b,), as one for each row of x_t: (b,). Raises ValueError for any other shape."""
    t = torch.as_tensor(t)
    if t.shape not in ((), (len(x_t),)):
        raise ValueError(f"t has shape {tuple(t.shape)}: give one level, or one for each of the {len(x_t)} rows of x_t")
    return t.expand(len(x_t))
