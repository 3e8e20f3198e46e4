# SPDX-License-Identifier: Apache-2.0
"""Candidates evaluated on a Ray cluster of two nodes: the same results, whatever dies."""

from __future__ import annotations

import json
import os
import sys
import time
from functools import partial

import pytest
from test_workers import LIMIT, SPACE, Deadly, Uneven, Unlike, Wrong, history, jobs, outcomes

import searchers
from npusim.cli import main
from npusim.errors import ConfigError
from searchers.base import Budget, run
from searchers.ray_workers import RayWorkers
from searchers.workers import WorkerError

pytestmark = [
    pytest.mark.slow,  # a cluster takes as long to start as all the tests of its workers
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MEMORY = 80 * 2**20


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="needs Ray: pip install 'npusim[ray]'")
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join(each for each in sys.path if each))
    patch.setenv("RAY_worker_niceness", "0")  # else nothing moves on a busy machine
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    found.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield found
    found.shutdown()
    patch.undo()


def test_results_are_those_of_local_evaluation(cluster):
    cases = [("evolution", {"batch": 4, "population": 4}), ("random", {}), ("tunas", {"batch": 3})]
    with RayWorkers(partial(Uneven, SPACE), 2, cluster.address) as pool:
        for name, options in cases:
            make = searchers.get(name)
            found = outcomes(history(make, pool, **options))
            assert found == outcomes(history(make, **options))


class Slow(Unlike):
    def evaluate(self, candidate, seed):
        time.sleep(1)
        return super().evaluate(candidate, seed)


def test_both_nodes_take_part(cluster):
    with RayWorkers(partial(Slow, SPACE), 2, cluster.address) as pool:
        pids = {m.evaluation.metrics["pid"] for m in pool.evaluate_all(jobs(6))}
        assert len(pids) == 2
        assert os.getpid() not in pids


def test_a_trial_whose_worker_dies_is_evaluated_again(cluster, tmp_path):
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    make = searchers.get("random")
    with RayWorkers(partial(Uneven, SPACE, tmp_path), 2, cluster.address) as pool:
        found = outcomes(history(make, pool, trials=20))
    assert not list(tmp_path.iterdir())
    assert found == outcomes(history(make, trials=20))


def test_trials_of_a_node_that_is_lost_are_evaluated_again(cluster):
    node = cluster.add_node(num_cpus=2, object_store_memory=MEMORY)
    lost = []

    def on_trial(trial):
        if trial.index == 5:
            cluster.remove_node(node, allow_graceful=False)
            lost.append(node)

    make = searchers.get("random")
    with RayWorkers(partial(Uneven, SPACE), 4, cluster.address) as pool:
        budget, evaluator = Budget(trials=30), Uneven(SPACE)
        found = run(make, SPACE, LIMIT, evaluator, budget, seed=0, pool=pool, on_trial=on_trial)
    assert lost
    assert outcomes(found) == outcomes(history(make, trials=30))


def test_a_trial_that_ends_every_worker_is_given_up(cluster):
    with (
        RayWorkers(partial(Deadly, SPACE), 2, cluster.address) as pool,
        pytest.raises(WorkerError, match="trial 0 ended 3 worker processes, the last with Worker"),
    ):
        list(pool.evaluate_all(jobs(1)))


def test_what_an_evaluator_raises_is_raised_here(cluster):
    with (
        RayWorkers(partial(Wrong, SPACE), 2, cluster.address) as pool,
        pytest.raises(ConfigError, match="image must be square, got 3x4"),
    ):
        list(pool.evaluate_all(jobs(3)))


def test_searches_train_on_it(cluster, capsys, tmp_path):
    for name in ("torch", "sklearn"):
        pytest.importorskip(name, reason=f"needs {name}")
    args = ["search", "--searcher", "random", "--size", "1KB", "--trials", "3", "--no-plot"]
    args += ["--epochs", "1", "--final-epochs", "1"]
    results = []
    for place in (["--ray", cluster.address, "--workers", "2"], []):
        out = tmp_path / str(len(results))
        with pytest.raises(SystemExit) as exit_:
            main([*args, *place, "--out", str(out)])
        assert (exit_.value.code, capsys.readouterr().err) == (0, "")
        found = json.loads((out / "result.json").read_text())
        results.append((found["best"]["choices"], found["best_scores"], found["test"]))
    assert results[0] == results[1]


def test_a_cluster_that_is_not_there_is_named(capsys, tmp_path):
    pytest.importorskip("ray", reason="needs Ray: pip install 'npusim[ray]'")
    args = ["search", "--searcher", "random", "--size", "1KB", "--no-plot"]
    with pytest.raises(SystemExit) as exit_:
        main([*args, "--ray", "127.0.0.1:1", "--out", str(tmp_path / "run")])
    assert exit_.value.code == 2
    message = "Ray's address must be that of a running cluster, got '127.0.0.1:1': "
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
