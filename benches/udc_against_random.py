# SPDX-License-Identifier: Apache-2.0
"""UDC against random search at equal time: search and training of the result within one budget.

    python benches/udc_against_random.py cifar100 --runs runs/c100
    python benches/udc_against_random.py digits --runs runs/digits
    python benches/udc_against_random.py summary
    python benches/udc_against_random.py plot

Time is CPU time of one thread: what the wall clock says of an idle core, whatever else runs. UDC
searches for its epochs. Random search has as long: candidates exactly uniform among all within the
limit, by successive halving; half of the time goes to short trainings of new ones, half to longer
ones of the best third. Either result is then trained afresh by the data set's recipe for what is
left of the total, on training and validation data, and tested once. Reading data, measuring how
fast a result trains, and the test are not counted.

Raw results go to ``benches/results/udc_against_random.jsonl``, a line a run; what is there is not
run again. UDC's run directories, in ``--runs``, are those of the commands in docs/real_searches.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from udc import RESULTS, Rows, interval

import spaces
from searchers.base import Budget
from searchers.data import DataSet, Split, load
from searchers.evaluators import TrainConfig, make
from searchers.store import read_json
from searchers.study import Study, run_study
from searchers.training import recipes
from searchers.training.group import Group
from searchers.training.loop import Progress, Training
from searchers.training.tasks import Classification, classification_score
from spaces.base import Candidate, Space
from spaces.limits import Limit
from spaces.nets import build

TOLD = ("search_cpu_s", "train_cpu_s", "train_images", "size_bits", "macs")
"""Means that `summary` tells."""
ETA = 3
"""One candidate in so many is trained again, on so many times as many images."""
N_TIMED, N_UNTIMED = 24, 4
"""Steps that a training's speed is measured by, and steps before them."""
RANDOM_STREAM = 21
UDC_OPTIONS: Mapping[str, Mapping[str, str]] = {"udc": {}, "udc-draws": {"draws": "16"}}
"""UDC as it is, and with draws from its probabilities scored by the shared weights."""


@dataclass(frozen=True, slots=True)
class Contest:
    """What is searched, and for how long.

    Args:
        data_set: its name, also that of the space and of the recipe.
        space_options: of the space.
        udc_options: of UDC; the preset is "cpu".
        short: images that a candidate is first trained on in random search.
        calibration: images that batch norm is calibrated with after such trainings.
        total_s: CPU time of search and training.
    """

    data_set: str
    space_options: Mapping[str, Any]
    udc_options: Mapping[str, str]
    short: int
    calibration: int
    total_s: float

    @property
    def space(self) -> Space:
        """The space that is searched."""
        return spaces.get(self.data_set, **self.space_options)


CONTESTS = {
    each.data_set: each
    for each in (
        Contest(
            "cifar100",
            {"multiplier": 1, "bitwidths": (1, 2, 4, 8)},
            {"preset": "cpu", "epochs": "2"},
            short=9984,
            calibration=1280,
            total_s=400,
        ),
        Contest("digits", {}, {"preset": "cpu"}, short=4096, calibration=1024, total_s=10),
    )
}


class Images:
    """A task of any number of images: less than an epoch, or more.

    Args:
        task: whose images.
        n_samples: of them, each as often as another or once more.
        n_inputs: images for calibration, at most.
    """

    def __init__(self, task: Classification, n_samples: int, n_inputs: int):
        self._task, self.n_samples, self._n_inputs = task, n_samples, n_inputs
        self.loss, self.n_ahead = task.loss, task.n_ahead

    def batch(
        self, rows: Tensor, generator: torch.Generator, group: Group
    ) -> tuple[Tensor, Tensor]:
        """See `searchers.training.tasks.Task`."""
        return self._task.batch(rows % self._task.n_samples, generator, group)

    def inputs(self, n: int) -> Iterator[Tensor]:
        """See `searchers.training.tasks.Task`."""
        return self._task.inputs(min(n, self._n_inputs))


@cache
def data(name: str) -> DataSet:
    """A data set of images with classes, read once."""
    found = load(name)
    assert isinstance(found, DataSet)
    return found


def training(
    contest: Contest, candidate: Candidate, seed: int, split: Split, n_images: int, n_inputs: int
) -> Training:
    """The training of a candidate by the recipe on so many images of a part of the data."""
    recipe = recipes.get(contest.data_set).but(epochs=1)
    generator = torch.Generator().manual_seed(seed)
    net = build(contest.space, candidate, generator, recipe.number_format == "q-hat")
    task = Classification(split, recipe, torch.device("cpu"))
    return Training(net, Images(task, n_images, n_inputs), recipe, seed)


