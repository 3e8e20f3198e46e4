# SPDX-License-Identifier: Apache-2.0
"""Columns of the arrays that the kernels of the cost model read and write.

A *row* is one operation, an *npu* one NPU, *memories* one line per memory, *places* where one
operation's data is; all are int64 but for rates and memories, which are float64. `npusim.cost.rows`
makes them.
"""

from __future__ import annotations

UNIT, TRAVERSAL = range(2)
"""Indices into `npusim.cost.rows.UNIT_NAMES` and `npusim.weights.reorder.TRAVERSALS`."""
IFM_HEIGHT, IFM_WIDTH, IFM_DEPTH = range(2, 5)
IFM2_HEIGHT, IFM2_WIDTH, IFM2_DEPTH = range(5, 8)
"""All 0 without a second operand."""
OFM_HEIGHT, OFM_WIDTH, OFM_DEPTH = range(8, 11)
KERNEL_HEIGHT, KERNEL_WIDTH, STRIDE_HEIGHT, STRIDE_WIDTH = range(11, 15)
DILATION_HEIGHT, DILATION_WIDTH, UPSCALE_HEIGHT, UPSCALE_WIDTH = range(15, 19)
NEAREST, STEP_HEIGHT, STEP_WIDTH = range(19, 22)
"""Whether upscaling repeats elements; distance between rows and columns that are read."""
IFM_BITS, OFM_BITS, ACC_BITS, TABLE_BANKS = range(22, 26)
"""Bits of elements and accumulators; SHRAM banks of a look-up table."""
OUTPUT_RATE, ACTIVATION_RATE = range(26, 28)
"""Which of `NpuConfig.output_cycles_per_element` and `activation_cycles_per_element` applies."""
IFM_FORMAT, IFM2_FORMAT, OFM_FORMAT = range(28, 31)
"""`NHWC` or `NHCWB16`."""
HAS_SCALES, WEIGHT_BYTES, SCALE_BYTES, DECODE_CYCLES = range(31, 35)
"""Whether channels have biases and scales; encoded bytes of all weights, and of all scales; cycles
to decode all weights once, 0 for no bound but the decoder's fixed rate."""
ROW_COLUMNS = 35

CONVOLUTION, PRODUCT, DEPTHWISE, POOLING, REDUCE_SUM = range(5)
ELEMENTWISE, MATMUL, TRANSPOSE, DMA, CPU = range(5, 10)
"""Values of `UNIT`; the first five use the multipliers."""
DEPTH_FIRST, PART_KERNEL, DEPTHWISE_TRAVERSAL = range(3)
"""Values of `TRAVERSAL`."""
NHWC, NHCWB16 = range(2)
"""Formats of feature maps: channels last, or in groups of 16 that are apart by a row."""

OFM_BLOCK_HEIGHT, OFM_BLOCK_WIDTH, OFM_BLOCK_DEPTH = range(3)
IFM_BLOCK_HEIGHT, IFM_BLOCK_WIDTH, IFM_BLOCK_DEPTH = range(3, 6)
BLOCK_COLUMNS = 6
"""A block; a matmul has two, the second for the products that are summed."""
BLOCKS_COLUMNS = 12

OFM_UBLOCK_HEIGHT, OFM_UBLOCK_WIDTH, OFM_UBLOCK_DEPTH, IFM_UBLOCK_DEPTH = range(4)
BLOCK_HEIGHT_MAX, BLOCK_WIDTH_MAX, BLOCK_DEPTH_MAX, SUB_KERNEL_MAX = range(4, 8)
SHRAM_BANKS, BANK_BYTES, N_CORES, WEIGHTS_PER_CYCLE = range(8, 12)
IFM8_GRANULE, IFM16_GRANULE, IFM32_GRANULE = range(12, 15)
ELEMENTWISE8_GRANULE, ELEMENTWISE16_GRANULE, ACC32_GRANULE, ACC40_GRANULE = range(15, 19)
POOL8_CYCLES, POOL16_CYCLES = range(19, 21)
STALL32_CYCLES, STALL40_CYCLES, LINE_STALL40_CYCLES = range(21, 24)
NPU_COLUMNS = 24
"""An NPU, as the attributes of `npusim.npu.NpuConfig` of like names."""
N_OUTPUT_RATES, RATE_COLUMNS = 8, 11
"""Rates: of the output stage, then of the activation function."""

BYTES_PER_CYCLE, READ_LATENCY, WRITE_LATENCY, BURST_BYTES = range(4)
MEMORY_COLUMNS = 4
"""A memory, as the attributes of `npusim.memories.Memory` of like names."""

IFM_PLACE, IFM2_PLACE, OFM_PLACE, CONSTANT_PLACE, BUFFER_PLACE, SCRATCH_PLACE = range(6)
PLACE_COLUMNS = 6
"""Which line of memories holds ifm, ifm2, ofm, weights with scales as stored, the weights' buffer
(-1: they are read from where they are stored), and the scratch map."""

OP_CYCLES, MAC_CYCLES, OUTPUT_CYCLES, ISSUE_CYCLES, FILL_CYCLES, DRAIN_CYCLES = range(6)
CYCLE_COLUMNS = 6
"""Cycles of one operation: all together; the multipliers', with one block's output; the output
stage's, with one block's multiplications; least time between two blocks, for elementwise
operations of all blocks. On the multipliers also the part of all that passes before the first block
is read, and after the multipliers are done with the last one: between depth slices it is hidden."""

IFM_READ, IFM2_READ, OFM_WRITTEN, WEIGHTS_READ, SCALES_READ = range(5)
SCRATCH_READ, SCRATCH_WRITTEN, WEIGHT_FETCHES = range(5, 8)
ACCESS_COLUMNS = 8
"""What one operation moves, in elements or bytes; how often it reads all of its weights."""
FEATURE_MAP_CYCLES, WEIGHT_CYCLES, SCALE_CYCLES, MEMORY_CYCLES = range(4)
TRAFFIC_COLUMNS = 4
"""Cycles that one memory is busy with feature maps, weights, scales, and all of them."""
