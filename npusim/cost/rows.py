# SPDX-License-Identifier: Apache-2.0
"""Operations, NPUs and memories as rows of numbers: what the kernels of the cost model read.

One layout serves a single operation and tables of millions; its columns have names in
`npusim.cost.columns`.

    row(op, maps, formats)   one operation of a `Program`
    table(n, **columns)      many operations, straight from arrays
    npu_array(npu), rate_array(npu), memory_array(memories)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer, integer_array
from npusim._once import once_per_object
from npusim.cost import columns as col
from npusim.cost.formats import FORMATS, map_formats
from npusim.cost.program import FeatureMap, NpuOp, Program, View
from npusim.errors import ConfigError, UnknownNameError
from npusim.npu import NpuConfig
from npusim.weights.reorder import TRAVERSALS

if TYPE_CHECKING:
    from npusim.memories import Memory

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

UNIT_NAMES: Final = (
    *("convolution", "product", "depthwise", "pooling", "reduce_sum"),
    *("elementwise", "matmul", "transpose", "dma", "cpu"),
)
"""Names of the values of column `UNIT`."""
_AXES: Final = ("height", "width", "depth")
TABLE_BANKS: Final = 2
"""SHRAM banks of a look-up table."""

_DIM_MAX: Final = 1 << 24
_PAIRS: Final = ("kernel", "stride", "dilation", "upscale")
_RANGES: Final[dict[str, tuple[int, int]]] = {
    "unit": (0, len(UNIT_NAMES) - 1),
    "traversal": (0, len(TRAVERSALS) - 1),
    **{f"ifm_{axis}": (1, _DIM_MAX) for axis in _AXES},
    **{f"ifm2_{axis}": (0, _DIM_MAX) for axis in _AXES},
    **{f"ofm_{axis}": (1, _DIM_MAX) for axis in _AXES},
    **{f"{what}_{axis}": (1, _DIM_MAX) for what in _PAIRS for axis in _AXES[:2]},
    "nearest": (0, 1),
    "step_height": (1, _DIM_MAX),
    "step_width": (1, _DIM_MAX),
    "ifm_bits": (8, 32),
    "ofm_bits": (8, 32),
    "acc_bits": (32, 40),
    "table_banks": (0, _DIM_MAX),
    "output_rate": (0, col.N_OUTPUT_RATES - 1),
    "activation_rate": (0, col.RATE_COLUMNS - col.N_OUTPUT_RATES - 1),
    "ifm_format": (0, len(FORMATS) - 1),
    "ifm2_format": (0, len(FORMATS) - 1),
    "ofm_format": (0, len(FORMATS) - 1),
    "has_scales": (0, 1),
    "weight_bytes": (0, 1 << 40),
    "scale_bytes": (0, 1 << 40),
    "decode_cycles": (0, 1 << 40),
}
ROW_NAMES: Final = tuple(_RANGES)
"""Names of the columns of a row, in order."""
_VALUES: Final = {"ifm_bits": (8, 16, 32), "ofm_bits": (8, 16, 32), "acc_bits": (32, 40)}
_REQUIRED: Final = ("unit", *(f"{map_}_{axis}" for map_ in ("ifm", "ofm") for axis in _AXES))
_DEFAULTS: Final = {
    "output_rate": 7,
    "activation_rate": 2,
    **dict.fromkeys(("ifm_format", "ifm2_format", "ofm_format"), col.NHCWB16),
}
_SUMMING: Final = (
    *(col.CONVOLUTION, col.PRODUCT, col.DEPTHWISE, col.REDUCE_SUM),
    *(col.MATMUL, col.TRANSPOSE),
)
_NO_MAP: Final = (0, 0, 0)
_UNIT_NUMBERS: Final = {name: number for number, name in enumerate(UNIT_NAMES)}


def row(op: NpuOp, maps: Sequence[FeatureMap], formats: Sequence[int]) -> Int64Array:
    """One operation as numbers; encoded bytes and decoder cycles are 0 until known.

    Args:
        op: the operation.
        maps: `Program.maps`.
        formats: of every map, `columns.NHWC` or `columns.NHCWB16`.

    Returns:
        int64, shape [columns.ROW_COLUMNS].

    Source: [VELA] regor 5.2.0, for accumulators and output rates.
    """
    return np.array(row_values(op, maps, formats), np.int64)


@once_per_object
def program_rows(program: Program) -> tuple[npt.NDArray[np.int8], Int64Array]:
    """The formats of a program's maps, int8 [n_maps], and the rows of its operations, int64
    [n_ops, columns.ROW_COLUMNS]."""
    formats = map_formats(program)
    chosen = formats.tolist()
    rows = [row_values(op, program.maps, chosen) for op in program.ops]
    return formats, np.array(rows, np.int64).reshape(-1, col.ROW_COLUMNS)


def row_values(op: NpuOp, maps: Sequence[FeatureMap], formats: Sequence[int]) -> tuple[int, ...]:
    """The numbers of `row`."""
    ifm_bits, ofm_bits = op.ifm.bits or maps[op.ifm.map].bits, maps[op.ofm.map].bits
    if not op.on_npu:  # the CPU knows more types than the NPU, and nothing here depends on them
        ifm_bits = ofm_bits = 8
    unit = op.kind if op.unit == "compound" else op.unit
    wide = ifm_bits == 16 and unit != "pooling" and op.scaled
    acc_bits = 40 if wide else 32
    traversal = "depth-first" if op.weights is None else op.weights.traversal
    ifm2 = op.ifm2
    return (
        *(_UNIT_NUMBERS[unit], TRAVERSALS.index(traversal)),
        *_extents(op.ifm),
        *(_NO_MAP if ifm2 is None else _extents(ifm2)),
        *_extents(op.ofm),
        *(*op.kernel, *op.stride, *op.dilation, *op.upscale, op.nearest, *op.ifm.step),
        *(ifm_bits, ofm_bits, acc_bits, TABLE_BANKS if op.table_bytes else 0),
        *(_output_rate(op, ifm_bits, ofm_bits, acc_bits), _activation_rate(op)),
        *(formats[op.ifm.map], formats[(ifm2 or op.ifm).map], formats[op.ofm.map]),
        *(op.has_scales, 0, 0, 0),
    )


def table(n_ops: int, **values: npt.ArrayLike) -> Int64Array:
    """Rows of many operations from one array, or one number, per column.

    `unit` and the extents of ifm and ofm must be given; what is missing else is what Arm's
    compiler would make of a network in 8 bits: no second operand, kernels of one element, maps in
    NHCWB16, 40-bit accumulators for 16 bits, the traversal that uses the multipliers best, no
    activation.

    Args:
        n_ops: number of rows.
        values: integers by name of column, one of `ROW_NAMES`, shape [n_ops] or a single number.

    Returns:
        int64, shape [n_ops, columns.ROW_COLUMNS].

    Raises:
        ConfigError: a column is missing, or values are not integers of that shape and in range.
        UnknownNameError: no such column; lists them and guesses.

    >>> rows = table(2, unit=0, ifm_height=8, ifm_width=8, ifm_depth=16,
    ...              ofm_height=8, ofm_width=8, ofm_depth=[16, 32], kernel_height=3, kernel_width=3)
    >>> rows[:, ROW_NAMES.index("ofm_depth")].tolist(), rows[:, ROW_NAMES.index("traversal")]
    ([16, 32], array([1, 1]))
    """
    integer("n_ops", n_ops, 0, 1 << 40)
    rows = np.empty((n_ops, col.ROW_COLUMNS), np.int64)
    for name in values:
        if name not in ROW_NAMES:
            raise UnknownNameError("column", name, ROW_NAMES)
    for index, name in enumerate(ROW_NAMES):
        default = _DEFAULTS.get(name, _RANGES[name][0])
        if name in _REQUIRED and name not in values:
            raise ConfigError(f"{name} must be given, got none")
        array = integer_array(name, values.get(name, default))
        if array.ndim > 1 or array.shape not in ((), (n_ops,)):
            raise ConfigError(f"{name} must be one integer or {n_ops}, got shape {array.shape}")
        _check_range(name, array)
        rows[:, index] = array
    if "acc_bits" not in values:
        summed = np.isin(rows[:, col.UNIT], _SUMMING)
        rows[summed & (rows[:, col.IFM_BITS] == 16), col.ACC_BITS] = 40
    if "output_rate" not in values:
        rows[rows[:, col.ACC_BITS] == 40, col.OUTPUT_RATE] = 3
    if "traversal" not in values:
        rows[:, col.TRAVERSAL] = best_traversals(rows)
    return rows


def checked_rows(rows: npt.ArrayLike) -> Int64Array:
    """Rows as the kernels take them.

    Raises:
        ConfigError: rows are not integers of shape [n_ops, columns.ROW_COLUMNS], or out of range.
    """
    array = integer_array("rows", rows)
    if array.ndim != 2 or array.shape[1] != col.ROW_COLUMNS:
        raise ConfigError(
            f"rows must have shape [n_ops, {col.ROW_COLUMNS}], got shape {array.shape}"
        )
    low, high = np.array(list(_RANGES.values())).T
    inside = not array.size or ((array.min(axis=0) >= low) & (array.max(axis=0) <= high)).all()
    for name, column in zip(ROW_NAMES, array.T, strict=True):
        if not inside or name in _VALUES:
            _check_range(name, column)
    return np.require(array, np.int64, ("C", "W"))


def _check_range(name: str, values: npt.NDArray[np.integer]) -> None:
    low, high = _RANGES[name]
    if values.size and not (low <= values.min() and values.max() <= high):
        raise ConfigError(f"{name} must be in {low}..{high}, got {values.min()} to {values.max()}")
    allowed = _VALUES.get(name)
    if allowed and not np.isin(values, allowed).all():
        wrong = values[~np.isin(values, allowed)].flat[0]
        raise ConfigError(f"{name} must be one of {', '.join(map(str, allowed))}, got {wrong}")


def best_traversals(rows: Int64Array) -> Int64Array:
    """As `npusim.weights.traversal.choose_traversal`, for many at once."""
    depth, wide = rows[:, col.IFM_DEPTH], rows[:, col.IFM_BITS] == 16
    elements = rows[:, col.KERNEL_HEIGHT] * rows[:, col.KERNEL_WIDTH]
    part_kernel = (depth / _round_up(depth, 8)) * (
        elements / _round_up(elements, np.where(wide, 2, 4))
    )
    depth_first = depth / _round_up(depth, np.where(wide, 16, 32))
    by_kernel = (part_kernel >= depth_first) | (depth <= 8)
    sums_kernel = np.isin(rows[:, col.UNIT], (col.CONVOLUTION, col.PRODUCT))
    traversal = np.where(by_kernel & sums_kernel, col.PART_KERNEL, col.DEPTH_FIRST)
    return np.where(rows[:, col.UNIT] == col.DEPTHWISE, col.DEPTHWISE_TRAVERSAL, traversal)


def _round_up(values: Int64Array, step: npt.ArrayLike) -> Int64Array:
    rounded: Int64Array = (values + np.asarray(step) - 1) // step * step
    return rounded


def npu_array(npu: NpuConfig) -> Int64Array:
    """An NPU as numbers: int64, shape [columns.NPU_COLUMNS]."""
    return np.array(
        [
            npu.ofm_ublock_height,
            npu.ofm_ublock_width,
            npu.ofm_ublock_depth,
            npu.ifm_ublock_depth,
            npu.ofm_block_height_max,
            npu.ofm_block_width_max,
            npu.ofm_block_depth_max,
            npu.sub_kernel_max,
            npu.shram_banks,
            npu.shram_bank_bytes,
            npu.n_cores,
            npu.weight_decoder_weights_per_cycle,
            npu.ifm8_granule_banks,
            npu.ifm16_granule_banks,
            npu.ifm32_granule_banks,
            npu.elementwise_ifm8_granule_banks,
            npu.elementwise_ifm16_granule_banks,
            npu.acc32_granule_banks,
            npu.acc40_granule_banks,
            npu.pool8_cycles_per_kernel_element,
            npu.pool16_cycles_per_kernel_element,
            npu.stall_acc32_cycles,
            npu.stall_acc40_cycles,
            npu.line_stall_acc40_cycles,
        ],
        np.int64,
    )


def rate_array(npu: NpuConfig) -> Float64Array:
    """Rates of the output stage and of the activation: float64, shape [columns.RATE_COLUMNS]."""
    return np.array(
        [*npu.output_cycles_per_element, *npu.activation_cycles_per_element], np.float64
    )


def memory_array(memories: Sequence[Memory]) -> Float64Array:
    """Memories as numbers: float64, shape [n_memories, columns.MEMORY_COLUMNS].

    Where outstanding transfers limit reads and writes differently, the slower rate counts for both.
    """
    return np.array(
        [
            (
                min(memory.read_bytes_per_cycle, memory.write_bytes_per_cycle),
                memory.read_latency_cycles,
                memory.write_latency_cycles,
                memory.burst_bytes,
            )
            for memory in memories
        ],
        np.float64,
    ).reshape(-1, col.MEMORY_COLUMNS)


def _extents(view: View) -> tuple[int, int, int]:
    """(height, width, depth) of the part; a batch lies along the height."""
    batch, height, width, depth = view.part
    return batch * height, width, depth


def _output_rate(op: NpuOp, ifm_bits: int, ofm_bits: int, acc_bits: int) -> int:
    if op.unit == "elementwise" and ifm_bits == 32:
        return 0 if op.ifm2 is None else 1
    if op.kind == "mul":
        return 2 if ofm_bits == 32 else 3
    if op.unit != "elementwise" and acc_bits == 40:
        return 3
    return {"add": 5, "sub": 5, "max_pool": 6}.get(op.kind, 7)


def _activation_rate(op: NpuOp) -> int:
    """Of the function that follows; an operation of its own has none that follows."""
    if op.kind == "activation":
        return 2
    return {"table": 0, "relu": 1, "none": 2}[op.activation]