def images_in(contest: Contest, candidate: Candidate, split: Split, seconds: float) -> int:
    """How many images of a split a candidate can be trained on in so much CPU time."""
    batch_size = recipes.get(contest.data_set).batch_size
    n_steps = N_TIMED + N_UNTIMED
    timed = training(contest, candidate, 0, split, n_steps * batch_size, batch_size)
    taken: list[float] = []

    def note(progress: Progress) -> None:
        taken.append(progress.cpu_s)

    timed.run(on_step=note)
    step_s = (taken[-1] - taken[N_UNTIMED - 1]) / N_TIMED
    return max(1, round(seconds / step_s)) * batch_size


def tested(contest: Contest, candidate: Candidate, seed: int, seconds: float) -> dict[str, Any]:
    """The result of a search after so much training, on the test data."""
    parts = data(contest.data_set)
    split = parts.train + parts.validation
    n_images = images_in(contest, candidate, split, seconds)
    found = training(contest, candidate, seed, split, n_images, 12_800)
    start = time.process_time()
    found.run()
    cpu_s = time.process_time() - start
    score = classification_score(found.net, parts.test)
    return {"train_images": n_images, "train_cpu_s": cpu_s, **score}


# -- the searches


def searched_by_udc(
    contest: Contest, limit: Limit, seed: int, strategy: str, runs: Path
) -> dict[str, Any]:
    """What `npusim search --searcher udc --evaluator none` finds, in a run directory."""
    directory = runs / f"{strategy}-{limit.most // 8}-{seed}"
    if not (directory / "result.json").exists():
        options = {**contest.udc_options, **UDC_OPTIONS[strategy]}
        study = Study(contest.space, "udc", limit, Budget(trials=1), seed, options)
        run_study(study, directory, make("none", study.space, TrainConfig()))
    best = read_json(directory / "result.json")["best"]
    return {
        "choices": best["choices"],
        "search_cpu_s": best["search_cpu_s"],
        "search_images": best["search_images"],
        "search": best["search_metrics"],
    }


def warm_up(contest: Contest, limit: Limit) -> None:
    """Compile and load what the first search or training would have to wait for."""
    study = Study(contest.space, "udc", limit, Budget(1, images=1), 0, contest.udc_options)
    run_study(study, None, make("none", study.space, TrainConfig()))
    images_in(contest, contest.space.largest(), data(contest.data_set).train, 1)


