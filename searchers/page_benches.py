# SPDX-License-Identifier: Apache-2.0
"""Benchmarks as sections of a page: results with intervals, ranks, curves with bands, limits.

`BenchReader` is registered as "benches" in the group ``npusim.reports``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from npusim.errors import FormatError
from npusim.report.page import Figure, Filter, Heading, Section, Table, columns_of, slug
from npusim.report.page_charts import Spec, names_axis, tooltip
from searchers.bench import REFERENCE
from searchers.page_runs import searcher_colour, section_of
from searchers.stats import bootstrap_mean
from searchers.store import read_json
from searchers.stored import is_run, read_run
from spaces.limits import Limit

_RESULTS: Final = "results.json"


class BenchReader:
    """Reads directories of benchmarks; see `npusim.report.reader.Reader`."""

    def reads(self, text: str) -> bool:
        """Whether it is the directory of a benchmark that has been finished once."""
        return (Path(text) / _RESULTS).is_file()

    def sections(self, texts: Sequence[str], show: Callable[[float], None]) -> list[Section]:
        """Two sections for each benchmark: its results, and all its searches.

        Raises:
            FormatError: the results are not those of a benchmark.
            NpusimError: see `searchers.stored.read_run`.
        """
        found = []
        for number, folder in enumerate(map(Path, texts), start=1):
            results = read_json(folder / _RESULTS)
            if not isinstance(results.get("cells"), list) or not results["cells"]:
                raise FormatError(f"{folder / _RESULTS} must have cells, got none")
            found.append(bench_section(folder.name, results))
            runs = {
                each.name: read_run(each)
                for each in sorted(folder.iterdir())
                if each.is_dir() and is_run(each)
            }
            if runs:
                trials = section_of(runs)
                name = slug(f"{trials.name}-{folder.name}")
                found.append(trials.renamed(name, f"{trials.title} in {folder.name}"))
            show(number / len(texts))
        return found


def bench_section(name: str, results: Mapping[str, Any]) -> Section:
    """The results of `searchers.bench.run_benchmark`."""
    cells = [
        {**cell, "limit": str(limit), "limit_used": _used(cell, limit)}
        for cell in results["cells"]
        for limit in [Limit(**cell["limit"])]
    ]
    data = {
        "summary": _summary(results, cells),
        "results": [_result(cell) for cell in cells if cell["test"] is not None],
        "curves": _curves(cells),
    }
    headings = (
        Heading("searcher", "searcher"),
        Heading("limit", "limit"),
        Heading("seeds", "seeds", 0),
        Heading("test %", "test %", 2, "accuracy on data held out, mean over seeds"),
        Heading("low %", "from", 2, "95 % bootstrap interval of the mean"),
        Heading("high %", "to", 2, "95 % bootstrap interval of the mean"),
        Heading(
            "mean rank", "mean rank", 2, "among the strategies of one limit and seed; 1 is best"
        ),
        Heading("gain %", "gain", 2, "percentage points over the first strategy, paired by seed"),
        Heading(
            "over one random %", "over one random %", 1, "relative, over the mean random network"
        ),
        Heading("limit used %", "limit used %", 1),
        Heading("within limit %", "within limit %", 1, "of all results: 100 is what must be"),
    )
    colour = searcher_colour([cell["searcher"] for cell in cells])
    parts: list[Figure | Table] = [Table("summary", "Results", "summary", headings, n_shown=60)]
    if data["results"]:
        parts += [_accuracies({**colour, "legend": None}), _limits_used({**colour, "legend": None})]
    if data["curves"]:
        parts.append(_anytime(colour))
    first = cells[0]
    return Section(
        slug(f"bench-{name}"),
        f"Benchmark {name} on {first['space']}",
        {key: columns_of(rows) for key, rows in data.items() if rows},
        tuple(parts),
        f"Space {first['space']} ({first['space_hash']}), {max(c['n_trials'] for c in cells):,} "
        f"trials a search, seeds {_span([cell['seed'] for cell in cells])}.",
        (Filter("searcher", "searcher"), Filter("limit", "limit")),
    )


def _span(seeds: Sequence[int]) -> str:
    return f"{min(seeds)} to {max(seeds)}" if len(set(seeds)) > 1 else str(seeds[0])


def _summary(
    results: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    measure = results["cells"][0]["limit"]["measure"]
    ranks = _mean_ranks(cells)
    rows = []
    for row in results["summary"]:
        limit = str(Limit(measure, row["limit"]))
        own = [c for c in cells if (c["limit"], c["searcher"]) == (limit, row["searcher"])]
        within = [cell["limit_used"] <= 1 for cell in own if cell["best"]]
        accuracy, gain = row["accuracy"], row["gain"]
        rows.append(
            {
                **{"searcher": row["searcher"], "limit": limit, "seeds": row["n"]},
                **{"test %": 100 * accuracy["mean"], "low %": 100 * accuracy["low"]},
                "high %": 100 * accuracy["high"],
                "mean rank": ranks.get((limit, row["searcher"])),
                "gain %": None if gain is None else 100 * gain["mean"],
                "over one random %": row["relative_improvement"],
                "limit used %": 100 * row["limit_used"],
                "within limit %": 100 * float(np.mean(within)),
            }
        )
    return rows


def _used(cell: Mapping[str, Any], limit: Limit) -> float | None:
    best = cell["best"]
    return None if best is None else float(best["costs"][limit.measure] / limit.most)


def _mean_ranks(cells: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Over seeds, by limit and strategy; equal accuracies share their ranks' mean.

    The reference, which has no budget, is not ranked, nor are seeds that a strategy lacks.
    """
    ranked = [cell for cell in cells if cell["searcher"] != REFERENCE and cell["test"]]
    found = {}
    for limit in dict.fromkeys(cell["limit"] for cell in ranked):
        own = [cell for cell in ranked if cell["limit"] == limit]
        names = list(dict.fromkeys(cell["searcher"] for cell in own))
        at = {(c["searcher"], c["seed"]): c["test"]["accuracy"] for c in own}
        seeds = [
            seed
            for seed in dict.fromkeys(cell["seed"] for cell in own)
            if all((name, seed) in at for name in names)
        ]
        if not seeds:
            continue
        scores = np.array([[at[name, seed] for name in names] for seed in seeds])  # [seeds, names]
        better = (scores[:, None, :] > scores[:, :, None]).sum(axis=2)
        equal = (scores[:, None, :] == scores[:, :, None]).sum(axis=2)
        ranks = better + (equal + 1) / 2
        found |= {
            (limit, name): float(r) for name, r in zip(names, ranks.mean(axis=0), strict=True)
        }
    return found


