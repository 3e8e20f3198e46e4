# SPDX-License-Identifier: Apache-2.0
"""``npusim estimate``: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import io
import json

import pytest
from small_models import chain

import npusim
from npusim.cost.energy import energy
from npusim.cost.explain import bound_shares, waterfall
from npusim.cost.sensitivity import sensitivities
from npusim.cost.what_if import Workload
from npusim.cost.widths import layer_widths
from npusim.formats.tflite_write import write
from npusim.hardware import machine
from npusim.npu import names as npu_names
from npusim.report import costs, estimates
from npusim.weights.expected import WeightStatistics

REQUIRED = {
    *("npu", "system_config", "memory_mode", "total_cycles", "npu_cycles", "macs", "inference_s"),
    *("sram_peak_bytes", "flash_bytes", "weights_encoded_bytes", "ops"),
}
REQUIRED_OF_OPS = {"name", "op", "cycles", "npu_cycles", "bound", "block", "traversal"}
PLAIN = {"overrides": {}, "assumed_weights": None}
"""What is beside a cost where nothing was asked for."""
INI = """
[System_Config.Mine]
core_clock=100e6
axi0_port=Sram
axi1_port=OffChipFlash
Sram_clock_scale=0.25
OffChipFlash_clock_scale=0.0625
[Memory_Mode.Mine]
const_mem_area=Axi1
arena_mem_area=Axi0
cache_mem_area=Axi0
arena_cache_size=500
"""


@pytest.fixture
def record(run):
    """The JSON that ``npusim estimate`` prints."""

    def record(*args):
        code, out, err = run("estimate", *args, "--format", "json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return record


@pytest.fixture
def rows(run):
    def rows(*args):
        code, out, err = run("estimate", *args, "--format", "csv")
        assert (code, err) == (0, "")
        return list(csv.DictReader(io.StringIO(out)))

    return rows


class TestOneModel:
    def test_json(self, record, model):
        cost = npusim.estimate(npusim.load(model))
        found = record(model)
        assert found == cost.to_json() | PLAIN
        assert set(found) >= REQUIRED
        assert all(set(op) >= REQUIRED_OF_OPS for op in found["ops"])
        assert found["total_cycles"] == sum(op["cycles"] for op in found["ops"]) > 0

    def test_csv_is_every_operation(self, rows, model):
        cost = npusim.estimate(npusim.load(model))
        found = rows(model)
        assert [row["name"] for row in found] == [op.name for op in cost.ops]
        assert sum(int(row["cycles"]) for row in found) == cost.total_cycles
        assert tuple(found[0]) == costs.ROW_COLUMNS

    def test_table(self, run, model):
        cost = npusim.estimate(npusim.load(model))
        code, out, err = run("estimate", model)
        assert (code, err) == (0, "")
        assert "first on ethos-u55-128, Ethos_U55_High_End_Embedded, Shared_Sram" in out
        assert "conv1" in out
        assert f"{cost.total_cycles:,}" in out
        assert f"arena {cost.sram_peak_bytes:,} B; flash {cost.flash_bytes:,} B" in out

    def test_sort(self, record, rows, model):
        cycles = [op["cycles"] for op in record(model, "--sort", "cycles")["ops"]]
        assert cycles == sorted(cycles, reverse=True)
        found = rows(model, "--sort", "macs", "--energy")
        whole = energy(npusim.estimate(npusim.load(model)))
        of_name = {op.name: op.total_pj.value / 1e6 for op in whole.ops}
        assert [float(row["energy_uj_value"]) for row in found] == [
            pytest.approx(of_name[row["name"]]) for row in found
        ]

    def test_output(self, run, model, tmp_path):
        code, out, _ = run("estimate", model, "--format", "json", "--output", tmp_path / "x.json")
        assert (code, out) == (0, "")
        assert json.loads((tmp_path / "x.json").read_text())["model"] == "first"


class TestHardware:
    def test_names(self, record, model):
        args = ("--npu", "ethos-u55-64", "--system", "RTSS_HP_SRAM_MRAM", "--memory-mode")
        found = record(model, *args, "Sram_Only")
        expected = npusim.estimate(
            npusim.load(model), "ethos-u55-64", "RTSS_HP_SRAM_MRAM", "Sram_Only"
        )
        assert found == expected.to_json() | PLAIN

    def test_files_and_fields(self, record, model, tmp_path):
        (tmp_path / "my.ini").write_text(INI)
        named = ("--config", tmp_path / "my.ini", "--system", "Mine", "--memory-mode", "Mine")
        found = record(model, *named, "--set", "shram_banks=48", "--set", "sram_bytes_per_cycle=3")
        overrides = {"shram_banks": 48, "sram_bytes_per_cycle": 3}
        target = machine(
            *("ethos-u55-128", "Mine", "Mine"),
            config_files=[tmp_path / "my.ini"],
            overrides=overrides,
        )
        expected = npusim.estimate(npusim.load(model), target)
        assert found == expected.to_json() | PLAIN | {"overrides": overrides}
        assert found["arena_limit_bytes"] == 500
        assert not found["fits"]
        assert found["inference_s"] == pytest.approx(found["total_cycles"] / 100e6)

    def test_changed_fields_are_told(self, run, model):
        out = run("estimate", model, "--set", "clock_hz=250e6")[1]
        assert "hardware differs from its presets in clock_hz=250000000" in out
        assert "at 250 MHz" in out

    def test_axi_as_wide_as_the_compiler_takes_it(self, record, model):
        vendor = (model, "--system", "RTSS_HP_SRAM_OSPI")
        assert record(*vendor, "--vela-axi")["total_cycles"] < record(*vendor)["total_cycles"]

    def test_transfers_under_way(self, record, model):
        # the 4 reads of 32 bytes under way bring 4 bytes a cycle at 32 cycles' latency
        limited = record(model, "--outstanding")["total_cycles"]
        halved = record(model, "--set", "sram_bytes_per_cycle=4")["total_cycles"]
        assert limited == halved > record(model)["total_cycles"]

    def test_memory_that_is_too_small(self, run, record, model):
        found = record(model, "--set", "sram_size_bytes=1000")
        assert (found["fits"], found["too_small"]) == (False, ["sram"])
        out = run("estimate", model, "--set", "off_chip_flash_size_bytes=100")[1]
        assert "first: off_chip_flash must hold 2,240 bytes" in out


class TestSchedule:
    def test_limit_and_size(self, record, run, model):
        free = record(model)
        small = record(model, "--optimise", "size")
        assert small["sram_peak_bytes"] < free["sram_peak_bytes"]
        assert small == npusim.estimate(npusim.load(model), optimise="size").to_json() | PLAIN
        limited = record(model, "--arena-limit", "4KiB")
        assert limited["arena_limit_bytes"] == 4096
        assert not record(model, "--arena-limit", "16B")["fits"]
        assert "16 are allowed" in run("estimate", model, "--arena-limit", "16")[1]

    def test_encoder(self, record, model):
        sizes = {
            encoder: record(model, "--encoder", encoder)["weights_encoded_bytes"]
            for encoder in ("regor", "tight")
        }
        assert sizes["tight"] < sizes["regor"]

    def test_weights_that_are_not_there(self, run, record, model):
        bits = [record(model, "--weights", f"bits={n}")["weights_encoded_bytes"] for n in (2, 4, 8)]
        assert bits == sorted(set(bits))
        found = record(model, "--weights", "bits=4,nonzeros=50%")
        workload = Workload.of(
            npusim.load(model), statistics=WeightStatistics(4, nonzero_fraction=0.5)
        )
        assert found["weights_encoded_bytes"] == workload.cost(machine()).weights_encoded_bytes
        assert found["assumed_weights"] == "bits=4,nonzeros=50%"
        assert found["macs"] == record(model)["macs"]
        others = ("entropy=3", "clusters=16", "clusters=4")
        sizes = [record(model, "--weights", what)["flash_bytes"] for what in others]
        assert len(set(sizes)) == 3
        out = run("estimate", model, "digits:largest", "--weights", "bits=2")[1]
        assert "weights are not the model's, but of bits=2" in out

    def test_decoder(self, record, run, model):
        args = (model, "--decoder", "stream", "--npu", "ethos-u55-32")
        found = record(*args)
        assert found["decoder"] == "stream"
        assert all(op["decode_cycles"] > 0 for op in found["ops"])
        assert record(model)["ops"][0]["decode_cycles"] == 0
        assert "weights are decoded at one chunk iteration a cycle" in run("estimate", *args)[1]


class TestCpu:
    def test_is_marked(self, run, record, cpu_model):
        found = record(cpu_model)
        assert found["n_cpu_ops"] == 1
        (op,) = [op for op in found["ops"] if op["op"] == "cpu"]
        assert (op["source_op"], op["bound"], op["cycles"]) == ("L2_NORMALIZATION", "cpu", 0)
        assert found["notes"] == ["1 operations of the CPU are not in the total cycles"]
        out = run("estimate", cpu_model)[1]
        assert "mixed: L2_NORMALIZATION 'norm' is on the CPU: kind must be one that" in out

    def test_cycles_are_counted(self, record, cpu_model):
        free = record(cpu_model)["total_cycles"]
        found = record(cpu_model, "--cpu-cycles", "L2_NORMALIZATION=1234")
        assert found["total_cycles"] == free + 1234
        assert found["notes"] == []


class TestExplanations:
    def test_json(self, record, model):
        cost = npusim.estimate(npusim.load(model))
        found = record(model, "--explain")
        assert found["waterfall"] == waterfall(cost).to_json()
        assert [s["cycles"] for s in found["bounds"]] == [s.cycles for s in bound_shares(cost)]

    def test_table_and_csv(self, run, rows, model):
        out = run("estimate", model, "--explain")[1]
        assert "where" in out
        assert "all multipliers busy" in out
        assert "│ bound │ operations" in out.replace("┃", "│")
        for row in rows(model, "--explain"):
            stages = [float(v) for k, v in row.items() if k.endswith("_stage_cycles")]
            assert sum(stages) == pytest.approx(int(row["cycles"]))

    def test_sensitivity(self, run, record, rows, model):
        workload = Workload.of(npusim.load(model))
        expected = sensitivities(workload, machine())
        found = record(model, "--sensitivity")["sensitivities"]
        assert found == [each.to_json() for each in expected]
        lines = rows(model, "--sensitivity")
        assert [row["name"] for row in lines] == [each.name for each in expected]
        assert tuple(lines[0]) == estimates.SENSITIVITY_COLUMNS
        assert "what 1" in run("estimate", model, "--sensitivity")[1].split("cycles depend on")[0]

    def test_width(self, run, record, model):
        expected = layer_widths(Workload.of(npusim.load(model)), machine(), "conv0", saving=0.02)
        found = record(model, "--width", "v0", "--saving", "2")["widths"]
        assert found == {"conv0": expected.to_json()}
        assert found["conv0"]["narrower"] == 16
        out = run("estimate", model, "--width", "conv0")[1]
        assert "conv0: 17 channels, " in out
        assert "; 16 channels: " in out


class TestEnergy:
    def test_of_a_model(self, run, record, rows, model):
        cost = npusim.estimate(npusim.load(model))
        expected = energy(cost, node_nm=40, memories={"flash": "mram"})
        args = ("--energy", "--energy-node", "40", "--energy-memory", "flash=mram")
        assert record(model, *args)["energy"] == expected.to_json()
        assert "(uncalibrated)" in run("estimate", model, *args)[1]
        parts = [float(row["energy_uj_high"]) for row in rows(model, *args)]
        assert sum(parts) == pytest.approx(expected.total_pj.high / 1e6)

    def test_constants(self, record, model, tmp_path):
        (tmp_path / "mine.toml").write_text("leakage_mw = 1000.0\n")
        base = record(model, "--energy")["energy"]["energy_uj_by_component"]["leakage"]
        args = ("--energy", "--energy-constants", tmp_path / "mine.toml")
        assert record(model, *args)["energy"]["energy_uj_by_component"]["leakage"] != base


class TestMatrix:
    def test_json(self, record, models):
        found = record(models, "--npu", "ethos-u55-64,ethos-u55-256", "--npu", "ethos-u55-64")
        assert [(cost["model"], cost["npu"]) for cost in found] == [
            (model, npu)
            for model in ("first", "second")
            for npu in ("ethos-u55-64", "ethos-u55-256")
        ]

    def test_every_npu_and_mode(self, rows, model):
        modes = ("Shared_Sram", "Sram_Only")
        found = rows(model, "--npu", "all", "--memory-mode", ",".join(modes))
        assert [(row["npu"], row["memory_mode"]) for row in found] == [
            (npu, mode) for npu in npu_names() for mode in modes
        ]
        assert tuple(found[0]) == costs.COST_COLUMNS

    def test_table_has_a_row_each(self, run, models, cpu_model):
        out = run("estimate", models, cpu_model, "--npu", "ethos-u55-32,ethos-u55-64")[1]
        assert "costs of an inference" in out
        assert out.count("ethos-u55-32 ") == 3
        assert "conv0" not in out
        assert out.count("mixed: L2_NORMALIZATION") == 1

    def test_ops_of_all(self, run, rows, models):
        assert {row["model"] for row in rows(models, "--ops")} == {"first", "second"}
        out = run("estimate", models, "--ops")[1]
        assert out.count("conv1") == 2
        assert "costs of an inference" in out

    def test_csv_with_all_columns(self, rows, models):
        for row in rows(models, "--explain", "--energy"):
            stages = [float(v) for k, v in row.items() if k.endswith("_stage_cycles")]
            assert sum(stages) == pytest.approx(int(row["total_cycles"]))
            assert float(row["energy_uj_low"]) < float(row["energy_uj_value"])


class TestCandidates:
    def test_of_spaces(self, record):
        found = record("digits:largest", "digits:seed=3", "--npu", "ethos-u55-32")
        assert [cost["model"] for cost in found] == ["digits:largest", "digits:seed=3"]
        assert 0 < found[1]["total_cycles"] < found[0]["total_cycles"]

    def test_with_options(self, record):
        sizes = [record(f"cifar100:largest:multiplier={m}")["macs"] for m in (1, 2)]
        assert sizes[0] < sizes[1]

    def test_a_file(self, record, tmp_path):
        import spaces

        space = spaces.get("digits")
        (tmp_path / "one.json").write_text(space.to_json(space.largest()))
        found = record(tmp_path / "one.json", "digits:largest")
        assert found[0]["total_cycles"] == found[1]["total_cycles"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("digits:best", "candidate must be SPACE:largest or SPACE:seed=N, got 'digits:best'"),
            ("digits:seed=x", "candidate must be SPACE:largest or SPACE:seed=N, got"),
            ("digits:largest:x", "option of a space must be KEY=VALUE, got 'x' in"),
            ("digits:largest:x=1", "options of space 'digits' must be ones it has (widths, "),
            ("missing.json", "candidate must be a readable file, got 'missing.json'"),
        ],
    )
    def test_refused(self, run, text, message):
        code, out, err = run("estimate", text)
        assert (code, out) == (2, "")
        assert err.startswith(f"npusim: {message}")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{}", "a candidate must be JSON with the key 'space'"),
            ("[", "a candidate must be JSON with the key 'space'"),
            ('{"space": "digit"}', "space must be one of"),
        ],
    )
    def test_refused_files(self, run, tmp_path, text, message):
        (tmp_path / "x.json").write_text(text)
        code, _, err = run("estimate", tmp_path / "x.json")
        assert code == 2
        assert message in err


class TestPlots:
    @pytest.mark.parametrize("kind", estimates.PLOT_KINDS)
    def test_kinds(self, run, model, tmp_path, kind):
        pytest.importorskip("matplotlib")
        args = ("--plot", tmp_path / "plot.svg", "--plot-kind", kind, "--sort", "cycles")
        code, _, err = run("estimate", model, *args)
        assert (code, err) == (0, "")
        assert "<svg" in (tmp_path / "plot.svg").read_text()

    def test_several(self, run, models, tmp_path):
        pytest.importorskip("matplotlib")
        args = (models, "--plot", tmp_path / "plot.svg")
        assert run("estimate", *args)[0] == 0
        code, out, err = run("estimate", *args, "--plot-kind", "memory")
        assert (code, out) == (2, "")
        assert err == "npusim: plot 'memory' must be of one model on one NPU, got 2\n"


REFUSED = [
    (["--npu", "ethos"], "npu must be one of ethos-u55-128, "),
    (["--npu", ""], "npu must be one of "),
    (["--system", "Mine"], "system config must be one of Ethos_U55_Deep_Embedded, "),
    (["--memory-mode", "Shared"], "memory mode must be one of "),
    (["--config", "missing.ini"], "configuration must be a readable file, got 'missing.ini'"),
    (["--set", "banks=3"], "field of the hardware must be one of "),
    (["--set", "shram_banks"], "a setting must be name=value, got 'shram_banks'"),
    (["--set", "sram_bytes_per_cycle=0"], "sram_bytes_per_cycle must be more than 0 and finite"),
    (["--set", "clock_hz=-1"], "clock_hz of system config"),
    (["--set", "shram_banks=2"], "block must fit the 2 SHRAM banks of ethos-u55-128, got none"),
    (["--npu", "ethos-u65-256", "--memory-mode", "Dedicated_Sram"], "memory mode 'Dedicated_Sram'"),
    (["--encoder", "zip"], "--encoder must be one of legacy, regor, tight, got 'zip'"),
    (["--weights", "4"], "--weights must be one of bits, clusters, entropy, nonzeros, got '4'"),
    (["--weights", "bits=x"], "--weights must be NAME=NUMBER, got 'bits=x'"),
    (["--weights", "bits=4,bits=5"], "--weights must give each number once, got 'bits=4,bits=5'"),
    (["--weights", "bits=9"], "bits of a weight must be in 2..8, got 9"),
    (["--weights", "bits=3.5"], "bits of a weight must be an integer, got 3.5"),
    (["--weights", "bits=4", "--encoder", "regor"], "--encoder must not go with --weights"),
    (["--weights", "bits=4", "--decoder", "stream"], "decoder 'stream' must have weights that"),
    (["--decoder", "fast"], "invalid value for '--decoder'"),
    (["--optimise", "both"], "invalid value for '--optimise'"),
    (["--arena-limit", "few"], "--arena-limit must be bytes, such as 65536 or 64KiB, got 'few'"),
    (["--arena-limit", "0"], "--arena-limit must be bytes"),
    (["--arena-limit", "3GB"], "--arena-limit must be bytes"),
    (["--cpu-cycles", "SOFTMAX"], "--cpu-cycles must be KIND=CYCLES, got 'SOFTMAX'"),
    (["--cpu-cycles", "A=1", "--cpu-cycles", "A=2"], "--cpu-cycles must give each kind once"),
    (["--cpu-cycles", "SOFTMAX=-1"], "--cpu-cycles must be KIND=CYCLES, got 'SOFTMAX=-1'"),
    (["--cpu-cycles", "SOFTMAX=1"], "kind of --cpu-cycles must be one of , got 'SOFTMAX'"),
    (["--sort", "size"], "--sort must be one of block, bound, "),
    (["--saving", "3"], "--saving must go with --width, got 3"),
    (["--width", "conv0", "--saving", "101"], "--saving must be in 0..100 per cent, got 101"),
    (["--width", "conv"], "layer must be in one name only, got 'conv', which is in conv0, conv1"),
    (["--width", "dense"], "layer must be one of conv0, conv1, got 'dense'"),
    (["--width", "conv1"], "layer 'conv1' must have channels that can be changed, got: output"),
    (["--width", "v0", "--format", "csv"], "--width must go with --format table or json, got csv"),
    (["--energy-constants", "x.toml"], "--energy-constants must go with --energy, got x.toml"),
    (["--energy-node", "7"], "--energy-node must go with --energy, got 7"),
    (["--energy-memory", "sram=x"], "--energy-memory must go with --energy, got sram=x"),
    (["--energy", "--energy-memory", "sram"], "--energy-memory must be ROLE=NAME, each once"),
    (["--energy", "--energy-memory", "sram=x"], "technology of sram must be one of "),
    (["--energy", "--energy-node", "1"], "node_nm must be in 3..180, got 1"),
    (["--plot-kind", "layers"], "--plot-kind must go with --plot, got layers"),
    (["--plot", "x.doc"], "plot must end in one of "),
    (["--output", ""], "--output must name a file, got ''"),
]


@pytest.mark.parametrize(("args", "message"), REFUSED, ids=[" ".join(r[0]) for r in REFUSED])
def test_refused_options(run, model, args, message):
    if "--plot" in args:
        pytest.importorskip("matplotlib")
    code, out, err = run("estimate", model, *args)
    assert (code, out) == (2, "")
    assert err.startswith(f"npusim: {message}")


def test_refused_files(run, tmp_path):
    (tmp_path / "text.tflite").write_text("not a model")
    for name, message in (
        ("missing.tflite", "npusim: model must be a readable file, got "),
        ("no*.tflite", "npusim: MODEL must match a file, got "),
        ("text.tflite", f"npusim: {tmp_path / 'text.tflite'}: a TFLite model must have 'TFL3'"),
    ):
        code, out, err = run("estimate", tmp_path / name)
        assert (code, out) == (2, "")
        assert err.startswith(message)


def test_ctrl_c(run, model, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Workload, "cost", interrupt)
    code, out, err = run("estimate", model)
    assert (code, out, err.strip()) == (130, "", "npusim: interrupted")


class TestDiff:
    def test_two_machines(self, run, model):
        before = npusim.estimate(npusim.load(model))
        args = ("diff", model, "--npu", "ethos-u55-128,ethos-u55-256")
        found = json.loads(run(*args, "--format", "json")[1])
        after = npusim.estimate(npusim.load(model), "ethos-u55-256")
        assert found["totals"]["total_cycles"] == [before.total_cycles, after.total_cycles]
        assert sum(op["cycles"] for op in found["ops"]) == after.total_cycles - before.total_cycles
        assert f"{after.total_cycles - before.total_cycles:+,}" in run(*args)[1]
        rows = list(csv.DictReader(io.StringIO(run(*args, "--format", "csv")[1])))
        assert [row["name"] for row in rows] == ["conv0", "conv1"]
        assert tuple(rows[0]) == costs.DIFF_COLUMNS

    def test_two_models(self, run, model, tmp_path):
        write(chain("wide", (32, 8)), tmp_path / "wide.tflite")
        out = run("diff", model, tmp_path / "wide.tflite", "--format", "json")[1]
        assert json.loads(out)["after"]["model"] == "wide"

    def test_then(self, run, model):
        args = (
            "diff",
            model,
            "--set",
            "sram_bytes_per_cycle=2",
            "--then",
            "sram_bytes_per_cycle=8",
        )
        before, after = json.loads(run(*args, "--format", "json")[1])["totals"]["total_cycles"]
        assert after == npusim.estimate(npusim.load(model)).total_cycles < before

    def test_notes_of_both(self, run, model, cpu_model):
        assert run("diff", model, cpu_model)[1].count("L2_NORMALIZATION 'norm' is on the CPU") == 1

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ([], "what differs must be given: two models, two NPUs or --then, got none"),
            (["--npu", "all"], "npu must be one of"),
            (["--npu", "a,b,c"], "--npu must be one or two, got a, b, c"),
            (["--then", "x=1"], "field of the hardware must be one of"),
            (["digits:largest", "digits:seed=1"], "MODEL must be one or two, got 3"),
        ],
    )
    def test_refused(self, run, model, args, message):
        code, out, err = run("diff", model, *args)
        assert (code, out) == (2, "")
        assert err.startswith(f"npusim: {message}")
