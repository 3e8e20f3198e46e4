# SPDX-License-Identifier: Apache-2.0
"""From probabilities to a candidate within every limit; UDC as a searcher, and as a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from planted import Planted
from test_udc_search import stripes

import searchers
import spaces
from npusim.errors import ConfigError, InfeasibleError
from searchers.base import Budget, History, SearchContext
from searchers.base import run as run_loop
from searchers.udc.result import decode, scores_of
from searchers.udc.streams import stored
from searchers.udc.supernet import Supernet
from spaces.base import Space
from spaces.concrete import concrete_layers
from spaces.costs import cost, costs
from spaces.digits import digits
from spaces.estimate import estimate
from spaces.feasible import enumerate_all
from spaces.limits import Limit
from spaces.npu_limits import NpuLimit

sys.path.insert(0, str(Path(__file__).parents[1] / "spaces"))
from random_spaces import small_spaces

SPACE = digits()
LIMIT = Limit.size("1.5KB")


def random_log_pi(space: Space, seed: int, spread: float = 3.0) -> np.ndarray:
    n_columns = max(1, *space.n_options.tolist(), 1)
    logits = np.random.default_rng(seed).normal(0, spread, (len(space.decisions), n_columns))
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


class TestDecode:
    @given(space=small_spaces(), seed=st.integers(0, 999), part=st.floats(0, 1))
    @settings(deadline=None, derandomize=True, max_examples=60)
    def test_is_the_likeliest_within_the_limit(self, space, seed, part):
        rows = enumerate_all(space)
        sizes = costs(space, rows, "size_bits")
        assume(sizes.min() > 0)
        limit = Limit("size_bits", int(sizes.min() + part * (sizes.max() - sizes.min())))
        log_pi = random_log_pi(space, seed)
        found = decode(space, [limit], log_pi, fill=0.0)
        assert limit.allows(space, found.candidate)
        values = scores_of(space, log_pi)
        total = np.zeros(len(rows))
        for position, own in enumerate(values):
            effect = np.ones(len(rows), dtype=bool)
            if position in space.conditions:
                effect = space.conditions[position].at(lambda other: rows[:, other])
            total += own[rows[:, position]] * effect
        if found.how == "argmax":
            assert found.candidate == found.gamma
        else:
            assert not limit.allows(space, found.gamma)
            best = total[sizes <= limit.most].max()
            mine = total[(rows == found.candidate.choices).all(1)][0]
            assert mine == pytest.approx(best, abs=1e-9)

    @pytest.mark.parametrize("text", ["1.5KB", "0.8KB", "300B"])
    def test_fills_what_is_left_of_the_limit(self, text):
        limit = Limit.size(text)
        ways = set()
        for seed in range(40):
            found = decode(SPACE, [limit], random_log_pi(SPACE, seed), fill=0.97)
            size = cost(SPACE, found.candidate, "size_bits")
            assert 0.97 * limit.most <= size <= limit.most
            assert found.ratio == size / limit.most
            assert found.gamma_ratio == cost(SPACE, found.gamma, "size_bits") / limit.most
            ways.add(found.how)
        assert ways >= {"argmax+filled", "decoded"}

    def test_takes_the_most_likely_candidate_where_it_fits(self):
        candidate = SPACE.sample_feasible(np.random.default_rng(0), LIMIT)
        log_pi = np.full((len(SPACE.decisions), 11), -9.0)
        log_pi[np.arange(len(SPACE.decisions)), candidate.choices] = 0
        found = decode(SPACE, [LIMIT], log_pi, fill=0.0)
        assert (found.candidate, found.how, found.log_odds) == (candidate, "argmax", 0.0)

    def test_keeps_several_limits(self):
        for seed in range(15):
            limits = (LIMIT, Limit("macs", 12_000), Limit("n_parameters", 3000))
            found = decode(SPACE, limits, random_log_pi(SPACE, seed), fill=0.97)
            assert all(limit.allows(SPACE, found.candidate) for limit in limits)

    def test_refuses_what_nothing_meets(self):
        with pytest.raises(InfeasibleError, match="limit on size_bits must be at least 43"):
            decode(SPACE, [Limit("size_bits", 40)], random_log_pi(SPACE, 0), 0.97)
        with pytest.raises(InfeasibleError, match="limit on macs must be at least"):
            decode(SPACE, [LIMIT, Limit("macs", 5)], random_log_pi(SPACE, 0), 0.97)
        with pytest.raises(ConfigError, match="the first limit must be on what the space costs"):
            decode(SPACE, [NpuLimit("total_cycles", 10**6)], random_log_pi(SPACE, 0), 0.97)


class TestStored:
    def test_is_what_the_streams_of_these_weights_take(self):
        net = Supernet(SPACE, torch.Generator().manual_seed(0))
        rng = np.random.default_rng(0)
        for _ in range(4):
            candidate = SPACE.sample_feasible(rng, LIMIT)
            found = stored(net, candidate)
            # never less than the entropy of a mask alone, never as much as 9 bits a weight
            n_weights = sum(each.n_weights for each in concrete_layers(SPACE, candidate))
            assert found.stream_bytes % 16 == 0
            assert 0.25 * cost(SPACE, candidate, "size_bits") / 8 < found.stream_bytes
            assert found.stream_bytes < 16 * 32 * 4 + 9 * n_weights
            assert found.flash_bytes >= found.stream_bytes + 10 * 10

    def test_layers_of_one_shape_are_all_counted(self):
        space = spaces.get("cifar100", multiplier=1, depth=14)
        net = Supernet(space, torch.Generator().manual_seed(0))
        found = stored(net, space.largest())
        shapes = [each.n_weights for each in concrete_layers(space, space.largest())]
        assert shapes.count(9 * 64 * 64) == 3
        n_channels = sum(
            each.ofm_depth
            for each in concrete_layers(space, space.largest())
            if each.layer.weighted
        )
        assert found.flash_bytes >= found.stream_bytes + 10 * n_channels


class WithData(Planted):
    def search_data(self):
        return stripes(), stripes(32, 1)


def history(seed: int = 0, limit: Limit = LIMIT, trials: int = 4, directory=None, **options):
    found: History = run_loop(
        searchers.get("udc"),
        SPACE,
        limit,
        WithData(SPACE),
        Budget(trials=trials),
        seed=seed,
        options={"epochs": 2, "n_mc": 4, **options},
        context=SearchContext(WithData(SPACE).search_data, directory),
    )
    return found


class TestSearcher:
    def test_proposes_distinct_candidates_within_the_limit(self):
        found = history(trials=12)
        assert len({trial.candidate for trial in found}) == 12
        assert all(LIMIT.allows(SPACE, trial.candidate) for trial in found)
        first = found[0]
        assert first.search_images == 4 * 4 * 32
        assert first.search_metrics["ratio"] == first.costs["size_bits"] / LIMIT.most >= 0.97
        assert first.search_metrics["gamma_ratio"] > 0
        assert first.search_metrics["stream_bytes"] > 0
        assert found[1].search_images == 0

    def test_same_seed_same_history(self):
        assert [t.outcome for t in history(1)] == [t.outcome for t in history(1)]
        assert history(1)[0].candidate != history(2)[0].candidate

    def test_spends_no_more_than_it_may(self):
        found = run_loop(
            searchers.get("udc"), SPACE, LIMIT, WithData(SPACE), Budget(images=300), seed=0,
            options={"n_mc": 2}, context=SearchContext(WithData(SPACE).search_data),
        )  # fmt: skip
        assert found[0].search_images == 256

    def test_takes_up_what_it_finished(self, tmp_path):
        first = history(directory=tmp_path)
        folder = tmp_path / "searcher"
        names = {path.name for path in folder.iterdir()}
        assert names == {"checkpoint.pt", "trajectory.jsonl", "trajectory.png", "result.json"}
        lines = (folder / "trajectory.jsonl").read_text().splitlines()
        assert [json.loads(line)["t"] for line in lines] == [1, 2, 3, 4]
        kept = json.loads((folder / "result.json").read_text())
        assert kept["candidate"] == SPACE.options_of(first[0].candidate)
        assert sum(kept["pi"]["conv1.width"].values()) == pytest.approx(1)
        before = (folder / "checkpoint.pt").stat().st_mtime_ns
        assert [t.outcome for t in history(directory=tmp_path)] == [t.outcome for t in first]
        assert len((folder / "trajectory.jsonl").read_text().splitlines()) == 4
        assert (folder / "checkpoint.pt").stat().st_mtime_ns >= before

    @pytest.mark.parametrize("within", ["stream", "flash"])
    def test_counts_what_is_asked_for(self, within):
        limit = Limit.size("4KB")
        found = history(limit=limit, trials=2, within=within)
        assert 8 * found[0].search_metrics[f"{within}_bytes"] <= limit.most

    def test_refuses_a_flash_that_nothing_fits(self):
        with pytest.raises(InfeasibleError, match="limit on the flash must be at least"):
            history(limit=Limit.size("200B"), within="flash")

    def test_refuses_streams_of_anything_but_sizes(self):
        with pytest.raises(ConfigError, match="limit within the stream must be a size, got one on"):
            history(limit=Limit("macs", 20_000), within="stream")

    def test_takes_the_best_of_its_draws_by_shared_weights(self, monkeypatch, tmp_path):
        tried = []

        def score(net, task, validation):
            assert len(validation.labels) == 32
            return lambda each: tried.append(each) or {"accuracy": -cost(SPACE, each, "macs")}

        decoded = history(trials=1)[0].candidate
        monkeypatch.setattr("searchers.one_shot.scores.SharedScore", score)
        found = history(directory=tmp_path, trials=1, draws=12)[0]
        assert tried[0] == decoded
        assert len(set(tried)) == 13
        assert found.costs["macs"] == min(cost(SPACE, each, "macs") for each in tried)
        assert found.costs["macs"] < cost(SPACE, decoded, "macs")
        kept = json.loads((tmp_path / "searcher" / "result.json").read_text())
        assert kept["how"].endswith("+scored")
        assert kept["figures"]["ratio"] == found.costs["size_bits"] / LIMIT.most <= 1
        with pytest.raises(ConfigError, match=r"draws must be in 0..10000, got -1"):
            history(draws=-1)

    def test_keeps_what_was_decoded_where_no_draw_is_better(self, monkeypatch):
        monkeypatch.setattr("searchers.one_shot.scores.SharedScore", lambda *_: lambda _: {"x": 0})
        assert history(draws=3)[0].outcome[:2] == history()[0].outcome[:2]

    def test_keeps_further_limits(self):
        found = history(also="12k macs, 3k n_parameters", trials=3)
        assert all(trial.costs["macs"] <= 12_000 for trial in found)
        with pytest.raises(InfeasibleError, match="limit on macs must be at least"):
            history(also="1 macs")

    def test_keeps_limits_on_cycles_and_memory(self):
        plain = history(trials=1)[0].candidate
        costs = estimate(SPACE, plain)
        limits = (
            NpuLimit("total_cycles", int(0.8 * costs.total_cycles)),
            NpuLimit("sram_peak_bytes", costs.sram_peak_bytes),
        )
        found = history(also=", ".join(map(str, limits)), trials=3)
        assert all(limit.allows(SPACE, trial.candidate) for trial in found for limit in limits)
        assert not limits[0].allows(SPACE, plain)
        with pytest.raises(InfeasibleError, match="limits must be met together, got"):
            history(also="10 total_cycles")


class TestCommand:
    def test_searches_and_tests_what_it_found(self, cli, tmp_path):
        run = tmp_path / "run"
        words = f"search --space digits --searcher udc --size 1.5KB --out {run} --preset cpu"
        words += " --option epochs=1 --epochs 1 --final-epochs 1 --json"
        code, out, err = cli(*words.split())
        assert (code, err) == (0, "")
        result = json.loads(out)
        assert result["n_trials"] == 1
        assert result["options"]["preset"] == "cpu"
        assert result["best"]["costs"]["size_bits"] <= LIMIT.most
        assert (run / "searcher" / "trajectory.png").exists()
        assert json.loads((run / "best.json").read_text())["space"] == "digits"

    def test_presets_are_for_searchers_that_have_some(self, cli, tmp_path):
        words = f"search --searcher evolution --size 1KB --out {tmp_path / 'run'} --preset cpu"
        code, _, err = cli(*words.split())
        assert code == 2
        assert "option of searcher 'evolution' must be one of " in err
        assert "got 'preset'" in err
        assert not (tmp_path / "run").exists()

    @pytest.mark.slow
    def test_under_torchrun_it_finds_the_same(self, tmp_path):
        found = []
        launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
        for before, name in (([], "one"), (launch, "two")):
            run = tmp_path / name
            words = f"-m npusim search --searcher udc --size 1.5KB --out {run} --no-plot --epochs 1"
            words += " --option epochs=2 --option n_together=1 --final-epochs 1"
            subprocess.run([sys.executable, *before, *words.split()], check=True, timeout=600)
            found.append((run / "searcher" / "trajectory.jsonl").read_text())
            found.append((run / "best.json").read_text())
        assert found[:2] == found[2:]
