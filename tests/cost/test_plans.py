# SPDX-License-Identifier: Apache-2.0
"""Plans of whole programs, in any form and any arena: kernels against their twin."""

from __future__ import annotations

import numpy as np
import pytest
from deep_networks import FAMILIES, DeepNetwork
from random_graphs import KINDS, RandomGraph
from random_networks import equal_weights

from npusim.cost import columns as col
from npusim.cost import plan_columns as plans
from npusim.cost.buffering import Usage, plan_weights
from npusim.cost.forms import Form, Weights
from npusim.cost.lowering import program
from npusim.cost.program import Program
from npusim.cost.reference_plans import Plan, Planner
from npusim.cost.schedule import Scheduler
from npusim.cost.slice_table import SliceTable, slice_depths
from npusim.cost.weight_sizes import ExactSizes, ExpectedSizes, WeightSizes
from npusim.cost.weight_sizes_kernels import find_slices
from npusim.hardware import machine

MACHINES = [
    machine("ethos-u55-32"),
    machine("ethos-u55-128", "Ethos_U55_Deep_Embedded"),
    machine("ethos-u55-256", "Ethos_U55_High_End_Embedded", "Sram_Only"),
    machine("ethos-u65-512", "Ethos_U65_High_End", "Dedicated_Sram"),
    machine("ethos-u55-256"),
]


def some_program(rng: np.random.Generator) -> Program:
    kind = rng.integers(4)
    if kind == 0:
        return program(equal_weights(int(rng.integers(1 << 20))))
    if kind == 1:
        network = RandomGraph(rng, list(KINDS), 8).build()
        if network is not None:
            return program(network)
    return program(DeepNetwork(rng, str(rng.choice(list(FAMILIES)))).build())


