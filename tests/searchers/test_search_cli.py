# SPDX-License-Identifier: Apache-2.0
"""``npusim search`` as a user meets it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from searchers.store import TRIALS, count_trials, rows
from spaces.digits import digits
from spaces.estimate import estimate

FAST = ("--epochs", "1", "--final-epochs", "1")


@pytest.fixture
def parts():
    for name in ("torch", "sklearn", "matplotlib"):
        pytest.importorskip(name, reason=f"needs {name}")


def trials(directory: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if not k.endswith("_s")} for row in rows(directory)]


def test_search_prints_a_table_and_resumes(cli, parts, tmp_path):
    out = tmp_path / "run"
    args = ("search", "--size", "1KB", "--out", str(out), *FAST)
    code, text, err = cli(*args, "--trials", "2")
    assert (code, err) == (0, "")  # no progress bar where stderr is not a terminal
    assert "evolution on digits within 1.00 KB, seed 0: best of 2 trials" in text
    assert "classifier dense" in text
    assert "\x1b[" not in text
    first = trials(out)
    code, text, _ = cli(*args, "--trials", "3", "--json")
    assert code == 0
    found = json.loads(text)
    assert found["n_trials"] == 3
    assert found["best"]["costs"]["size_bits"] <= 8000
    assert set(found["test"]) == {"accuracy", "loss"}
    assert trials(out)[:2] == first
    assert (out / "plot.png").stat().st_size > 1000
    best = digits().from_json((out / "best.json").read_text())
    assert list(best.choices) == found["best"]["choices"]


def test_flash_is_that_of_the_streams_biases_and_scales(cli, parts, tmp_path):
    args = ("--flash", "2KB", "--macs", "30k", "--sram", "1KB", *FAST, "--no-plot")
    udc = ("--searcher", "udc", "--option", "epochs=1")
    code, text, err = cli("search", *args, *udc, "--out", str(tmp_path / "udc"))
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "udc" / "result.json").read_text())
    options = {"within": "flash", "also": "30000 macs, 1000 sram_peak_bytes"}
    assert {key: found["options"][key] for key in options} == options
    flash = found["best"]["search_metrics"]["flash_bytes"]
    told = f"flash_bytes {flash:,.0f} of 2,000 on ethos-u55-128, of the weights of the search\n"
    assert told in text
    args += ("--searcher", "random", "--trials", "2")
    code, text, err = cli("search", *args, "--out", str(tmp_path / "random"))
    assert (code, err) == (0, "")
    found = json.loads((tmp_path / "random" / "result.json").read_text())
    assert [each["measure"] for each in found["further"]] == [
        "macs",
        "flash_bytes",
        "sram_peak_bytes",
    ]
    best = digits().from_json((tmp_path / "random" / "best.json").read_text())
    cost = estimate(digits(), best)
    assert (cost.flash_bytes, cost.sram_peak_bytes) <= (2000, 1000)
    assert f"sram_peak_bytes {cost.sram_peak_bytes:,} of 1,000 on ethos-u55-128, estim" in text
    assert f"flash_bytes {cost.flash_bytes:,} of 2,000 on ethos-u55-128, estimated\n" in text


def test_super_resolution_is_searched_finetuned_and_deployed(cli, parts, pictures):
    pytest.importorskip("ai_edge_litert", reason="needs LiteRT")
    out = pictures / "run"
    options = {"scale": 2, "patch": 8, "features": 8, "shrunk": 4, "layers": 1}
    args = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    args += ["--space", "super_resolution", "--macs", "100k", "--data", str(pictures)]
    args += ["--cycles", "5k"]
    args += ["--searcher", "udc", "--option", "epochs=1", *FAST]
    code, text, err = cli("search", *args, "--out", str(out))
    assert (code, err) == (0, "")
    assert "udc on super_resolution within 100000 macs, seed 0: best of 1 trials" in text
    assert "validation dB" in text
    assert re.search(r"total_cycles [1-4],\d\d\d of 5,000 on ethos-u55-128", text)
    assert json.loads((out / "result.json").read_text())["best"]["costs"]["macs"] <= 100_000
    code, text, err = cli("finetune", str(out), "--data", str(pictures), "--epochs", "1")
    assert (code, err) == (0, "")
    assert "Set5_psnr with int8 maps: " in text
    deployed = ("deploy", str(out / "finetune"), "--data", str(pictures), "--samples", "2")
    code, text, err = cli(*deployed, "--json")
    assert (code, err) == (0, "")
    assert json.loads(text)["runtimes"][0]["psnr"] > 5


def test_what_a_strategy_found_is_left_to_finetune(cli, parts, tmp_path):
    args = ("--searcher", "udc", "--option", "epochs=1", "--size", "1KB", "--evaluator", "none")
    code, text, err = cli("search", *args, "--no-plot", "--out", str(tmp_path))
    assert (code, err) == (0, "")
    assert "best of 1 trials" in text
    found = json.loads((tmp_path / "result.json").read_text())
    assert (found["test"], found["best"]["n_images"]) == (None, 0)
    assert found["best"]["search_images"] > 0
    code, text, err = cli("finetune", str(tmp_path), "--epochs", "1", "--threads", "1")
    assert (code, err) == (0, "")
    trained = json.loads((tmp_path / "finetune" / "results.json").read_text())
    assert (trained["choices"], trained["data_set"]) == (found["best"]["choices"], "digits")


def test_progress_of_a_search_that_trains_itself(cli, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    args = ("search", "--searcher", "udc", "--option", "epochs=8", "--size", "1KB", "--no-plot")
    args += ("--evaluator", "none", "--out")
    code, _, err = cli(*args, str(tmp_path / "shown"))
    assert code == 0
    assert re.search(r"loss \S+ cost \S+ argmax \S+ entropy \S+ .*m\d+/33\x1b", err)
    assert "…" not in err  # all of it fits the terminal
    code, _, err = cli("--quiet", *args, str(tmp_path / "quiet"))
    assert (code, err) == (0, "")


def test_halving_trains_the_best_for_longer(cli, parts, tmp_path):
    args = ("search", "--searcher", "random", "--size", "1KB", "--trials", "2", "--no-plot")
    args += ("--epochs", "4", "--final-epochs", "1", "--halving", "eta=2,min_epochs=2")
    code, _, err = cli(*args, "--out", str(tmp_path / "run"))
    assert (code, err) == (0, "")
    found = trials(tmp_path / "run")
    assert [trial["metrics"]["epochs"] for trial in found] == [2, 2, 4]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["halving"] == {"epochs": 4, "eta": 2, "min_epochs": 2}
    assert (result["best"]["index"], result["n_images"]) == (2, 2 * 4 * 16 * 64)
    code, _, err = cli(*args, "--evaluator", "zero-cost", "--out", str(tmp_path / "other"))
    assert code == 2
    assert "evaluator to halve must be one that trains for epochs, got 'nwot'" in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--size", "1KB", "--option", "tournament=x"),
            "'tournament' of searcher 'evolution' must be of type int",
        ),
        (
            ("--size", "1KB", "--option", "tournament"),
            "an option must be written name=value, got 'tournament'",
        ),
        (("--size", "3KG"), "size must be a positive number and one of B, KB, KiB, MB, MiB"),
        (("--size", "5B"), "limit on size_bits must be at least 43 (5.4 B)"),
        (("--size", "1KB", "--space", "digit"), "did you mean 'digits'?"),
        (("--size", "1KB", "--searcher", "x"), "searcher must be one of bayes, evolution, "),
        (
            ("--size", "1KB", "--trials", "0"),
            "budget in trials must be more than 0 and finite, got 0",
        ),
        (("--size", "1KB", "--seed", "-1"), "seed must be at least 0, got -1"),
        (("--size", "1KB", "--epochs", "0"), "epochs must be at least 1, got 0"),
        (
            ("--size", "1KB", "--evaluator", "none"),
            "evaluator 'none' must go with a strategy that trains itself, got 'evolution'",
        ),
        (
            ("--size", "1KB", "--searcher", "udc", "--evaluator", "none", "--epochs", "3"),
            "--epochs must go with an evaluator that trains, got 'none'",
        ),
        (
            ("--size", "1KB", "--workers", "2"),
            "workers of searcher 'evolution' must be 1, since it",
        ),
        (("--size", "1KB", "--workers", "0"), "workers must be at least 1, got 0"),
        (
            ("--size", "1KB", "--device", "cuda", "--ray", "auto"),
            "--device must be cpu with --ray, got cuda",
        ),
        (("--cycles", "1M"), "one of --size, --flash and --macs must be given, got none"),
        (("--size", "1KB", "--cycles", "x"), "--cycles must be a positive number such as 1500, "),
        (("--size", "1KB", "--sram", "5"), "size must be a positive number and one of B, KB"),
        (("--flash", "1KG"), "size must be a positive number and one of B, KB, KiB, MB, MiB"),
        (("--size", "1KB", "--sram", "9KB", "--npu", "u55"), "npu must be one of"),
        (("--macs", "x"), "--macs must be a positive number such as 1500, 1.5k or 50M, got 'x'"),
        (("--size", "1KB", "-o", "widths"), "option of a space must be KEY=VALUE, got 'widths'"),
        (("--size", "1KB", "-o", "wide=1"), "options of space 'digits' must be ones it has"),
        (
            ("--size", "9MB", "--space", "cifar100", "--data", "/nowhere"),
            "data set 'cifar100' must have /nowhere/cifar-100-python/train",
        ),
        (
            ("--size", "1KB", "--data-set", "bsds200", "--data", "/nowhere"),
            "data set 'bsds200' must have /nowhere/sr/BSDS200",
        ),
    ],
)
def test_search_refuses_bad_input_and_writes_nothing(cli, parts, tmp_path, args, message):
    code, text, err = cli("search", "--out", str(tmp_path / "run"), *args)
    assert (code, text) == (2, "")
    assert err.startswith("npusim: ")
    assert message in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("module", "extra"), [("torch", "search"), ("matplotlib", "plot")])
def test_missing_parts_are_named(cli, monkeypatch, tmp_path, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = cli("search", "--size", "1KB", "--out", str(tmp_path / "run"))
    assert code == 2
    assert f"must have the extra [{extra}] installed" in err
    assert not (tmp_path / "run").exists()


def test_commands_and_packages_import_nothing_heavy():
    code = (
        "import sys, searchers.cli, searchers.bench.cli, searchers.report, spaces.digits\n"
        "import searchers.random_search, searchers.evolution, searchers.data, spaces.moves\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'matplotlib', 'networkx', 'numba', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_workers_change_no_trial(cli, parts, tmp_path):
    args = ("search", "--searcher", "random", "--size", "1KB", "--trials", "3", *FAST)
    assert cli(*args, "--out", str(tmp_path / "alone"))[0] == 0
    code, text, _ = cli(*args, "--workers", "2", "--out", str(tmp_path / "both"))
    assert code == 0
    assert "random on digits within 1.00 KB, seed 0: best of 3 trials" in text
    assert trials(tmp_path / "both") == trials(tmp_path / "alone")


def start(*args: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "npusim", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_trials(process: subprocess.Popen, directory: Path, n: int) -> None:
    deadline = time.monotonic() + 120
    while sum(count_trials(path.parent) for path in directory.rglob(TRIALS)) < n:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no trials in time"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_search_goes_on(cli, parts, tmp_path, sent, code):
    args = ("search", "--size", "1KB", "--trials", "5", "--epochs", "4", "--final-epochs", "1")
    process = start(*args, "--out", str(tmp_path / "run"))
    wait_for_trials(process, tmp_path / "run", 2)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.strip() == ("npusim: interrupted" if sent == signal.SIGINT else "")
    begun = trials(tmp_path / "run")
    assert 2 <= len(begun) < 5
    assert not (tmp_path / "run" / "result.json").exists()
    assert cli(*args, "--out", str(tmp_path / "run"))[0] == 0
    assert cli(*args, "--out", str(tmp_path / "undisturbed"))[0] == 0
    assert trials(tmp_path / "run") == trials(tmp_path / "undisturbed")
    assert trials(tmp_path / "run")[: len(begun)] == begun
