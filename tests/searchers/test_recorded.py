# SPDX-License-Identifier: Apache-2.0
"""The recorded benchmark: its file, what is looked up in it, and how it is recorded."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spaces
from npusim.cli import main
from npusim.errors import ConfigError, FormatError
from searchers.base import Budget, run
from searchers.page_runs import section_of
from searchers.random_search import RandomSearch
from searchers.recorded import (
    CURVES,
    DEPLOYED,
    EPOCHS,
    NPU,
    PATH,
    RecordedEvaluator,
    Table,
    named,
    read,
    recorded,
    write,
)
from searchers.stored import read_run
from spaces.costs import costs
from spaces.estimate import estimate
from spaces.feasible import enumerate_all
from spaces.limits import Limit

SPACE = spaces.get("digits_recorded")
BENCH = Path(__file__).parents[2] / "benches" / "recorded.py"


@pytest.fixture(scope="module")
def made() -> Table:
    """A table of random numbers, of two trainings and three epochs."""
    rng, n = np.random.default_rng(0), SPACE.count()
    header = {
        **{"space": SPACE.name, "space_hash": SPACE.content_hash, "npu": NPU, "provenance": {}},
        **{"epochs": [1, 2, 4], "seeds": [0, 1], "n_validation": 200, "n_test": 100},
        "n_epoch_images": 1024,
    }
    curves = {name: rng.integers(0, 100, (n, 2, 3)).astype(np.uint8) for name in CURVES}
    deployed = {name: rng.integers(0, 9999, (n, 2)).astype(np.uint16) for name in DEPLOYED}
    return Table(header, enumerate_all(SPACE).astype(np.uint8), **curves, **deployed)


@pytest.fixture(scope="module")
def bench():
    """The script that records, as a module."""
    pytest.importorskip("torch", reason="needs torch to train")
    pytest.importorskip("sklearn", reason="needs scikit-learn's digits")
    loaded = importlib.util.spec_from_file_location("recorded_bench", BENCH)
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    return module


def changed(path: Path, header: dict) -> Path:
    """The file with other values in its header."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["header.json"] = json.dumps(json.loads(members["header.json"]) | header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


class TestFile:
    def test_round_trip(self, made, tmp_path):
        write(made, tmp_path / "a.npz")
        found = read(tmp_path / "a.npz", SPACE)
        assert found.header == made.header
        assert found.digest == made.digest
        for name in ("choices", *CURVES, *DEPLOYED):
            np.testing.assert_array_equal(getattr(found, name), getattr(made, name))
        write(found, tmp_path / "b.npz")
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]

    def test_numpy_reads_it_too(self, made, tmp_path):
        write(made, tmp_path / "a.npz")
        with np.load(tmp_path / "a.npz") as found:
            np.testing.assert_array_equal(found["validation"], made.validation)

    @pytest.mark.parametrize("position", [100, 2000, -3000])
    def test_a_changed_byte_is_refused(self, made, tmp_path, position):
        path = tmp_path / "a.npz"
        write(made, path)
        content = bytearray(path.read_bytes())
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"must be a recorded table|must have the digest"):
            read(path, SPACE)

    def test_a_changed_figure_is_refused(self, made, tmp_path):
        path = tmp_path / "a.npz"
        write(made, path)
        with pytest.raises(FormatError, match=r"must have the digest .* corrupted"):
            read(changed(path, {"n_test": 99}), SPACE)

    def test_another_version_is_refused(self, made, tmp_path):
        path = tmp_path / "a.npz"
        write(made, path)
        with pytest.raises(FormatError, match=r"must be npusim.recorded version 1, got .* 2"):
            read(changed(path, {"version": 2}), SPACE)

    def test_another_space_is_refused(self, made, tmp_path):
        write(made, tmp_path / "a.npz")
        with pytest.raises(FormatError, match=r"must be of space 'digits' .* got one of 'digits_r"):
            read(tmp_path / "a.npz", spaces.get("digits"))

    def test_a_missing_candidate_is_refused(self, made, tmp_path):
        arrays = {name: getattr(made, name)[1:] for name in ("choices", *CURVES, *DEPLOYED)}
        write(replace(made, **arrays), tmp_path / "a.npz")
        with pytest.raises(FormatError, match="must have every candidate of space"):
            read(tmp_path / "a.npz", SPACE)

    def test_another_file_is_refused(self, tmp_path):
        (tmp_path / "a.npz").write_bytes(b"no table")
        np.savez(tmp_path / "b.npz", validation=np.zeros(3))
        for name in ("a.npz", "b.npz", "c.npz"):
            with pytest.raises(FormatError, match=f"{name} must be a recorded table, got"):
                read(tmp_path / name, SPACE)


