# SPDX-License-Identifier: Apache-2.0
"""Kernels of `npusim.cost.cycles`; twin: `npusim.cost.reference_cycles`.

Arrays, as `npusim.cost.columns` lays them out: row i64 [35], block i64 [12], npu i64 [24], rates
f64 [11], memories f64 [n_memories, 4], places i64 [6]; written are cycles i64 [6], elements and
moved i64 [8], traffic i64 [n_memories, 4].

A depth slice or a stripe of an operation is a row with fewer ofm channels or fewer rows, made by
`cut`. Weights that are buffered or not differ in places only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from npusim._jit import kernel, leaf_kernel
from npusim.cost import columns as col

_BRICK_DEPTH = 16
_STEP_IFM_DEPTH = 32
_CHANNEL_BYTES = 10
_SCALE_BURST_BYTES = 256
_BLOCKS_IN_FLIGHT = 4
_WRITE_RUN_BITS = 512
_IFM, _IFM2, _OFM = range(3)


@leaf_kernel
def put(values: Any, to: Any) -> None:
    """Write values [n] to the first n of another array; numpy's way would make a copy first."""
    for i in range(values.size):
        to[i] = values[i]


@leaf_kernel
def ceil_div(value: Any, step: Any) -> Any:
    """value / step rounded up; both i64."""
    return (value + step - 1) // step


@leaf_kernel
def stored_elements(row: Any, map_: Any, depth_of: Any) -> Any:
    """Elements of a map in memory, i64: map_ is its first column, depth_of its format's."""
    depth = row[map_ + 2]
    if row[depth_of] == col.NHCWB16:
        depth = ceil_div(depth, _BRICK_DEPTH) * _BRICK_DEPTH
    return row[map_] * row[map_ + 1] * depth


@leaf_kernel
def ublocks(extent: Any, axis: Any, row: Any, npu: Any) -> Any:
    """Ofm ublocks that `extent` rows (axis 0), columns (1) or channels (2) are made of, i64.

    Two rows of a ublock lie side by side where ofm and kernel have one row and the width is even.
    """
    step = npu[col.OFM_UBLOCK_HEIGHT + axis]
    if axis < 2 and npu[col.OFM_UBLOCK_HEIGHT] == 2:
        product = row[col.UNIT] == col.CONVOLUTION or row[col.UNIT] == col.PRODUCT
        flat = row[col.OFM_HEIGHT] == 1 and row[col.KERNEL_HEIGHT] == 1
        if product and flat and row[col.OFM_WIDTH] % 2 == 0:
            step = 1 if axis == 0 else 2 * npu[col.OFM_UBLOCK_WIDTH]
    return ceil_div(extent, step)


@leaf_kernel
def pool_cycles(row: Any, npu: Any) -> Any:
    """Cycles of an ofm ublock and kernel element, i64; for 32 bits they grow as from 8 to 16."""
    narrow, wide = npu[col.POOL8_CYCLES], npu[col.POOL16_CYCLES]
    if row[col.IFM_BITS] == 8:
        return narrow
    return wide if row[col.IFM_BITS] == 16 else wide * wide // narrow


@leaf_kernel
def sub_kernel_cycles(taps: Any, row: Any, npu: Any, n_area: Any, n_deep: Any) -> Any:
    """Cycles of one sub-kernel of `taps` elements on a block of n_area x n_deep ublocks, i64."""
    bits, acc40 = row[col.IFM_BITS], row[col.ACC_BITS] == 40
    if row[col.UNIT] == col.POOLING:
        n_steps = 1
        cycles = max(4, taps) * n_area * n_deep * pool_cycles(row, npu)
    else:
        decode = ceil_div(_STEP_IFM_DEPTH * npu[col.OFM_UBLOCK_DEPTH], npu[col.WEIGHTS_PER_CYCLE])
        step_cycles, n_steps = 4 * n_area, taps
        if row[col.UNIT] == col.DEPTHWISE:
            step_cycles = 4 * n_area * bits // 8
            n_steps = ceil_div(taps, 4)
        elif row[col.TRAVERSAL] == col.PART_KERNEL:
            n_steps = ceil_div(taps, 2 if bits == 16 else 4)
        cycles = max(decode, step_cycles) * n_steps * n_deep
    stall = npu[col.STALL40_CYCLES] if acc40 else npu[col.STALL32_CYCLES]
    if n_area == 1 and n_deep == 1:
        cycles += stall * n_steps
    elif n_area == 1:
        cycles += stall * (n_steps - 1) * n_deep
    return cycles


