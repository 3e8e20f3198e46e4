# SPDX-License-Identifier: Apache-2.0
"""Formats of feature maps: rule by rule, as the twin has them, and as Arm's compiler does."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from compiled_programs import Reader, compiled_models, compiled_networks
from hypothesis import given, settings
from memory_tables import SHAPE, chain, tables

from npusim.cost import reference_memory as reference
from npusim.cost.formats import FORMATS, NHCWB16, NHWC, map_formats
from npusim.cost.lowering import program as lowered
from npusim.cost.memory_table import MemoryTable, memory_table
from npusim.cost.program import Program, View
from npusim.errors import ConfigError


def with_op(program: Program, number: int, **fields: object) -> Program:
    """The program with fields of one operation replaced."""
    ops = list(program.ops)
    ops[number] = replace(ops[number], **fields)
    return replace(program, ops=tuple(ops))


class TestRules:
    def test_maps_between_operations_keep_16_channels_together(self):
        program = chain(SHAPE, SHAPE, SHAPE, is_input={0: True}, is_output={2: True})
        assert map_formats(program).tolist() == [NHWC, NHCWB16, NHWC]

    @pytest.mark.parametrize("flag", ["is_constant", "is_variable"])
    def test_flash_and_variables_are_nhwc(self, flag):
        assert map_formats(chain(SHAPE, SHAPE, **{flag: {1: True}}))[1] == NHWC

    def test_the_cpu_knows_nhwc_alone(self):
        program = chain(SHAPE, SHAPE, SHAPE, SHAPE, kinds=("max_pool", "cpu"))
        assert map_formats(program).tolist() == [NHCWB16, NHWC, NHWC, NHCWB16]

    @pytest.mark.parametrize("kind", ["transpose", "matmul"])
    def test_some_kinds_know_nhwc_alone(self, kind):
        program = chain(SHAPE, SHAPE, SHAPE, SHAPE, kinds=("max_pool", kind))
        assert map_formats(program).tolist() == [NHCWB16, NHWC, NHWC, NHCWB16]

    @pytest.mark.parametrize(("dtype", "wanted"), [("int32", NHWC), ("int8", NHCWB16)])
    def test_sums_over_depth_need_nhwc_for_32_bits(self, dtype, wanted):
        program = chain(SHAPE, SHAPE, SHAPE, kinds=("mul", "reduce_sum"), dtype={1: dtype})
        assert map_formats(program)[1] == wanted

    def test_what_is_written_turned_round_is_nhwc(self):
        program = chain(SHAPE, SHAPE, SHAPE, SHAPE, kinds=("conv", "reverse"))
        assert map_formats(program).tolist() == [NHCWB16, NHCWB16, NHWC, NHCWB16]

    @pytest.mark.parametrize(("dtype", "wanted"), [("int32", NHWC), ("int16", NHCWB16)])
    def test_copies_of_32_bits_need_nhwc_on_both_sides(self, dtype, wanted):
        program = chain(SHAPE, SHAPE, SHAPE, SHAPE, kinds=("conv", "copy"), dtype={2: dtype})
        assert map_formats(program).tolist() == [NHCWB16, wanted, wanted, NHCWB16]

    @pytest.mark.parametrize(
        ("shape", "wanted"),
        [((1, 4, 16, 24), NHWC), ((1, 8, 8, 24), NHCWB16), ((1, 16, 8, 12), NHWC)],
    )
    def test_a_reader_of_another_width_or_depth_needs_nhwc(self, shape, wanted):
        program = with_op(chain(SHAPE, SHAPE, SHAPE), 1, ifm=View(1, shape))
        assert map_formats(program)[1] == wanted

    def test_other_heights_do_not_matter(self):
        program = with_op(chain(SHAPE, SHAPE, SHAPE), 1, ifm=View(1, (8, 1, 8, 24)))
        assert map_formats(program)[1] == NHCWB16

    @pytest.mark.parametrize(("offset", "wanted"), [(16, NHCWB16), (8, NHWC)])
    def test_parts_are_written_from_a_multiple_of_16_channels(self, offset, wanted):
        part = View(1, (1, 8, 8, 40), (0, 0, 0, offset), SHAPE)
        program = chain(SHAPE, (1, 8, 8, 40), SHAPE)
        assert map_formats(with_op(program, 0, ofm=part))[1] == wanted

    @pytest.mark.parametrize(
        ("part", "wanted"),
        [((1, 8, 8, 16), NHWC), ((1, 8, 4, 24), NHWC), ((1, 4, 8, 24), NHCWB16)],
    )
    def test_a_part_along_width_or_depth_is_read_in_nhwc(self, part, wanted):
        view = View(1, SHAPE, (0, 0, 0, 0), part)
        assert map_formats(with_op(chain(SHAPE, SHAPE, SHAPE), 1, ifm=view))[1] == wanted

    @pytest.mark.parametrize(("step", "wanted"), [((1, 2), NHWC), ((2, 1), NHCWB16)])
    def test_columns_with_gaps_need_nhwc(self, step, wanted):
        view = View(1, SHAPE, step=step)
        assert map_formats(with_op(chain(SHAPE, SHAPE, SHAPE), 0, ofm=view))[1] == wanted

    @pytest.mark.parametrize(("width", "wanted"), [(1 << 26, NHWC), ((1 << 26) - 1, NHCWB16)])
    def test_padded_elements_are_counted_in_31_bits(self, width, wanted):
        shape = (1, 1, width, 17)
        assert map_formats(chain(SHAPE, shape, shape))[1] == wanted

    def test_what_nobody_reads_may_be_written_in_views(self):
        program = with_op(chain(SHAPE, SHAPE), 0, ofm=View(1, (1, 4, 16, 24)))
        assert map_formats(program)[1] == NHCWB16

    def test_names(self):
        assert (FORMATS[NHWC], FORMATS[NHCWB16]) == ("NHWC", "NHCWB16")


class TestTables:
    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(table=tables())
    def test_kernel_is_the_twin(self, table):
        wanted = reference.map_formats(table.accesses.tolist(), table.maps.tolist())
        assert map_formats(table).tolist() == wanted

    @settings(deadline=None, derandomize=True, max_examples=50)
    @given(table=tables(n_programs=3))
    def test_programs_do_not_disturb_each_other(self, table):
        found = map_formats(table)
        for number in range(3):
            low, high = table.starts[number : number + 2]
            arrays = [a[i:j] for a, i, j in zip(columns(table), low, high, strict=True)]
            one = MemoryTable(*arrays, np.array([[0, 0, 0], high - low]))
            np.testing.assert_array_equal(found[low[1] : high[1]], map_formats(one))

    def test_further_maps_of_the_cpu_are_written_if_nobody_has(self):
        program = chain(SHAPE, SHAPE, SHAPE, kinds=("cpu", "max_pool"), is_input={0: True})
        program = with_op(program, 0, others=(View(2, SHAPE), View(0, SHAPE)))
        assert memory_table(program).accesses[:4, 1:3].tolist() == [[0, 0], [0, 0], [1, 1], [2, 1]]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"accesses": np.zeros((2, 7), int)}, "accesses must have shape [n, 8], got (2, 7)"),
            ({"in_place": np.zeros((2, 1), int)}, "in_place must have shape [n], got (2, 1)"),
            ({"maps": np.zeros((2, 7))}, "maps must hold integers, got dtype float64"),
            ({"maps": np.full((3, 7), 1 << 31)}, "maps must be in -2147483648..2147483647, got"),
            ({"in_place": np.array([0, 300])}, "in_place must be in -128..127, got 0 to 300"),
            ({"starts": np.zeros((2, 3), int)}, "starts must begin at 0 and end at [4, 3, 2]"),
            (
                {"starts": np.array([[0] * 3, [5, 0, 0], [4, 3, 2]])},
                "starts must not decrease, got [[0, 0, 0], [5, 0, 0], [4, 3, 2]]",
            ),
        ],
    )
    def test_malformed_ones_are_refused(self, change, message):
        table = memory_table(chain(SHAPE, SHAPE, SHAPE))
        names = ("accesses", "maps", "in_place", "starts")
        fields = {name: getattr(table, name) for name in names} | change
        with pytest.raises(ConfigError, match=re.escape(message)):
            MemoryTable(**fields)

    @pytest.mark.parametrize(
        ("row", "column", "value", "message"),
        [
            (1, 1, 3, "map of access 1 must be in 0..2, got 3"),
            (0, 0, -1, "op of access 0 must be in 0..1, got -1"),
            (3, 2, 5, "role of access 3 must be in 0..2, got 5"),
            (3, 0, 0, "accesses must be in the order of operations, got row 3 late"),
        ],
    )
    def test_malformed_accesses_are_refused(self, row, column, value, message):
        table = memory_table(chain(SHAPE, SHAPE, SHAPE))
        accesses = table.accesses.copy()
        accesses[row, column] = value
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            MemoryTable(accesses, table.maps, table.in_place, table.starts)


def columns(table: MemoryTable) -> tuple[np.ndarray, ...]:
    return table.accesses, table.maps, table.in_place


def differences(compiled: object, network: object) -> list[str]:
    """Maps of the program read back whose format differs from the compiler's."""
    got = Reader(compiled, network).read()
    ours = map_formats(got.program)
    return [
        f"{got.program.maps[i].name}: {wanted}"
        for i, wanted in got.formats.items()
        if wanted != {FORMATS[ours[i]]}
    ]


