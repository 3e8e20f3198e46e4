# SPDX-License-Identifier: Apache-2.0
"""Programs read back from the tables of Arm's compiler, with the memory it gave to their maps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import regor_oracle as oracle

from npusim.cost.liveness import MemorySchedule
from npusim.cost.program import FeatureMap, NpuOp, Program, View
from npusim.formats.tflite_write import to_bytes
from npusim.network import Network

KINDS = {
    **{"Conv2D": "conv", "DepthwiseConv2D": "depthwise", "FullyConnected": "fully_connected"},
    **{"TransposeConv2D": "transpose_conv", "MaxPool": "max_pool", "AvgPool": "average_pool"},
    **{"ReduceSum": "reduce_sum", "MemoryCopy": "copy", "Transpose": "transpose"},
    **{"MatMul": "matmul", "Tile": "tile", "Quantize": "quantize", "Reverse": "reverse"},
    **{"Add": "add", "Sub": "sub", "Mul": "mul", "Minimum": "minimum", "Maximum": "maximum"},
    **{"Abs": "abs", "LeakyRelu": "leaky_relu", "CLZ": "clz", "SHL": "shift_left"},
    **{"Asr": "shift_right", "ReduceMax": "reduce_max", "Passthrough": "cpu"},
    **dict.fromkeys(("LUT", "Sigmoid", "Tanh", "Relu", "Clamp", "Relu6"), "activation"),
}


@dataclass
class Compiled:
    """A program and what the compiler did with it.

    Attributes:
        program: operations with connections, shapes, parts and types; no weights.
        schedule: weight buffers and cascades.
        formats: of each map, by name.
        ranges: (start, end, address, bytes) of each tensor in the arena, by map; and of the weight
            buffers by (operation, half).
        arena_bytes: what it allocated.
        flash_bytes: what it put into read-only memory.
    """

    program: Program
    schedule: MemorySchedule
    formats: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    ranges: dict[Any, tuple[int, int, int, int]] = field(default_factory=dict)
    arena_bytes: int = 0
    flash_bytes: int = 0


def compile_program(network: Network, npu: str, **options: Any) -> Compiled:
    """Compile a network and read its program back."""
    compiled = oracle.compile_model(to_bytes(network), npu, **options)
    return Reader(compiled, network).read()


class Reader:
    """Turns the compiler's tables into a `Compiled`."""

    def __init__(self, compiled: Any, network: Network):
        self.compiled, self.network = compiled, network
        rows = oracle.table_rows(compiled, "perf", "perf_debug", "group")
        rows = [row for row in rows if "operator" in row]
        self.rows = [row for row in rows if not row.get("group_id")]
        self.last = {row["id"]: row for row in self.rows}
        self.last |= {row["group_id"]: row for row in rows if row.get("group_id")}
        self.tensors = oracle.table_rows(compiled, "tensors")
        self.maps: list[FeatureMap] = []
        self.index: dict[Any, int] = {}
        self.written: dict[str, int] = {}
        self.sources: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for row in oracle.table_lists(compiled, "perf_debug_conn"):
            self.sources[row["id"]][int(row["input_index"])].append(row["input_op_id"])

    def read(self) -> Compiled:
        for row in self.rows:
            self.written[row["id"]] = self.output(row)
        ops = tuple(self.op(row) for row in self.rows)
        result = Compiled(Program(self.network.name, tuple(self.maps), ops), self.schedule())
        for row, op in zip(self.rows, ops, strict=True):
            last = self.last[row["id"]]
            result.formats[op.ofm.map].add(last["ofm_format"])
            result.formats[op.ifm.map].add(row["ifm_format"])
            if op.ifm2 is not None:
                result.formats[op.ifm2.map].add(row["ifm2_format"])
        self.ranges(result)
        report = self.compiled.perf_report
        memories = {name: memory.peakUsage for name, memory in report.memories.items()}
        result.flash_bytes = report.readOnlyPeakUsage
        result.arena_bytes = memories["Sram"]
        if "OffChipFlash" not in memories:
            result.arena_bytes -= result.flash_bytes
        return result

    def map(self, key: Any, **fields: Any) -> int:
        if key not in self.index:
            self.index[key] = len(self.maps)
            self.maps.append(FeatureMap(str(key), **fields))
        return self.index[key]

    def output(self, row: Any) -> int:
        row, name = self.last[row["id"]], self.last[row["id"]]["name"]
        flags = {
            "is_output": name in {tensor.name for tensor in self.network.outputs},
            "is_variable": name in {t.name for t in self.network.tensors if t.is_variable},
        }
        shape = shape_of(row, "ofm_shape")
        return self.map(name, shape=shape, dtype=row["ofm_dtype"].lower(), **flags)

    def input(self, row: Any, which: int) -> View | None:
        prefix = ("ifm", "ifm2")[which]
        shape = shape_of(row, f"{prefix}_shape")
        if which and not any(shape):
            return None
        writers = self.sources[row["id"]][which]
        known = [self.written[one] for one in writers if one in self.written]
        dtype = row[f"{prefix}_dtype"].lower()
        if known:
            index = known[0]
        elif "-1" in writers:
            index = self.map(self.network_input(shape), shape=shape, dtype=dtype, is_input=True)
        elif not writers:
            variables = [t.name for t in self.network.tensors if t.is_variable]
            name = next((t for t in variables if t in self.index), variables[0])
            index = self.map(name, shape=shape, dtype=dtype, is_variable=True)
        else:
            name = f"constant {writers}"
            index = self.map(name, shape=shape, dtype=dtype, is_constant=True)
        return View(index, shape, *part_of(row, prefix))

    def network_input(self, shape: Any) -> str:
        same = [t for t in self.network.inputs if t.n_elements == np.prod(shape)]
        return same[0].name

    def op(self, row: Any) -> NpuOp:
        ifm = self.input(row, 0)
        last = self.last[row["id"]]
        assert ifm is not None
        ofm = View(self.written[row["id"]], shape_of(last, "ofm_shape"), *part_of(last, "ofm"))
        return NpuOp(row["name"], KINDS[row["operator"]], ifm, ofm, self.input(row, 1))

    def schedule(self) -> MemorySchedule:
        n_ops = len(self.rows)
        n_bytes = np.zeros((n_ops, 2), np.int64)
        for tensor in self.tensors:
            if tensor["usage"] == "OpBuffering":
                head, _, op = tensor["name"].rpartition("_op")
                n_bytes[int(op), int("double2" in head)] = int(tensor["size"], 16)
        nothing = np.zeros(n_ops, np.int64)
        return MemorySchedule(
            n_bytes,
            np.array([int(row["weight_pre_buffer"] or 0) for row in self.rows], np.int64),
            np.array([row["ofm_depth_slices"].count("|") for row in self.rows], np.int64),
            np.arange(n_ops),
            np.array([int(row["cascade"]) for row in self.rows], np.int64),
            nothing,
        )

    def ranges(self, result: Compiled) -> None:
        for tensor in self.tensors:
            if tensor["memory"] != "Sram":
                continue
            numbers = (int(tensor["start_time"]), int(tensor["end_time"]))
            numbers += (int(tensor["start_address"], 16), int(tensor["size"], 16))
            if tensor["usage"] == "OpBuffering":
                head, _, op = tensor["name"].rpartition("_op")
                result.ranges[int(op), int("double2" in head)] = numbers
            elif tensor["name"] in self.index:
                result.ranges[self.index[tensor["name"]]] = numbers
            else:
                result.ranges[tensor["name"]] = numbers


def shape_of(row: Any, prefix: str) -> tuple[int, int, int, int]:
    n, h, w, c = (int(row[f"{prefix}_{axis}"]) for axis in "nhwc")
    return n, h, w, c


def part_of(row: Any, prefix: str) -> tuple[Any, Any]:
    """Offset and shape of the part that is used."""
    part = shape_of(row, f"{prefix}_slice")
    return (shape_of(row, f"{prefix}_offset"), part) if any(part) else (None, None)
