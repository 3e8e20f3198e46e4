# SPDX-License-Identifier: Apache-2.0
"""What came out of a benchmark: statistics by problem, tests, costs, and how to read them.

All of it is JSON values, made from the results of the studies and the protocol alone: parts that
were run on several machines give what one run would have given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np

from npusim import __version__
from searchers.bench import fronts
from searchers.bench.protocol import REFERENCE, Problem, Protocol
from searchers.bench.protocol_files import tables_of
from searchers.evaluators import Traits
from searchers.rank_tests import ALPHA, friedman, groups, holm, least_p, ranks, signed_rank
from searchers.report import unit_of
from searchers.stats import bootstrap_mean, relative_improvement, superiority

FORMAT = "npusim.bench"
VERSION = 2
"""Raised when results change their meaning; 1 had no protocol and no tests."""

Cells = Sequence[Mapping[str, Any]]


def collect(protocol: Protocol, cells: Cells, *, part: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    """Summarise the results of studies.

    Args:
        protocol: of the benchmark.
        cells: results, see `searchers.study.StudyResult.to_json`, in the order of
            `Protocol.cells`, with ``task``, ``searcher`` (its name) and ``fronts``.
        part: which of how many parts they are.

    Returns:
        ``protocol`` (its tables), ``part``, ``problems``, see `_problem`, ``overall``, see
        `_overall`, ``costs``, see `_costs`, ``notes`` (sentences that a reader must know), and
        ``cells``.
    """
    problems = [_problem(protocol, problem, cells) for problem in protocol.problems()]
    return {
        **{"format": FORMAT, "version": VERSION, "npusim": __version__, "part": list(part)},
        "protocol": tables_of(protocol),
        "problems": problems,
        "overall": _overall(protocol, problems, cells),
        "costs": _costs(protocol, cells),
        "notes": _notes(protocol, problems, cells, part),
        "cells": list(cells),
    }


def _problem(protocol: Protocol, problem: Problem, cells: Cells) -> dict[str, Any]:
    """One task and limit.

    Returns:
        ``name``, ``task``, ``limit``, ``further``, ``space``,
        ``space_hash``; ``evaluator`` (its identity),
        ``is_tabular``; ``unit`` and ``score_unit``, see `unit_of`, of tests and in searches;
        ``optimum``, where it is known; ``rows`` by strategy, see `_row`; ``references``, worst cost
        and score of the hypervolumes by measure; ``tests``, see `_tests`, None with fewer than two
        strategies or seeds.
    """
    task, limit = problem.task, problem.limit
    evaluator = task.make_evaluator(task.space)
    own = [cell for cell in cells if is_of(cell, task.name, asdict(limit))]
    tested = [cell for cell in own if cell["test"] is not None]
    optimum = getattr(evaluator, "optimum", None)
    best = None if optimum is None else float(optimum(limit))
    share, references = _hypervolumes(own)
    names = [each.name for each in protocol.entrants]
    known = {name: [cell for cell in tested if cell["searcher"] == name] for name in names}
    reference = [cell for cell in tested if cell["searcher"] == REFERENCE]
    rows = [
        _row(name, found, known, reference, best, share)
        for name, found in (*known.items(), (REFERENCE, reference))
        if found
    ]
    tests = _tests(known)
    for row in rows:
        row["mean_rank"] = tests["mean_ranks"].get(row["searcher"]) if tests else None
    return {
        **{"name": problem.name, "task": task.name, "limit": asdict(limit)},
        "further": [str(each) for each in task.further],
        **{"space": task.space.name, "space_hash": task.space.content_hash},
        "evaluator": dict(evaluator.identity()),
        "is_tabular": Traits.of(evaluator).is_tabular,
        "unit": unit_of((cell["test_score"], cell["test"]) for cell in tested),
        "score_unit": unit_of((cell["best"]["score"], cell["best"]["metrics"]) for cell in tested),
        **{"optimum": best, "rows": rows, "references": references, "tests": tests},
    }


def is_of(cell: Mapping[str, Any], task: str, limit: Mapping[str, Any]) -> bool:
    """Whether a study is of that problem."""
    return bool(cell["task"] == task and cell["limit"] == limit)


def _row(
    name: str,
    own: Cells,
    known: Mapping[str, Cells],
    reference: Cells,
    optimum: float | None,
    share: Mapping[tuple[str, str], float],
) -> dict[str, Any]:
    """A strategy on a problem.

    Returns:
        ``searcher``; ``n``, seeds; ``test``, mean and interval; ``gain``, the same over the first
        strategy, paired by seed; ``relative_improvement``, in percent over `REFERENCE`;
        ``regret``, mean and interval below the optimum; ``hypervolume`` by measure, mean and
        interval of the share of the joint front's; ``limit_used``, mean; ``n_within``, how many
        results are within the limit, which must be all.
    """
    scores = _by_seed(own)
    first = _by_seed(next(iter(known.values())))
    gains = [scores[seed] - first[seed] for seed in scores if seed in first]
    random = list(_by_seed(reference).values())
    measure = own[0]["limit"]["measure"]
    used = [cell["best"]["costs"][measure] / cell["limit"]["most"] for cell in own]
    values = list(scores.values())
    improved = random and min(random) > 0
    volumes = {
        which: [share[cell["directory"], which] for cell in own] for which in own[0]["fronts"]
    }
    is_first = name in (next(iter(known)), REFERENCE)
    return {
        **{"searcher": name, "n": len(own), "test": asdict(bootstrap_mean(values))},
        "gain": asdict(bootstrap_mean(gains)) if gains and not is_first else None,
        "relative_improvement": asdict(relative_improvement(values, random)) if improved else None,
        "regret": None
        if optimum is None
        else asdict(bootstrap_mean([optimum - value for value in values])),
        "hypervolume": {which: asdict(bootstrap_mean(each)) for which, each in volumes.items()}
        if name != REFERENCE
        else {},
        "limit_used": float(np.mean(used)),
        "n_within": sum(each <= 1 for each in used),
    }


def _by_seed(cells: Cells) -> dict[int, float]:
    return {cell["seed"]: cell["test_score"] for cell in cells}


def _hypervolumes(own: Cells) -> tuple[dict[tuple[str, str], float], dict[str, Any]]:
    """Shares by directory and measure, and the reference points by measure."""
    searches = [cell for cell in own if cell["searcher"] != REFERENCE]
    share, references = {}, {}
    for measure in searches[0]["fronts"] if searches else ():
        found = [cell["fronts"][measure] for cell in searches]
        if any(front["cost"] for front in found):
            cost, score = fronts.reference_point(found)
            references[measure] = {"cost": cost, "score": score}
        for cell, value in zip(searches, fronts.shares(found), strict=True):
            if value is not None:
                share[cell["directory"], measure] = value
    for cell in own:  # the reference has no front to speak of
        for measure in cell["fronts"]:
            share.setdefault((cell["directory"], measure), 0.0)
    return share, references


def _tests(known: Mapping[str, Cells]) -> dict[str, Any] | None:
    """Rank tests over the seeds that all strategies have.

    Returns:
        ``seeds``; ``mean_ranks`` by strategy; ``friedman``, F and p, None for two strategies;
        ``pairs``, each with ``better``, ``worse`` (by mean), ``difference``, mean and interval,
        ``p``, ``p_holm``, over all pairs of the problem, ``superiority`` of the better;
        ``groups`` of strategies of which no two differ significantly; ``least_p_holm``, the least
        that so many seeds and pairs can give; ``best``, of the highest mean, and what it is
        ``better_than`` significantly.
    """
    names = [name for name, cells in known.items() if cells]
    scores = {name: _by_seed(known[name]) for name in names}
    seeds = [s for s in (scores[names[0]] if names else ()) if all(s in scores[n] for n in names)]
    if len(names) < 2 or len(seeds) < 2:
        return None
    table = np.array([[scores[name][seed] for name in names] for seed in seeds])
    means, mean_ranks = table.mean(axis=0), ranks(table).mean(axis=0)
    pairs: list[dict[str, Any]] = []
    for i, j in combinations(range(len(names)), 2):
        a, b = (i, j) if means[i] >= means[j] else (j, i)
        pairs.append(
            {
                **{"better": names[a], "worse": names[b]},
                "difference": asdict(bootstrap_mean(table[:, a] - table[:, b])),
                "p": signed_rank(table[:, a], table[:, b]),
                "superiority": superiority(table[:, a], table[:, b]),
            }
        )
    for pair, p in zip(pairs, holm([pair["p"] for pair in pairs]), strict=True):
        pair["p_holm"] = p
    found = friedman(table) if len(names) > 2 else None
    differ = np.zeros((len(names), len(names)), dtype=bool)
    for pair in pairs:
        a, b = names.index(pair["better"]), names.index(pair["worse"])
        differ[a, b] = differ[b, a] = pair["p_holm"] <= ALPHA
    best = names[int(np.argmax(means))]
    return {
        "seeds": seeds,
        "mean_ranks": dict(zip(names, mean_ranks.tolist(), strict=True)),
        "friedman": None
        if found is None
        else {"f": found.statistic if math.isfinite(found.statistic) else None, "p": found.p},
        "pairs": pairs,
        "groups": [[names[i] for i in each] for each in groups(mean_ranks.tolist(), differ)],
        "least_p_holm": min(1.0, len(pairs) * least_p(len(seeds))),
        "best": best,
        "better_than": [
            pair["worse"] for pair in pairs if pair["better"] == best and pair["p_holm"] <= ALPHA
        ],
    }


def _overall(
    protocol: Protocol, problems: Sequence[Mapping[str, Any]], cells: Cells
) -> dict[str, Any] | None:
    """Ranks over all problems: each seed of each problem is a block.

    Returns:
        ``n_blocks``; ``mean_ranks`` by strategy, those that have results on all problems;
        ``friedman``, F and p, None for two strategies. None with one problem.
    """
    tests = [problem["tests"] for problem in problems]
    if len(problems) < 2 or any(each is None for each in tests):
        return None
    names = [
        each.name
        for each in protocol.entrants
        if all(each.name in test["mean_ranks"] for test in tests)
    ]
    if len(names) < 2:
        return None
    at = {
        (cell["task"], str(cell["limit"]), cell["searcher"], cell["seed"]): cell["test_score"]
        for cell in cells
    }
    scores = np.array(
        [
            [at[problem["task"], str(problem["limit"]), name, seed] for name in names]
            for problem in problems
            for seed in problem["tests"]["seeds"]
        ]
    )
    found = friedman(scores) if len(names) > 2 else None
    return {
        "n_blocks": len(scores),
        "mean_ranks": dict(zip(names, ranks(scores).mean(axis=0).tolist(), strict=True)),
        "friedman": None
        if found is None
        else {"f": found.statistic if math.isfinite(found.statistic) else None, "p": found.p},
    }


def _costs(protocol: Protocol, cells: Cells) -> list[dict[str, Any]]:
    """What each strategy took in all, over problems and seeds.

    Returns:
        ``searcher``; ``trials``; ``images``, trained on in trials and by the searcher itself, and
        ``test_images``, for the tests; ``evaluation_wall_s`` and ``_cpu_s``; the searcher's own,
        ``own_wall_s`` and ``_cpu_s``; ``tuning``, see `searchers.bench.protocol.Tuning`;
        ``total_images`` and ``total_cpu_s``, all of these but for the tests.
    """
    rows = []
    for entrant in protocol.entrants:
        own = [cell for cell in cells if cell["searcher"] == entrant.name]

        def total(key: str, own: Cells = own) -> Any:
            return sum(cell[key] for cell in own)

        images, cpu_s, own_cpu_s = total("n_images"), total("cpu_s"), total("search_cpu_s")
        rows.append(
            {
                **{"searcher": entrant.name, "trials": total("n_trials"), "images": images},
                "test_images": total("test_images"),
                **{"evaluation_wall_s": total("wall_s"), "evaluation_cpu_s": cpu_s},
                **{"own_wall_s": total("search_wall_s"), "own_cpu_s": own_cpu_s},
                "tuning": asdict(entrant.tuning),
                "total_images": images + entrant.tuning.images,
                "total_cpu_s": cpu_s + own_cpu_s + entrant.tuning.cpu_s,
            }
        )
    return rows


def _notes(
    protocol: Protocol,
    problems: Sequence[Mapping[str, Any]],
    cells: Cells,
    part: tuple[int, int],
) -> list[str]:
    notes = []
    if part[1] > 1:
        notes.append(f"Part {part[0]} of {part[1]}: strategies are compared on what it has alone.")
    tabular = dict.fromkeys(problem["task"] for problem in problems if problem["is_tabular"])
    if tabular:
        notes.append(
            f"Tabular: accuracies of {', '.join(tabular)} are looked up in a table of trainings of "
            "long ago; no time, image or epoch was spent on them here."
        )
    budgets = [task.budget or protocol.budget for task in protocol.tasks]
    if any(budget.seconds is not None for budget in budgets):
        notes.append(
            "A budget in seconds depends on the machine and what else it does: the same seeds do "
            "not give the same numbers again."
        )
    if missing := len(protocol.cells(*part)) - len(cells):
        notes.append(
            f"{missing} of {missing + len(cells)} searches are missing; running the protocol in "
            "this directory does them."
        )
    n_without = sum(cell["test"] is None for cell in cells)
    if n_without:
        notes.append(
            f"{n_without} of {len(cells)} searches found nothing valid; they are left out."
        )
    for problem in problems:
        notes.append(verdict(problem))
    return notes


def verdict(problem: Mapping[str, Any]) -> str:
    """Which strategy wins a problem, in a sentence; and whether that could be chance."""
    tests = problem["tests"]
    if tests is None:
        return f"{problem['name']}: too few strategies or seeds to compare."
    unit, scale = problem["unit"]
    rows = {row["searcher"]: row for row in problem["rows"]}
    score = rows[tests["best"]]["test"]
    mean, low, high = (f"{scale * score[key]:.4g}" for key in ("mean", "low", "high"))
    text = f"{problem['name']}: {tests['best']} is first with {mean} {unit}".rstrip()
    text += f" [{low}, {high}]"
    if (found := tests["friedman"]) is not None:
        text += f" (whether any differs: Friedman's p = {found['p']:.2g})"
    others = [name for name in tests["mean_ranks"] if name != tests["best"]]
    same = [name for name in others if name not in tests["better_than"]]
    if tests["least_p_holm"] > ALPHA:
        n = len(tests["seeds"])
        return (
            f"{text}, which says little: with {n} seeds and {len(tests['pairs'])} pairs no "
            f"difference can be significant (the least corrected p is {tests['least_p_holm']:.2g})."
        )
    if not same:
        return f"{text}, significantly better than all others."
    if tests["better_than"]:
        better = ", ".join(tests["better_than"])
        return f"{text}, significantly better than {better}; not than {', '.join(same)}."
    return f"{text}, but not significantly better than any other."
