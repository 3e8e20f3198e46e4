# SPDX-License-Identifier: Apache-2.0
"""Reading configuration files of Arm's compiler: what is taken from them, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import ConfigError, FormatError, UnknownNameError
from npusim.hardware import machine
from npusim.memories import MemoryMode, MemorySpec, SystemConfig
from npusim.vela_ini import VelaIni, read_vela_ini

GOOD = """; a comment
[System_Config.Base]
core_clock=400e6
axi0_port=Sram
axi1_port=OffChipFlash
Sram_clock_scale=0.75
Sram_burst_length=32
Sram_read_latency=29
Sram_write_latency=30
Sram_max_reads=4
Sram_max_writes=0
OffChipFlash_clock_scale=0.125
OffChipFlash_ports_used=2
Dram_clock_scale=0.5

[System_Config.Slow]
inherit=System_Config.Base
Sram_clock_scale=0.25

[Memory_Mode.Shared]
const_mem_area=Axi1
arena_mem_area=Axi0
cache_mem_area=Axi0

[Memory_Mode.Small]
inherit=Memory_Mode.Shared
arena_cache_size=65536

[Cpu_Performance.Other]
anything=goes
"""


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new, 1)


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "my.ini") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


class TestReading:
    def test_keys_become_fields(self, write):
        ini = read_vela_ini(write(GOOD))
        sram = MemorySpec(
            "sram",
            clock_scale=0.75,
            read_latency_cycles=29,
            write_latency_cycles=30,
            burst_bytes=32,
        )
        flash = MemorySpec(
            "off_chip_flash",
            clock_scale=0.125,
            ports_used=2,
            read_latency_cycles=1,
            write_latency_cycles=1,
            burst_bytes=64,
        )
        assert ini.system_configs["Base"] == SystemConfig("Base", 400e6, sram, flash)
        assert ini.memory_modes["Shared"] == MemoryMode("Shared", "axi1", "axi0", "axi0")
        assert list(ini.system_configs) == ["Base", "Slow"]

    def test_sections_inherit_what_they_do_not_set(self, write):
        ini = read_vela_ini(write(GOOD))
        base, slow = ini.system_configs["Base"], ini.system_configs["Slow"]
        assert slow.axi0.clock_scale == 0.25
        assert (slow.clock_hz, slow.axi1) == (base.clock_hz, base.axi1)
        assert ini.memory_modes["Small"] == MemoryMode("Small", "axi1", "axi0", "axi0", 65536)

    def test_outstanding_transactions_count_only_where_asked_for(self, write):
        path = write(GOOD)
        assert read_vela_ini(path).system_configs["Base"].axi0.max_reads is None
        limited = read_vela_ini(path, outstanding_limits=True).system_configs["Slow"].axi0
        assert (limited.max_reads, limited.max_writes) == (4, None)

    def test_a_parent_need_not_be_complete(self, write):
        text = replaced("core_clock=400e6\n", "").replace("Sram_clock_scale=0.25", "core_clock=1e8")
        ini = read_vela_ini(write(text))
        assert list(ini.system_configs) == ["Slow"]
        assert ini.system_configs["Slow"].clock_hz == 1e8

    def test_later_files_replace_sections_and_inherit_from_earlier_ones(self, write):
        first = write(GOOD, "first.ini")
        second = write(
            "[Memory_Mode.Shared]\nconst_mem_area=Axi0\narena_mem_area=Axi0\ncache_mem_area=Axi0\n"
            "[System_Config.Fast]\ninherit=System_Config.Slow\ncore_clock=1e9\n",
            "second.ini",
        )
        ini = read_vela_ini(first, second)
        assert ini.memory_modes["Shared"].constants == "axi0"
        assert ini.system_configs["Fast"].axi0 == ini.system_configs["Slow"].axi0

    def test_names_of_files_come_before_presets(self, write):
        text = GOOD.replace("System_Config.Base", "System_Config.Ethos_U55_Deep_Embedded")
        own = machine(
            "ethos-u55-64", "Ethos_U55_Deep_Embedded", "Small", config_files=[write(text)]
        )
        assert own.feature_maps.bytes_per_cycle == 6.0
        assert own.constants.bytes_per_cycle == 2.0
        assert own.mode.arena_cache_size_bytes == 65536
        assert (
            machine("ethos-u55-64", "Slow", config_files=[write(text)]).mode.name == "Shared_Sram"
        )

    def test_case_of_keys_byte_order_mark_and_line_ends_do_not_matter(self, write):
        plain = read_vela_ini(write(GOOD))
        text = GOOD.replace("core_clock", "CORE_CLOCK").replace("\n", "\r\n")
        assert read_vela_ini(write(b"\xef\xbb\xbf" + text.encode())) == plain

    def test_nothing_and_no_files(self, write):
        assert read_vela_ini() == read_vela_ini(write("")) == VelaIni({}, {})


BAD = [
    (replaced("400e6", "fast"), "core_clock of [System_Config.Base] must be a number, got 'fast'"),
    (replaced("400e6", "0"), "core_clock of [System_Config.Base] must be more than 0 and finite"),
    (replaced("400e6", "nan"), "core_clock of [System_Config.Base] must be more than 0 and finite"),
    (replaced("=0.75", "=-1"), "Sram_clock_scale of [System_Config.Base] must be more than 0"),
    (
        replaced("_latency=29", "_latency=29.5"),
        "Sram_read_latency of [System_Config.Base] must be an integer, got '29.5'",
    ),
    (
        replaced("_latency=29", "_latency=-1"),
        "Sram_read_latency of [System_Config.Base] must be in 0..",
    ),
    (
        replaced("burst_length=32", "burst_length=0"),
        "Sram_burst_length of [System_Config.Base] must be in 1..",
    ),
    (
        replaced("Dram_clock_scale=0.5", "Dram_clock_scale=x"),
        "Dram_clock_scale of [System_Config.Base] must be a number, got 'x'",
    ),
    (
        replaced("axi0_port=Sram", "axi0_port=SRAM"),
        "axi0_port of [System_Config.Base] must be one of Dram, OffChipFlash, OnChipFlash, Sram, "
        "got 'SRAM'",
    ),
    (replaced("axi1_port=OffChipFlash\n", ""), "must have the key axi1_port, got none"),
    (
        replaced("arena_mem_area=Axi0", "arena_mem_area=Axi2"),
        "arena_mem_area of [Memory_Mode.Shared] must be one of Axi0, Axi1, got 'Axi2'; did you",
    ),
    (
        replaced("65536", "64K"),
        "arena_cache_size of [Memory_Mode.Small] must be an integer, got '64K'",
    ),
    (replaced("65536", "0"), "arena_cache_size of [Memory_Mode.Small] must be in 1.."),
    (
        replaced("Sram_burst_length", "Sram_burst_lenght"),
        "key of [System_Config.Base] must be one of",
    ),
    (replaced("Sram_burst_length", "Sram_burst_lenght"), "did you mean 'Sram_burst_length'?"),
    (
        replaced("inherit=System_Config.Base", "inherit=System_Config.Bas"),
        "inherit of [System_Config.Slow] must be one of System_Config.Base, System_Config.Slow, "
        "got 'System_Config.Bas'; did you mean 'System_Config.Base'?",
    ),
    (
        replaced("inherit=System_Config.Base", "inherit=Memory_Mode.Shared"),
        "inherit of [System_Config.Slow] must be one of System_Config.Base, System_Config.Slow",
    ),
    (
        replaced("inherit=System_Config.Base", "inherit=System_Config.Slow"),
        "inherit of [System_Config.Slow] must not lead back to itself, got 'System_Config.Slow'",
    ),
    (
        replaced("core_clock=400e6", "inherit=System_Config.Slow"),
        "inherit of [System_Config.Slow] must not lead back to itself, got 'System_Config.Base'",
    ),
    ("[System_Config]\nx=1\n", "[System_Config] must have a name after System_Config., got none"),
    ("[Memory_Mode.]\nx=1\n", "[Memory_Mode.] must have a name after Memory_Mode., got none"),
    ("core_clock=1\n", "line 1 must be in a section, got 'core_clock=1'"),
    ("[Memory_Mode.A]\nnothing\n", "line 2 must be key=value, got"),
    ("[Memory_Mode.A]\n[Memory_Mode.A]\n", "[Memory_Mode.A] must be there once, got it again at"),
    (
        "[Memory_Mode.A]\ninherit=x\ninherit=y\n",
        "key inherit of [Memory_Mode.A] must be set once, got it again at line 3",
    ),
    (b"\xff\xfe\x00", "a configuration must be text, got other bytes"),
]


class TestBadFiles:
    @pytest.mark.parametrize(("text", "message"), BAD)
    def test_are_refused_by_file_section_and_key(self, write, text, message):
        path = write(text)
        with pytest.raises(FormatError, match=re.escape(message)) as caught:
            read_vela_ini(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)

    def test_the_file_that_is_bad_is_named(self, write):
        good, bad = write(GOOD, "good.ini"), write("[Memory_Mode.B]\ncache_mem_area=1\n", "bad.ini")
        with pytest.raises(FormatError, match=r"bad\.ini: \[Memory_Mode\.B\] must have the key"):
            read_vela_ini(good, bad)

    @pytest.mark.parametrize("name", ["missing.ini", ".", "nul\0.ini"])
    def test_files_that_cannot_be_read_are_refused(self, tmp_path, name):
        with pytest.raises(ConfigError, match="configuration must be a readable file, got"):
            read_vela_ini(tmp_path / name)

    def test_a_name_that_no_file_has_is_refused(self, write):
        with pytest.raises(
            UnknownNameError, match=r"system config must be .*; did you mean 'Base'"
        ):
            machine(system_config="Bases", config_files=[write(GOOD)])

    @given(
        st.lists(
            st.tuples(
                st.integers(0, len(GOOD) - 1),
                st.integers(0, 12),
                st.text(alphabet="[]=.;:%\n\r\t \0-0129eE_AaxSsMm\u2028", max_size=6),
            ),
            min_size=1,
            max_size=4,
        )
    )
    @settings(derandomize=True, deadline=None, max_examples=400)
    def test_any_change_gives_a_configuration_or_a_clear_error(self, tmp_path_factory, changes):
        text = GOOD
        for at, n_removed, inserted in changes:
            text = text[:at] + inserted + text[at + n_removed :]
        path = tmp_path_factory.getbasetemp() / "changed.ini"
        path.write_bytes(text.encode())
        message = f"{path}: "
        try:
            ini = read_vela_ini(path)
        except FormatError as error:
            message = str(error)
        else:
            assert all(one.clock_hz > 0 for one in ini.system_configs.values())
        assert message.startswith(f"{path}: ")
