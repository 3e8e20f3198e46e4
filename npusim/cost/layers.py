# SPDX-License-Identifier: Apache-2.0
"""The weights of a network as the NPU reads them, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from npusim.cost import columns as col
from npusim.cost.blocks import BlockConfig, MacGeometry, find_blocks
from npusim.cost.formats import map_formats
from npusim.cost.lowering import program
from npusim.cost.program import NpuOp
from npusim.cost.rows import row
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
    config, lowered = get(npu), program(network)
    formats = [int(value) for value in map_formats(lowered)]
    ops = [op for op in lowered.ops if op.weights is not None]
    rows = np.array([row(op, lowered.maps, formats) for op in ops], np.int64)
    blocks = find_blocks(rows.reshape(-1, col.ROW_COLUMNS), config)
    layers: list[WeightLayer] = []
    first: dict[tuple[object, ...], str] = {}
    for op, numbers, block in zip(ops, rows, blocks, strict=True):
        assert op.source is not None
        assert op.weights is not None
        assert op.weights.ohwi is not None
        found = BlockConfig(*block[: col.BLOCK_COLUMNS].tolist())
        earlier = first.setdefault((op.weights.key, found.ofm_block_depth), op.name)
        same_as = "" if earlier == op.name else earlier
        geometry = _geometry(op, numbers.tolist())
        make = op.weights.ohwi
        layers.append(WeightLayer(op.name, op.source, geometry, found, same_as, _make=make))
    return layers


def _geometry(op: NpuOp, numbers: list[int]) -> MacGeometry:
    """Sizes of an operation with weights, from its row."""
    assert op.weights is not None
    ifm, ofm = (
        numbers[col.IFM_HEIGHT : col.IFM2_HEIGHT],
        numbers[col.OFM_HEIGHT : col.KERNEL_HEIGHT],
    )
    return MacGeometry(
        (ifm[0], ifm[1], ifm[2]),
        (ofm[0], ofm[1], ofm[2]),
        op.weights.traversal,
        *(op.kernel, op.stride, op.dilation, op.upscale, op.nearest),
        ifm_bits=numbers[col.IFM_BITS],
        table=numbers[col.TABLE_BANKS] > 0,
    )
