# SPDX-License-Identifier: Apache-2.0
"""A super-resolution network in the manner of FSRCNN, limited by its multiply-accumulates."""

from __future__ import annotations

from collections.abc import Sequence

from npusim._arguments import choice, integer
from npusim.errors import ConfigError
from spaces.base import Space
from spaces.builder import SpaceBuilder
from spaces.layers import ACTIVATIONS
from spaces.options import WIDTHS

KERNELS = (1, 3, 5, 7)
HEADS = ("depth_to_space", "transpose_conv")
LAST_KERNELS = {"depth_to_space": (1, 3, 5), "transpose_conv": (5, 7, 9)}
LAYERS_MAX = 16


def super_resolution(
    scale: int = 4,
    patch: int = 64,
    features: int = 64,
    shrunk: int = 32,
    layers: int = 8,
    head: str = "depth_to_space",
    activation: str = "relu",
    widths: Sequence[float] = WIDTHS,
    kernels: Sequence[int] = KERNELS,
    last_kernels: Sequence[int] | None = None,
    bitwidths: Sequence[int] | None = None,
    sparsities: Sequence[float] | None = None,
) -> Space:
    """Features, shrinking, 0 to `layers` convolutions, expanding, and what makes more pixels.

    Args:
        scale: 2 or 4: how many times higher and wider the result is.
        patch: height and width of the image that multiply-accumulates are counted for.
        features: channels of the features, at full width.
        shrunk: channels of the convolutions between, at full width; all are as wide as each other.
        layers: most convolutions between.
        head: "depth_to_space" for a convolution whose channels become pixels, or "transpose_conv"
            as FSRCNN has it, which the NPU does not execute for scale 4.
        activation: after each layer but the last.
        widths: fractions of the channels.
        kernels: of the first layer and of the convolutions between, each its own.
        last_kernels: of the head; None for those of `LAST_KERNELS`.
        bitwidths, sparsities: None, as they do not change the multiply-accumulates.

    Raises:
        ConfigError: a size is out of range.
        UnknownNameError: no such head or activation.

    Source: [UDC] section 6: inspired by FSRCNN, with search over depth, width and kernel size.
    Differs: the options are ours, the paper's are not known; ReLU instead of PReLU by default,
    which trains faster and is cheaper on the NPU.

    >>> super_resolution(widths=(1.0,), kernels=(3,), last_kernels=(3,)).count()  # depth alone
    9
    """
    if scale not in (2, 4):
        raise ConfigError(f"scale of super_resolution must be 2 or 4, got {scale!r}")
    integer("layers of super_resolution", layers, 1, LAYERS_MAX)
    integer("patch of super_resolution", patch, 8, 1024)
    choice("head of super_resolution", head, HEADS)
    choice("activation of super_resolution", activation, ACTIVATIONS)
    net = SpaceBuilder(
        "super_resolution",
        "div2k",
        (patch, patch, 1),
        widths=widths,
        bitwidths=bitwidths,
        sparsities=sparsities,
        limits=["16M macs", "50M macs"],
    )

    def conv(x: str, ofm_depth: int, kernel: int | Sequence[int], name: str) -> str:
        return net.conv(x, ofm_depth, kernel, norm=False, activation=activation, name=name)

    x = conv(net.input(), features, kernels, "features")
    results = [conv(x, shrunk, 1, "shrink")]
    for i in range(1, layers + 1):
        results.append(conv(results[-1], shrunk, kernels, f"map{i}"))
    x = conv(net.repeat(results, name="maps"), features, 1, "expand")
    last = LAST_KERNELS[head] if last_kernels is None else last_kernels
    if head == "transpose_conv":
        net.transpose_conv(x, 1, last, scale, widths=None, name="head")
    else:
        x = net.conv(x, scale**2, last, widths=None, norm=False, activation="none", name="head")
        net.depth_to_space(x, scale)
    return net.build()
