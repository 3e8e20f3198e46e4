# SPDX-License-Identifier: Apache-2.0
"""MobileNetV2, which the paper searches on ImageNet, and a smaller one for Tiny ImageNet."""

from __future__ import annotations

from collections.abc import Sequence

from npusim._arguments import integer, real
from npusim.errors import ConfigError
from spaces.base import Space
from spaces.builder import SpaceBuilder
from spaces.options import BITWIDTHS, SPARSITIES, WIDTHS

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, number of blocks, stride of the first; Sandler et al. 2018, table 2."""
STEM, HEAD = 32, 1280


def imagenet(
    image: int = 224,
    widen: float = 1.0,
    kernel: int = 3,
    operators: bool = False,
    resolutions: Sequence[int] | None = None,
    widths: Sequence[float] = WIDTHS,
    bitwidths: Sequence[int] = BITWIDTHS,
    sparsities: Sequence[float] = SPARSITIES,
) -> Space:
    """MobileNetV2 with 1000 classes.

    Args:
        image: height and width of the image.
        widen: multiplies all channels, which are then rounded to multiples of 8. The paper's
            1.25 MB model is from the space of ``imagenet(widen=1.5, kernel=5)``.
        kernel: of the depthwise convolutions.
        operators: whether each block is decided to be an inverted bottleneck, one regular 3x3
            convolution, or, where the shape allows it, left out.
        resolutions: heights and widths of the image to decide between, instead of `image`.
        widths: fractions of the channels of each stage and of each block's inside.
        bitwidths: bits of a non-zero weight, in every layer with weights.
        sparsities: fractions of weights that are not zero, in every layer with weights.

    Raises:
        ConfigError: a size is out of range.

    Source: [UDC] section 6; Sandler et al. 2018 for the network.
    Differs: that a regular convolution ends with ReLU6, and has a shortcut where the block has
    one, is not in the paper.

    >>> len(imagenet().decisions)
    131
    """
    integer("image of imagenet", image, 32, 1024)
    net = _builder("imagenet", image, widths, bitwidths, sparsities, ["0.5MB", "1MB", "1.25MB"])
    return _mobilenet(net, 1000, widen, kernel, operators, resolutions, 2, STAGES)


def tiny_imagenet(
    widen: float = 0.5,
    kernel: int = 3,
    operators: bool = False,
    image: int = 64,
    classes: int = 200,
    widths: Sequence[float] = WIDTHS,
    bitwidths: Sequence[int] = BITWIDTHS,
    sparsities: Sequence[float] = SPARSITIES,
) -> Space:
    """MobileNetV2 with 200 classes on 64x64 images, for one machine.

    The second stage has stride 1, so that the last maps are 4x4; of images of 32x32, 2x2.

    Args:
        image: height and width of the image.
        classes: how many there are; 100 and images of 32x32 go with ``cifar100``'s data.
        widen, kernel, operators, widths, bitwidths, sparsities: as of `imagenet`.

    Raises:
        ConfigError: a size is out of range.
    """
    integer("image of tiny_imagenet", image, 16, 1024)
    integer("classes of tiny_imagenet", classes, 2, 10**5)
    net = _builder("tiny_imagenet", image, widths, bitwidths, sparsities, ["0.1MB", "0.2MB"])
    stages = tuple((t, c, n, 1 if c == 24 else stride) for t, c, n, stride in STAGES)
    return _mobilenet(net, classes, widen, kernel, operators, None, 2, stages)


def _builder(
    name: str,
    image: int,
    widths: Sequence[float],
    bitwidths: Sequence[int],
    sparsities: Sequence[float],
    limits: Sequence[str],
) -> SpaceBuilder:
    return SpaceBuilder(
        name,
        name,
        (image, image, 3),
        widths=widths,
        bitwidths=bitwidths,
        sparsities=sparsities,
        limits=limits,
    )


def _mobilenet(
    net: SpaceBuilder,
    n_classes: int,
    widen: float,
    kernel: int,
    operators: bool,
    resolutions: Sequence[int] | None,
    stem_stride: int,
    stages: Sequence[tuple[int, int, int, int]],
) -> Space:
    real(f"widen of {net.name}", widen, 0.05, 8)
    integer(f"kernel of {net.name}", kernel, 1, 15)
    if not isinstance(operators, bool):
        raise ConfigError(f"operators of {net.name} must be true or false, got {operators!r}")
    image = net.input(resolutions)
    x = net.conv(image, _widened(STEM, widen), 3, stem_stride, activation="relu6", name="stem")
    number = 0
    depth = _widened(STEM, widen)
    for expansion, channels, n_blocks, first_stride in stages:
        for block in range(n_blocks):
            number += 1
            stride, before, depth = (
                first_stride if block == 0 else 1,
                depth,
                _widened(channels, widen),
            )
            shortcut = stride == 1 and block > 0
            inside = expansion * before
            name = f"block{number}"
            y = _bottleneck(net, x, inside, depth, kernel, stride, shortcut, name)
            if operators:
                z = net.conv(x, depth, 3, stride, activation="relu6", name=f"{name}.conv")
                options = {
                    "bottleneck": y,
                    "conv": net.add(x, z, name=f"{name}.conv_add") if shortcut else z,
                }
                y = net.choose(options | ({"identity": x} if shortcut else {}), name)
            x = y
    x = net.conv(x, max(HEAD, _widened(HEAD, widen)), 1, activation="relu6", name="head")
    net.dense(net.global_pool(x), n_classes, name="classifier")
    return net.build()


def _bottleneck(
    net: SpaceBuilder,
    x: str,
    inside: int,
    depth: int,
    kernel: int,
    stride: int,
    shortcut: bool,
    name: str,
) -> str:
    """Expansion, depthwise convolution, projection; without expansion in the first block."""
    y = x
    if name != "block1":
        y = net.conv(x, inside, 1, activation="relu6", name=f"{name}.expand")
    y = net.depthwise(y, kernel, stride, activation="relu6", name=f"{name}.depthwise")
    y = net.conv(y, depth, 1, activation="none", name=f"{name}.project")
    return net.add(x, y, name=f"{name}.add") if shortcut else y


def _widened(channels: int, widen: float) -> int:
    """``widen * channels`` to the nearest multiple of 8, at least 8 and 90 % of it."""
    wanted = widen * channels
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * wanted else rounded
