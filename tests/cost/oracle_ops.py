# SPDX-License-Identifier: Apache-2.0
"""Operations of the compiler's tables as rows of numbers, beside what it says they take.

The tables hold everything but two things, which shapes and neighbours tell: whether the ifm is
doubled on reading, and which activation is part of an operation.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import regor_oracle as oracle

from npusim.cost import columns as col
from npusim.cost.rows import TABLE_BANKS, table
from npusim.hardware import Machine, machine
from npusim.memories import Memory
from npusim.weights.reorder import TRAVERSALS

Row = dict[str, Any]
BITS = {"Int8": 8, "UInt8": 8, "Int16": 16, "Int32": 32}
MEMORIES = {"Sram": "sram", "Dram": "dram", "OffChipFlash": "off_chip_flash"}
UNITS = {
    "Conv2D": col.CONVOLUTION,
    "FullyConnected": col.PRODUCT,
    "DepthwiseConv2D": col.DEPTHWISE,
    **dict.fromkeys(("AvgPool", "MaxPool", "MemoryCopy", "Quantize"), col.POOLING),
    **dict.fromkeys(("Relu", "Relu6", "Clamp", "LUT", "Sigmoid", "Tanh"), col.POOLING),
    "ReduceSum": col.REDUCE_SUM,
    "MatMul": col.MATMUL,
    "Transpose": col.TRANSPOSE,
}
ACTIVATION_RATES = {"LUT": 0, "Sigmoid": 0, "Tanh": 0, "Relu": 1, "Relu6": 1, "Clamp": 2}


@dataclass(frozen=True, slots=True)
class OracleOp:
    """One operation.

    Attributes:
        record: its line in the compiler's tables.
        row: as `npusim.cost.rows` lays it out.
        block: of the ofm and of the ifm, shape [6].
        places: of its data in `memories_of`.
    """

    record: Row
    row: np.ndarray
    block: np.ndarray
    places: np.ndarray

    @property
    def is_buffered(self) -> bool:
        return bool(self.places[col.BUFFER_PLACE] >= 0)


def memories_of(target: Machine) -> list[Memory]:
    """The memories of a machine, each once."""
    held = (target.feature_maps, target.constants, target.staging)
    return list({memory.name: memory for memory in held}.values())


def stored_tables(
    folder: Path, pattern: str = "*"
) -> Iterator[tuple[Machine, str, list[OracleOp]]]:
    """Every stored table of a U55 or U65 with its machine and name."""
    for path in sorted(folder.glob(f"ethos-u[56]5-{pattern}.csv.gz")):
        npu, system, mode, *_ = path.name.split("__")
        target = machine(npu, system, mode)
        with gzip.open(path, "rt", newline="") as lines:
            records = [numbers(record) for record in csv.DictReader(lines)]
        fused: dict[Any, Row] = {}
        for record, following in pairwise(records):
            record["id"] = (record["model"], record["id"])
            if following["operator"] in ACTIVATION_RATES and not following["ifm_block_c"]:
                fused[record["id"]] = following
        yield target, path.name, operations(records, fused, target)


def compiled_ops(compiled: Any, target: Machine) -> list[OracleOp]:
    """The operations of a network compiled on the spot."""
    records = [
        numbers(record)
        for record in oracle.table_rows(compiled, "perf", "perf_debug", "perf_debug_main")
    ]
    by_id = {record["id"]: record for record in records}
    fused = {}
    if "group" in compiled.opt_database.tables:
        for line in oracle.table_lists(compiled, "group"):
            fused[int(line["group_id"])] = by_id[int(line["id"])]
    return operations(records, fused, target)


def operations(records: list[Row], fused: dict[Any, Row], target: Machine) -> list[OracleOp]:
    names = [memory.name for memory in memories_of(target)]
    return [
        OracleOp(
            record,
            row_of(record, fused.get(record["id"])),
            np.array([record[f"{m}_block_{axis}"] for m in ("ofm", "ifm") for axis in "hwc"]),
            places_of(record, names, target),
        )
        for record in records
        if record.get("ifm_block_c")
    ]


def row_of(record: Row, follower: Row | None) -> np.ndarray:
    operator = record["operator"]
    unit = UNITS.get(operator, col.ELEMENTWISE)
    bits, ofm_bits = BITS[record["ifm_dtype"]], BITS[record["ofm_dtype"]]
    wide = bits == 16 and unit not in (col.POOLING, col.MATMUL)
    activation = None if follower is None else follower["operator"]
    values: dict[str, Any] = {
        f"{map_}_{name}": record[f"{map_}_slice_{name[0]}"] or record[f"{map_}_shape_{name[0]}"]
        for map_ in ("ifm", "ifm2", "ofm")
        for name in ("height", "width")
    }
    for map_ in ("ifm", "ifm2", "ofm"):
        values[f"{map_}_depth"] = record[f"{map_}_slice_c"] or record[f"{map_}_shape_c"]
        values[f"{map_}_format"] = int(record[f"{map_}_format"] == "NHCWB16")
    for ours, theirs in (("kernel", "size"), ("stride", "stride"), ("dilation", "dilation")):
        values[f"{ours}_height"] = record[f"kernel_{theirs}_y"]
        values[f"{ours}_width"] = record[f"kernel_{theirs}_x"]
    if operator in ("Conv2D", "AvgPool") and values["stride_height"] == 1:
        for axis in ("height", "width"):
            values[f"upscale_{axis}"] = 1 + (values[f"ofm_{axis}"] > values[f"ifm_{axis}"])
        doubled = max(values["upscale_height"], values["upscale_width"]) == 2
        values["nearest"] = int(operator == "AvgPool" and doubled)
    return table(
        1,
        unit=unit,
        traversal=TRAVERSALS.index(oracle.TRAVERSALS[record["traversal"]]),
        ifm_bits=bits,
        ofm_bits=ofm_bits,
        acc_bits=40 if wide else 32,
        table_banks=TABLE_BANKS if "LUT" in (operator, activation) else 0,
        output_rate=output_rate(operator, unit, bits, ofm_bits, bool(values["ifm2_depth"])),
        activation_rate=2 if activation is None else ACTIVATION_RATES[activation],
        has_scales=int(unit <= col.DEPTHWISE),
        weight_bytes=record["weight_total_bytes"] or 0,
        **values,
    )[0]


def output_rate(operator: str, unit: int, bits: int, ofm_bits: int, binary: bool) -> int:
    if unit == col.ELEMENTWISE and bits == 32:
        return 1 if binary else 0
    if operator == "Mul":
        return 2 if ofm_bits == 32 else 3
    if bits == 16 and unit in (col.CONVOLUTION, col.PRODUCT, col.DEPTHWISE, col.REDUCE_SUM):
        return 3
    return {"Add": 5, "Sub": 5, "MaxPool": 6}.get(operator, 7)


def places_of(record: Row, names: list[str], target: Machine) -> np.ndarray:
    maps = [
        names.index(MEMORIES[record[f"{map_}_memory"]]) if record[f"{map_}_memory"] else 0
        for map_ in ("ifm", "ifm2", "ofm")
    ]
    buffered = record["weight_buffering"] in ("Single", "Double")
    buffer = names.index(target.staging.name) if buffered else -1
    scratch = names.index(target.feature_maps.name)
    return np.array([*maps, names.index(target.constants.name), buffer, scratch])


def numbers(record: Row) -> Row:
    """The record with numbers for text; shapes left out are 0."""
    return {key: number(key, value) for key, value in record.items()}


def number(key: str, value: Any) -> Any:
    if value == "" and key[-2:] in ("_h", "_w", "_c", "_n"):
        return 0
    try:
        return int(float(value))
    except (TypeError, ValueError):
        return value
