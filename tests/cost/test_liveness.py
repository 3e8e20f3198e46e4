# SPDX-License-Identifier: Apache-2.0
"""Live ranges: by hand, as the twin has them, and as Arm's compiler does."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import regor_oracle as oracle
from compiled_programs import Compiled, Reader, compiled_models, compiled_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_tables import SHAPE, chain, schedules, tables

import npusim
from npusim.cost import reference_memory as reference
from npusim.cost.formats import map_formats
from npusim.cost.liveness import LiveRanges, MemorySchedule, live_ranges, peak_bytes
from npusim.cost.memory_table import memory_table
from npusim.cost.program import FeatureMap, NpuOp, Program, View
from npusim.errors import ConfigError
from npusim.network_builder import NetworkBuilder

BYTES = 8 * 8 * 32
"""Of a map of SHAPE in NHCWB16."""


def schedule(*rows: tuple[int, int, int, int], **fields: Any) -> MemorySchedule:
    """Rows: bytes of both halves, whether the first is filled early, number of slices."""
    table = np.array(rows, np.int64)
    made = MemorySchedule.unbuffered(len(rows))
    arrays = {"buffer_bytes": table[:, :2], "pre_buffered": table[:, 2], "n_slices": table[:, 3]}
    return replace(made, **arrays, **{name: np.array(value) for name, value in fields.items()})


def spans(ranges: LiveRanges) -> list[tuple[int, int, int]]:
    rows = zip(ranges.start, ranges.end, ranges.n_bytes, strict=True)
    return [tuple(int(number) for number in row) for row in rows]


class TestMaps:
    def test_live_from_their_first_use_to_their_last(self):
        ranges = live_ranges(chain(SHAPE, SHAPE, SHAPE))
        assert spans(ranges) == [(0, 1, BYTES), (0, 3, BYTES), (2, 3, BYTES)]
        assert ranges.op_time.tolist() == [0, 2]

    def test_of_the_caller_live_from_the_start_or_to_the_end(self):
        program = chain(SHAPE, SHAPE, SHAPE, is_output={1: True})
        late = NpuOp("late", "max_pool", View(3, SHAPE), View(2, SHAPE))
        given_late = FeatureMap("x", SHAPE, is_input=True)
        program = replace(program, maps=(*program.maps, given_late), ops=(*program.ops[:1], late))
        ranges = live_ranges(program)
        assert spans(ranges)[int(ranges.of_map[1])] == (0, 5, 8 * 8 * 24)
        assert spans(ranges)[int(ranges.of_map[3])] == (0, 3, 8 * 8 * 24)

    def test_variables_live_always(self):
        ranges = live_ranges(chain(SHAPE, SHAPE, SHAPE, SHAPE, is_variable={2: True}))
        assert spans(ranges)[2] == (0, 7, 8 * 8 * 24)
        assert ranges.n_steps == 8

    def test_in_flash_or_empty_are_not_in_the_arena(self):
        ranges = live_ranges(
            chain(SHAPE, (1, 8, 0, 24), SHAPE, is_constant={0: True}, dtype={2: "int16"})
        )
        assert ranges.of_map.tolist() == [-1, -1, 0]
        assert spans(ranges) == [(2, 3, 2 * BYTES)]

    @pytest.mark.parametrize(
        ("shape", "dtype", "flags", "wanted"),
        [
            ((1, 3, 5, 7), "int8", {"is_output": {1: True}}, 112),
            ((1, 3, 5, 7), "int8", {}, 240),
            ((1, 3, 5, 7), "int32", {}, 960),
            ((1, 1, 1, 3), "int4", {"is_output": {1: True}}, 16),
        ],
    )
    def test_take_multiples_of_16_bytes(self, shape, dtype, flags, wanted):
        ranges = live_ranges(chain(SHAPE, shape, dtype={1: dtype}, **flags))
        assert ranges.n_bytes[ranges.of_map[1]] == wanted

    def test_that_an_operation_works_in_live_with_it(self):
        program = chain(SHAPE, SHAPE, SHAPE, kinds=("matmul",))
        room = FeatureMap("scratch", (1, 2, 2, 5), "int32")
        ops = (replace(program.ops[0], scratch=3), program.ops[1])
        ranges = live_ranges(replace(program, maps=(*program.maps, room), ops=ops))
        assert spans(ranges)[int(ranges.of_map[3])] == (0, 1, 80)


class TestReplacement:
    def ranges(self, kind: str = "add", **flags: Any) -> LiveRanges:
        return live_ranges(chain(SHAPE, SHAPE, SHAPE, kinds=("max_pool", kind), **flags))

    @pytest.mark.parametrize("kind", ["add", "abs", "activation", "quantize", "copy", "transpose"])
    def test_an_ofm_takes_its_ifm_s_place(self, kind):
        assert self.ranges(kind).of_map.tolist() == [0, 1, 1]

    @pytest.mark.parametrize("kind", ["max_pool", "average_pool", "conv", "cpu", "reverse"])
    def test_others_do_not(self, kind):
        assert self.ranges(kind).of_map.tolist() == [0, 1, 2]

    def test_pools_of_one_element_do(self):
        program = chain(SHAPE, SHAPE, SHAPE)
        ops = (program.ops[0], replace(program.ops[1], kernel=(1, 1)))
        assert live_ranges(replace(program, ops=ops)).of_map.tolist() == [0, 1, 1]

    def test_transposition_does_only_if_it_exchanges_nothing(self):
        program = chain(SHAPE, SHAPE, SHAPE, kinds=("conv", "transpose"))
        ops = (program.ops[0], replace(program.ops[1], transposed=True))
        assert live_ranges(replace(program, ops=ops)).of_map.tolist() == [0, 1, 2]

    @pytest.mark.parametrize(
        "flags",
        [
            {"is_output": {1: True}},
            {"is_variable": {1: True}},
            {"is_variable": {2: True}},
            {"is_output": {2: True}},
            {"dtype": {2: "uint8"}},
            {"is_constant": {1: True}},
        ],
        ids=str,
    )
    def test_not_where_both_are_needed_or_differ(self, flags):
        ranges = self.ranges(**flags)
        assert ranges.of_map[1] != ranges.of_map[2]

    def test_an_output_takes_its_ifm_s_place_in_the_same_format(self):
        assert self.ranges(is_output={2: True}, is_input={1: True}).of_map.tolist() == [0, 1, 1]

    def test_not_with_a_second_reader(self):
        program = chain(SHAPE, SHAPE, SHAPE, kinds=("max_pool", "add"))
        again = NpuOp("again", "max_pool", View(1, SHAPE), View(0, SHAPE))
        ranges = live_ranges(replace(program, ops=(*program.ops, again)))
        assert ranges.of_map[1] != ranges.of_map[2]

    def test_the_second_operand_may_do(self):
        program = chain(SHAPE, SHAPE, SHAPE, kinds=("max_pool", "add"))
        op = replace(program.ops[1], ifm=View(0, SHAPE), ifm2=View(1, SHAPE))
        ranges = live_ranges(replace(program, ops=(program.ops[0], op)))
        assert ranges.of_map.tolist() == [0, 1, 1]

    def test_stored_shapes_decide(self):
        flat = (1, 64, 1, 24)
        program = chain(SHAPE, SHAPE, flat, kinds=("max_pool", "abs"), is_output={2: True})
        view = View(1, flat)
        ranges = live_ranges(
            replace(program, ops=(program.ops[0], replace(program.ops[1], ifm=view)))
        )
        assert ranges.of_map.tolist() == [0, 1, 2]


class TestBuffers:
    @pytest.mark.parametrize(
        ("row", "wanted"),
        [
            ((160, 0, 0, 1), [(2, 3, 160)]),
            ((160, 0, 1, 1), [(1, 3, 160)]),
            ((160, 32, 1, 2), [(1, 2, 160), (2, 3, 32)]),
            ((160, 32, 1, 3), [(1, 3, 160), (2, 2, 32)]),
            ((160, 32, 0, 4), [(2, 2, 160), (2, 3, 32)]),
        ],
    )
    def test_live_while_they_are_filled_and_read(self, row, wanted):
        ranges = live_ranges(chain(SHAPE, SHAPE, SHAPE), schedule=schedule((0, 0, 0, 1), row))
        assert [spans(ranges)[i] for i in ranges.of_buffer[1] if i >= 0] == wanted

    def test_of_the_first_operation_cannot_be_filled_earlier(self):
        ranges = live_ranges(chain(SHAPE, SHAPE), schedule=schedule((160, 0, 1, 1)))
        assert spans(ranges)[0] == (0, 1, 160)

    def test_with_the_same_weights_are_one(self):
        rows = schedule((160, 0, 0, 1), (160, 0, 1, 1), buffer_of=[0, 0])
        ranges = live_ranges(chain(SHAPE, SHAPE, SHAPE), schedule=rows)
        assert ranges.of_buffer.tolist() == [[0, -1], [0, -1]]
        assert spans(ranges)[0] == (0, 3, 160)


class TestCascades:
    ROWS = ((0, 0, 0, 1),) * 3

    def test_take_one_step_together(self):
        rows = schedule(*self.ROWS, cascade=[0, 7, 7])
        ranges = live_ranges(chain(SHAPE, SHAPE, SHAPE, SHAPE), schedule=rows)
        assert ranges.op_time.tolist() == [0, 2, 2]
        assert ranges.n_steps == 6

    def test_need_a_rolling_buffer_between_operations(self):
        rows = schedule(*self.ROWS, cascade=[0, 7, 7], rolling_bytes=[0, 0, 480])
        ranges = live_ranges(chain(SHAPE, SHAPE, SHAPE, SHAPE), schedule=rows)
        assert ranges.n_bytes.tolist() == [BYTES, BYTES, 480, BYTES]

    def test_know_which_input_the_rolling_buffer_is(self):
        program = chain(SHAPE, SHAPE, SHAPE, kinds=("conv", "add"))
        second = replace(program.ops[1], ifm=View(3, SHAPE), ifm2=View(1, SHAPE))
        maps = (*program.maps, FeatureMap("other", SHAPE, is_input=True))
        rows = schedule(
            *self.ROWS[:2], cascade=[1, 1], rolling_bytes=[0, 480], rolling_input=[0, 1]
        )
        ranges = live_ranges(
            replace(program, maps=maps, ops=(program.ops[0], second)), schedule=rows
        )
        assert ranges.n_bytes[ranges.of_map].tolist() == [BYTES, 480, BYTES, 8 * 8 * 24]

    def test_replace_nothing(self):
        program = chain(SHAPE, SHAPE, SHAPE, kinds=("max_pool", "abs"))
        rows = schedule(*self.ROWS[:2], cascade=[1, 1])
        assert live_ranges(program, schedule=rows).of_map.tolist() == [0, 1, 2]


class TestUsage:
    def test_adds_up_what_is_in_use(self):
        ranges = live_ranges(chain(SHAPE, (1, 4, 4, 16), SHAPE))
        assert ranges.usage_bytes.tolist() == [BYTES + 256] * 2 + [BYTES + 256] * 2 + [0, 0]
        assert ranges.peak_bytes == BYTES + 256
        assert ranges.at_peak.tolist() == [True, True, False]

    def test_of_nothing_is_nothing(self):
        empty = live_ranges(Program("nothing", (), ()))
        assert (empty.peak_bytes, empty.usage_bytes.tolist()) == (0, [0, 0])


class TestTables:
    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(data=st.data())
    def test_kernel_is_the_twin(self, data):
        table = data.draw(tables())
        rows = data.draw(schedules(table))
        formats = map_formats(table).tolist()
        ours = live_ranges(table, formats, rows)
        wanted = reference.live_ranges(
            *(table.accesses.tolist(), table.maps.tolist(), rows.columns(table).tolist(), formats)
        )
        numbers = {id(one): i for i, one in enumerate(wanted.all)}
        assert spans(ours) == [(min(o.steps), max(o.steps), o.n_bytes) for o in wanted.all]
        maps = {i: numbers[id(one)] for i, one in wanted.of_map.items()}
        assert {i: j for i, j in enumerate(ours.of_map.tolist()) if j >= 0} == maps
        assert ours.usage_bytes.tolist() == reference.usage_bytes(wanted)

    @settings(deadline=None, derandomize=True, max_examples=100)
    @given(data=st.data())
    def test_many_programs_at_once_are_each_alone(self, data):
        table = data.draw(tables(n_programs=3))
        rows = data.draw(schedules(table))
        columns, peaks = rows.columns(table), []
        formats = map_formats(table).tolist()
        for low, high in zip(table.starts[:-1], table.starts[1:], strict=True):
            wanted = reference.live_ranges(
                table.accesses[low[0] : high[0]].tolist(),
                table.maps[low[1] : high[1]].tolist(),
                columns[low[2] : high[2]].tolist(),
                formats[low[1] : high[1]],
            )
            peaks.append(max(reference.usage_bytes(wanted)))
        assert peak_bytes(table, rows).tolist() == peaks

    def test_programs_without_operations_need_nothing(self):
        table = memory_table(Program("nothing", (), ()))
        assert peak_bytes(table).tolist() == [0]


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"buffer_bytes": np.zeros(2, int)}, "buffer_bytes must have shape [n_ops, 2]"),
            ({"cascade": np.zeros(3, int)}, "cascade must have 2 rows, got shape (3,)"),
            ({"n_slices": np.zeros(2, int)}, "n_slices must be in 1..2147483647, got 0"),
            ({"pre_buffered": np.full(2, 2)}, "pre_buffered must be in 0..1, got 2"),
            ({"rolling_bytes": np.zeros(2)}, "rolling_bytes must hold integers, got dtype float64"),
        ],
    )
    def test_of_malformed_schedules(self, fields, message):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
            replace(MemorySchedule.unbuffered(2), **fields)

    def test_of_buffers_of_later_operations(self):
        rows = schedule((16, 0, 0, 1), (16, 0, 0, 1), buffer_of=[1, 1])
        message = "buffer_of operation 0 must be in 0..0, got 1"
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            live_ranges(chain(SHAPE, SHAPE, SHAPE), schedule=rows)

    def test_of_other_lengths(self):
        program = chain(SHAPE, SHAPE)
        with pytest.raises(ConfigError, match=re.escape("formats must have shape [2], got (3,)")):
            live_ranges(program, [0, 0, 0])
        with pytest.raises(ConfigError, match=r"^schedule must have 1 rows, got 2$"):
            live_ranges(program, schedule=MemorySchedule.unbuffered(2))

    @settings(deadline=None, derandomize=True, max_examples=1)
    @given(table=tables(n_programs=2))
    def test_of_several_programs(self, table):
        with pytest.raises(ConfigError, match=r"^table must hold one program, got 2$"):
            live_ranges(table)


def differences(got: Compiled) -> list[str]:
    """Ranges that are not the compiler's."""
    ranges = live_ranges(got.program, schedule=got.schedule)
    found = []
    for key, (start, end, _, n_bytes) in got.ranges.items():
        if isinstance(key, str):
            found.append(f"{key}: no such map")
            continue
        number = int(ranges.of_map[key] if isinstance(key, int) else ranges.of_buffer[key])
        wanted = (start, end, -(-n_bytes // 16) * 16)
        if number < 0 or spans(ranges)[number] != wanted:
            found.append(f"{key}: {wanted}, got {number and spans(ranges)[number]}")
    extra = {i for i, number in enumerate(ranges.of_map) if number >= 0} - got.ranges.keys()
    return found + [f"{got.program.maps[i].name}: not in the arena" for i in extra]


class TestCompiler:
    def test_random_networks(self):
        found = {
            label: differences(Reader(compiled, network).read())
            for label, network, compiled in compiled_networks(4)
        }
        assert len(found) > 40
        assert {label: names for label, names in found.items() if names} == {}

    @pytest.mark.parametrize("kind", ["MUL", "SUB"])
    def test_cascades_through_a_second_operand(self, kind):
        rng = np.random.default_rng(0)
        net = NetworkBuilder("second operand")
        x = net.input((1, 48, 48, 16), scale=0.05)
        for depth in (32, 8):
            codes = rng.integers(-9, 10, (depth, 3, 3, x.shape[3])).astype(np.int8)
            weights = net.constant(codes, scales=0.01)
            bias = net.bias([0] * depth, x, weights)
            x = net.op("CONV_2D", x, weights, bias, scale=0.05, padding="SAME")
            factor = net.constant(np.ones((1, 1, 1, depth), np.int8), scales=0.1)
            x = net.op(kind, factor, x, scale=0.05, shape=x.shape)
        network = net.build(x)
        wanted = oracle.compile_model(network, "ethos-u55-128", optimise="size").perf_report
        assert wanted.cascades == 1
        cost = npusim.estimate(network, "ethos-u55-128", optimise="size")
        assert cost.sram_peak_bytes == wanted.memories["Sram"].peakUsage

    @pytest.mark.slow
    def test_many_random_networks(self):
        found = {
            label: differences(Reader(compiled, network).read())
            for label, network, compiled in compiled_networks(30, first=100)
        }
        assert {label: names for label, names in found.items() if names} == {}

    def test_real_models(self, models_dir):
        found = {
            label: differences(Reader(compiled, network).read())
            for label, network, compiled in compiled_models(models_dir)
        }
        assert {label: names for label, names in found.items() if names} == {}