class TestEvaluator:
    def test_a_trial_is_one_of_the_trainings(self, made):
        evaluator = RecordedEvaluator(SPACE, table=made)
        row = 77
        candidate = SPACE.candidate(made.choices[row].tolist())
        drawn = [evaluator.evaluate(candidate, seed) for seed in range(60)]
        expected = (made.validation[row, :, -1] / 200).tolist()
        assert {each.score for each in drawn} == set(expected)
        share = np.mean([each.score == expected[0] for each in drawn])
        assert share == pytest.approx(0.5, abs=0.2)  # three standard deviations
        for each in drawn:
            column = expected.index(each.score)
            assert each.n_images == 4 * 1024
            assert each.metrics["train_s"] == made.train_ms[row, column, -1] / 1000
            for name in DEPLOYED:
                assert each.metrics[name] == getattr(made, name)[row, column]
        assert evaluator.evaluate(candidate, 3) == evaluator.evaluate(candidate, 3)

    def test_without_noise_it_is_their_mean(self, made):
        evaluator = named(SPACE, "2:mean")
        assert evaluator.identity() | {"table": ""} == {
            **{"evaluator": "recorded", "tabular": True, "table": ""},
            **{"epochs": 2, "noise": False},
        }
        evaluator = RecordedEvaluator(SPACE, 2, noise=False, table=made)
        found = [evaluator.evaluate(SPACE.largest(), seed) for seed in range(5)]
        assert {each.score for each in found} == {made.validation[-1, :, 1].mean() / 200}
        assert found[0].n_images == 2 * 1024
        assert found[0].metrics["cycles"] == made.cycles[-1].mean()

    def test_results_are_tested_by_the_mean_of_all_trainings(self, made):
        for epochs in (1, 4):
            evaluator = RecordedEvaluator(SPACE, epochs, table=made)
            mean = made.test[-1, :, -1].mean() / 100
            assert evaluator.test(SPACE.largest(), 5).metrics == {"accuracy": mean}
            assert evaluator.expected(SPACE.largest()) == mean

    def test_the_optimum_is_the_best_of_all_within(self, made):
        evaluator, limit = RecordedEvaluator(SPACE, table=made), Limit.size("0.6KB")
        within = [each for each in SPACE.enumerate() if limit.allows(SPACE, each)]
        assert 10 < len(within) < 300
        assert evaluator.optimum(limit) == max(evaluator.expected(each) for each in within)

    def test_other_epochs_are_refused(self, made):
        with pytest.raises(
            ConfigError, match="of evaluator 'recorded' must be one of 1, 2, 4, got"
        ):
            RecordedEvaluator(SPACE, 3, table=made)

    def test_other_spaces_are_refused(self, made):
        with pytest.raises(ConfigError, match="space of evaluator 'recorded' must be 'digits_rec"):
            RecordedEvaluator(spaces.get("digits"), table=made)
        with pytest.raises(ConfigError, match="candidate must be of space 'digits_recorded'"):
            RecordedEvaluator(SPACE, table=made).evaluate(spaces.get("digits").largest(), 0)

    @pytest.mark.parametrize("argument", ["x", "8:9", "mean:8", "-1", "8:mean:mean"])
    def test_other_arguments_are_refused(self, argument):
        with pytest.raises(ConfigError, match=r"must be recorded\[:EPOCHS\]\[:mean\], got 'rec"):
            named(SPACE, argument)

    @pytest.mark.parametrize(
        ("argument", "epochs", "noise"),
        [("", EPOCHS[-1], True), ("mean", EPOCHS[-1], False), ("2", 2, True), ("4:mean", 4, False)],
    )
    def test_arguments(self, argument, epochs, noise):
        found = named(SPACE, argument)
        assert (found.epochs, found.noise) == (epochs, noise)


