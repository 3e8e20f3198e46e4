# SPDX-License-Identifier: Apache-2.0
"""What Arm's compiler decides, operation by operation: from stored tables or compiled on the spot.

The column names of the stored tables (``oracle/perlayer`` of NPUSIM_DATA) are those of the
compiler's own database.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from npusim.cost.blocks import BlockConfig, MacGeometry
from npusim.formats.tflite_write import to_bytes
from npusim.network import Network
from npusim.weights.traversal import choose_traversal

MAC_OPERATORS = ("Conv2D", "DepthwiseConv2D", "FullyConnected")
NPUS = {
    "ethos-u55-32": ("EthosU55", 32, 1),
    "ethos-u55-64": ("EthosU55", 64, 1),
    "ethos-u55-128": ("EthosU55", 128, 1),
    "ethos-u55-256": ("EthosU55", 256, 1),
    "ethos-u65-256": ("EthosU65", 256, 1),
    "ethos-u65-512": ("EthosU65", 256, 2),
}
TRAVERSALS = {"DepthFirst": "depth-first", "PartKernel": "part-kernel", "Depthwise": "depthwise"}

_SYSTEM = """
[architecture]
macs={macs}
cores={n_cores}
[vela]
system_config_name=Ethos_U55_High_End_Embedded
memory_mode_name=Shared_Sram
[System_Config.Ethos_U55_High_End_Embedded]
core_clock=500e6
axi0_port=Sram
axi1_port=OffChipFlash
Sram_clock_scale=1.0
Sram_burst_length=32
Sram_read_latency=32
Sram_write_latency=32
OffChipFlash_clock_scale=0.125
OffChipFlash_burst_length=128
OffChipFlash_read_latency=64
OffChipFlash_write_latency=64
[Memory_Mode.Shared_Sram]
const_mem_area=Axi1
arena_mem_area=Axi0
cache_mem_area=Axi0
"""
_SPILLING = """
[architecture]
macs={macs}
cores={n_cores}
[vela]
system_config_name=Ethos_U65_High_End
memory_mode_name=Dedicated_Sram
[System_Config.Ethos_U65_High_End]
core_clock=1e9
axi0_port=Sram
axi1_port=Dram
Sram_clock_scale=1.0
Sram_burst_length=32
Sram_read_latency=32
Sram_write_latency=32
Dram_clock_scale=0.234375
Dram_burst_length=128
Dram_read_latency=500
Dram_write_latency=250
[Memory_Mode.Dedicated_Sram]
const_mem_area=Axi1
arena_mem_area=Axi1
cache_mem_area=Axi0
"""
_OPTIONS = """
[compiler]
enable_db=true
output_format=TFLite
cop_format=COP1
verbose_performance=true
[scheduler]
optimize={optimise}
arena_size_limit={limit}
disable_feature={disabled}
cpu_tensor_alignment=16
tensor_allocator=HillClimb
"""

Row = dict[str, Any]


def compile_model(
    model: Network | bytes,
    npu: str,
    *,
    slices: bool = True,
    sram_only: bool = False,
    spills: bool = False,
    optimise: str = "performance",
    limit_bytes: int = 1 << 32,
) -> Any:
    """What the compiler returns; without `slices` it cuts no layer to buffer its weights, with
    `sram_only` weights and feature maps are in the same memory, and with `spills` both are in DRAM,
    on the system Ethos_U65_High_End; the limit is that of the arena, or of the staging memory."""
    model = model if isinstance(model, bytes) else to_bytes(model)
    regor = pytest.importorskip("ethosu.regor", reason="ethos-u-vela is the oracle")
    architecture, macs, n_cores = NPUS[npu]
    system = _SPILLING if spills else _SYSTEM
    if sram_only:
        system = system.replace("Shared_Sram", "Sram_Only").replace("=Axi1", "=Axi0")
    return regor.compile(
        architecture,
        model,
        "TFLITE",
        system.format(macs=macs, n_cores=n_cores),
        options=_OPTIONS.format(
            disabled="" if slices else "WeightBuffering",
            optimise=optimise.capitalize(),
            limit=limit_bytes,
        ),
        verbose=False,
    )


def compile_rows(network: Network, npu: str) -> list[Row] | None:
    """Rows of the operations with weights, in order; None if some operation is left to the CPU."""
    compiled = compile_model(network, npu)
    if compiled.perf_report.cpuOps:
        return None
    rows = table_rows(compiled, "perf", "perf_debug", "perf_debug_main")
    return [row for row in map(_numbers, rows) if row["operator"] in MAC_OPERATORS]


def table_lists(compiled: Any, name: str) -> list[Row]:
    """The lines of one table of the compiler's database."""
    table = compiled.opt_database.tables[name]
    return [dict(zip(table.header, line, strict=True)) for line in table.data]


def table_rows(compiled: Any, *names: str) -> list[Row]:
    """Lines of several tables, those with the same id as one."""
    rows: dict[str, Row] = {}
    for name in names:
        for record in table_lists(compiled, name):
            rows.setdefault(record["id"], {}).update(record)
    return list(rows.values())


def stored_rows(folder: Path, npu: str) -> Iterator[Row]:
    """Rows of all stored models with weights, for one NPU and its usual system and memory."""
    system = "Ethos_U55_High_End_Embedded" if "u55" in npu else "Ethos_U65_Embedded"
    path = folder / f"{npu}__{system}__Shared_Sram__Performance__None.csv.gz"
    with gzip.open(path, "rt", newline="") as lines:
        for record in csv.DictReader(lines):
            if record["operator"] in MAC_OPERATORS and record["weight_total_bytes"]:
                yield _numbers(record)


def geometry_of(row: Row, upscale: tuple[int, int] = (1, 1), table: bool = False) -> MacGeometry:
    """The operation of a row, its traversal chosen as we do."""
    ifm = tuple(row[f"ifm_slice_{axis}"] or row[f"ifm_shape_{axis}"] for axis in "hwc")
    ofm = tuple(row[f"ofm_slice_{axis}"] or row[f"ofm_shape_{axis}"] for axis in "hwc")
    kernel, stride, dilation = (
        (row[f"kernel_{what}_y"], row[f"kernel_{what}_x"])
        for what in ("size", "stride", "dilation")
    )
    bits = 16 if row["ifm_dtype"] == "Int16" else 8
    traversal = "depthwise"
    if row["operator"] != "DepthwiseConv2D":
        traversal = choose_traversal((ofm[2], *kernel, ifm[2]), "CONV_2D", bits)
    sizes = (kernel, stride, dilation, upscale)
    return MacGeometry(ifm, ofm, traversal, *sizes, ifm_bits=bits, table=table)


def block_of(row: Row) -> BlockConfig:
    """The block of a row."""
    return BlockConfig(*(row[f"{map_}_block_{axis}"] for map_ in ("ofm", "ifm") for axis in "hwc"))


def _numbers(record: dict[str, Any]) -> Row:
    return {key: _number(value) for key, value in record.items()}


def _number(value: Any) -> Any:
    try:
        return int(float(value))
    except (TypeError, ValueError):
        return value
