# SPDX-License-Identifier: Apache-2.0
"""Arm's compiler in a process of its own: what it is told, and how it may end."""

from __future__ import annotations

import configparser
import signal
import sys

import numpy as np
import pytest

from npusim.cost.estimate import estimate
from npusim.errors import ConfigError, MissingExtraError
from npusim.formats import load
from npusim.formats.tflite_write import write
from npusim.hardware import machine
from npusim.network_builder import NetworkBuilder
from npusim.vela import Compiler, CompilerError, configuration


@pytest.fixture
def vela():
    pytest.importorskip("ethosu.regor", reason="ethos-u-vela is the oracle")
    with Compiler() as compiler:
        yield compiler


@pytest.fixture
def model(tmp_path):
    net = NetworkBuilder("one")
    x = net.input((1, 16, 16, 8), scale=0.02)
    codes = np.random.default_rng(0).integers(-90, 91, (32, 3, 3, 8)).astype(np.int8)
    weights = net.constant(codes, scales=0.01)
    x = net.op("CONV_2D", x, weights, net.bias([0] * 32, x, weights), scale=0.1)
    write(net.build(x), tmp_path / "one.tflite")
    return tmp_path / "one.tflite"


def read(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.optionxform = str
    parser.read_string(text)
    return parser


class TestConfiguration:
    def test_says_all_of_a_machine(self):
        target = machine(
            "ethos-u65-512",
            "Ethos_U65_High_End",
            "Dedicated_Sram_384KB",
            overrides={"sram_bytes_per_cycle": 3, "dram_read_latency_cycles": 77},
        )
        architecture, text = configuration(target)
        found = read(text)
        assert architecture == "EthosU65"
        assert dict(found["architecture"]) == {"macs": "256", "cores": "2"}
        system = found[f"System_Config.{found['vela']['system_config_name']}"]
        assert float(system["core_clock"]) == target.clock_hz
        assert (system["axi0_port"], system["axi1_port"]) == ("Sram", "Dram")
        # 16 bytes wide ports, which the name of the system config stands for
        assert float(system["Sram_clock_scale"]) == 3 / 16
        assert not found["vela"]["system_config_name"].startswith("Ethos_U55")
        assert system["Dram_read_latency"] == "77"
        mode = found[f"Memory_Mode.{found['vela']['memory_mode_name']}"]
        assert dict(mode) == {
            **{"const_mem_area": "Axi1", "arena_mem_area": "Axi1", "cache_mem_area": "Axi0"}
        }

    def test_width_of_ports(self):
        plain = machine("ethos-u55-128", "RTSS_HP_SRAM_MRAM")
        quirk = machine("ethos-u55-128", "RTSS_HP_SRAM_MRAM", vela_axi_quirk=True)
        starts = [
            read(configuration(target)[1])["vela"]["system_config_name"].startswith("Ethos_U55")
            for target in (plain, quirk)
        ]
        assert starts == [True, False]

    def test_limits_of_transfers_slow_the_memory(self):
        text = configuration(machine(outstanding_limits=True))[1]
        assert "Sram_clock_scale=0.5\n" in text

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"shram_banks": 40}, "npu must be one of Arm's, without changes, for its compiler"),
            ({"axi_width_bytes": 4}, "axi_width_bytes must be 8 or 16 for Arm's compiler, got 4"),
        ],
    )
    def test_refused(self, changes, message):
        with pytest.raises(ConfigError, match=message):
            configuration(machine(overrides=changes))

    def test_npus_of_other_names(self):
        from npusim.npu import get

        with pytest.raises(ConfigError, match="npu must be one of Arm's"):
            configuration(machine(get("ethos-u55-128").replace(name="mine")))


class TestCompiler:
    @pytest.mark.parametrize(
        "options", [{}, {"optimise": "size"}, {"arena_limit_bytes": 4096}], ids=str
    )
    @pytest.mark.parametrize("npu", ["ethos-u55-64", "ethos-u65-512"])
    def test_says_what_we_say(self, vela, model, npu, options):
        target = machine(npu, overrides={"sram_bytes_per_cycle": 5.5, "sram_burst_bytes": 64})
        theirs, ours = (
            vela.compile(model, target, **options),
            estimate(load(model), target, **options),
        )
        assert theirs.total_cycles == ours.total_cycles
        assert theirs.npu_cycles == ours.npu_cycles
        assert theirs.sram_peak_bytes == ours.sram_peak_bytes
        assert theirs.dram_peak_bytes == ours.dram_peak_bytes
        assert theirs.flash_bytes == ours.flash_bytes
        assert (theirs.n_npu_ops, theirs.n_cpu_ops) == (len(ours.ops), 0)

    def test_the_mode_s_limit_reaches_it(self, vela, model):
        free = vela.compile(model, machine())
        limited = machine(overrides={"arena_cache_size_bytes": 3000})
        assert vela.compile(model, limited).sram_peak_bytes < free.sram_peak_bytes
        assert vela.compile(model, limited) == vela.compile(
            model, machine(), arena_limit_bytes=3000
        )

    def test_goes_on_after_the_process_ended(self, vela, model, tmp_path):
        before = vela.compile(model, machine())
        (tmp_path / "text.tflite").write_text("this ends the compiler's process" * 100)
        with pytest.raises(CompilerError, match=r"^text.tflite: Arm's compiler (ended|refuses)"):
            vela.compile(tmp_path / "text.tflite", machine())
        assert vela.compile(model, machine()) == before

    def test_one_that_is_killed_is_told(self, vela, model, monkeypatch):
        vela.compile(model, machine())
        vela._process.kill()
        vela._process.wait()
        with pytest.raises(CompilerError, match=r"^one.tflite: Arm's compiler ended with SIGKILL$"):
            vela.compile(model, machine())
        assert vela.compile(model, machine()).total_cycles > 0

    def test_leaves_no_process(self, vela, model):
        vela.compile(model, machine())
        process = vela._process
        vela.close()
        assert process.returncode == -signal.SIGKILL
        vela.close()

    def test_is_quiet(self, vela, model, capfd):
        vela.compile(model, machine())
        assert capfd.readouterr() == ("", "")

    def test_not_installed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ethosu", None)
        with pytest.raises(
            MissingExtraError, match=r"Arm's compiler must have the extra \[deploy\]"
        ):
            Compiler()