class TestThatOfNpusim:
    def test_is_small_and_whole(self):
        table = recorded()
        assert PATH.stat().st_size < 1_000_000
        assert table.validation.shape == (SPACE.count(), len(table.header["seeds"]), len(EPOCHS))
        assert tuple(table.header["epochs"]) == EPOCHS
        assert set(table.header["provenance"]) >= {"commit", "date", "machine", "torch"}
        for name in ("validation", "test"):
            counts = getattr(table, name)
            assert counts.max() <= table.header[f"n_{name}"]
            assert counts[:, :, -1].mean() > 1.2 * counts[:, :, 0].mean()  # they learn
        assert (np.diff(table.train_ms.astype(int), axis=2) > 0).all()

    def test_is_read_without_torch(self):
        code = (
            "import sys; from searchers.recorded import recorded; recorded();"
            "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_says_what_training_gives(self):
        """The same on the machine of the table; elsewhere sums are rounded otherwise."""
        pytest.importorskip("torch", reason="needs torch to train")
        pytest.importorskip("sklearn", reason="needs scikit-learn's digits")
        from searchers.evaluators import TrainConfig
        from searchers.training.evaluator import TrainEvaluator

        table, row = recorded(), 700
        candidate = SPACE.candidate(table.choices[row].tolist())
        trained = TrainEvaluator(SPACE, TrainConfig(epochs=EPOCHS[-1])).evaluate(candidate, 1)
        column = table.header["seeds"].index(1)
        kept = table.validation[row, column, -1] / table.header["n_validation"]
        assert trained.score == pytest.approx(kept, abs=0.03)
        assert trained.n_images == RecordedEvaluator(SPACE).evaluate(candidate, 0).n_images

    def test_deployed_networks_cost_about_what_is_estimated(self):
        """Estimates have a bound on the weights' entropy for what Arm's compiler writes."""
        table, rng = recorded(), np.random.default_rng(0)
        sizes = costs(SPACE, table.choices.astype(np.int64), "size_bits")
        assert np.corrcoef(sizes, table.stream_bytes.mean(axis=1))[0, 1] > 0.95
        for row in rng.choice(len(sizes), 5, replace=False):
            found = estimate(SPACE, SPACE.candidate(table.choices[row].tolist()), NPU)
            assert table.flash_bytes[row] / found.flash_bytes == pytest.approx(1.1, abs=0.7)
            assert table.cycles[row] / found.total_cycles == pytest.approx(1.1, abs=0.5)

    def test_more_trials_come_nearer_to_the_optimum(self):
        evaluator, limit = RecordedEvaluator(SPACE), Limit.size("0.8KB")

        def regret(trials: int) -> float:
            best = [
                run(RandomSearch, SPACE, limit, evaluator, Budget(trials=trials), seed=seed).best()
                for seed in range(40)
            ]
            tests = [evaluator.expected(each.candidate) for each in best]
            return evaluator.optimum(limit) - float(np.mean(tests))

        assert 0 < regret(40) < 0.7 * regret(2)


class TestCommands:
    """Every output says that it is tabular."""

    @pytest.fixture
    def cli(self, capsys):
        def call(*args: str) -> tuple[int, str, str]:
            with pytest.raises(SystemExit) as exit_:
                main(args)
            out, err = capsys.readouterr()
            return exit_.value.code, out, err

        return call

    def test_bench(self, cli, tmp_path):
        for name in ("scipy", "tomli_w", "matplotlib"):
            pytest.importorskip(name, reason=f"needs {name}")
        args = ("--seeds", "3", "--trials", "5", "--searchers", "random,local", "--workers", "1")
        code, text, err = cli("bench", "recorded", *args, "--out", str(tmp_path))
        assert (code, err) == (0, "")
        assert "test scores over seeds (tabular)" in text
        assert "Tabular: accuracies of digits_recorded are looked up in a table" in text
        found = json.loads((tmp_path / "results.json").read_text())
        assert [each["is_tabular"] for each in found["problems"]] == [True, True]
        assert "tabular" in found["problems"][0]["evaluator"]
        for problem in found["problems"]:
            optimum = RecordedEvaluator(SPACE).optimum(Limit(**problem["limit"]))
            assert problem["optimum"] == optimum
            for row in problem["rows"]:
                assert row["regret"]["mean"] == pytest.approx(optimum - row["test"]["mean"])
                assert row["n_within"] == row["n"]
        assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

    def test_search(self, cli, tmp_path):
        pytest.importorskip("matplotlib", reason="needs matplotlib")
        args = ("search", "--space", "digits_recorded", "--size", "1KB", "--trials", "4")
        args += ("--evaluator", "recorded:2", "--out", str(tmp_path))
        code, text, err = cli(*args)
        assert (code, err) == (0, "")
        assert "on digits_recorded (tabular) within 1.00 KB" in text
        assert "tabular: nothing was trained, accuracies are those of one training" in text
        found = json.loads((tmp_path / "result.json").read_text())
        assert found["is_tabular"] is True
        assert found["n_images"] == 4 * 2 * 1024
        assert found["test"]["accuracy"] == RecordedEvaluator(SPACE).expected(
            SPACE.candidate(found["best"]["choices"])
        )
        header = json.loads((tmp_path / "run.json").read_text())
        assert header["evaluator"]["tabular"] is True
        (row,) = section_of({"mine": read_run(tmp_path)}).data["runs"]["evaluator"]
        assert row == "recorded (tabular)"

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (("--evaluator", "recorded:5"), "must be one of 1, 2, 3, 4, 6, 8, got 5"),
            (("--evaluator", "recorded", "--space", "digits"), "must be 'digits_recorded'"),
            (
                ("--evaluator", "recorded", "--epochs", "8"),
                "--epochs must go with an evaluator that trains, got 'recorded'",
            ),
            (
                ("--evaluator", "recorded:2", "--final-epochs", "9"),
                "--final-epochs must go with an evaluator that trains, got 'recorded:2'",
            ),
        ],
    )
    def test_what_was_not_recorded_is_refused(self, cli, tmp_path, args, message):
        out = tmp_path / "run"
        fixed = ("search", "--space", "digits_recorded", "--size", "1KB", "--out", str(out))
        code, text, err = cli(*fixed, *args, "--no-plot")
        assert (code, text) == (2, "")
        assert message in err
        assert not out.exists()


