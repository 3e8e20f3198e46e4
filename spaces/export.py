# SPDX-License-Identifier: Apache-2.0
"""A trained candidate as the int8 network that a runtime or an NPU executes.

Batch norm becomes part of the convolution before it: its factor goes into the scale of the channel,
so that codes of weights stay on their b-bit grid and pruned weights stay 0. A negative factor flips
the codes' signs, since scales are positive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError
from npusim.network import Network
from npusim.weights.format import PALETTE_MAX
from spaces.assemble import Grid, Weights, assemble, weights_shape
from spaces.base import LayerKind
from spaces.concrete import ConcreteLayer, concrete_layers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spaces.nets import CandidateNet, CompressedWeight

CODE_MAX: Final = 127
_BITWIDTH_MAX: Final = 8
"""Most bits that codes hold; wider weights are rounded to them, channel by channel."""
_BIAS_MAX: Final = 1 << 30
"""Codes of biases stay below, so that sums of products with them stay in 32 bits."""


def export(
    net: CandidateNet,
    images: Tensor | None = None,
    fine_bias: bool = False,
    average_pool: bool = False,
) -> Network:
    """The int8 network of a trained candidate, named as its space.

    Weights of b <= 8 bits in number format Q have the codes of eq. (3), one of
    ``-L..L``, ``L = 2**(b-1) - 1``. Those in Q-hat have ``Q(Q-hat, 8)``: at most as many different
    codes, the largest 127; where they are more than a palette holds, and 8 bits have room, they are
    consecutive instead. More than 8 bits become 8, each channel with a scale of its own.

    Args:
        net: trained, its int8 grids calibrated; see `spaces.nets.observe_activations`.
        images: f32 [N, C, H, W], of which the range of what PReLUs read is taken; needed for
            candidates that have some.
        fine_bias: multiply codes by the largest power of 2 that int8 has room for. Biases then have
            so much finer steps; weights take about half a percent more.
        average_pool: means over height and width as average pools; see `spaces.assemble`.

    Raises:
        ConfigError: a grid was not calibrated, or images are needed.

    Source: [UDC] section 5 for Q(Q-hat, 8).
    Differs: consecutive codes are ours; what is not in a palette takes fewer bits if it is small.
    """
    found = concrete_layers(net.space, net.candidate)
    for name, quantizer in net.quantizers().items():
        if not quantizer.calibrated:
            raise ConfigError(
                f"int8 grid of layer {name!r} must be calibrated before it is exported, "
                f"got none: observe activations of some images"
            )
    was_training = net.training
    net.eval()
    try:
        before = _ranges_before_prelus(net, found, images)
        values = _Trained(net, before, fine_bias)
        return assemble(net.space.name, found, values, average_pool)
    finally:
        net.train(was_training)


class _Trained:
    """Values of a trained network; see `spaces.assemble.Values`."""

    def __init__(self, net: CandidateNet, before: dict[str, Grid], fine_bias: bool):
        self.net, self.before, self.fine_bias = net, before, fine_bias

    def grid(self, name: str) -> Grid:
        """As it was calibrated or learned."""
        quantizer = self.net.quantizer(name)
        return Grid(quantizer.scale, quantizer.zero_point)

    def grid_before(self, name: str) -> Grid:
        """Of the range that images had."""
        return self.before[name]

    def slopes(self, each: ConcreteLayer[int]) -> tuple[npt.NDArray[np.int8], float]:
        """Rounded to int8 with one scale."""
        block: Any = self.net.block(each.layer.name)
        slopes = _array(block.activate.weight)
        scale = max(float(np.abs(slopes).max()) / CODE_MAX, np.finfo(np.float32).tiny)
        return np.rint(slopes / scale).astype(np.int8).reshape(1, 1, -1), scale

    def weights(self, each: ConcreteLayer[int], ifm: Grid) -> Weights:
        """Codes on the grid they were trained on, batch norm in the scales and the bias."""
        block: Any = self.net.block(each.layer.name)
        factor, shift = _folded(block, each.ofm_depth)
        if each.layer.kind is LayerKind.ACTIVATION:  # batch norm alone
            codes, step = np.full((each.ofm_depth, 1), CODE_MAX), np.asarray(1 / CODE_MAX)
        else:
            codes, step = _codes(block.weight)
        if self.fine_bias:
            largest = max(int(np.abs(codes).max()), 1)
            up = 1 << ((CODE_MAX // largest).bit_length() - 1)
            codes, step = codes * up, step / up
        flat = codes.reshape(each.ofm_depth, -1) * np.where(factor < 0, -1, 1)[:, None]
        factor = np.where(flat.any(axis=1), factor, 1)  # batch norm's is huge then: nothing varies
        scales = np.broadcast_to(step, factor.shape) * np.abs(factor)
        flat, scales = _with_room(flat, scales, shift, ifm.scale)
        bias = np.rint(shift / (float(np.float32(ifm.scale)) * scales.astype(np.float64)))
        return Weights(_laid_out(each, flat), scales, bias.astype(np.int64))


def _array(tensor: Tensor) -> npt.NDArray[np.float64]:
    return tensor.detach().double().cpu().numpy()


def _folded(block: nn.Module, depth: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Factor and shift of each channel behind the weights: of batch norm, or of the bias."""
    norm: Any = block.norm
    if getattr(norm, "running_var", None) is None:
        bias: Any = getattr(block, "bias", None)
        return np.ones(depth), np.zeros(depth) if bias is None else _array(bias)
    factor = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return factor, _array(norm.bias) - factor * _array(norm.running_mean)