@leaf_kernel
def mac_block_cycles(row: Any, npu: Any, ifm_depth: Any, high: Any, wide: Any, deep: Any) -> Any:
    """Cycles the multipliers take for a block of high x wide x deep ublocks, i64.

    ifm_depth i64: channels of the ifm block.
    """
    most = npu[col.SUB_KERNEL_MAX]
    line_stall = 0
    if row[col.ACC_BITS] == 40 and deep > 1 and (high == 1 or wide == 1):
        line_stall = npu[col.LINE_STALL40_CYCLES] * deep
    total = 0
    for y in range(0, row[col.KERNEL_HEIGHT], most):
        for x in range(0, row[col.KERNEL_WIDTH], most):
            taps = min(row[col.KERNEL_HEIGHT] - y, most) * min(row[col.KERNEL_WIDTH] - x, most)
            total += sub_kernel_cycles(taps, row, npu, high * wide, deep) + line_stall
    if row[col.TRAVERSAL] == col.PART_KERNEL:
        total *= ceil_div(ifm_depth, 8)
    unit = row[col.UNIT]
    if unit == col.CONVOLUTION or unit == col.PRODUCT or unit == col.REDUCE_SUM:
        total *= ceil_div(row[col.IFM_DEPTH], ifm_depth)
    return total // npu[col.N_CORES]


@leaf_kernel
def in_bursts(
    n_elements: Any, part: Any, row: Any, block: Any, npu: Any, memories: Any, places: Any
) -> Any:
    """Bytes of n_elements of ifm (part 0), ifm2 (1) or ofm (2) in whole bursts, i64.

    A run of bytes that is contiguous in the map ends a burst.
    """
    bits = row[col.OFM_BITS] if part == _OFM else row[col.IFM_BITS]
    at = col.OFM_BLOCK_WIDTH if part == _OFM else col.IFM_BLOCK_WIDTH
    map_ = col.OFM_HEIGHT if part == _OFM else col.IFM_HEIGHT + 3 * part
    width, depth = block[at], block[at + 1]
    run = width * depth * bits
    if row[col.IFM_FORMAT + part] == col.NHCWB16:
        if row[map_ + 1] * bits * _BRICK_DEPTH // 8 != depth:
            run = _BRICK_DEPTH * bits * width * (npu[col.N_CORES] if part == _OFM else 1)
    elif row[map_ + 2] * bits // 8 != depth or (part == _OFM and depth > _BRICK_DEPTH):
        run = depth * bits
        if part == _OFM:
            run = min(run, min(_WRITE_RUN_BITS, _BRICK_DEPTH * bits * npu[col.N_CORES]))
    burst = int(memories[places[part], col.BURST_BYTES])
    return n_elements * bits // 8 * burst // min(burst, run // 8)


@leaf_kernel
def first_block_cycles(
    part: Any, row: Any, block: Any, npu: Any, memories: Any, places: Any
) -> Any:
    """Cycles until the first block of ifm (part 0) or ifm2 (1) is read, of ofm (2) written, i64."""
    at = col.OFM_BLOCK_HEIGHT if part == _OFM else col.IFM_BLOCK_HEIGHT
    map_ = col.OFM_HEIGHT if part == _OFM else col.IFM_HEIGHT + 3 * part
    n_elements = 1
    for axis in range(3):
        n_elements *= min(block[at + axis], row[map_ + axis])
    moved = in_bursts(n_elements, part, row, block, npu, memories, places)
    latency = memories[places[part], col.WRITE_LATENCY if part == _OFM else col.READ_LATENCY]
    return transfer_cycles(moved, places[part], memories) + int(latency)


@leaf_kernel
def transfer_cycles(n_bytes: Any, at: Any, memories: Any) -> Any:
    """Cycles memory `at` takes for n_bytes, both i64, without latency; in single precision."""
    return int(np.float32(n_bytes) / np.float32(memories[at, col.BYTES_PER_CYCLE]))


@leaf_kernel
def output_rate(row: Any, rates: Any) -> Any:
    """Cycles of an ofm element: the slower of output stage and activation, f64."""
    return max(rates[row[col.OUTPUT_RATE]], rates[col.N_OUTPUT_RATES + row[col.ACTIVATION_RATE]])