def lowered_differences(compiled: object, network: object) -> list[str]:
    """The same of our own program."""
    found: list[str] = []
    program = lowered(network)
    if len(program.ops) != len(Reader(compiled, network).rows):
        return found  # the tests of programs find that
    formats = map_formats(program)
    for op, row in zip(program.ops, Reader(compiled, network).rows, strict=True):
        for name, view in (("ifm", op.ifm), ("ifm2", op.ifm2), ("ofm", op.ofm)):
            wanted = row[f"{name}_format"]
            if view is not None and wanted and wanted != FORMATS[formats[view.map]]:
                found.append(f"{name} of {op.name}: {wanted}")
    return found


class TestCompiler:
    def test_random_networks(self):
        found = {
            label: differences(compiled, network) + lowered_differences(compiled, network)
            for label, network, compiled in compiled_networks(4)
        }
        assert len(found) > 40
        assert {label: names for label, names in found.items() if names} == {}

    @pytest.mark.slow
    def test_many_random_networks(self):
        found = {
            label: differences(compiled, network)
            for label, network, compiled in compiled_networks(30, first=100)
        }
        assert {label: names for label, names in found.items() if names} == {}

    def test_real_models(self, models_dir):
        found = {
            label: differences(compiled, network) + lowered_differences(compiled, network)
            for label, network, compiled in compiled_models(models_dir)
        }
        assert {label: names for label, names in found.items() if names} == {}
