# SPDX-License-Identifier: Apache-2.0
"""Machines against Arm's compiler: what it refuses, and the memories that it computes with."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npusim.errors import ConfigError
from npusim.formats.tflite_write import to_bytes
from npusim.hardware import Machine, machine, memory_mode_names, system_config_names
from npusim.memories import MemorySpec
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.npu import get
from npusim.npu import names as npu_names
from npusim.vela_ini import ROLES, read_vela_ini

pytest.importorskip("ethosu.vela", reason="ethos-u-vela is the oracle")

NPUS = {
    "ethos-u55-32": ("EthosU55", 32, 1),
    "ethos-u55-128": ("EthosU55", 128, 1),
    "ethos-u55-256": ("EthosU55", 256, 1),
    "ethos-u65-256": ("EthosU65", 256, 1),
    "ethos-u65-512": ("EthosU65", 256, 2),
}
AREAS = {role: area for area, role in ROLES.items()}
UNUSUAL = """
[System_Config.Two_Sram]
core_clock=1e8
axi0_port=Sram
axi1_port=Sram
Sram_clock_scale=0.5
Sram_ports_used=2
[System_Config.Swapped]
core_clock=1e8
axi0_port=Dram
axi1_port=Sram
Dram_clock_scale=0.25
[System_Config.No_Sram]
core_clock=1e8
axi0_port=Dram
axi1_port=OnChipFlash
"""


@pytest.fixture(scope="module")
def arm_ini() -> Path:
    return Path(str(resources.files("ethosu") / "config_files" / "Arm" / "vela.ini"))


@pytest.fixture(scope="module")
def every_mode_ini(tmp_path_factory) -> Path:
    """All ways of giving three uses one of two ports, beside unusual systems."""
    uses = ("const_mem_area", "arena_mem_area", "cache_mem_area")
    text = UNUSUAL
    for bits in range(8):
        ports = [f"Axi{bits >> use & 1}" for use in range(3)]
        keys = [f"{use}={port}\n" for use, port in zip(uses, ports, strict=True)]
        text += f"[Memory_Mode.M{bits}]\n" + "".join(keys)
    path = tmp_path_factory.mktemp("ini") / "every.ini"
    path.write_text(text, "utf-8")
    return path


def features(npu: str, files: list[Path] | None, system: str, mode: str) -> Any:
    """The compiler's own record of a machine; None where it refuses it."""
    from ethosu.vela.architecture_features import ArchitectureFeatures
    from ethosu.vela.errors import VelaError

    with contextlib.redirect_stdout(io.StringIO()):
        try:
            return ArchitectureFeatures(
                vela_config_files=files and [str(path) for path in files],
                system_config=system,
                memory_mode=mode,
                accelerator_config=npu,
                max_blockdep=3,
                verbose_config=False,
                arena_cache_size=None,
            )
        except VelaError:
            return None


def assert_same(npu: str, files: list[Path], system: str, mode: str) -> bool:
    """That both refuse or both take a machine, and then agree on it; returns whether they do."""
    theirs = features(npu, files, system, mode)
    if theirs is None:
        with pytest.raises(ConfigError, match=f"memory mode '{mode}' must keep"):
            machine(npu, system, mode, config_files=files)
        return False
    ours = machine(npu, system, mode, config_files=files)
    assert ours.clock_hz == theirs.core_clock
    assert ours.spills == theirs.is_spilling_enabled()
    limit = ours.mode.arena_cache_size_bytes
    assert (limit or theirs.max_address_offset) == theirs.arena_cache_size
    areas = {
        "feature_maps": theirs.feature_map_storage_mem_area,
        "constants": theirs.permanent_storage_mem_area,
        "staging": theirs.fast_storage_mem_area,
    }
    for use, area in areas.items():
        memory: Any = getattr(ours, use)
        assert memory.bytes_per_cycle == theirs.memory_bandwidths_per_cycle[area]
        if use != "constants" or ours.weights_are_staged:  # else SRAM, which it calls a flash
            assert AREAS[memory.name] == area.name
    return True


