# SPDX-License-Identifier: Apache-2.0
"""Presets of the hardware record and its checks."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from npusim import npu
from npusim.errors import ConfigError, UnknownNameError


@pytest.mark.parametrize("name", npu.names())
def test_macs_are_those_of_the_ublocks(name):
    preset = npu.get(name)
    ublock = preset.ofm_ublock_height * preset.ofm_ublock_width * preset.ofm_ublock_depth
    assert preset.name == name
    assert preset.macs_per_cycle == preset.n_cores * ublock * preset.ifm_ublock_depth
    assert name.endswith(f"-{preset.macs_per_cycle}")


def test_presets_are_the_u55_and_u65_family():
    assert npu.names() == [
        "ethos-u55-128",
        "ethos-u55-256",
        "ethos-u55-32",
        "ethos-u55-64",
        "ethos-u65-256",
        "ethos-u65-512",
    ]
    assert [name for name in npu.names() if npu.get(name).n_cores == 2] == ["ethos-u65-512"]


def test_a_record_is_its_own_preset():
    own = dataclasses.replace(npu.get("ethos-u55-64"), name="mine", ofm_ublock_depth=4)
    assert npu.get(own) is own
    assert npu.get("ethos-u55-64").ofm_ublock_depth == 8


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        npu.get("ethos-u55-64").n_cores = 2


def test_replace_makes_any_npu():
    own = npu.get("ethos-u55-128").replace(
        name="mine", shram_banks=np.int64(40), output_cycles_per_element=[1] * 8
    )
    assert (own.name, own.shram_banks, type(own.shram_banks)) == ("mine", 40, int)
    assert own.output_cycles_per_element == (1.0,) * 8
    assert npu.get("ethos-u55-128").shram_banks == 24
    with pytest.raises(UnknownNameError, match=r"field of an npu must be one of .*'shram_banks'"):
        own.replace(shram_bank=40)


def test_json_values_make_the_same_npu():
    preset = npu.get("ethos-u65-512")
    values = json.loads(json.dumps(preset.to_json()))
    assert npu.NpuConfig(**values) == preset
    assert values["activation_cycles_per_element"] == [0.5, 0.125, 0.0]


def test_two_cores_put_out_twice_as_fast():
    one, two = npu.get("ethos-u65-256"), npu.get("ethos-u65-512")
    for name in ("output_cycles_per_element", "activation_cycles_per_element"):
        assert getattr(one, name) == tuple(2 * rate for rate in getattr(two, name))


@pytest.mark.parametrize("name", ["ethos-u55-12", "Ethos-U55-128", ""])
def test_unknown_names_are_refused_with_a_guess(name):
    with pytest.raises(UnknownNameError, match=r"npu must be one of ethos-u55-128, .*, got"):
        npu.get(name)


@pytest.mark.parametrize("name", [None, 128, ["ethos-u55-128"]])
def test_names_are_text(name):
    with pytest.raises(UnknownNameError, match="npu must be one of"):
        npu.get(name)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", "npu name must be text, got ''"),
        ("name", None, "npu name must be text, got None"),
        ("n_cores", 3, r"n_cores of npu 'ethos-u55-64' must be in 1..2, got 3"),
        ("macs_per_cycle", 0, r"macs_per_cycle of npu 'ethos-u55-64' must be in 1..65536, got 0"),
        ("ifm_ublock_depth", 8.0, r"ifm_ublock_depth .* must be an integer, got 8.0"),
        ("ofm_ublock_depth", True, r"ofm_ublock_depth .* must be an integer, got True"),
        ("n_axi_ports", 3, r"n_axi_ports of npu 'ethos-u55-64' must be in 1..2, got 3"),
        ("stall_acc32_cycles", -1, r"stall_acc32_cycles .* must be in 0..65536, got -1"),
        ("output_cycles_per_element", (1, 2), r"output_cycles_.* must be 8 numbers, got \(1, 2\)"),
        ("output_cycles_per_element", 1.0, r"output_cycles_.* must be 8 numbers, got 1.0"),
        (
            "output_cycles_per_element",
            (1,) * 7 + (0,),
            r"output_.* must be more than 0 and .*got 0",
        ),
        ("activation_cycles_per_element", (0, 1, 0), r"activation_.* must be more than 0 .*got 0"),
        ("activation_cycles_per_element", (1, 1, -1), r"activation_.* must be in 0..65536, got -1"),
    ],
)
def test_bad_records_are_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(npu.get("ethos-u55-64"), **{field: value})