@leaf_kernel
def weight_fetches(row: Any, block: Any) -> Any:
    """How often all weights are read: the blocks of one depth, i64."""
    n_high = ceil_div(row[col.OFM_HEIGHT], min(block[0], row[col.OFM_HEIGHT]))
    return n_high * ceil_div(row[col.OFM_WIDTH], min(block[1], row[col.OFM_WIDTH]))


@leaf_kernel
def elementwise_cycles(
    row: Any, block: Any, npu: Any, rates: Any, memories: Any, places: Any, cycles: Any
) -> None:
    """Write the cycles of an elementwise operation."""
    n_elements = stored_elements(row, col.OFM_HEIGHT, col.OFM_FORMAT)
    rate = output_rate(row, rates)
    slower = first_block_cycles(_IFM, row, block, npu, memories, places)
    if row[col.IFM2_DEPTH] > 0:
        slower = max(slower, first_block_cycles(_IFM2, row, block, npu, memories, places))
    slower = max(slower, first_block_cycles(_OFM, row, block, npu, memories, places))
    volume = block[0] * block[1] * block[2]
    issue = (slower / volume + rate) / _BLOCKS_IN_FLIGHT
    cycles[:] = 0
    cycles[col.OUTPUT_CYCLES] = int(np.ceil(rate * n_elements))
    cycles[col.ISSUE_CYCLES] = int(np.ceil(issue * n_elements))
    cycles[col.OP_CYCLES] = max(cycles[col.OUTPUT_CYCLES], cycles[col.ISSUE_CYCLES])


@leaf_kernel
def mac_cycles(
    row: Any, block: Any, npu: Any, rates: Any, memories: Any, places: Any, cycles: Any
) -> None:
    """Write the cycles of an operation on the multipliers."""
    n_clipped, n_in_block, n_all = 1, 1, 1
    for axis in range(3):
        extent = min(block[axis], row[col.OFM_HEIGHT + axis])
        n_clipped *= extent
        n_in_block *= ublocks(extent, axis, row, npu)
        n_all *= ublocks(row[col.OFM_HEIGHT + axis], axis, row, npu)
    n_blocks = n_all / n_in_block
    ofm_depth = min(block[col.OFM_BLOCK_DEPTH], row[col.OFM_DEPTH])
    ifm_depth = min(block[col.IFM_BLOCK_DEPTH], row[col.IFM_DEPTH])
    high = ublocks(min(block[0], row[col.OFM_HEIGHT]), 0, row, npu)
    wide = ublocks(min(block[1], row[col.OFM_WIDTH]), 1, row, npu)
    mac = mac_block_cycles(row, npu, ifm_depth, high, wide, ublocks(ofm_depth, 2, row, npu))
    output_only = np.ceil(output_rate(row, rates) * n_clipped)
    output = output_only
    unit = row[col.UNIT]
    if row[col.HAS_SCALES] and unit <= col.DEPTHWISE:
        buffered = places[col.BUFFER_PLACE] >= 0
        at = places[col.BUFFER_PLACE if buffered else col.CONSTANT_PLACE]
        latency = memories[at, col.READ_LATENCY]
        output = max(output, _CHANNEL_BYTES * ofm_depth * latency / _SCALE_BURST_BYTES)
    read = first_block_cycles(_IFM, row, block, npu, memories, places)
    write = first_block_cycles(_OFM, row, block, npu, memories, places)
    issue = ((abs(write - read) if n_blocks > 1 else 0) + mac + output) / _BLOCKS_IN_FLIGHT
    mac_pace, output_pace = max(mac, issue), max(output, issue)
    drain = write
    if mac_pace > output_pace:  # the last block leaves the output stage after the multipliers
        drain += int(output_pace)
        work = int(mac_pace * n_blocks) + int(output_pace)
    else:
        work = int(output_pace * n_blocks + mac_pace)
    cycles[col.OP_CYCLES] = work + read + write
    cycles[col.FILL_CYCLES], cycles[col.DRAIN_CYCLES] = read, drain
    cycles[col.MAC_CYCLES] = int(mac * n_blocks + output)
    cycles[col.OUTPUT_CYCLES] = int(output_only * n_blocks + mac)
    cycles[col.ISSUE_CYCLES] = int(issue)
    if row[col.DECODE_CYCLES] > 0 and unit <= col.DEPTHWISE:
        decode = row[col.DECODE_CYCLES] * weight_fetches(row, block)
        if decode > cycles[col.OP_CYCLES]:  # the decoder sets the pace from end to end
            cycles[col.OP_CYCLES] = decode
            cycles[col.FILL_CYCLES] = cycles[col.DRAIN_CYCLES] = 0