class TestNpus:
    @pytest.mark.parametrize("name", npu_names())
    def test_are_the_compiler_s(self, name):
        one = get(name)
        theirs = features(name, None, "internal-default", "internal-default")
        assert one.macs_per_cycle == theirs.num_macs_per_cycle * theirs.ncores
        assert one.n_cores == theirs.ncores
        ublock = (theirs.ofm_ublock.height, theirs.ofm_ublock.width, theirs.ofm_ublock.depth)
        assert (one.ofm_ublock_height, one.ofm_ublock_width, one.ofm_ublock_depth) == ublock
        assert one.ifm_ublock_depth == theirs.ifm_ublock.depth
        block = theirs.ofm_block_max
        assert (one.ofm_block_height_max, one.ofm_block_width_max, one.ofm_block_depth_max) == (
            (block.height, block.width, block.depth)
        )
        assert one.sub_kernel_max == theirs.SubKernelMax.width == theirs.SubKernelMax.height
        assert one.shram_banks == theirs.shram.total_banks
        assert one.shram_bank_bytes == theirs.shram.bank_size_bytes
        assert one.output_cycles_per_element == theirs.output_cycles_per_elem
        assert one.activation_cycles_per_element == theirs.activation_cycles_per_elem
        granules = theirs.accelerator_configs[theirs.accelerator_config].shram_granules
        assert granules == [
            one.ifm8_granule_banks,
            one.ifm16_granule_banks,
            one.elementwise_ifm8_granule_banks,
            one.elementwise_ifm16_granule_banks,
            one.ifm32_granule_banks,
            one.acc16_granule_banks,
            one.acc32_granule_banks,
            one.acc40_granule_banks,
        ]


class TestMemoryModes:
    @pytest.mark.parametrize("npu", ["ethos-u55-128", "ethos-u65-256"])
    def test_of_arm_are_refused_and_resolved_alike(self, npu, arm_ini):
        ini = read_vela_ini(arm_ini)
        taken = [
            assert_same(npu, [arm_ini], system, mode)
            for system in ini.system_configs
            for mode in ini.memory_modes
        ]
        assert 0 < sum(taken) < len(taken) == 11 * 6

    @pytest.mark.parametrize("npu", ["ethos-u55-128", "ethos-u65-256"])
    def test_of_any_kind_are_refused_and_resolved_alike(self, npu, every_mode_ini, arm_ini):
        files = [arm_ini, every_mode_ini]
        systems = [*read_vela_ini(every_mode_ini).system_configs, "Ethos_U65_Mid_End"]
        modes = read_vela_ini(every_mode_ini).memory_modes
        taken = [assert_same(npu, files, one, mode) for one in systems for mode in modes]
        assert 0 < sum(taken) < len(taken) == 4 * 8

    def test_presets_are_those_of_arm_s_file(self, arm_ini):
        ini = read_vela_ini(arm_ini, outstanding_limits=True)
        for name in set(ini.system_configs) & set(system_config_names()):
            assert (
                machine(system_config=name, memory_mode="Sram_Only").system
                == (read_vela_ini(arm_ini).system_configs[name])
            )
            limited = machine(system_config=name, memory_mode="Sram_Only", outstanding_limits=True)
            assert limited.system == ini.system_configs[name]
        missing = set(ini.system_configs) - set(system_config_names())
        assert all("U85" in name for name in missing)
        assert set(ini.memory_modes) <= set(memory_mode_names())

    @pytest.mark.parametrize("npu", ["ethos-u55-64", "ethos-u65-512"])
    def test_internal_defaults(self, npu):
        theirs = features(npu, None, "internal-default", "internal-default")
        ours = machine(npu, "internal-default", "internal-default")
        assert (ours.system.name, ours.mode.name) == (theirs.system_config, theirs.memory_mode)