def searched_at_random(contest: Contest, limit: Limit, seed: int, seconds: float) -> dict[str, Any]:
    """The best candidate of successive halving in so much CPU time, and all that were tried."""
    rng = np.random.default_rng((seed, RANDOM_STREAM))
    start = time.process_time()

    def spent() -> float:
        return time.process_time() - start

    rungs: list[list[dict[str, Any]]] = [[], []]
    while spent() + _longest(rungs[0]) / 2 < seconds / 2:
        candidate = contest.space.sample_feasible(rng, limit)
        rungs[0].append(validated(contest, candidate, len(rungs[0]), contest.short))
    best = sorted(rungs[0], key=lambda each: -each["accuracy"])
    for each in best[: max(1, -(-len(best) // ETA))]:
        if rungs[1] and spent() + _longest(rungs[1]) / 2 > seconds:
            break
        candidate = contest.space.candidate(each["choices"])
        rungs[1].append(validated(contest, candidate, each["seed"], ETA * contest.short))
    return {
        "choices": max(rungs[1], key=lambda each: each["accuracy"])["choices"],
        "search_cpu_s": spent(),
        "search_images": sum(each["images"] for rung in rungs for each in rung),
        "search": {"rungs": rungs},
    }


def _longest(rung: list[dict[str, Any]]) -> float:
    return max((float(each["cpu_s"]) for each in rung), default=0.0)


def validated(contest: Contest, candidate: Candidate, seed: int, n_images: int) -> dict[str, Any]:
    """A candidate after a short training, on the validation data."""
    parts = data(contest.data_set)
    start = time.process_time()
    found = training(contest, candidate, seed, parts.train, n_images, contest.calibration)
    found.run()
    score = classification_score(found.net, parts.validation)
    return {
        "choices": list(candidate.choices),
        "seed": seed,
        "images": n_images,
        "accuracy": score["accuracy"],
        "cpu_s": time.process_time() - start,
    }


def contested(
    data_set: str, size: str, seed: int, strategy: str, runs: Path, udc_s: float | None
) -> dict[str, Any]:
    """One run: a search, the training of its result, the test."""
    contest, limit = CONTESTS[data_set], Limit.size(size)
    start = time.perf_counter()
    if strategy in UDC_OPTIONS:
        found = searched_by_udc(contest, limit, seed, strategy, runs)
    else:
        assert udc_s is not None
        found = searched_at_random(contest, limit, seed, udc_s)
    candidate = contest.space.candidate(found["choices"])
    score = tested(contest, candidate, seed, contest.total_s - found["search_cpu_s"])
    costs = {
        measure: int(spaces.costs.cost(contest.space, candidate, measure))
        for measure in ("size_bits", "macs")
    }
    return {**found, **score, **costs, "wall_s": time.perf_counter() - start}


# -- commands


@click.group()
def main() -> None:
    """Compare UDC with random search at equal time."""


def _contest(data_set: str, sizes: str, seeds: int, runs: Path, strategies: str) -> None:
    with Rows("against_random") as rows:
        warm_up(CONTESTS[data_set], Limit.size(sizes.partition(",")[0]))
        for seed, size in product(range(seeds), sizes.split(",")):
            key = {"data_set": data_set, "size": size, "seed": seed}
            for strategy in strategies.split(","):
                udc_s = next(
                    (
                        each["search_cpu_s"]
                        for each in rows.found
                        if {**key, "strategy": "udc"}.items() <= each.items()
                    ),
                    None,
                )
                measure = partial(contested, runs=runs, udc_s=udc_s)
                rows.add({**key, "strategy": strategy}, measure)


RUNS = click.option("--runs", required=True, type=click.Path(path_type=Path))
STRATEGIES = click.option("--strategies", default="udc,random", show_default=True)


@main.command()
@RUNS
@STRATEGIES
@click.option("--seeds", default=3, show_default=True)
@click.option("--sizes", default="40KB", show_default=True)
def cifar100(runs: Path, seeds: int, sizes: str, strategies: str) -> None:
    """A wide ResNet of multiplier 1; hours."""
    _contest("cifar100", sizes, seeds, runs, strategies)


@main.command()
@RUNS
@STRATEGIES
@click.option("--seeds", default=10, show_default=True)
@click.option("--sizes", default="1.5KB,0.8KB", show_default=True)
def digits(runs: Path, seeds: int, sizes: str, strategies: str) -> None:
    """The small network of digits; a quarter of a minute a run."""
    _contest("digits", sizes, seeds, runs, strategies)


def by_seed(strategy: str) -> dict[tuple[str, str], list[dict[str, dict[str, Any]]]]:
    """Runs of a strategy and of random search with the same seed, by data set and size."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for each in Rows("against_random").found:
        if each["strategy"] in (strategy, "random"):
            problem = found.setdefault((each["data_set"], each["size"]), {})
            problem.setdefault(each["seed"], {})[each["strategy"]] = each
    whole = {
        problem: [pair for pair in pairs.values() if len(pair) == 2]
        for problem, pairs in found.items()
    }
    return {problem: pairs for problem, pairs in whole.items() if pairs}


@main.command()
def summary() -> None:
    """Means and 95 % bootstrap intervals over seeds; differences are paired by seed."""
    for strategy in UDC_OPTIONS:
        for (data_set, size), pairs in by_seed(strategy).items():
            click.echo(f"{data_set} within {size}, {len(pairs)} seeds")
            for name in (strategy, "random"):
                mine = [pair[name] for pair in pairs]
                accuracy = interval(100 * np.array([each["accuracy"] for each in mine]), 2)
                told = (f"{what} {np.mean([each[what] for each in mine]):,.1f}" for what in TOLD)
                click.echo(f"    {name:10} test {accuracy} %; {', '.join(told)}")
            gains = [
                100 * (pair[strategy]["accuracy"] - pair["random"]["accuracy"]) for pair in pairs
            ]
            better = sum(gain > 0 for gain in gains)
            click.echo(f"    difference {interval(np.array(gains), 2)}; {better} better")


@main.command()
def plot() -> None:
    """Test accuracies by seed, ``benches/results/udc_against_random.png``."""
    from matplotlib.figure import Figure

    names = ("random", *UDC_OPTIONS)
    problems = by_seed("udc")
    figure = Figure(figsize=(4 * len(problems), 4), layout="constrained")
    (panels,) = figure.subplots(1, len(problems), squeeze=False)
    runs = Rows("against_random").found
    for axes, ((data_set, size), pairs) in zip(panels, problems.items(), strict=True):
        for pair in pairs:
            own = {key: pair["udc"][key] for key in ("data_set", "size", "seed")}
            found = {each["strategy"]: each for each in runs if own.items() <= each.items()}
            at = [i for i, name in enumerate(names) if name in found]
            heights = [100 * found[names[i]]["accuracy"] for i in at]
            axes.plot(at, heights, "o-", color="tab:blue", alpha=0.5)
        axes.set_xticks(range(len(names)), ("random", "UDC", "UDC, 16 draws"))
        axes.set_xlim(-0.3, len(names) - 0.7)
        axes.set_title(f"{data_set} within {size}, seeds: {len(pairs)}")
        axes.set_ylabel("test accuracy [%]")
    figure.savefig(RESULTS / "udc_against_random.png", dpi=100)


if __name__ == "__main__":
    main()