@leaf_kernel
def transpose_cycles(
    row: Any, block: Any, npu: Any, memories: Any, places: Any, cycles: Any
) -> None:
    """Write the cycles of a transpose: reading or writing the map, whichever is slower."""
    read = row[col.IFM_HEIGHT] * row[col.IFM_WIDTH] * row[col.IFM_DEPTH]
    written = stored_elements(row, col.OFM_HEIGHT, col.OFM_FORMAT)
    slower = 0
    for part, n_elements in ((_IFM, read), (_OFM, written)):
        moved = in_bursts(n_elements, part, row, block, npu, memories, places)
        column = col.WRITE_LATENCY if part == _OFM else col.READ_LATENCY
        latency = int(memories[places[part], column])
        slower = max(slower, transfer_cycles(moved, places[part], memories) + latency)
    cycles[:] = 0
    cycles[col.OP_CYCLES] = slower


@kernel
def matmul_cycles(
    row: Any, block: Any, npu: Any, rates: Any, memories: Any, places: Any, cycles: Any
) -> None:
    """Write the cycles of a matmul: for every ofm column a multiplication, whose products are
    kept in the scratch map, and a sum over its channels."""
    n_columns = row[col.IFM2_WIDTH]
    part, at = row.copy(), places.copy()
    for axis in range(3):
        part[col.IFM2_HEIGHT + axis] = part[col.OFM_HEIGHT + axis] = row[col.IFM_HEIGHT + axis]
    part[col.UNIT], part[col.OFM_BITS], part[col.OUTPUT_RATE] = col.ELEMENTWISE, 32, 2
    at[col.OFM_PLACE] = places[col.SCRATCH_PLACE]
    product = np.zeros_like(cycles)
    elementwise_cycles(part, block[col.BLOCK_COLUMNS :], npu, rates, memories, at, product)
    part[col.UNIT], part[col.OFM_BITS], part[col.OUTPUT_RATE] = (
        col.REDUCE_SUM,
        row[col.OFM_BITS],
        row[col.OUTPUT_RATE],
    )
    part[col.IFM2_HEIGHT : col.IFM2_HEIGHT + 3] = 0
    part[col.OFM_DEPTH] = 1
    at[col.IFM_PLACE], at[col.OFM_PLACE] = places[col.SCRATCH_PLACE], places[col.OFM_PLACE]
    mac_cycles(part, block, npu, rates, memories, at, cycles)
    for i in range(cycles.size):
        cycles[i] = (cycles[i] + product[i]) * n_columns


@leaf_kernel
def op_cycles(
    row: Any, block: Any, npu: Any, rates: Any, memories: Any, places: Any, cycles: Any
) -> None:
    """Write the NPU cycles of one operation, without transfers of weights and tables."""
    unit = row[col.UNIT]
    if unit <= col.REDUCE_SUM:
        mac_cycles(row, block, npu, rates, memories, places, cycles)
    elif unit == col.ELEMENTWISE:
        elementwise_cycles(row, block, npu, rates, memories, places, cycles)
    elif unit == col.MATMUL:
        matmul_cycles(row, block, npu, rates, memories, places, cycles)
    elif unit == col.TRANSPOSE:
        transpose_cycles(row, block, npu, memories, places, cycles)
    else:
        cycles[:] = 0