def example() -> Network:
    """A convolution of an image: its ifm is read in short bursts, its weights several times."""
    rng = np.random.default_rng(5)
    net = NetworkBuilder("example")
    image = net.input((1, 32, 32, 3), "int8", scale=0.05)
    codes = rng.integers(-127, 128, (64, 3, 3, 3)).astype(np.int8)
    weights = net.constant(codes, scales=np.full(64, 0.01), axis=0)
    bias = net.bias(rng.integers(-9, 9, 64), image, weights)
    return net.build(net.op("CONV_2D", image, weights, bias, scale=0.5, padding="SAME"))


def compiled_row(npu: str, ini: str, system: str, mode: str) -> dict[str, str]:
    """Everything the compiler says of the example's one operation."""
    from ethosu import regor

    architecture, macs, n_cores = NPUS[npu]
    names = f"[vela]\nsystem_config_name={system}\nmemory_mode_name={mode}\n"
    compiled = regor.compile(
        architecture,
        to_bytes(example()),
        "TFLITE",
        f"[architecture]\nmacs={macs}\ncores={n_cores}\n{names}{ini}",
        options="[compiler]\nenable_db=true\noutput_format=TFLite\ncop_format=COP1\n"
        "[scheduler]\noptimize=Performance\ndisable_feature=WeightBuffering\n",
        verbose=False,
    )
    row: dict[str, str] = {}
    for name in ("perf", "perf_debug", "perf_debug_main"):
        table = compiled.opt_database.tables[name]
        row |= dict(zip(table.header, next(iter(table.data)), strict=True))
    return {key: value for key, value in row.items() if not key.endswith("id")}


def explicit_ini(one: Machine) -> str:
    """A file with all that we hold of a machine's memories, none left to defaults."""
    text = "[System_Config.Ethos_U55_Explicit]\ncore_clock=1e9\n"
    for port in ("axi0", "axi1"):
        spec: MemorySpec = getattr(one.system, port)
        memory, area = spec.at(one.npu, one.clock_hz), AREAS[spec.role]
        text += f"{port}_port={area}\n{area}_clock_scale={memory.bytes_per_cycle / 8!r}\n"
        text += f"{area}_burst_length={memory.burst_bytes}\n"
        text += f"{area}_read_latency={memory.read_latency_cycles}\n"
        text += f"{area}_write_latency={memory.write_latency_cycles}\n"
    ports = {"axi0": "Axi0", "axi1": "Axi1"}
    return text + (
        f"[Memory_Mode.Explicit]\nconst_mem_area={ports[one.mode.constants]}\n"
        f"arena_mem_area={ports[one.mode.feature_maps]}\n"
        f"cache_mem_area={ports[one.mode.staging]}\n"
    )


def assert_row_is_ours(npu: str, ini: Path, system: str, mode: str) -> None:
    """That the compiler computes alike from a file, and from what we made of it."""
    one = machine(npu, system, mode, config_files=[ini], vela_axi_quirk=True)
    theirs = compiled_row(npu, ini.read_text("utf-8"), system, mode)
    ours = compiled_row(npu, explicit_ini(one), "Ethos_U55_Explicit", "Explicit")
    assert ours == theirs
    n_bytes = int(theirs["SramFeatureMap_read"]) + int(theirs["SramFeatureMap_write"])
    assert n_bytes / int(theirs["SramFeatureMap_ac"]) == pytest.approx(
        one.feature_maps.bytes_per_cycle, rel=1e-4
    )  # their cycles are whole


