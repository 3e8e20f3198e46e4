# SPDX-License-Identifier: Apache-2.0
"""Trials that share devices: never beyond their memory, level, and estimated from above."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import Planted
from test_workers import LIMIT, SPACE, Uneven

import spaces
from npusim.errors import ConfigError
from searchers.base import Budget, Evaluation, run
from searchers.packing import Device, Packing, Placement, training_bytes
from searchers.random_search import RandomSearch
from searchers.training import recipes
from searchers.workers import Workers
from spaces.costs import cost

MEMORIES = st.lists(st.integers(1, 100), min_size=1, max_size=5)


def packing(*memory_bytes: int) -> Packing:
    return Packing([Device(f"cuda:{n}", each) for n, each in enumerate(memory_bytes)])


class TestPacking:
    @given(
        memories=MEMORIES,
        steps=st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=60),
    )
    @settings(deadline=None, derandomize=True)
    def test_fills_the_lowest_level_that_has_room_and_never_more_than_there_is(
        self, memories, steps
    ):
        found, placed = packing(*memories), {}
        for trial, (leaves, n) in enumerate(steps):
            if leaves and placed:
                gone = sorted(placed)[n % len(placed)]
                found.release(gone)
                del placed[gone]
            need = n % max(memories) + 1
            before = found.taken_bytes
            name = found.place(trial, need)
            room = [at for at, m in enumerate(memories) if before[at] + need <= m]
            if name is None:
                assert not room
                assert found.taken_bytes == before
            else:
                at = int(name.removeprefix("cuda:"))
                placed[trial] = at, need
                assert at in room
                level = [before[each] / memories[each] for each in room]
                assert before[at] / memories[at] == min(level)
            expected = [0] * len(memories)
            for device, taken in placed.values():
                expected[device] += taken
            assert found.taken_bytes == expected
            assert all(t <= m for t, m in zip(expected, memories, strict=True))

    @given(n_devices=st.integers(1, 6), n_trials=st.integers(0, 40), need=st.integers(1, 50))
    @settings(deadline=None, derandomize=True)
    def test_equal_trials_are_spread_over_equal_devices(self, n_devices, n_trials, need):
        found = packing(*[100] * n_devices)
        names = [found.place(trial, need) for trial in range(n_trials)]
        assert sum(name is not None for name in names) == min(n_trials, n_devices * (100 // need))
        counts = [each // need for each in found.taken_bytes]
        assert max(counts) - min(counts) <= 1

    def test_small_trials_share_what_a_large_one_leaves(self):
        found = packing(100, 100)
        assert [found.place(n, need) for n, need in enumerate((90, 40, 40, 40, 10, 20))] == [
            *("cuda:0", "cuda:1", "cuda:1", None),
            *("cuda:1", None),
        ]

    def test_refuses_what_can_never_be(self):
        with pytest.raises(ConfigError, match="memory of trial 0 must be at most the 90 bytes of"):
            packing(80, 90).place(0, 91)
        with pytest.raises(ConfigError, match="devices must be one or more, each once, got none"):
            Packing([])
        with pytest.raises(ConfigError, match="each once, got a, a"):
            Packing([Device("a", 1), Device("a", 2)])
        with pytest.raises(ConfigError, match="'a' must be at least 1 byte, got 0"):
            Device("a", 0)
        twice = packing(9)
        twice.place(0, 1)
        with pytest.raises(ConfigError, match="trial must be placed once, got 0 again"):
            twice.place(0, 1)


class OnDevice(Planted):
    """Takes a while, and says when and where it was."""

    device = "cpu:0"

    def evaluate(self, candidate, seed):
        start = time.monotonic()
        time.sleep(0.05)
        found = super().evaluate(candidate, seed)
        at = {"start": start, "end": time.monotonic(), "device": float(self.device[-1])}
        return Evaluation(found.score, at, found.n_images)


def need(candidate) -> int:
    return cost(SPACE, candidate, "macs")


def history(evaluator, pool, trials):
    return run(RandomSearch, SPACE, LIMIT, evaluator, Budget(trials=trials), seed=0, pool=pool)


class TestWorkers:
    def test_run_as_many_at_once_as_have_room(self):
        memories = (140_000, 200_000)
        place = Placement(packing(*memories), need)
        with Workers(partial(OnDevice, SPACE), 6, place) as pool:
            found = run(
                RandomSearch, SPACE, LIMIT, OnDevice(SPACE), Budget(trials=24), seed=0, pool=pool
            )
        alone = run(RandomSearch, SPACE, LIMIT, OnDevice(SPACE), Budget(trials=24), seed=0)
        assert [t.score for t in found] == [t.score for t in alone]
        shared = False
        for trial in found:
            at = trial.metrics
            beside = [
                other.candidate
                for other in found
                if other.metrics["device"] == at["device"]
                and other.metrics["start"] <= at["start"] < other.metrics["end"]
            ]
            shared |= len(beside) > 1
            assert sum(map(need, beside)) <= memories[int(at["device"])]
        assert shared
        assert {t.metrics["device"] for t in found} == {0.0, 1.0}
        assert place.packing.taken_bytes == [0, 0]

    def test_a_dead_worker_gives_back_its_memory(self, tmp_path):
        (tmp_path / "a").touch()
        place = Placement(packing(10), lambda candidate: 10)
        with Workers(partial(Uneven, SPACE, tmp_path), 2, place) as pool:
            found = run(
                RandomSearch, SPACE, LIMIT, Uneven(SPACE), Budget(trials=8), seed=0, pool=pool
            )
        assert not list(tmp_path.iterdir())
        assert len(found) == 8
        assert place.packing.taken_bytes == [0]

    def test_a_trial_that_fits_nowhere_is_named(self):
        place = Placement(packing(10), lambda candidate: 11)
        with (
            Workers(partial(Planted, SPACE), 2, place) as pool,
            pytest.raises(ConfigError, match="must be at most the 10 bytes of the largest device"),
        ):
            history(Planted(SPACE), pool, 3)


PEAK = """
import gc
from pathlib import Path
import numpy as np, torch
import spaces
from searchers.data import Split
from searchers.training import recipes
from searchers.training.loop import Training
from searchers.training.tasks import Classification
from spaces.nets import build

