# SPDX-License-Identifier: Apache-2.0
"""Strategies on shared weights beside one another on digits: same images, same seeds.

    python benches/one_shot.py tune
    python benches/one_shot.py compare
    python benches/one_shot.py ranks
    python benches/one_shot.py summary

`tune` chooses one setting of each strategy among three, on another seed than `compare` has, by the
validation accuracy of what is found, trained by itself. `ranks` compares scores by shared weights
with those after training. All but the last go on where they stopped; raw results are in
``benches/results/udc_baselines*.jsonl``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache
from itertools import product
from typing import Any

import click
import numpy as np
from udc import Rows, interval

import searchers
import spaces
from searchers.base import Budget, SearchContext, run, searcher_rng
from searchers.evaluators import TrainConfig, training
from searchers.one_shot.scores import SupernetEvaluator
from searchers.options import resolve
from searchers.training.evaluator import TrainEvaluator
from spaces.limits import Limit

SIZES = ("1.5KB", "0.8KB")
TUNING_SEEDS = (100,)
STRATEGIES: Mapping[str, tuple[str, Mapping[str, Any], str, tuple[float, ...]]] = {
    "udc": ("udc", {}, "penalty_weight", (0.3, 1.0, 3.0)),
    "vanilla": ("udc", {"row": "vanilla"}, "penalty_weight", (0.3, 1.0, 3.0)),
    "fbnet-v2": ("udc", {"row": "fbnet-v2"}, "penalty_weight", (0.3, 1.0, 2.0)),
    "tunas": ("tunas-supernet", {}, "beta", (-0.1, -0.5, -2.0)),
    "tabnas": ("tabnas-supernet", {}, "pi_travel", (10.0, 33.0, 100.0)),
    "frank-wolfe": ("frank-wolfe-supernet", {}, "warm_up", (0.1, 0.25, 0.5)),
    "single-path": ("single-path", {}, "learning_rate", (0.003, 0.01, 0.03)),
}
"""Searcher, its options, the option that is tuned, and the values that are tried."""
N_RANKED = 30


@click.group()
def main() -> None:
    """Compare strategies on shared weights."""


@main.command()
@click.option("--strategies", default=",".join(STRATEGIES))
def tune(strategies: str) -> None:
    """Each strategy with each of its settings."""
    with Rows("baselines_tune") as rows:
        for seed, size, name in product(TUNING_SEEDS, SIZES, strategies.split(",")):
            for value in STRATEGIES[name][3]:
                key = {"strategy": name, "size": size, "seed": seed, "value": value}
                rows.add(key, validated)


@main.command()
@click.option("--strategies", default=f"random,{','.join(STRATEGIES)}")
@click.option("--sizes", default=",".join(SIZES))
@click.option("--seeds", default=10)
def compare(strategies: str, sizes: str, seeds: int) -> None:
    """Each strategy with its best setting, on seeds that nothing was chosen by."""
    values = best_values()
    with Rows("baselines") as rows:
        for seed, size, name in product(range(seeds), sizes.split(","), strategies.split(",")):
            key = {"strategy": name, "size": size, "seed": seed, "value": values.get(name)}
            rows.add(key, tested)


@main.command()
def ranks() -> None:
    """How well scores by shared weights rank candidates, against training each by itself."""
    with Rows("baselines_ranks") as rows:
        for seed, size in product(range(3), SIZES):
            rows.add({"size": size, "seed": seed}, ranked)


@main.command()
def summary() -> None:
    """What `tune` found; of `compare`, means and 95 % bootstrap intervals over seeds."""
    tuned = Rows("baselines_tune").found
    for name, (_, _, option, _) in STRATEGIES.items():
        for each in sorted(tuned, key=lambda row: (row["size"], row["value"])):
            if each["strategy"] == name:
                ms = 1e3 * each["search_cpu_s"] / each["n_images"]
                click.echo(
                    f"{each['size']:>6} {name:>12} {option:>14} {each['value']:<6g}"
                    f"validation {100 * each['accuracy']:.2f} %, "
                    f"argmax E/e* {each['gamma_ratio']:.3f}, found {each['ratio']:.3f}, "
                    f"{ms:.3f} ms/image"
                )
    found, best = Rows("baselines").found, best_values()
    heads = ("setting", "test %", "argmax E/e*, min..max", "over", "found E/e*")
    click.echo(f"{'':>20}" + "".join(f"{head:>24}" for head in heads) + "  ms/image")
    for size, name in product(SIZES, ("random", *STRATEGIES)):
        key = {"strategy": name, "size": size, "value": best.get(name)}
        mine = [each for each in found if key.items() <= each.items()]
        if mine:
            click.echo(line(f"{size} {name}", name, best.get(name), mine))
    for each in Rows("baselines_ranks").found:
        click.echo(
            f"shared weights, {each['size']}, seed {each['seed']}: Kendall's tau "
            f"{each['tau']:.2f}, {each['tau_size']:.2f} for size alone, {N_RANKED} candidates"
        )


def line(label: str, name: str, value: float | None, rows: list[dict[str, Any]]) -> str:
    """One line of `summary`."""
    gamma = np.array([each["gamma_ratio"] for each in rows])
    ratio = [each["ratio"] for each in rows]
    has_argmax = name not in ("random", "single-path")
    cells = (
        f"{STRATEGIES[name][2]} {value:g}" if value is not None else "",
        interval(100 * np.array([each["accuracy"] for each in rows]), 2),
        f"{gamma.mean():.3f}, {gamma.min():.3f}..{gamma.max():.3f}" if has_argmax else "",
        f"{int((gamma > 1).sum())}/{len(rows)}" if has_argmax else "",
        f"{min(ratio):.3f}..{max(ratio):.3f}",
    )
    images = rows[0]["n_images"]
    ms = 1e3 * np.median([each["search_cpu_s"] for each in rows]) / images if images else 0.0
    return f"{label:>20}" + "".join(f"{cell:>24}" for cell in cells) + f"{ms:10.3f}"


def best_values() -> dict[str, float]:
    """The setting of each strategy of the highest mean validation accuracy in `tune`."""
    accuracies: dict[str, dict[float, list[float]]] = {}
    for each in Rows("baselines_tune").found:
        if each["value"] in STRATEGIES[each["strategy"]][3]:
            of_value = accuracies.setdefault(each["strategy"], {}).setdefault(each["value"], [])
            of_value.append(each["accuracy"])
    return {
        name: max(of_value, key=lambda value: float(np.mean(of_value[value])))
        for name, of_value in accuracies.items()
    }


@cache
def evaluator() -> TrainEvaluator:
    """Trains a candidate as long in `evaluate` as in `test`."""
    config = TrainConfig()
    return training(spaces.get("digits"), TrainConfig(config.final_epochs, config.final_epochs))


def searched(strategy: str, size: str, seed: int, value: float | None) -> dict[str, Any]:
    """What one search found."""
    space, limit = spaces.get("digits"), Limit.size(size)
    if strategy == "random":
        candidate = space.sample_feasible(searcher_rng(seed), limit)
        ratio = limit_ratio(limit, candidate)
        figures = {"gamma_ratio": ratio, "ratio": ratio}
        return {**figures, "choices": list(candidate.choices), "n_images": 0, "search_cpu_s": 0.0}
    searcher, options, tuned, _ = STRATEGIES[strategy]
    make = searchers.get(searcher)
    given = resolve(searcher, make, {**options, tuned: value})
    context = SearchContext(evaluator().search_data)
    found = make(space, limit, searcher_rng(seed), context=context, **given)
    start = time.process_time()
    candidate = found.ask()
    cpu_s = time.process_time() - start
    return {
        **found.metrics,
        "choices": list(candidate.choices),
        "n_images": found.n_images,
        "search_cpu_s": cpu_s,
    }


def limit_ratio(limit: Limit, candidate: Any) -> float:
    """The candidate's cost as a part of the limit."""
    from spaces.costs import cost

    return cost(spaces.get("digits"), candidate, limit.measure) / limit.most