class TestMemories:
    @pytest.mark.parametrize("mode", ["Sram_Only", "Shared_Sram"])
    @pytest.mark.parametrize("system", ["Ethos_U55_Deep_Embedded", "Ethos_U65_Mid_End"])
    @pytest.mark.parametrize("npu", ["ethos-u55-128", "ethos-u65-256"])
    def test_of_arm_s_file(self, npu, system, mode, arm_ini):
        assert_row_is_ours(npu, arm_ini, system, mode)

    @pytest.mark.parametrize("npu", NPUS)
    @pytest.mark.parametrize("name", ["Ethos_U55_Mine", "RTSS_HP", "My_Ethos_U55"])
    def test_width_goes_by_the_name_of_the_system(self, npu, name, arm_ini, tmp_path):
        """The quirk: the same section renamed is twice as fast, whatever the NPU."""
        ini = tmp_path / "renamed.ini"
        ini.write_text(arm_ini.read_text("utf-8").replace("Ethos_U55_High_End_Embedded", name))
        assert_row_is_ours(npu, ini, name, "Shared_Sram")

    @pytest.mark.parametrize(
        "key",
        [
            "Sram_clock_scale",
            "Sram_burst_length",
            "Sram_read_latency",
            "Sram_write_latency",
            "OffChipFlash_clock_scale",
            "OffChipFlash_burst_length",
            "OffChipFlash_read_latency",
        ],
    )
    def test_defaults_of_missing_keys(self, key, tmp_path):
        keys = {
            "core_clock": "5e8",
            "axi0_port": "Sram",
            "axi1_port": "OffChipFlash",
            "Sram_clock_scale": "0.5",
            "Sram_burst_length": "16",
            "Sram_read_latency": "29",
            "Sram_write_latency": "31",
            "Sram_ports_used": "2",
            "OffChipFlash_clock_scale": "0.125",
            "OffChipFlash_burst_length": "32",
            "OffChipFlash_read_latency": "500",
            "OffChipFlash_max_reads": "1",
        }
        del keys[key]
        ini = tmp_path / "short.ini"
        ini.write_text(
            "[System_Config.Ethos_U55_Short]\n"
            + "".join(f"{name}={value}\n" for name, value in keys.items())
            + "[Memory_Mode.M]\nconst_mem_area=Axi1\narena_mem_area=Axi0\ncache_mem_area=Axi0\n"
        )
        assert_row_is_ours("ethos-u55-128", ini, "Ethos_U55_Short", "M")

    def test_inherited_keys(self, arm_ini, tmp_path):
        ini = tmp_path / "child.ini"
        child = "[System_Config.Ethos_U55_Child]\ninherit=System_Config.Ethos_U55_Deep_Embedded\n"
        ini.write_text(arm_ini.read_text("utf-8") + f"{child}Sram_clock_scale=0.25\n")
        assert_row_is_ours("ethos-u55-128", ini, "Ethos_U55_Child", "Shared_Sram")


def run_vela(tmp_path: Path, *arguments: str) -> str:
    model = tmp_path / "model.tflite"
    model.write_bytes(to_bytes(example()))
    command = [sys.executable, "-m", "ethosu.vela", str(model), *arguments]
    done = subprocess.run(
        [*command, "--output-dir", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    return done.stdout + done.stderr


class TestCommandLine:
    def test_prints_our_bandwidths(self, tmp_path, arm_ini):
        system = "Ethos_U55_High_End_Embedded"
        printed = run_vela(
            tmp_path,
            "--system-config",
            system,
            "--memory-mode",
            "Shared_Sram",
            "--config",
            str(arm_ini),
            "--accelerator-config",
            "ethos-u55-128",
        )
        one = machine("ethos-u55-128", system)
        for what, memory in (("SRAM", one.feature_maps), ("Off-chip Flash", one.constants)):
            found = re.search(rf"Design peak {what} bandwidth\s+([\d.]+) GB/s", printed)
            assert found, printed
            gib = memory.bytes_per_cycle * one.clock_hz / 2**30  # which it calls GB
            assert float(found[1]) == pytest.approx(gib, abs=0.005)

    def test_refuses_what_we_refuse(self, tmp_path, arm_ini):
        printed = run_vela(
            tmp_path,
            "--system-config",
            "Ethos_U55_High_End_Embedded",
            "--memory-mode",
            "Dedicated_Sram",
            "--config",
            str(arm_ini),
        )
        assert "Invalid configuration of arena_mem_area" in printed
        with pytest.raises(ConfigError, match="must keep feature maps in sram or dram, got off_ch"):
            machine(memory_mode="Dedicated_Sram")