@leaf_kernel
def operand_elements(row: Any, elements: Any) -> None:
    """Write what an elementwise operation reads. Scalars of 8 bits come with the command; a wider
    scalar first operand hides the second one."""
    whole = row[col.OFM_HEIGHT] * row[col.OFM_WIDTH]
    depth = row[col.OFM_DEPTH]
    if row[col.IFM_FORMAT] == col.NHCWB16:
        depth = ceil_div(depth, _BRICK_DEPTH) * _BRICK_DEPTH
    whole *= depth
    scalar = _BRICK_DEPTH if row[col.IFM_FORMAT] == col.NHCWB16 else 1
    narrow = row[col.IFM_BITS] == 8
    n_ifm = row[col.IFM_HEIGHT] * row[col.IFM_WIDTH] * row[col.IFM_DEPTH]
    n_ifm2 = row[col.IFM2_HEIGHT] * row[col.IFM2_WIDTH] * row[col.IFM2_DEPTH]
    if n_ifm > 1:
        elements[col.IFM_READ] = whole
        if n_ifm2 > 1:
            elements[col.IFM2_READ] = whole
        elif n_ifm2 == 1 and not narrow:
            elements[col.IFM2_READ] = scalar
    elif not narrow:
        elements[col.IFM_READ] = scalar
    elif n_ifm2 > 0:
        elements[col.IFM2_READ] = whole


@leaf_kernel
def element_access(row: Any, block: Any, npu: Any, elements: Any) -> None:
    """Write the elements of maps that one operation reads and writes, and its weight fetches."""
    unit, most = row[col.UNIT], npu[col.SUB_KERNEL_MAX]
    elements[:] = 0
    if unit >= col.DMA:
        return
    elements[col.OFM_WRITTEN] = stored_elements(row, col.OFM_HEIGHT, col.OFM_FORMAT)
    n_ifm = row[col.IFM_HEIGHT] * row[col.IFM_WIDTH] * row[col.IFM_DEPTH]
    if unit == col.ELEMENTWISE:
        operand_elements(row, elements)
    elif unit == col.TRANSPOSE:
        elements[col.IFM_READ] = n_ifm
    elif unit == col.MATMUL:
        elements[col.IFM_READ] = n_ifm * row[col.IFM2_WIDTH]
        elements[col.IFM2_READ] = row[col.IFM2_HEIGHT] * row[col.IFM2_WIDTH] * row[col.IFM2_DEPTH]
        elements[col.SCRATCH_READ] = elements[col.SCRATCH_WRITTEN] = elements[col.IFM_READ]
    else:
        n_area = weight_fetches(row, block)
        n_deep = ceil_div(row[col.OFM_DEPTH], min(block[2], row[col.OFM_DEPTH]))
        if unit == col.DEPTHWISE or unit == col.POOLING:
            n_deep = 1
        depth = row[col.IFM_DEPTH]
        if row[col.IFM_FORMAT] == col.NHCWB16:
            depth = ceil_div(depth, _BRICK_DEPTH) * _BRICK_DEPTH
        fetch = min(block[col.IFM_BLOCK_HEIGHT], row[col.IFM_HEIGHT]) * depth
        fetch *= min(block[col.IFM_BLOCK_WIDTH], row[col.IFM_WIDTH])
        fetch *= ceil_div(row[col.KERNEL_HEIGHT], most) * ceil_div(row[col.KERNEL_WIDTH], most)
        elements[col.IFM_READ] = fetch * n_area * n_deep
        if unit <= col.DEPTHWISE:
            elements[col.WEIGHT_FETCHES] = n_area


@leaf_kernel
def byte_access(
    row: Any, block: Any, npu: Any, memories: Any, places: Any, elements: Any, moved: Any
) -> None:
    """Write the bytes that one operation moves, maps in whole bursts; elements i64 [8] as from
    `element_access`."""
    fetches = elements[col.WEIGHT_FETCHES]
    moved[:] = 0
    for part in range(3):
        if elements[part] > 0:
            moved[part] = in_bursts(elements[part], part, row, block, npu, memories, places)
    moved[col.WEIGHTS_READ] = fetches * row[col.WEIGHT_BYTES]
    moved[col.SCALES_READ] = fetches * row[col.SCALE_BYTES]
    moved[col.SCRATCH_READ] = elements[col.SCRATCH_READ]
    moved[col.SCRATCH_WRITTEN] = elements[col.SCRATCH_WRITTEN]
    moved[col.WEIGHT_FETCHES] = fetches


