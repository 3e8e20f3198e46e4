# SPDX-License-Identifier: Apache-2.0
"""The commands ``npusim train`` and ``npusim finetune``: results, going on, wrong input."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from npusim.cli import main
from spaces.digits import digits

pytest.importorskip("sklearn", reason="needs scikit-learn for the digits")
torch = pytest.importorskip("torch", reason="needs torch to train")

SPACE = digits()
SMALL = ["--threads", "1", "--set", "batch_size=100"]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory):
    by_kind = {"width": 0.5, "bitwidth": 4, "sparsity": 0.5}
    options = {decision.name: by_kind[decision.kind] for decision in SPACE.decisions}
    path = tmp_path_factory.mktemp("candidate") / "candidate.json"
    path.write_text(SPACE.to_json(SPACE.from_options(options)))
    return str(path)


@dataclass
class Called:
    exit_code: int
    output: str


@pytest.fixture
def call(capsys):
    """Runs the command line in this process."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        return Called(stop.value.code or 0, out + err)

    return run


def test_training_writes_the_network_the_log_and_the_results(call, tmp_path, candidate):
    from spaces.nets.files import load_net

    out = tmp_path / "out"
    found = call("train", "--candidate", candidate, "--out", out, "--epochs", 3, *SMALL)
    assert found.exit_code == 0, found.output
    assert "weights kept" in found.output
    assert sorted(path.name for path in out.iterdir()) == [
        *("log.csv", "net.pt", "results.json", "training.json")
    ]
    results = json.loads((out / "results.json").read_text())
    assert results["recipe"]["epochs"] == 3
    assert results["recipe"]["batch_size"] == 100
    assert results["n_steps"] == 3 * (1437 // 100)
    assert 0.5 < results["scores"]["float_maps"]["accuracy"] <= 1
    difference = (
        results["scores"]["int8_maps"]["accuracy"] - results["scores"]["float_maps"]["accuracy"]
    )
    assert abs(difference) < 0.05
    assert results["cpu_s"] > 0
    with (out / "log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    net = load_net(out / "net.pt", SPACE)
    assert results["n_nonzero"] == sum(int(w.mask.sum()) for w in net.weights().values())
    again = call("train", "--candidate", candidate, "--out", out, "--epochs", 3, "--json", *SMALL)
    assert json.loads(again.output) == results
    other = call("train", "--candidate", candidate, "--out", out, "--epochs", 4, *SMALL)
    assert other.exit_code == 2
    assert other.output.strip().endswith("training: recipe.epochs must be 3, got 4")


def test_networks_start_from_others(call, tmp_path, candidate):
    first, second = tmp_path / "first", tmp_path / "second"
    assert call("train", "--full", "--float", "--out", first, "--epochs", 6, *SMALL).exit_code == 0
    arguments = ["--candidate", candidate, "--epochs", 1, *SMALL]
    found = call("train", *arguments, "--start", first / "net.pt", "--out", second)
    assert found.exit_code == 0, found.output
    loss = json.loads((second / "results.json").read_text())["loss"]
    assert call("train", *arguments, "--out", tmp_path / "third").exit_code == 0
    assert loss != json.loads((tmp_path / "third" / "results.json").read_text())["loss"]


def test_searches_are_finetuned(call, tmp_path):
    run = tmp_path / "run"
    search = ["--searcher", "random", "--size", "1KB", "--trials", 1, "--epochs", 1]
    search += ["-o", "bitwidths=[4,8]"]
    search += ["--final-epochs", 1, "--no-plot"]
    assert call("search", *search, "--out", run).exit_code == 0
    found = call("finetune", run, "--epochs", 1, "--tensorboard", *SMALL)
    assert found.exit_code == 0, found.output
    results = json.loads((run / "finetune" / "results.json").read_text())
    best = digits(bitwidths=(4, 8)).from_json((run / "best.json").read_text())
    assert results["choices"] == list(best.choices)
    assert list((run / "finetune").glob("events.out.*"))
    header = json.loads((run / "run.json").read_text())
    header["space"]["hash"] = "0" * 16
    (run / "run.json").write_text(json.dumps(header))
    found = call("finetune", run, "--out", tmp_path / "other")
    assert found.exit_code == 2
    assert "definition of space 'digits' must be of hash 0000000000000000, got one" in found.output


@pytest.mark.parametrize(
    ("number", "interval", "awaited"),
    [(signal.SIGKILL, "0.001", "checkpoint.pt"), (signal.SIGINT, "3600", "training.json")],
)
def test_a_killed_or_interrupted_training_goes_on_to_the_same_network(
    call, tmp_path, candidate, number, interval, awaited
):
    from spaces.nets.files import read_state

    command = [sys.executable, "-m", "npusim", "train", "--candidate", candidate, "--epochs", "6"]
    command += [*SMALL, "--checkpoint-interval", interval]
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, "--out", killed], stderr=subprocess.PIPE, text=True)
    while not (killed / awaited).exists():
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, number)
    _, said = process.communicate()
    if number == signal.SIGINT:
        assert (process.returncode, said.strip()) == (130, "npusim: interrupted")
    assert not (killed / "results.json").exists()
    done = read_state(killed / "checkpoint.pt", "npusim.checkpoint")["training"]["progress"]["step"]
    assert 0 < done < 6 * 14
    nets = []
    for out in (killed, tmp_path / "whole"):
        found = call("train", "--candidate", candidate, "--epochs", 6, *SMALL, "--out", out)
        assert found.exit_code == 0, found.output
        nets.append(read_state(out / "net.pt", "npusim.net")["state"])
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--candidate or --full must be given, and not both, got neither"),
        (["--full", "--candidate", "x.json"], "and not both, got both"),
        (["--candidate", "x.json"], "candidate file must be readable, got"),
        (["--full", "--space", "digit"], "did you mean 'digits'?"),
        (["--full", "--option", "widths"], "option of a space must be KEY=VALUE, got 'widths'"),
        (["--full", "--recipe", "mine"], "recipe must be one of cifar100, digits"),
        (["--full", "--set", "epoch=3"], "did you mean 'epochs'?"),
        (["--full", "--set", "epochs=three"], "epochs must be of type int, got 'three'"),
        (["--full", "--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--full", "--seed", "-1"], "seed must be at least 0, got -1"),
        (["--full", "--device", "npu"], "--device must be cpu or cuda, got 'npu'"),
        (["--full", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["--full", "--processes", "0"], "--processes must be at least 1, got 0"),
        (["--full", "--checkpoint-interval", "0"], "--checkpoint-interval must be more than 0"),
        (["--full", "--start", "none.pt"], "npusim.net must be readable, got"),
        (["--full", "--data-set", "mnist"], "recipe must be one of"),
        (["--full", "--set", "batch_size=5000"], "batch_size must be at most the 1437 samples"),
        (["--full", "--space", "cifar100", "--data", "."], "must have cifar-100-python"),
        (["--full", "--data-set", "cifar100"], "must be read from a directory"),
    ],
)
def test_wrong_input_is_refused_by_name(call, arguments, message, tmp_path, monkeypatch):
    monkeypatch.delenv("NPUSIM_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    found = call("train", "--out", tmp_path / "out", *arguments)
    assert found.exit_code == 2, found.output
    assert message in found.output
    assert not (tmp_path / "out").exists()


def test_wrong_directories_are_refused(call, tmp_path, candidate):
    found = call("finetune", tmp_path)
    assert found.exit_code == 2
    assert "RUN must be the directory of a finished search, got no" in found.output
    (tmp_path / "file").write_text("")
    found = call("train", "--full", "--out", tmp_path / "file")
    assert found.exit_code == 2
    assert "training directory must be a directory, got file" in found.output
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "training.json").write_text('{"format": "other"}')
    found = call("train", "--full", "--out", tmp_path / "out")
    assert found.exit_code == 2
    assert "must be npusim.training version 1, got" in found.output


def test_a_corrupted_checkpoint_is_refused(call, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint.pt").write_bytes(b"npusim.checkpoint 1 00\nx")
    found = call("train", "--full", "--out", out)
    assert found.exit_code == 2
    assert "checkpoint.pt must have the digest of its content" in found.output