def _codes(weight: CompressedWeight) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Codes [O, ...] of a layer's weights, and the value of a step: of all, or of each channel."""
    deployed = _array(weight()).astype(np.float64)
    if not weight.quantizes or weight.bitwidth > _BITWIDTH_MAX:  # 8 bit, by channel
        largest = np.abs(deployed).reshape(len(deployed), -1).max(axis=1)
        step = np.maximum(largest / CODE_MAX, np.finfo(np.float32).tiny)
        by_channel = step.reshape(-1, *(1,) * (deployed.ndim - 1))
        return np.rint(deployed / by_channel).astype(np.int64), step
    r = float(weight.log_range.detach().double().exp())
    beta = float(weight.beta) if weight.offset else 0.0
    n_levels = max((1 << (weight.bitwidth - 1)) - 1, 1)
    if beta > 0 and weight.bitwidth > 1:  # [UDC] section 5: Q(Q-hat, 8)
        if 1 << weight.bitwidth > PALETTE_MAX and beta / r * n_levels + n_levels < CODE_MAX:
            return _in_whole_steps(deployed, beta, r / n_levels)
        step = np.asarray((r + beta) / CODE_MAX)
    else:  # [UDC] eq. (3)
        step = np.asarray(r / n_levels)
    return np.rint(deployed / step).astype(np.int64), step


def _in_whole_steps(
    deployed: npt.NDArray[np.float64], beta: float, step: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Codes of Q-hat in its own steps, so that neighbouring levels have neighbouring codes.

    Beta becomes a whole number of steps, at most half a step away; the scale is that of least
    squared error.
    """
    levels = np.rint((np.abs(deployed) - beta) / step) + max(1, round(beta / step))
    codes = np.where(deployed == 0, 0, np.sign(deployed) * levels)
    scale = float((deployed * codes).sum() / max(float((codes**2).sum()), 1.0))
    return codes.astype(np.int64), np.asarray(scale or step)


def _with_room(
    codes: npt.NDArray[np.int64],
    scales: npt.NDArray[np.float64],
    shift: npt.NDArray[np.float64],
    ifm_scale: float,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Scales in single precision, large enough for the codes of biases.

    Only channels that batch norm all but switches off need larger ones; there weights come to next
    to nothing and are rounded to the coarser steps.
    """
    least = np.maximum(np.abs(shift) / (ifm_scale * _BIAS_MAX), np.finfo(np.float32).tiny)
    coarse = scales < least
    rounded = np.rint(codes * (scales / np.maximum(scales, least))[:, None]).astype(np.int64)
    codes = np.where(coarse[:, None], rounded, codes)
    return codes, np.maximum(scales, least).astype(np.float32)


def _laid_out(each: ConcreteLayer[int], codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """[O, I * H * W] as `spaces.assemble.weights_shape` has it."""
    k, shape = each.kernel, weights_shape(each)
    if len(shape) == 2:
        return codes.astype(np.int8)
    oihw = codes.reshape(each.ofm_depth, -1, k, k)
    by_channel = each.layer.kind in (LayerKind.DEPTHWISE, LayerKind.ACTIVATION)
    order = (1, 2, 3, 0) if by_channel else (0, 2, 3, 1)
    return np.ascontiguousarray(oihw.transpose(order), np.int8)


def _ranges_before_prelus(
    net: CandidateNet, found: tuple[ConcreteLayer[int], ...], images: Tensor | None
) -> dict[str, Grid]:
    """Int8 grids of what PReLUs read where an operation computes it."""
    names = [each.layer.name for each in found if each.layer.activation == "prelu"]
    if not names:
        return {}
    if images is None:
        raise ConfigError(
            f"images must be given to export PReLUs, got none for that of layer {names[0]!r}"
        )
    ranges: dict[str, tuple[float, float]] = {}

    def note(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach()
            low, high = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, float(x.min())), max(high, float(x.max()))

        return hook

    blocks: list[Any] = [net.block(name) for name in names]
    hooks = [
        block.activate.register_forward_pre_hook(note(name))
        for name, block in zip(names, blocks, strict=True)
    ]
    net(images)
    for hook in hooks:
        hook.remove()
    return {name: _affine(*ends) for name, ends in ranges.items()}


def _affine(low: float, high: float) -> Grid:
    """The grid of a range that includes 0."""
    scale = max((high - low) / 255, float(np.finfo(np.float32).tiny))
    return Grid(scale, int(np.clip(round(-128 - low / scale), -128, 127)))
