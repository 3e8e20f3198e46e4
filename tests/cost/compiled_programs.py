# SPDX-License-Identifier: Apache-2.0
"""Programs read back from the tables of Arm's compiler, with the memory it gave to their maps."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import regor_oracle as oracle
from deep_networks import FAMILIES, DeepNetwork
from random_networks import VARIANTS, RandomNetwork

from npusim.cost.liveness import MemorySchedule
from npusim.cost.program import FeatureMap, NpuOp, Program, View
from npusim.formats import load
from npusim.network import Network

TABLE_OPERATORS = ("LUT", "Sigmoid", "Tanh")
KINDS = {
    **{"Conv2D": "conv", "DepthwiseConv2D": "depthwise", "FullyConnected": "fully_connected"},
    **{"TransposeConv2D": "transpose_conv", "MaxPool": "max_pool", "AvgPool": "average_pool"},
    **{"ReduceSum": "reduce_sum", "MemoryCopy": "copy", "Transpose": "transpose"},
    **{"MatMul": "matmul", "Tile": "tile", "Quantize": "quantize", "Reverse": "reverse"},
    **{"Add": "add", "Sub": "sub", "Mul": "mul", "Minimum": "minimum", "Maximum": "maximum"},
    **{"Abs": "abs", "LeakyRelu": "leaky_relu", "CLZ": "clz", "SHL": "shift_left"},
    **{"Asr": "shift_right", "ReduceMax": "reduce_max", "Passthrough": "cpu"},
    **dict.fromkeys((*TABLE_OPERATORS, "Clamp"), "activation"),
    **dict.fromkeys(("Relu", "Relu6", "ReluN1To1", "Relu0To1"), "activation"),
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


class Reader:
    """Turns the compiler's tables into a `Compiled`."""

    def __init__(self, compiled: Any, network: Network):
        self.compiled, self.network = compiled, network
        rows = oracle.table_rows(compiled, "perf", "perf_debug", "group")
        rows = [row for row in rows if "operator" in row]
        main = [row for row in rows if not row.get("group_id")]
        times = [int(row["time_index"]) for row in main]
        falls = [i for i in range(1, len(times)) if times[i] < times[i - 1]]
        self.rows = main[falls[-1] if falls else 0 :]  # what initializes variables comes before
        self.last = {row["id"]: row for row in self.rows}
        self.last |= {row["group_id"]: row for row in rows if row.get("group_id")}
        self.tensors = oracle.table_rows(compiled, "tensors")
        self.stored = {tensor.name: tensor for tensor in network.tensors}
        self.maps: list[FeatureMap] = []
        self.index: dict[Any, int] = {}
        self.times: dict[int, int] = {}
        self.written: dict[str, int] = {}
        self.sources: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for row in oracle.table_lists(compiled, "perf_debug_conn"):
            self.sources[row["id"]][int(row["input_index"])].append(row["input_op_id"])

    def read(self) -> Compiled:
        self.keys = self.outputs()
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
        result.arena_bytes = memories.get("Sram", 0)
        if "OffChipFlash" not in memories:
            result.arena_bytes -= result.flash_bytes
        return result

    def outputs(self) -> dict[str, str]:
        """For each operation the first one that writes the same map."""
        first = {row["id"]: row["id"] for row in self.rows}
        parts: dict[Any, str] = {}
        groups = [ids for row in self.rows for ids in self.sources[row["id"]].values()]
        for row in self.rows:
            if part_of(row, "ofm")[0] is not None:
                key = (self.last[row["id"]]["name"], shape_of(row, "ofm_shape"))
                groups.append([parts.setdefault(key, row["id"]), row["id"]])
        for ids in groups:
            same = [one for one in ids if one in first]
            for one in same[1:]:
                old, new = first[one], first[same[0]]
                first = {key: new if value == old else value for key, value in first.items()}
        return first

    def map(self, key: Any, name: str, time: int, row: Any, prefix: str, **flags: Any) -> int:
        """The number of a map, stored as the network says where that is the same tensor."""
        if key not in self.index:
            self.index[key] = len(self.maps)
            self.times[len(self.maps)] = time
            shape = shape_of(row, f"{prefix}_shape")
            dtype = row[f"{prefix}_dtype"].lower().replace("none", "resource")
            tensor = self.stored.get(name.removesuffix("_act"))
            fused = prefix == "ofm" and row["id"] not in self.last  # then stored as it is written
            if tensor is not None and tensor.n_elements == np.prod(shape) and not fused:
                shape = (*(1,) * (4 - len(tensor.shape)), *tensor.shape)[-4:]
            for one in self.maps:  # sums of what is named without "/Add"
                if f"{one.name}/Add" == name and one.n_elements == np.prod(shape):
                    shape = one.shape
            self.maps.append(FeatureMap(name, shape, dtype, **flags))
        return self.index[key]

    def output(self, row: Any) -> int:
        last, time = self.last[row["id"]], int(row["time_index"])
        name = last["name"]
        variable = name in self.stored and self.stored[name].is_variable
        is_last = all(
            self.keys[other["id"]] == self.keys[row["id"]]
            for other in self.rows[self.rows.index(row) :]
            if self.last[other["id"]]["name"] == name
        )
        return self.map(
            name if variable else self.keys[row["id"]],
            *(name, time, last, "ofm"),
            is_output=name in {tensor.name for tensor in self.network.outputs} and is_last,
            is_variable=variable,
        )

    def input(self, row: Any, which: int) -> View | None:
        prefix = ("ifm", "ifm2")[which]
        shape, time = shape_of(row, f"{prefix}_shape"), int(row["time_index"])
        if which and not any(shape):
            return None
        writers = self.sources[row["id"]][which] if any(shape) else ["nothing"]
        known = [self.written[one] for one in writers if one in self.written]
        if known:
            index = known[0]
        elif "-1" in writers:
            name = self.given([t.name for t in self.network.inputs], shape, time)
            index = self.map(name, name, 0, row, prefix, is_input=True)
        elif not writers:
            names = [t.name for t in self.stored.values() if t.is_variable]
            name = row["name"] if row["name"] in names else self.given(names, shape, time)
            index = self.map(name, name, time, row, prefix, is_variable=True)
        else:
            name = f"constant {writers}"
            index = self.map(name, name, time, row, prefix, is_constant=True)
        step = tuple(int(row[f"{prefix}_strides_{axis}"]) for axis in "hw")
        return View(index, shape, *part_of(row, prefix), step)

    def given(self, names: list[str], shape: Any, time: int) -> str:
        """Which of some tensors an operation reads: the first of that size that is alive."""
        alive = {t["name"]: int(t["end_time"]) for t in self.tensors if t["memory"] == "Sram"}
        same = [n for n in names if self.stored[n].n_elements == np.prod(shape)]
        same = [n for n in same if alive.get(n, -1) > time] or same
        return min(same, key=lambda name: alive[name])

    def op(self, row: Any) -> NpuOp:
        ifm = self.input(row, 0)
        last = self.last[row["id"]]
        assert ifm is not None
        step = tuple(int(row[f"ofm_strides_{axis}"]) for axis in "hw")
        shape = shape_of(last, "ofm_shape")
        ofm = View(self.written[row["id"]], shape, *part_of(row, "ofm"), step)
        kind = KINDS[row["operator"]] if last["reverse_type"] == "None" else "reverse"
        kernel = int(row["kernel_size_y"]), int(row["kernel_size_x"])
        transposed = row["transpose_type"] != "None"
        ifm2 = self.input(row, 1)
        return NpuOp(row["name"], kind, ifm, ofm, ifm2, kernel=kernel, transposed=transposed)

    def schedule(self) -> MemorySchedule:
        n_ops = len(self.rows)
        n_bytes = np.zeros((n_ops, 2), np.int64)
        for tensor in self.tensors:
            if tensor["usage"] == "OpBuffering":
                head, _, op = tensor["name"].rpartition("_op")
                n_bytes[int(op), int("double2" in head)] = int(tensor["size"], 16)
        nothing, own = np.zeros(n_ops, np.int64), np.arange(n_ops)
        for op, row in enumerate(self.rows):
            if row["weight_buffering"] in ("Single", "Double") and not n_bytes[op].any():
                own[op] = own[op - 1]
                n_bytes[op] = n_bytes[op - 1]
        return MemorySchedule(
            n_bytes,
            np.array([int(row["weight_pre_buffer"] or 0) for row in self.rows], np.int64),
            np.array([row["ofm_depth_slices"].count("|") for row in self.rows], np.int64),
            own,
            np.array([int(row["cascade"]) for row in self.rows], np.int64),
            *(nothing, nothing),
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
                continue
            alive = range(numbers[0], numbers[1] + 1)
            found = [
                i
                for i, one in enumerate(self.maps)
                if one.name == tensor["name"] and self.times[i] in alive
            ]
            found.sort(key=lambda i: (abs(self.times[i] - numbers[0]), self.misfit(i, numbers[3])))
            result.ranges[found[0] if found else tensor["name"]] = numbers

    def misfit(self, i: int, n_bytes: int) -> int:
        """How many bytes a map's elements are from what a tensor takes."""
        return abs(self.maps[i].n_elements * self.maps[i].bits // 8 - n_bytes)


def shape_of(row: Any, prefix: str) -> tuple[int, int, int, int]:
    n, h, w, c = (int(row[f"{prefix}_{axis}"]) for axis in "nhwc")
    return n, h, w, c


def part_of(row: Any, prefix: str) -> tuple[Any, Any]:
    """Offset and shape of the part that is used."""
    part = shape_of(row, f"{prefix}_slice")
    return (shape_of(row, f"{prefix}_offset"), part) if any(part) else (None, None)


_NPUS = ("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256")
_MACS_MAX = 30_000_000
_SMALL_BYTES = 400_000
PARTLY_IN_TABLES = ("mww_",)
"""Models of which the compiler's database keeps a part alone."""


@cache
def compiled_networks(n_seeds: int, first: int = 0) -> list[tuple[str, Network, Any]]:
    """Random networks of every family with what the compiler makes of them, in turn for each NPU
    and with weights in flash or in the memory of feature maps."""
    found = []
    for seed in range(first, first + n_seeds):
        made = [(name, DeepNetwork) for name in FAMILIES] + [(n, RandomNetwork) for n in VARIANTS]
        for number, (name, maker) in enumerate(made):
            network = maker(np.random.default_rng((seed, number)), name).build()
            if network.macs > _MACS_MAX:
                continue
            compiled = oracle.compile_model(network, _NPUS[seed % 4], sram_only=seed % 3 == 2)
            if compiled.perf_report.npuOps:
                found.append((f"{name} {seed}", network, compiled))
    return found


@cache
def compiled_models(folder: Path) -> list[tuple[str, Network, Any]]:
    """The small real models with what the compiler makes of them."""
    return [
        (path.stem, load(path), oracle.compile_model(path.read_bytes(), "ethos-u55-128"))
        for path in sorted(folder.glob("*.tflite"))
        if path.stat().st_size < _SMALL_BYTES and not path.stem.startswith(PARTLY_IN_TABLES)
    ]
