# SPDX-License-Identifier: Apache-2.0
"""The weights of a network as the NPU reads them, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from npusim.cost.blocks import BlockConfig, MacGeometry, choose_block
from npusim.cost.lowering import LOWERED_KINDS, lower
from npusim.cost.placement import npu_obstacle
from npusim.network import Network, Op
from npusim.npu import NpuConfig, get


@dataclass(frozen=True, slots=True, eq=False)
class WeightLayer:
    """Weights that the NPU reads for an operation, and how.

    Attributes:
        name: of the operation, with what tells its parts apart if there are several.
        op: the operation.
        geometry: sizes of the multiply-accumulate as the NPU executes it.
        block: the block that Arm's compiler takes for it.
        same_as: name of an earlier layer with the same weights, read in the same order, from the
            same tensor: they are in flash once. Empty for others.
    """

    name: str
    op: Op
    geometry: MacGeometry
    block: BlockConfig
    same_as: str = ""
    _make: Callable[[], npt.NDArray[np.int16]] = field(repr=False, kw_only=True)

    def weights_ohwi(self) -> npt.NDArray[np.int16]:
        """The weights: int16, shape `shape`, zero points subtracted; made anew at each call.

        Raises:
            ConfigError: as `npusim.Op.weights_ohwi`.
        """
        return self._make()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(O, H, W, I) of the weights; I is 1 if depthwise."""
        ifm_depth = 1 if self.traversal == "depthwise" else self.geometry.ifm_shape[2]
        return (self.geometry.ofm_shape[2], *self.geometry.kernel, ifm_depth)

    @property
    def traversal(self) -> str:
        """The order the weights are read in: "depth-first", "part-kernel" or "depthwise"."""
        return self.geometry.traversal

    @property
    def n_channels(self) -> int:
        """Output channels: each has a bias and a scale of its own in flash."""
        return self.geometry.ofm_shape[2]

    @property
    def reorder_options(self) -> dict[str, Any]:
        """Arguments of `npusim.weights.reorder` and `reorder_slices`, but for the NPU."""
        return {
            "ofm_block_depth": self.block.ofm_block_depth,
            "traversal": self.geometry.traversal,
            "ifm_bits": self.geometry.ifm_bits,
            "dilation": self.geometry.dilation,
        }


def weight_layers(network: Network, npu: str | NpuConfig = "ethos-u55-128") -> list[WeightLayer]:
    """Every layer of a network whose weights the NPU reads, in order of execution.

    Operations that Arm's compiler leaves to the CPU are not among them; for the reason see
    `npusim.cost.placement.npu_obstacle`.

    Args:
        network: as `npusim.load` reads it, not yet compiled.
        npu: preset name or record.

    Raises:
        ConfigError: no block fits the NPU's SHRAM.
        UnknownNameError: no such npu.

    Source: [VELA] regor 5.2.0, which the tests compare stream by stream.

    >>> import numpy as np
    >>> from npusim.network_builder import NetworkBuilder
    >>> net = NetworkBuilder("tiny")
    >>> image = net.input((1, 8, 8, 3), scale=0.02)
    >>> weights = net.constant(np.ones((4, 3, 3, 3), np.int8), scales=0.01)
    >>> features = net.op("CONV_2D", image, weights, net.bias([0] * 4, image, weights), scale=0.1)
    >>> [(layer.name, layer.traversal) for layer in weight_layers(net.build(features))]
    [('conv_2d', 'part-kernel')]
    """
    config = get(npu)
    layers: list[WeightLayer] = []
    first: dict[tuple[object, ...], str] = {}
    for op in network.ops:
        if op.kind not in LOWERED_KINDS or npu_obstacle(op) is not None:
            continue
        for part in lower(network, op):
            block = _block(part.geometry, config)
            name = f"{op.name} ({part.suffix})" if part.suffix else op.name
            key = _stream_key(op, part.suffix, part.geometry, block)
            same_as = first.setdefault(key, name)
            same_as = "" if same_as == name else same_as
            layers.append(WeightLayer(name, op, part.geometry, block, same_as, _make=part.weights))
    return layers


@lru_cache(maxsize=4096)
def _block(geometry: MacGeometry, npu: NpuConfig) -> BlockConfig:
    return choose_block(geometry, npu)


def _stream_key(
    op: Op, suffix: str, geometry: MacGeometry, block: BlockConfig
) -> tuple[object, ...]:
    """Equal for layers whose weight streams are the same because their weight tensors are."""
    tensors = op.weight_tensors
    source = (suffix, *(tensor.index for tensor in tensors)) if tensors else (suffix, op.name)
    order = (geometry.traversal, geometry.ifm_bits, geometry.kernel, geometry.dilation)
    return (*source, *order, block.ofm_block_depth)
