"""In which numbers a step is computed: float32 weights always; on a GPU the products in bfloat16."""

from __future__ import annotations

from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Arithmetic:
    """Autocast to the type that `precision` names, and the scaling of the loss that fp16 needs.

    "auto" is bf16 on a GPU that has it and fp32 elsewhere: a CPU without bf16 instructions emulates them, slowly.
    `tf32`: float32 products on a GPU of 2020 and later may round their inputs to 10 bits of mantissa.
    """

    def __init__(self, precision: Precision, device: torch.device, *, tf32: bool = True) -> None:
        if precision == "auto":
            precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = tf32
        self.name, self._device = precision, device.type
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def lower(self) -> bool:
        """Whether a gradient that is not finite may only have been scaled too far; a smaller scale is then tried."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > 1

    def state(self) -> dict[str, Any]:
        """The scale of the loss, as JSON for a checkpoint."""
        return dict(self.scaler.state_dict())

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave, where a scale is used now."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)

    def casting(self) -> torch.autocast:
        """The context in which losses are computed."""
        kind = _TYPES.get(self.name)
        return torch.autocast(self._device, dtype=kind, enabled=kind is not None)
