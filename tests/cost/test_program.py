# SPDX-License-Identifier: Apache-2.0
"""The operations of a network, one by one and in order, beside those of Arm's compiler."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regor_oracle as oracle
from compiled_programs import (
    KINDS,
    PARTLY_IN_TABLES,
    TABLE_OPERATORS,
    Reader,
    part_of,
    shape_of,
)
from random_graphs import KINDS as GRAPH_KINDS
from random_graphs import RandomGraph

from npusim.cost.lowering import program
from npusim.cost.program import NpuOp, Program, Shape4
from npusim.formats import load
from npusim.network import Network
from npusim.network_builder import NetworkBuilder

NPU = "ethos-u55-128"
LEAST_IDENTICAL = 0.98
"""Share of the random graphs. What differs is rare: pads before transposes, splits into one part,
reductions of a part."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What the compiler's tables say of an operation; only the kind if the CPU executes it."""

    kind: str
    ifm: Shape4 | None = None
    ifm2: Shape4 | None = None
    ofm: Shape4 | None = None
    dtypes: tuple[str, ...] = ()
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    activation: str = "none"


def operations(lowered: Program) -> list[Operation]:
    """Ours."""
    return [operation(op, lowered) if op.on_npu else Operation("cpu") for op in lowered.ops]


def operation(op: NpuOp, lowered: Program) -> Operation:
    return Operation(
        op.kind,
        op.ifm.part,
        None if op.ifm2 is None else op.ifm2.part,
        op.ofm.part,
        tuple(lowered.maps[view.map].dtype for view in (op.ifm, op.ofm)),
        *(op.kernel, op.stride, op.dilation),
        op.activation,
    )


def compiled_operations(compiled: Any, network: Network) -> list[Operation]:
    """The compiler's."""
    reader = Reader(compiled, network)
    return [compiled_operation(row, reader.last[row["id"]]) for row in reader.rows]


def compiled_operation(row: dict[str, Any], last: dict[str, Any]) -> Operation:
    """Of its row and that of the activation that is part of it: the same one if there is none."""
    kind = KINDS.get(row["operator"], row["operator"])
    if kind == "copy" and last["reverse_type"] != "None":
        kind = "reverse"
    if kind == "cpu":
        return Operation(kind)
    clamp = "relu" if KINDS.get(last["operator"]) == "activation" else "none"
    return Operation(
        kind,
        *(part(row, map_) for map_ in ("ifm", "ifm2", "ofm")),
        tuple(row[f"{map_}_dtype"].lower() for map_ in ("ifm", "ofm")),
        *(
            tuple(int(row[f"kernel_{field}_{axis}"]) for axis in "yx")
            for field in ("size", "stride", "dilation")
        ),
        activation="table" if last["operator"] in TABLE_OPERATORS else clamp,
    )


def part(row: dict[str, Any], map_: str) -> Shape4 | None:
    shape = part_of(row, map_)[1] or shape_of(row, f"{map_}_shape")
    return shape if any(shape) else None


def difference(theirs: list[Operation], ours: list[Operation]) -> str:
    """The first operation that is not the same; "" if all are."""
    for number, (one, other) in enumerate(zip_longest(theirs, ours)):
        if one != other:
            return f"operation {number} of {len(theirs)}: {one}, ours of {len(ours)}: {other}"
    return ""


def random_graph(seed: int) -> RandomGraph:
    rng = np.random.default_rng((31, seed))
    dtype = "int16" if rng.random() < 0.2 else "int8"
    return RandomGraph(rng, list(GRAPH_KINDS), int(rng.integers(1, 9)), dtype)


def compare_random_graphs(seeds: range, least: int) -> None:
    found = {}
    for seed in seeds:
        graph = random_graph(seed)
        network = graph.build()
        if network is None:
            continue
        try:
            compiled = oracle.compile_model(network, NPU)
        except RuntimeError:  # the compiler gives up on some networks
            continue
        theirs, ours = compiled_operations(compiled, network), operations(program(network))
        found[f"seed {seed}, {graph.kinds}"] = difference(theirs, ours)
    wrong = {label: text for label, text in found.items() if text}
    report = "\n".join(f"{label}: {text}" for label, text in wrong.items())
    print(f"{len(wrong)} of {len(found)} graphs differ\n{report}")
    assert len(found) >= least
    assert len(wrong) <= (1 - LEAST_IDENTICAL) * len(found), report


def test_random_graphs():
    compare_random_graphs(range(100), 85)


@pytest.mark.slow
def test_many_random_graphs():
    compare_random_graphs(range(1000, 4000), 2500)


def test_each_product_of_maps_has_a_scratch_map_of_its_own():
    net = NetworkBuilder("products")
    x = net.input((1, 2, 8, 8), scale=0.05)
    for number in range(3):
        x = net.op("BATCH_MATMUL", x, x, shape=x.shape, scale=0.05)
        x = net.op("SOFTMAX", x, shape=x.shape, scale=1 / 256, zero_point=-128, name=f"s{number}")
    network = net.build(x)
    for _ in range(20):
        lowered = program(network)
        scratch = [op.scratch for op in lowered.ops if op.scratch is not None]
        others = {view.map for op in lowered.ops for view in (op.ifm, op.ofm)}
        assert len(set(scratch) - others) == len(scratch) == 3


def compare_models(folder: Path, sizes_bytes: range, least: int) -> None:
    found = {}
    for path in sorted(folder.glob("*.tflite")):
        if path.stat().st_size not in sizes_bytes:
            continue
        theirs = compiled_operations(oracle.compile_model(path.read_bytes(), NPU), load(path))
        ours = operations(program(load(path)))
        if path.stem.startswith(PARTLY_IN_TABLES):
            assert 0 < len(theirs) < len(ours)
            ours = ours[: len(theirs)]
        found[path.stem] = difference(theirs, ours)
    assert len(found) >= least
    assert {name: text for name, text in found.items() if text} == {}


@pytest.mark.data
def test_small_models(models_dir):
    compare_models(models_dir, range(1_000_000), 21)


@pytest.mark.data
@pytest.mark.slow
def test_large_models(models_dir):
    compare_models(models_dir, range(1_000_000, 1 << 30), 4)