def validated(strategy: str, size: str, seed: int, value: float) -> dict[str, Any]:
    """A search, and the validation accuracy of what it found, trained by itself."""
    found = searched(strategy, size, seed, value)
    candidate = spaces.get("digits").candidate(found["choices"])
    return {**found, **evaluator().evaluate(candidate, seed).metrics}


def tested(strategy: str, size: str, seed: int, value: float | None) -> dict[str, Any]:
    """A search, and the test accuracy of what it found, trained by itself."""
    found = searched(strategy, size, seed, value)
    candidate = spaces.get("digits").candidate(found["choices"])
    return {**found, **evaluator().test(candidate, seed).metrics}


def ranked(size: str, seed: int) -> dict[str, Any]:
    """Rank correlation of scores by shared weights with those after training."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from scipy.stats import kendalltau

    space, limit = spaces.get("digits"), Limit.size(size)
    with TemporaryDirectory() as directory:
        shared = SupernetEvaluator(space, limit, Path(directory), seed, evaluator())
        trials = run(
            searchers.get("random"), space, limit, shared, Budget(trials=N_RANKED), seed=seed
        )
    alone = [evaluator().evaluate(trial.candidate, trial.seed).score for trial in trials]
    shared_scores = [trial.score for trial in trials]
    sizes = [trial.costs[limit.measure] for trial in trials]
    return {
        "tau": float(kendalltau(shared_scores, alone).statistic),
        "tau_size": float(kendalltau(sizes, alone).statistic),
        "shared": shared_scores,
        "alone": alone,
        "sizes": sizes,
    }


if __name__ == "__main__":
    main()