class TestRecording:
    def test_shards_are_all_of_it(self, bench):
        whole = bench.tasks(20, (0, 1))
        parts = [task for part in range(3) for task in bench.tasks(20, (part, 3))]
        assert sorted(parts) == sorted(whole)
        assert len(set(whole)) == len(whole) == 20 * len(bench.SEEDS)
        assert set(whole[:20]) == {(row, 0) for row in range(20)}

    def test_goes_on_after_a_line_that_was_cut_short(self, bench, tmp_path):
        path = tmp_path / "rows-0of2.jsonl"
        path.write_text('{"row": 1, "seed": 0}\n{"row": 2, "se')
        (tmp_path / "rows-1of2.jsonl").write_text('{"row": 3, "seed": 1}\n')
        assert set(bench.read_rows(tmp_path)) == {(1, 0), (3, 1)}
        bench.end_last_line(path)
        assert path.read_text() == '{"row": 1, "seed": 0}\n'
        bench.end_last_line(tmp_path / "missing")
        assert not (tmp_path / "missing").exists()

    def test_rows_come_from_one_place(self, bench, tmp_path):
        first = bench.same_origin(tmp_path / "x")
        assert bench.same_origin(tmp_path / "x") == first
        (tmp_path / "x" / "provenance.json").write_text(json.dumps({**first, "torch": "0.1"}))
        with pytest.raises(ConfigError, match="must come from one place, got other torch"):
            bench.same_origin(tmp_path / "x")

    def test_nothing_is_packed_while_rows_are_missing(self, bench, tmp_path):
        bench.same_origin(tmp_path)
        (tmp_path / "rows-0of1.jsonl").write_text('{"row": 1, "seed": 0}\n')
        n_missing = SPACE.count() * len(bench.SEEDS) - 1
        with pytest.raises(ConfigError, match=f"got {n_missing} too few"):
            bench.pack(tmp_path, tmp_path / "a.npz")
        assert not (tmp_path / "a.npz").exists()

    @pytest.mark.slow
    def test_trainings_done_again_give_the_same(self, bench):
        """On the machine and with the versions of the table."""
        here, there = bench.provenance(), recorded().header["provenance"]
        if any(here[name] != there[name] for name in ("machine", "torch", "numpy")):
            pytest.skip("the table is of another machine or other versions")
        assert bench.verify(20, seed=1) == 0