def some_form(rng: np.random.Generator, scheduler: Scheduler) -> Form:
    """Whole operations, or stripes of which some are in cascades."""
    heights = scheduler.rows[:, col.OFM_HEIGHT].copy()
    if rng.random() < 0.4:
        return scheduler.form(heights)
    form = scheduler.form(np.maximum(heights // rng.integers(1, 5, len(heights)), 1))
    at = 0
    while at < len(heights):
        end = at + int(rng.integers(1, 4))
        if rng.random() < 0.5 and end <= len(heights):
            form.cascade[at:end] = end - 1
        at = end
    return form


def as_plans(found: np.ndarray, weights: Weights, form: Form) -> list[tuple[object, ...]]:
    """What the twin tells, from what kernels write."""
    told = []
    for index, plan in enumerate(found):
        depths = slice_depths(
            int(plan[plans.FIRST_DEPTH]),
            int(plan[plans.NEXT_DEPTH]),
            int(weights.rows[index, col.OFM_DEPTH]),
        )
        columns = (
            *(plans.WEIGHT_BYTES, plans.SCALE_BYTES, plans.HALF0, plans.HALF1, plans.PRE_BUFFERED),
            *(plans.TRANSFER_CYCLES, plans.SLACK_CYCLES, plans.SLACK_BYTES, plans.FIRST_BYTES),
        )
        told.append((depths, int(plan[plans.N_SLICES]), *plan[list(columns)].tolist()))
    return told


def of_twin(plan: Plan, on_npu: bool) -> tuple[object, ...]:
    streams, scales = (sum(one[i] for one in plan.n_bytes) for i in (0, 1))
    first = plan.n_bytes[0][0] + (10 * plan.depths[1] if plan.n_bytes[0][1] else 0)
    return (
        *(plan.depths, len(plan.depths) - 1, streams, scales, *plan.buffer, int(plan.early)),
        *(plan.transfer_cycles, plan.slack_cycles, plan.slack_bytes, first if on_npu else 0),
    )


def compare(seed: int) -> int:
    """Compare one program on one machine in one form; return how many operations have a buffer."""
    rng = np.random.default_rng((11, seed))
    lowered, target = some_program(rng), MACHINES[seed % len(MACHINES)]
    sizes: WeightSizes = ExactSizes(target.npu)
    if seed % 2:
        sizes = ExpectedSizes(target.npu)
    scheduler = Scheduler(lowered, target, sizes)
    weights, form = scheduler.weights, some_form(rng, scheduler)
    limit = int(rng.choice([1 << 31, 100_000, 20_000, 3_000]))
    n_ops = len(lowered.ops)
    usage = Usage(rng.integers(0, 2000, n_ops), rng.integers(0, 500, n_ops), np.arange(n_ops))
    rows = weights.rows.tolist()

    def slices(index: int, depths: tuple[int, ...]) -> list[tuple[int, int]]:
        op, block_depth = lowered.ops[index], int(form.blocks[index, col.OFM_BLOCK_DEPTH])
        if op.weights is None or not op.on_npu:
            return [(0, 0)]
        found = sizes.slices(op, rows[index][col.IFM_BITS], block_depth, depths)
        return [(int(a), int(b)) for a, b in found]

    arrays = (*(array.tolist() for array in weights.machine),)
    twin = Planner(
        *(lowered, rows, arrays, slices, form.stripes.tolist()),
        *(form.blocks.tolist(), form.cascade.tolist()),
    )
    in_arena = usage.maps_bytes.tolist(), usage.buffer_bytes.tolist(), usage.op_time.tolist()
    on_npu = [op.on_npu for op in lowered.ops]
    whole = [twin.whole(index) for index in range(n_ops)]
    assert as_plans(form.plans, weights, form) == list(map(of_twin, whole, on_npu))
    wanted = twin.run(min(limit, plans.UNLIMITED_BYTES), *in_arena)
    found = plan_weights(weights, form, limit, usage)
    assert as_plans(found, weights, form) == list(map(of_twin, wanted, on_npu))
    assert usage.buffer_bytes.tolist() == in_arena[1]
    return int((found[:, plans.HALF0] > 0).sum())


def test_programs_in_any_form() -> None:
    assert sum(map(compare, range(40))) > 60


@pytest.mark.slow
def test_many_programs_in_any_form() -> None:
    assert sum(map(compare, range(100, 1500))) > 3000


def test_part_of_a_program_is_planned_after_the_operation_before() -> None:
    rng = np.random.default_rng(5)
    network = DeepNetwork(rng, next(iter(FAMILIES))).build()
    target = machine("ethos-u55-256")
    scheduler = Scheduler(program(network), target, ExactSizes(target.npu))
    form = scheduler.form(scheduler.rows[:, col.OFM_HEIGHT])
    whole = plan_weights(scheduler.weights, form)
    at = len(whole) // 2
    part = plan_weights(scheduler.weights, form, span=(at, len(whole) - 1), before=whole[at - 1])
    np.testing.assert_array_equal(part, whole[at:])


def test_a_table_asks_for_every_cut_but_once() -> None:
    network = DeepNetwork(np.random.default_rng(6), next(iter(FAMILIES))).build()
    lowered, target = program(network), machine("ethos-u55-128", "Ethos_U55_Deep_Embedded")
    asked: list[tuple[str, int, tuple[int, ...]]] = []

    class Sizes(ExactSizes):
        def slices(self, op, ifm_bits, block_depth, depths):
            asked.append((op.name, block_depth, depths))
            return ExactSizes.slices(self, op, ifm_bits, block_depth, depths)

    scheduler = Scheduler(lowered, target, Sizes(target.npu))
    first = scheduler.run()
    n_asked = len(asked)
    assert n_asked == len(set(asked)) > len([op for op in lowered.ops if op.weights])
    np.testing.assert_array_equal(scheduler.run().form.plans, first.form.plans)
    assert len(asked) == n_asked


def test_a_table_grows() -> None:
    network = DeepNetwork(np.random.default_rng(7), next(iter(FAMILIES))).build()
    lowered, npu = program(network), machine().npu
    index = next(i for i, op in enumerate(lowered.ops) if op.weights is not None)
    op, row = lowered.ops[index], Scheduler(lowered, machine(), ExactSizes(npu)).rows[index]
    table, depth = SliceTable(1, ExactSizes(npu)), int(row[col.OFM_DEPTH])
    for block_depth in range(8, 129, 8):
        table.add(0, op, row, block_depth, depth, depth)
    for block_depth in range(8, 129, 8):
        at, n = find_slices(0, block_depth, depth, depth, table.arrays)
        wanted = ExactSizes(npu).slices(op, int(row[col.IFM_BITS]), block_depth, (0, depth))
        assert table.arrays[2][at : at + n].tolist() == wanted.tolist()
    assert find_slices(0, 8, depth, depth - 1, table.arrays) == (0, 0)
