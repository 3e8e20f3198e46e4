# SPDX-License-Identifier: Apache-2.0
"""Feature maps in int8 while training, in TFLite's affine convention."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from npusim.errors import ConfigError

CODE_MIN, CODE_MAX = -128, 127
SCALE_MIN = 1e-6
"""Of maps that are all zero, so that every scale is one that a multiplier can express."""


class Mode(StrEnum):
    """What an `ActivationQuantizer` does with what goes through it."""

    OFF = "off"
    """Nothing."""
    OBSERVE = "observe"
    """Follows its range, and changes nothing."""
    ON = "on"
    """Rounds it to the int8 grid; in training it follows the range too, unless that is learned."""


class ActivationQuantizer(nn.Module):
    """Rounds maps to ``scale * (code - zero_point)`` with int8 codes, straight-through.

    The range is the moving average of smallest and largest value, or learned: see `learn`. It
    always includes 0, which is exactly a code.

    Args:
        momentum: how far the range moves towards each map's, 0..1; the first sets it.

    Source: [TFLITE] quantization of int8 activations, per tensor.
    """

    low: Tensor
    high: Tensor

    def __init__(self, momentum: float = 0.01):
        super().__init__()
        self.momentum = momentum
        self.mode = Mode.OFF
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))

    @property
    def learned(self) -> bool:
        """Whether the range is trained with the weights."""
        return isinstance(self.low, nn.Parameter)

    @property
    def calibrated(self) -> bool:
        """Whether there is a range: something other than zeros was seen."""
        return bool(self.high > self.low)

    def learn(self) -> None:
        """Make the range parameters, which an optimizer trains, from here on."""
        if not self.learned:
            low, high = self.low.clone(), self.high.clone()
            del self.low, self.high
            self.low, self.high = nn.Parameter(low), nn.Parameter(high)

    @property
    def scale(self) -> float:
        """Real value of one step; a float32.

        Raises:
            ConfigError: nothing was observed yet.
        """
        return float(self._grid()[0])

    @property
    def zero_point(self) -> int:
        """Code of 0, -128..127.

        Raises:
            ConfigError: nothing was observed yet.
        """
        return int(self._grid()[1])

    def forward(self, x: Tensor, *, observe: bool = True) -> Tensor:
        """Maps f32 of any shape as the mode says; `observe` false leaves the range as it is."""
        if self.mode is Mode.OFF:
            return x
        follows = self.training and not self.learned
        if observe and (follows or self.mode is Mode.OBSERVE):
            self._follow(x.detach())
        if self.mode is Mode.OBSERVE:
            return x
        x = x.float()
        scale, zero_point = self._scale_and_zero_point()
        if not self.learned:
            rounded: Tensor = torch.fake_quantize_per_tensor_affine(
                x, scale, zero_point.to(torch.int32), CODE_MIN, CODE_MAX
            )
            return rounded
        code = _round(x / scale + zero_point).clamp(CODE_MIN, CODE_MAX)
        return (code - zero_point) * scale

    @torch.no_grad()
    def _follow(self, x: Tensor) -> None:
        low, high = x.amin().float().clamp(max=0), x.amax().float().clamp(min=0)
        rate = torch.where(self.high > self.low, self.momentum, 1.0)
        self.low.lerp_(low, rate)
        self.high.lerp_(high, rate)

    @torch.no_grad()
    def _grid(self) -> tuple[Tensor, Tensor]:
        if not self.calibrated:
            raise ConfigError("activation quantizer must have observed a range, got none yet")
        return self._scale_and_zero_point()

    def _scale_and_zero_point(self) -> tuple[Tensor, Tensor]:
        low, high = self.low.clamp(max=0), self.high.clamp(min=0)
        scale = ((high - low) / (CODE_MAX - CODE_MIN)).clamp(min=SCALE_MIN)
        return scale, _round(CODE_MIN - low / scale)


class _Round(torch.autograd.Function):
    """Round half to even, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return grad_outputs[0]


def _round(x: Tensor) -> Tensor:
    rounded: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return rounded