torch.set_num_threads(1)
space = spaces.get("cifar100", multiplier=1, depth=8)
rng = np.random.default_rng(0)

def status(name):
    return 1024 * int(Path("/proc/self/status").read_text().partition(name)[2].split()[0])

def train(n):
    recipe = recipes.get("cifar100").but(epochs=1, batch_size=n)
    images = rng.integers(0, 255, (2 * n, 32, 32, 3)).astype(np.uint8)
    data = Split(images, rng.integers(0, 100, 2 * n))
    before = status("VmRSS:")
    net = build(space, space.largest(), torch.Generator().manual_seed(0), True)
    Training(net, Classification(data, recipe, torch.device("cpu")), recipe, 0).run()
    return status("VmHWM:") - before

train(4)
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
print(train(128))
"""


class TestEstimate:
    @pytest.mark.slow
    def test_is_above_the_real_peak_and_of_its_order(self):
        pytest.importorskip("torch", reason="needs torch to train")
        if not Path("/proc/self/clear_refs").exists():
            pytest.skip("needs Linux to measure the peak of a process")
        done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        space = spaces.get("cifar100", multiplier=1, depth=8)
        recipe = recipes.get("cifar100").but(batch_size=128)
        found = training_bytes(space, space.largest(), recipe)
        assert 1 <= found / int(done.stdout) <= 3

    @given(seed=st.integers(0, 1000))
    @settings(deadline=None, derandomize=True, max_examples=20)
    def test_grows_with_all_that_takes_memory(self, seed):
        recipe = recipes.get("digits")
        drawn = SPACE.sample(np.random.default_rng(seed))
        found = training_bytes(SPACE, drawn, recipe)
        assert found <= training_bytes(SPACE, SPACE.largest(), recipe)
        assert found < training_bytes(SPACE, drawn, recipe.but(batch_size=128))
        assert found > training_bytes(SPACE, drawn, recipe.but(optimizer="sgd"))

    def test_counts_patches_rather_than_the_space_s_image(self):
        space = spaces.get("super_resolution", patch=64)
        recipe = recipes.get("div2k")
        small = training_bytes(space, space.largest(), recipe.but(patch=16))
        large = training_bytes(space, space.largest(), recipe.but(patch=32))
        weights = training_bytes(space, space.largest(), recipe.but(patch=1))
        assert (large - weights) / (small - weights) == pytest.approx(4, rel=0.02)