@leaf_kernel
def memory_traffic(moved: Any, n_dma_bytes: Any, memories: Any, places: Any, traffic: Any) -> None:
    """Write the cycles of every memory from the bytes moved; n_dma_bytes i64 are copied from where
    weights are stored to their buffer while the operation runs."""
    traffic[:] = 0
    for part in range(3):
        traffic[places[part], col.FEATURE_MAP_CYCLES] += moved[part]
    scratch = moved[col.SCRATCH_READ] + moved[col.SCRATCH_WRITTEN]
    traffic[places[col.SCRATCH_PLACE], col.FEATURE_MAP_CYCLES] += scratch
    stored, buffer = places[col.CONSTANT_PLACE], places[col.BUFFER_PLACE]
    source = stored
    if buffer >= 0:
        traffic[stored, col.WEIGHT_CYCLES] += n_dma_bytes
        traffic[buffer, col.WEIGHT_CYCLES] += n_dma_bytes
        source = buffer
    traffic[source, col.WEIGHT_CYCLES] += moved[col.WEIGHTS_READ]
    traffic[stored, col.SCALE_CYCLES] += moved[col.SCALES_READ]
    for at in range(traffic.shape[0]):  # so far in bytes
        traffic[at, col.MEMORY_CYCLES] = traffic[at, : col.MEMORY_CYCLES].sum()
        for i in range(col.TRAFFIC_COLUMNS):
            traffic[at, i] = transfer_cycles(traffic[at, i], at, memories)


@leaf_kernel
def min_read_cycles(n_bytes: Any, at: Any, memories: Any) -> Any:
    """Least cycles until n_bytes are read from memory `at`; both i64. In double precision."""
    rate = np.float64(np.float32(memories[at, col.BYTES_PER_CYCLE]))
    return int(n_bytes / rate + memories[at, col.READ_LATENCY])


@leaf_kernel
def copy_cycles(n_bytes: Any, source: Any, target: Any, memories: Any) -> Any:
    """Cycles to copy n_bytes from one memory to another; all i64.

    To the time of writing Arm's compiler adds the source's write latency.
    """
    read = transfer_cycles(n_bytes, source, memories) + int(memories[source, col.READ_LATENCY])
    write = transfer_cycles(n_bytes, target, memories) + int(memories[source, col.WRITE_LATENCY])
    return max(read, write)


@leaf_kernel
def cut(row: Any, height: Any, depth: Any, part: Any) -> None:
    """Write to part i64 [35] the stripe of `height` ofm rows and the slice of `depth` channels.

    The ifm is what the stripe needs, its width included; its depth and the weights stay whole.
    A slice does not wait for `FILL_CYCLES` where another runs before it, nor for `DRAIN_CYCLES`
    where another runs after it.
    """
    put(row, part)
    part[col.OFM_HEIGHT], part[col.OFM_DEPTH] = height, depth
    part[col.DECODE_CYCLES] = ceil_div(row[col.DECODE_CYCLES] * depth, row[col.OFM_DEPTH])
    for axis in range(2):
        extent = part[col.OFM_HEIGHT + axis]
        span = (extent - 1) * row[col.STRIDE_HEIGHT + axis] * row[col.STEP_HEIGHT + axis] + 1
        span += (row[col.KERNEL_HEIGHT + axis] - 1) * row[col.DILATION_HEIGHT + axis]
        upscale = row[col.UPSCALE_HEIGHT + axis]
        need = ceil_div(span, upscale)
        if upscale == 2 and row[col.NEAREST] == 1:
            need = span // 2 + 1
        part[col.IFM_HEIGHT + axis] = min(need, row[col.IFM_HEIGHT + axis])


@leaf_kernel
def table_cycles(
    ops: Any, npu: Any, rates: Any, memories: Any, cycles: Any, access: Any, traffic: Any
) -> None:
    """Write cycles i64 [n_ops, 6], access i64 [2, n_ops, 8] in elements and in bytes, traffic i64
    [n_ops, n_memories, 4] of many operations: each line of ops i64 has row, block and places side
    by side, and the bytes of weights that are copied while the operation runs."""
    end = col.ROW_COLUMNS + col.BLOCKS_COLUMNS
    for i in range(ops.shape[0]):
        row, block = ops[i, : col.ROW_COLUMNS], ops[i, col.ROW_COLUMNS : end]
        places = ops[i, end : end + col.PLACE_COLUMNS]
        op_cycles(row, block, npu, rates, memories, places, cycles[i])
        element_access(row, block, npu, access[0, i])
        byte_access(row, block, npu, memories, places, access[0, i], access[1, i])
        memory_traffic(access[1, i], ops[i, -1], memories, places, traffic[i])
