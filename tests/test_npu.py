# SPDX-License-Identifier: Apache-2.0
"""Presets of the hardware record and its checks."""

from __future__ import annotations

import dataclasses

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
    ],
)
def test_bad_records_are_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(npu.get("ethos-u55-64"), **{field: value})
