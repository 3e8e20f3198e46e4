# SPDX-License-Identifier: Apache-2.0
"""The cycles of one operation in plain Python, from the same arrays as the kernels.

Where Arm's compiler computes in single precision, so does NumPy here; the rest is Python's
integers and floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any, TypeAlias

from numpy import float32

from npusim.cost import columns as c

Numbers: TypeAlias = Sequence[Any]
Extents: TypeAlias = tuple[int, int, int]


def _ceil_div(value: int, step: int) -> int:
    return -(-value // step)


def _clipped(block: Extents, shape: Extents) -> Extents:
    """What of a block lies within the map."""
    height, width, depth = (min(pair) for pair in zip(block, shape, strict=True))
    return height, width, depth


def _elements(extents: Extents) -> int:
    return extents[0] * extents[1] * extents[2]


def _map(row: Numbers, first: int) -> Extents:
    height, width, depth = (int(value) for value in row[first : first + 3])
    return height, width, depth


def _ofm(row: Numbers) -> Extents:
    return _map(row, c.OFM_HEIGHT)


def _ublock(row: Numbers, npu: Numbers) -> Extents:
    """The ofm ublock; its two rows lie side by side where the ofm has one, and an even width."""
    height, width, depth = _map(npu, c.OFM_UBLOCK_HEIGHT)
    flat = row[c.OFM_HEIGHT] == row[c.KERNEL_HEIGHT] == 1 and row[c.OFM_WIDTH] % 2 == 0
    if height == 2 and flat and row[c.UNIT] in (c.CONVOLUTION, c.PRODUCT):
        return 1, height * width, depth
    return height, width, depth


def _ublocks(shape: Extents, ublock: Extents) -> Extents:
    height, width, depth = (_ceil_div(*pair) for pair in zip(shape, ublock, strict=True))
    return height, width, depth


def _mac_block_cycles(row: Numbers, block: Numbers, npu: Numbers) -> int:
    """Cycles the multipliers take for one block."""
    unit, bits, most = row[c.UNIT], int(row[c.IFM_BITS]), int(npu[c.SUB_KERNEL_MAX])
    high, wide, deep = _ublocks(
        _clipped(_map(block, c.OFM_BLOCK_HEIGHT), _ofm(row)), _ublock(row, npu)
    )
    ifm_depth = min(int(row[c.IFM_DEPTH]), int(block[c.IFM_BLOCK_DEPTH]))
    part_kernel = row[c.TRAVERSAL] == c.PART_KERNEL
    decode = _ceil_div(32 * int(npu[c.OFM_UBLOCK_DEPTH]), int(npu[c.WEIGHTS_PER_CYCLE]))
    acc40 = row[c.ACC_BITS] == 40
    stall = int(npu[c.STALL40_CYCLES if acc40 else c.STALL32_CYCLES])
    total = 0
    for y in range(0, int(row[c.KERNEL_HEIGHT]), most):
        for x in range(0, int(row[c.KERNEL_WIDTH]), most):
            taps = min(int(row[c.KERNEL_HEIGHT]) - y, most) * min(
                int(row[c.KERNEL_WIDTH]) - x, most
            )
            if unit == c.POOLING:
                steps = 1
                cycles = max(4, taps) * high * wide * deep * _pool_cycles(bits, npu)
            elif unit == c.DEPTHWISE:
                steps = _ceil_div(taps, 4)
                cycles = max(decode, 4 * high * wide * bits // 8) * steps * deep
            else:
                steps = _ceil_div(taps, 2 if bits == 16 else 4) if part_kernel else taps
                cycles = max(decode, 4 * high * wide) * steps * deep
            if high * wide == 1:
                cycles += stall * (steps if deep == 1 else (steps - 1) * deep)
            if acc40 and deep > 1 and 1 in (high, wide):
                cycles += int(npu[c.LINE_STALL40_CYCLES]) * deep
            total += cycles * (_ceil_div(ifm_depth, 8) if part_kernel else 1)
    if unit in (c.CONVOLUTION, c.PRODUCT, c.REDUCE_SUM):
        total *= _ceil_div(int(row[c.IFM_DEPTH]), ifm_depth)
    return total // int(npu[c.N_CORES])


def _pool_cycles(bits: int, npu: Numbers) -> int:
    """Cycles of a ublock and kernel element; from 16 to 32 bits they grow as from 8 to 16."""
    narrow, wide = int(npu[c.POOL8_CYCLES]), int(npu[c.POOL16_CYCLES])
    return {8: narrow, 16: wide, 32: wide * wide // narrow}[bits]


def _burst_bytes(
    n_bytes: int,
    read: bool,
    bits: int,
    layout: int,
    block: Extents,
    shape: Extents,
    *,
    cores: int,
    burst: int,
) -> int:
    """Bytes counted in whole bursts, where a contiguous run may be shorter than one."""
    _, block_width, block_depth = block
    _, width, depth = shape
    whole = bits * block_width * block_depth
    if layout == c.NHCWB16:
        run = 16 * bits * block_width * (1 if read else cores)
        if width * bits * 16 // 8 == block_depth:
            run = whole
    elif depth * bits // 8 == block_depth and (read or block_depth <= 16):
        run = whole
    elif read:
        run = bits * block_depth
    else:
        run = min(64 * 8, 16 * bits * cores, block_depth * bits)
    return n_bytes * burst // min(burst, run // 8)


_PARTS = {
    "ifm": (c.IFM_HEIGHT, c.IFM_BLOCK_HEIGHT, c.IFM_FORMAT, c.IFM_BITS, c.IFM_PLACE),
    "ifm2": (c.IFM2_HEIGHT, c.IFM_BLOCK_HEIGHT, c.IFM2_FORMAT, c.IFM_BITS, c.IFM2_PLACE),
    "ofm": (c.OFM_HEIGHT, c.OFM_BLOCK_HEIGHT, c.OFM_FORMAT, c.OFM_BITS, c.OFM_PLACE),
}


def _moved(
    part: str,
    n_elements: int,
    row: Numbers,
    block: Numbers,
    npu: Numbers,
    memories: Any,
    places: Numbers,
) -> int:
    """Bytes that reading or writing n_elements of a map takes."""
    shape, at, layout, bits, place = _PARTS[part]
    return _burst_bytes(
        n_elements * int(row[bits]) // 8,
        part != "ofm",
        int(row[bits]),
        int(row[layout]),
        _map(block, at),
        _map(row, shape),
        cores=int(npu[c.N_CORES]),
        burst=int(memories[places[place]][c.BURST_BYTES]),
    )


def _first_block_cycles(
    part: str, row: Numbers, block: Numbers, npu: Numbers, memories: Any, places: Numbers
) -> int:
    """Cycles until the first block of a map is read or written."""
    shape, at, _, _, place = _PARTS[part]
    n_elements = _elements(_clipped(_map(block, at), _map(row, shape)))
    memory = memories[places[place]]
    moved = _moved(part, n_elements, row, block, npu, memories, places)
    latency = memory[c.WRITE_LATENCY if part == "ofm" else c.READ_LATENCY]
    return int(float32(moved) / float32(memory[c.BYTES_PER_CYCLE])) + int(latency)


def op_cycles(
    row: Numbers, block: Numbers, npu: Numbers, rates: Numbers, memories: Any, places: Numbers
) -> list[int]:
    """Twin of the kernel: op, mac, output, issue, fill and drain cycles."""
    unit, arguments = row[c.UNIT], (row, block, npu, rates, memories, places)
    if unit == c.ELEMENTWISE:
        return _elementwise_cycles(*arguments)
    if unit == c.MATMUL:
        return _matmul_cycles(*arguments)
    if unit == c.TRANSPOSE:
        return [_transpose_cycles(row, block, npu, memories, places), 0, 0, 0, 0, 0]
    return [0] * c.CYCLE_COLUMNS if unit in (c.DMA, c.CPU) else _mac_cycles(*arguments)


def _rate(row: Numbers, rates: Numbers) -> float:
    """Cycles of an ofm element: the slower of output stage and activation."""
    activation = rates[c.N_OUTPUT_RATES + row[c.ACTIVATION_RATE]]
    return max(float(rates[row[c.OUTPUT_RATE]]), float(activation))


def _elementwise_cycles(
    row: Numbers, block: Numbers, npu: Numbers, rates: Numbers, memories: Any, places: Numbers
) -> list[int]:
    n = _elements(_in_storage(_ofm(row), row[c.OFM_FORMAT]))
    rate, arguments = _rate(row, rates), (row, block, npu, memories, places)
    parts = ["ifm", "ofm"] + ["ifm2"] * bool(row[c.IFM2_DEPTH])
    slower = max(_first_block_cycles(part, *arguments) for part in parts)
    output = ceil(rate * n)
    issue = ceil((slower / _elements(_map(block, c.OFM_BLOCK_HEIGHT)) + rate) / 4 * n)
    return [max(output, issue), 0, output, issue, 0, 0]


def _mac_cycles(
    row: Numbers, block: Numbers, npu: Numbers, rates: Numbers, memories: Any, places: Numbers
) -> list[int]:
    arguments = (row, block, npu, memories, places)
    clipped = _clipped(_map(block, c.OFM_BLOCK_HEIGHT), _ofm(row))
    ublock = _ublock(row, npu)
    n_blocks = _elements(_ublocks(_ofm(row), ublock)) / _elements(_ublocks(clipped, ublock))
    output_only = ceil(_rate(row, rates) * _elements(clipped))
    output = max(output_only, _scale_cycles(row, clipped[2], memories, places))
    mac = _mac_block_cycles(row, block, npu)
    read = _first_block_cycles("ifm", *arguments)
    write = _first_block_cycles("ofm", *arguments)
    issue = ((abs(write - read) if n_blocks > 1 else 0) + mac + output) / 4
    mac_pace, output_pace = max(mac, issue), max(output, issue)
    if mac_pace > output_pace:  # the last block leaves the output stage after the multipliers
        drain = int(output_pace)
        cycles = int(mac_pace * n_blocks) + drain + read + write
    else:
        drain = 0
        cycles = int(output_pace * n_blocks + mac_pace) + read + write
    parts = int(mac * n_blocks + output), int(output_only * n_blocks + mac), int(issue)
    decode = int(row[c.DECODE_CYCLES]) * element_access(row, block, npu)[c.WEIGHT_FETCHES]
    return [cycles, *parts, read, drain + write] if decode <= cycles else [decode, *parts, 0, 0]


def _scale_cycles(row: Numbers, ofm_block_depth: int, memories: Any, places: Numbers) -> float:
    """Cycles to read the biases and scales of a block, 10 bytes each, in bursts of 256."""
    if not row[c.HAS_SCALES] or row[c.UNIT] not in (c.CONVOLUTION, c.PRODUCT, c.DEPTHWISE):
        return 0
    buffered = places[c.BUFFER_PLACE] >= 0
    memory = memories[places[c.BUFFER_PLACE if buffered else c.CONSTANT_PLACE]]
    return 10 * ofm_block_depth * int(memory[c.READ_LATENCY]) / 256


def _transpose_cycles(
    row: Numbers, block: Numbers, npu: Numbers, memories: Any, places: Numbers
) -> int:
    access = element_access(row, block, npu)
    slower = 0
    for part, column, latency in (
        ("ifm", c.IFM_READ, c.READ_LATENCY),
        ("ofm", c.OFM_WRITTEN, c.WRITE_LATENCY),
    ):
        memory = memories[places[_PARTS[part][-1]]]
        moved = _moved(part, access[column], row, block, npu, memories, places)
        slower = max(slower, _cycles(moved, memory) + int(memory[latency]))
    return slower


def _matmul_cycles(
    row: Numbers, block: Numbers, npu: Numbers, rates: Numbers, memories: Any, places: Numbers
) -> list[int]:
    """For every column of the second operand, products in the scratch map and their sums."""
    ifm = _map(row, c.IFM_HEIGHT)
    products, sums, into, out_of = list(row), list(row), list(places), list(places)
    products[c.UNIT], products[c.OFM_BITS], products[c.OUTPUT_RATE] = c.ELEMENTWISE, 32, 2
    products[c.IFM2_HEIGHT : c.IFM2_HEIGHT + 3] = products[c.OFM_HEIGHT : c.OFM_HEIGHT + 3] = ifm
    sums[c.UNIT] = c.REDUCE_SUM
    sums[c.IFM2_HEIGHT : c.IFM2_HEIGHT + 3] = 0, 0, 0
    sums[c.OFM_HEIGHT : c.OFM_HEIGHT + 3] = *ifm[:2], 1
    into[c.OFM_PLACE] = out_of[c.IFM_PLACE] = places[c.SCRATCH_PLACE]
    first = _elementwise_cycles(products, block[c.BLOCK_COLUMNS :], npu, rates, memories, into)
    second = _mac_cycles(sums, block, npu, rates, memories, out_of)
    return [(a + b) * int(row[c.IFM2_WIDTH]) for a, b in zip(first, second, strict=True)]


def _in_storage(shape: Extents, layout: int) -> Extents:
    height, width, depth = shape
    return height, width, _ceil_div(depth, 16) * 16 if layout == c.NHCWB16 else depth


def element_access(row: Numbers, block: Numbers, npu: Numbers) -> list[int]:
    """Twin of the kernel: elements of maps read and written, and fetches of the weights."""
    access = [0] * c.ACCESS_COLUMNS
    unit = row[c.UNIT]
    if unit in (c.DMA, c.CPU):
        return access
    ifm, ifm2, ofm = _map(row, c.IFM_HEIGHT), _map(row, c.IFM2_HEIGHT), _ofm(row)
    layout = int(row[c.IFM_FORMAT])
    if unit == c.ELEMENTWISE:
        whole = _elements(_in_storage(ofm, layout))
        narrow = row[c.IFM_BITS] <= 8
        if _elements(ifm) > 1:
            access[c.IFM_READ] = whole
            if _elements(ifm2) > 1:
                access[c.IFM2_READ] = whole
            elif not narrow:
                access[c.IFM2_READ] = _elements(_in_storage(ifm2, layout))
        elif narrow:
            access[c.IFM2_READ] = whole if _elements(ifm2) else 0
        else:  # a second operand is then not counted
            access[c.IFM_READ] = _elements(_in_storage(ifm, layout))
    elif unit == c.TRANSPOSE:
        access[c.IFM_READ] = _elements(ifm)
    elif unit == c.MATMUL:
        products = _elements(ifm) * ifm2[1]
        access[c.IFM_READ], access[c.IFM2_READ] = products, _elements(ifm2)
        access[c.SCRATCH_READ] = access[c.SCRATCH_WRITTEN] = products
    else:
        high, wide, deep = _ublocks(ofm, _clipped(_map(block, c.OFM_BLOCK_HEIGHT), ofm))
        if unit in (c.DEPTHWISE, c.POOLING):
            deep = 1
        most = int(npu[c.SUB_KERNEL_MAX])
        n_sub_kernels = _ceil_div(int(row[c.KERNEL_HEIGHT]), most) * _ceil_div(
            int(row[c.KERNEL_WIDTH]), most
        )
        height, width, _ = _clipped(_map(block, c.IFM_BLOCK_HEIGHT), ifm)
        fetch = height * width * _in_storage(ifm, layout)[2]
        access[c.IFM_READ] = fetch * n_sub_kernels * high * wide * deep
        if unit in (c.CONVOLUTION, c.PRODUCT, c.DEPTHWISE):
            access[c.WEIGHT_FETCHES] = high * wide
    access[c.OFM_WRITTEN] = _elements(_in_storage(ofm, int(row[c.OFM_FORMAT])))
    return access


def byte_access(
    row: Numbers, block: Numbers, npu: Numbers, memories: Any, places: Numbers
) -> list[int]:
    """Twin of the kernel: bytes moved, in whole bursts."""
    elements = element_access(row, block, npu)
    moved = [0] * c.ACCESS_COLUMNS
    for part, column in (("ifm", c.IFM_READ), ("ifm2", c.IFM2_READ), ("ofm", c.OFM_WRITTEN)):
        if elements[column]:
            moved[column] = _moved(part, elements[column], row, block, npu, memories, places)
    fetches = elements[c.WEIGHT_FETCHES]
    moved[c.WEIGHT_FETCHES] = fetches
    moved[c.WEIGHTS_READ] = fetches * int(row[c.WEIGHT_BYTES])
    moved[c.SCALES_READ] = fetches * int(row[c.SCALE_BYTES])
    for column in (c.SCRATCH_READ, c.SCRATCH_WRITTEN):
        moved[column] = elements[column]
    return moved


def memory_traffic(
    moved: Numbers, n_dma_bytes: int, memories: Any, places: Numbers
) -> list[list[int]]:
    """Twin of the kernel: cycles of every memory with maps, weights, scales and all of them."""
    n_bytes = [[0, 0, 0] for _ in memories]
    maps, weights, scales = range(3)
    for place, column, kind in (
        (c.IFM_PLACE, c.IFM_READ, maps),
        (c.IFM2_PLACE, c.IFM2_READ, maps),
        (c.OFM_PLACE, c.OFM_WRITTEN, maps),
        (c.SCRATCH_PLACE, c.SCRATCH_READ, maps),
        (c.SCRATCH_PLACE, c.SCRATCH_WRITTEN, maps),
        (c.CONSTANT_PLACE, c.SCALES_READ, scales),
    ):
        n_bytes[places[place]][kind] += int(moved[column])
    if places[c.BUFFER_PLACE] >= 0:
        n_bytes[places[c.CONSTANT_PLACE]][weights] += n_dma_bytes
        n_bytes[places[c.BUFFER_PLACE]][weights] += n_dma_bytes + int(moved[c.WEIGHTS_READ])
    else:
        n_bytes[places[c.CONSTANT_PLACE]][weights] += int(moved[c.WEIGHTS_READ])
    return [
        [_cycles(n, memory) for n in (*kinds, sum(kinds))]
        for kinds, memory in zip(n_bytes, memories, strict=True)
    ]


def _cycles(n_bytes: int, memory: Numbers) -> int:
    """Cycles to move bytes, in single precision, rounded down."""
    return int(float32(n_bytes) / float32(memory[c.BYTES_PER_CYCLE]))


def min_read_cycles(n_bytes: int, at: int, memories: Any) -> int:
    """Twin of the kernel; in double precision from a bandwidth in single precision."""
    rate = float(float32(memories[at][c.BYTES_PER_CYCLE]))
    return int(n_bytes / rate + memories[at][c.READ_LATENCY])


def copy_cycles(n_bytes: int, source: int, target: int, memories: Any) -> int:
    """Twin of the kernel."""
    latencies = memories[source][c.READ_LATENCY], memories[source][c.WRITE_LATENCY]
    read = _cycles(n_bytes, memories[source]) + int(latencies[0])
    return max(read, _cycles(n_bytes, memories[target]) + int(latencies[1]))


def cut(row: Numbers, height: int, depth: int) -> list[int]:
    """Twin of the kernel: the stripe or slice as a row."""
    part = [int(value) for value in row]
    part[c.OFM_HEIGHT], part[c.OFM_DEPTH] = height, depth
    part[c.DECODE_CYCLES] = _ceil_div(part[c.DECODE_CYCLES] * depth, int(row[c.OFM_DEPTH]))
    for axis in (0, 1):
        step = part[c.STRIDE_HEIGHT + axis] * part[c.STEP_HEIGHT + axis]
        dilated = (part[c.KERNEL_HEIGHT + axis] - 1) * part[c.DILATION_HEIGHT + axis] + 1
        span = (part[c.OFM_HEIGHT + axis] - 1) * step + dilated
        upscale = part[c.UPSCALE_HEIGHT + axis]
        nearest = part[c.NEAREST] and upscale == 2
        need = span // 2 + 1 if nearest else _ceil_div(span, upscale)
        part[c.IFM_HEIGHT + axis] = min(need, part[c.IFM_HEIGHT + axis])
    return part