def _result(cell: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{"searcher": cell["searcher"], "limit": cell["limit"], "seed": cell["seed"]},
        "test %": 100 * cell["test"]["accuracy"],
        "limit used %": 100 * cell["limit_used"],
        **{"size KB": cell["best"]["costs"]["size_bits"] / 8000, "images": cell["n_images"]},
        "CPU s": cell["cpu_s"] + cell.get("search_cpu_s", 0),
    }


def _curves(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Best validation score so far: mean and 95 % band over seeds, where all have one."""
    rows = []
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        if cell["searcher"] != REFERENCE:
            groups.setdefault((cell["searcher"], cell["limit"]), []).append(cell)
    for (searcher, limit), own in groups.items():
        n_trials = min(len(cell["best_scores"]) for cell in own)
        for trial in range(n_trials):
            scores = [cell["best_scores"][trial] for cell in own]
            if None in scores:
                continue
            band = bootstrap_mean([100 * score for score in scores])
            rows.append(
                {
                    **{"searcher": searcher, "limit": limit, "trials": trial + 1},
                    **{"best %": band.mean, "low %": band.low, "high %": band.high},
                    "seeds": len(own),
                }
            )
    return rows


def _percent(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}


def _accuracies(colour: Spec) -> Figure:
    y = names_axis("searcher")
    rows: Spec = {"field": "limit", "type": "nominal", "title": "limit", "sort": None}
    spec = {
        "data": {"name": "summary"},
        "encoding": {"y": y},
        "layer": [
            {
                "data": {"name": "results"},
                "mark": {"type": "point", "filled": True, "opacity": 0.45, "size": 40},
                "encoding": {
                    "x": _percent("test %", "test accuracy, %"),
                    **{"color": colour, "yOffset": rows},
                    "tooltip": [
                        *tooltip(searcher="", limit="", seed=""),
                        *tooltip(**{"test %": ".2f", "size KB": ",.3f"}),
                    ],
                },
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {
                    "x": _percent("low %", "test accuracy, %"),
                    **{"x2": {"field": "high %"}, "color": colour, "yOffset": rows},
                },
            },
            {
                "mark": {"type": "tick", "thickness": 4, "height": 16},
                "encoding": {
                    "x": _percent("test %", "test accuracy, %"),
                    **{"color": colour, "yOffset": rows},
                    "tooltip": [
                        *tooltip(searcher="", limit="", seeds=""),
                        *tooltip(**{"test %": ".2f", "low %": ".2f", "high %": ".2f"}),
                    ],
                },
            },
        ],
    }
    text = (
        "A dot for each seed; the tick is the mean, the line its 95 % bootstrap interval. Limits "
        "of one strategy are below each other, in the order of the table."
    )
    return Figure("accuracies", "Accuracy on data held out", spec, text, {"step": 46})


def _limits_used(colour: Spec) -> Figure:
    spec = {
        "data": {"name": "results"},
        "encoding": {"y": names_axis("searcher")},
        "layer": [
            {
                "mark": {"type": "tick", "thickness": 2},
                "encoding": {
                    "x": _percent("limit used %", "of the limit, %"),
                    "color": colour,
                    "tooltip": [
                        *tooltip(searcher="", limit="", seed=""),
                        *tooltip(**{"limit used %": ".2f", "test %": ".2f"}),
                    ],
                },
            },
            {
                "mark": {"type": "rule", "strokeDash": [5, 4], "color": "#e15759"},
                "encoding": {"x": {"datum": 100}, "y": {"value": 0}, "y2": {"value": "height"}},
            },
        ],
    }
    text = "How much of the limit each result takes; dashed: all of it. None may be beyond."
    return Figure("limits", "How constraints are met", spec, text, {"step": 30})


def _anytime(colour: Spec) -> Figure:
    x = {"field": "trials", "type": "quantitative", "title": "trials"}
    spec = {
        "data": {"name": "curves"},
        "encoding": {"x": x, "detail": {"field": "limit"}},
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.2, "interpolate": "step-after"},
                "encoding": {
                    "y": _percent("low %", "best validation score so far, %"),
                    **{"y2": {"field": "high %"}, "color": colour},
                },
            },
            {
                "mark": {"type": "line", "interpolate": "step-after", "point": {"size": 18}},
                "encoding": {
                    "y": _percent("best %", "best validation score so far, %"),
                    "color": colour,
                    "strokeDash": {"field": "limit", "type": "nominal", "title": "limit"},
                    "tooltip": [
                        *tooltip(searcher="", limit="", trials="", seeds=""),
                        *tooltip(**{"best %": ".2f", "low %": ".2f", "high %": ".2f"}),
                    ],
                },
            },
        ],
    }
    text = "Mean over seeds; the band is its 95 % bootstrap interval."
    return Figure("anytime", "Progress with every trial", spec, text, 360)
