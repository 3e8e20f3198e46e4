# SPDX-License-Identifier: Apache-2.0
"""The tables of schema facts, against the classes generated from the schema itself."""

from __future__ import annotations

import math

import flatbuffers
import pytest
import tflite_oracle

from npusim.formats import tflite_schema
from npusim.tensor import DTYPES


def enumerators(name: str) -> dict[int, str]:
    """Enumerators of the generated schema by code."""
    members = vars(getattr(tflite_oracle.schema(), name)).items()
    # Python 3.13 gives classes a number of its own, __firstlineno__
    return {code: member for member, code in members if isinstance(code, int) and member[0] != "_"}


def test_tensor_types_are_the_dtypes() -> None:
    assert sorted(tflite_schema.TENSOR_TYPES) == sorted(DTYPES)


def test_every_name_of_a_kind_is_its_own() -> None:
    assert len(set(tflite_schema.OPERATORS)) == len(tflite_schema.OPERATORS) == 162
    assert len(tflite_schema.CODES) == 159


def test_codes_of_operators() -> None:
    tflite_oracle.require()
    names = enumerators("BuiltinOperator")
    assert [names[code] for code in range(162)] == list(tflite_schema.OPERATORS)
    beyond = {name for code, name in names.items() if code >= 162}
    assert {n for n in beyond if "STABLEHLO" not in n} == {"DILATE", "REDUCE_WINDOW"}


def test_codes_of_option_tables() -> None:
    tflite_oracle.require()
    names = enumerators("BuiltinOptions")
    ours = [name if name == "NONE" else f"{name}Options" for name in tflite_schema.OPTION_TYPES]
    assert [names[code] for code in range(len(names))] == ours


def test_codes_of_enumerators() -> None:
    tflite_oracle.require()
    assert tflite_schema.ENUMS.keys() == tflite_oracle.ENUMS.keys()
    for ours, theirs in tflite_oracle.ENUMS.items():
        names = enumerators(theirs)
        members = [names[code] for code in range(len(names))]
        if ours == "dtype":
            members = [member.lower() for member in members]
        assert members == list(tflite_schema.ENUMS[ours])


def test_every_option_table_with_a_field_is_described() -> None:
    """An object of the generated class has one member per field that is not deprecated."""
    tflite_oracle.require()
    for table in tflite_schema.OPTION_TYPES[1:]:
        made = getattr(tflite_oracle.schema(), f"{table}OptionsT")()
        fields = [f for f in tflite_schema.OPTION_FIELDS.get(table, ()) if f.name]
        assert len(vars(made)) == len(fields), table


def test_defaults_of_the_schema() -> None:
    """What the generated class reads in an empty table is what we call initial."""
    tflite_oracle.require()
    builder = flatbuffers.Builder()
    builder.StartObject(0)
    builder.Finish(builder.EndObject())
    empty = builder.Output()
    for table, fields in tflite_schema.OPTION_FIELDS.items():
        made = getattr(tflite_oracle.schema(), f"{table}OptionsT").InitFromPackedBuf(empty, 0)
        for field in fields:
            if field.name:
                theirs = getattr(made, tflite_oracle.camel(field.name))
                assert field.initial == tflite_oracle.value_of(theirs, field), (table, field)


def test_minimum_is_in_the_range_of_the_field() -> None:
    for fields in tflite_schema.OPTION_FIELDS.values():
        for field in fields:
            if field.minimum is not None:
                assert field.type == "int"
                assert field.minimum == 1


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [("float", 0.1, 0.10000000149011612), ("floats", [0.5, 1], (0.5, 1.0)), ("ints", [1], (1,))],
)
def test_checked_gives_what_a_file_gives_back(type_: str, value: object, expected: object) -> None:
    got = tflite_schema.checked(tflite_schema.Field("x", type_), "x", value)
    assert got == expected
    assert not isinstance(got, float) or math.isfinite(got)
