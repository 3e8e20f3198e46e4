# SPDX-License-Identifier: Apache-2.0
"""Searches as sections of a page: trials, what was best when, fronts, architectures.

`RunReader` is registered as "runs" in the group ``npusim.reports``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from npusim.errors import ConfigError
from npusim.hardware import Machine, machine
from npusim.report.page import Drawings, Figure, Filter, Heading, Section, Table, columns_of, slug
from npusim.report.page_charts import Spec, architecture, tooltip
from searchers.base import Trial
from searchers.report import unit_of
from searchers.stored import StoredRun, is_run, read_run
from spaces.drawing import drawings
from spaces.estimate import estimate

NPU: Final = "ethos-u55-128"
"""On which the networks of a front are costed where no other is named."""
N_DRAWN: Final = 2000
"""The best trials of a section are drawn: pages stay below 5 MB."""
N_SHOWN: Final = 20_000
"""Trials of a section at most; of more, the better half of these and evenly spaced others."""
N_COSTED: Final = 40
"""Networks of a front that are costed at most, some hundredths of a second each."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """Of scores: percent of accuracy, dB of PSNR, or none.

    Attributes:
        name: is in the names of columns, "" for none.
        scale: what scores are multiplied by.
    """

    name: str
    scale: float

    @classmethod
    def of(cls, scored: Iterable[tuple[float | None, Mapping[str, float]]]) -> _Unit:
        """That of scores with their metrics, see `unit_of`."""
        return cls(*unit_of(scored))

    def column(self, what: str) -> str:
        """Name of a column of scores."""
        return f"{what} {self.name}".rstrip()

    def title(self, what: str) -> str:
        """Of an axis."""
        return f"{what}, {self.name}" if self.name else what


class RunReader:
    """Reads directories of runs; see `npusim.report.reader.Reader`."""

    machine: Machine | None = None

    def reads(self, text: str) -> bool:
        """Whether it is the directory of a run."""
        return is_run(Path(text))

    def sections(self, texts: Sequence[str], show: Callable[[float], None]) -> list[Section]:
        """A section for each search space.

        Raises:
            NpusimError: see `searchers.stored.read_run`.
        """
        runs = {Path(text).name: read_run(Path(text)) for text in texts}
        if len(runs) < len(texts):
            raise ConfigError(f"names of run directories must differ, got {', '.join(texts)}")
        by_space: dict[str, dict[str, StoredRun]] = {}
        for name, run in runs.items():
            by_space.setdefault(run.space.content_hash, {})[name] = run
        found: list[Section] = []
        for own in by_space.values():
            section = section_of(own, self.machine)
            if any(section.name == each.name for each in found):  # its options are others
                part = next(iter(own.values())).space.content_hash
                section = section.renamed(f"{section.name}-{part}", f"{section.title} ({part})")
            found.append(section)
            show(len(found) / len(by_space))
        return found


def section_of(runs: Mapping[str, StoredRun], target: Machine | None = None) -> Section:
    """Runs of one space.

    Args:
        runs: by name.
        target: on which the networks of the front are costed; None for `NPU`.
    """
    target = machine(NPU) if target is None else target
    space = next(iter(runs.values())).space
    scored = [
        (name, run, trial)
        for name, run in runs.items()
        for trial in run.trials
        if trial.score is not None
    ]
    unit = _Unit.of((trial.score, trial.metrics) for _, _, trial in scored)
    tests = _Unit.of((found["test_score"], found["test"]) for found in _tested(runs.values()))
    score = unit.column("score")
    trials = [_trial_row(name, run, trial, unit) for name, run, trial in scored]
    trials.sort(key=lambda row: (-row["valid"], -row[score]))
    for number, row in enumerate(trials):
        row["drawing"] = number if number < N_DRAWN else None
    data: dict[str, list[dict[str, Any]]] = {
        "trials": [{key: row[key] for key in row if key != "choices"} for row in _thinned(trials)],
        "progress": [row for name, run in runs.items() for row in _progress_rows(name, run, unit)],
        "runs": [_run_row(name, run, unit, tests) for name, run in runs.items()],
        "limits": _limit_rows(runs, max((row["size KB"] for row in trials), default=0.0)),
        "front": _front_rows(runs, trials, target, score),
    }
    parts, rows = drawings(space, [row["choices"] for row in trials[:N_DRAWN]] or _nothing(space))
    told = (
        *(Heading("searcher", "drawn:"), Heading("run", "run"), Heading("trial", "trial")),
        *(Heading(score, score, 2), Heading("size KB", "size KB", 3)),
    )
    drawn = Drawings("layers", parts, rows, 0, ("trials", told)) if trials else None
    shown: list[Figure | Table] = []
    colour = searcher_colour([run.header["searcher"] for run in runs.values()])
    if trials:
        shown = [
            _scatter("size KB", "compressed size, KB", colour, unit, limits=bool(data["limits"])),
            _scatter("MACs", "multiply-accumulates of an image", colour, unit),
            architecture("layers", _DRAWN_TEXT),
            _progress(colour, unit),
            *([_front(colour, target.npu.name, unit)] if data["front"] else []),
            _trial_table(score),
        ]
    return Section(
        slug(f"searches-{space.name}"),
        f"Searches of {space.name}",
        {name: columns_of(rows) for name, rows in data.items() if rows},
        (*shown, _run_table(unit, tests)),
        _text(runs, len(trials)),
        (
            Filter("searcher", "searcher"),
            Filter("limit", "limit"),
            Filter("valid", "valid only", "flag"),
        ),
        drawn,
    )


def _thinned(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The trials that are shown, from the best to the worst."""
    if len(trials) <= N_SHOWN:
        return trials
    n_best = N_SHOWN // 2
    others = np.linspace(n_best, len(trials) - 1, N_SHOWN - n_best).astype(int)
    return [*trials[:n_best], *(trials[i] for i in others)]


_DRAWN_TEXT = (
    "Click on a trial, or press the button of one in the table below, to see its network. The "
    "longer a bar, the more channels; its full part are weights that are not zero."
)


def _tested(runs: Iterable[StoredRun]) -> list[Mapping[str, Any]]:
    """Results that have a test."""
    return [run.result for run in runs if run.result is not None and run.result["test"]]


def _nothing(space: Any) -> list[tuple[int, ...]]:
    return [space.largest().choices]


def _text(runs: Mapping[str, StoredRun], n_trials: int) -> str:
    every = sum(len(run.trials) for run in runs.values())
    space = next(iter(runs.values())).space
    text = f"{len(runs)} runs, {every:,} trials; space {space.name} ({space.content_hash})."
    if n_trials < every:
        text += f" {every - n_trials:,} trials gave no score and are not shown."
    if n_trials > N_SHOWN:
        text += f" Shown are the {N_SHOWN // 2:,} best and as many of the others, evenly spaced."
    if n_trials > N_DRAWN:
        text += f" The {N_DRAWN:,} best trials can be drawn."
    return text + " Scores are on validation data, which the search has seen; tests are not."


def _trial_row(name: str, run: StoredRun, trial: Trial, unit: _Unit) -> dict[str, Any]:
    assert trial.score is not None
    return {
        **{"run": name, "searcher": run.header["searcher"], "limit": str(run.limit)},
        **{"trial": trial.index, unit.column("score"): round(unit.scale * trial.score, 4)},
        "valid": trial.valid,
        "size KB": trial.costs["size_bits"] / 8000,
        "MACs": trial.costs["macs"],
        "parameters": trial.costs["n_parameters"],
        "images": trial.n_images + trial.search_images,
        "seconds": round(trial.wall_s + trial.search_wall_s, 3),
        "choices": trial.candidate.choices,
    }


def _progress_rows(name: str, run: StoredRun, unit: _Unit) -> list[dict[str, Any]]:
    """The best valid score so far: a row where it rises, and the end."""
    rows, best, images = [], None, 0
    for trial in run.trials:
        images += trial.n_images + trial.search_images
        better = trial.valid and (best is None or trial.merit > best)
        best = trial.merit if better else best
        if best is not None and (better or trial is run.trials[-1]):
            score = {unit.column("best"): unit.scale * best}
            rows.append(
                {
                    **{"run": name, "searcher": run.header["searcher"], "limit": str(run.limit)},
                    **{"trials": trial.index + 1, "images": images, **score},
                }
            )
    return rows


def _run_row(name: str, run: StoredRun, unit: _Unit, tests: _Unit) -> dict[str, Any]:
    valid = [trial for trial in run.trials if trial.valid]
    best = max(valid, key=lambda trial: trial.merit, default=None)
    tested = [tests.scale * found["test_score"] for found in _tested([run])]
    options = ", ".join(f"{key}={value}" for key, value in run.header["options"].items())
    evaluator = run.header["evaluator"]
    return {
        **{"run": name, "searcher": run.header["searcher"], "options": options},
        **{"limit": str(run.limit), "seed": run.header["seed"], "trials": len(run.trials)},
        "valid %": 100 * len(valid) / len(run.trials) if run.trials else None,
        "images": sum(trial.n_images + trial.search_images for trial in run.trials),
        unit.column("best"): None if best is None else unit.scale * best.merit,
        tests.column("test"): tested[0] if tested else None,
        "limit used %": best and 100 * best.costs[run.limit.measure] / run.limit.most,
        "CPU s": sum(trial.cpu_s + trial.search_cpu_s for trial in run.trials),
        "evaluator": evaluator["evaluator"] + (" (tabular)" if evaluator.get("tabular") else ""),
    }


def _limit_rows(runs: Mapping[str, StoredRun], largest_kb: float) -> list[dict[str, Any]]:
    """Limits on the size that are not so far away that all else would be in a corner."""
    limits = dict.fromkeys(run.limit for run in runs.values() if run.limit.measure == "size_bits")
    rows = [{"limit": str(limit), "size KB": limit.most / 8000} for limit in limits]
    return [row for row in rows if row["size KB"] <= 2 * largest_kb]


def _front_rows(
    runs: Mapping[str, StoredRun],
    trials: Sequence[Mapping[str, Any]],
    target: Machine,
    score: str,
) -> list[dict[str, Any]]:
    """Trials that none beats in both size and score, costed."""
    space = next(iter(runs.values())).space
    if any(layer.given is not None for layer in space.layers):
        return []  # lowered from their network, not from shapes
    found, least = [], float("inf")
    for row in sorted(trials, key=lambda row: (-row[score], row["size KB"])):
        if row["valid"] and row["size KB"] < least:
            least = row["size KB"]
            found.append(row)
    costed = []
    for row in found[:N_COSTED]:
        cost = estimate(space, space.candidate(row["choices"]), target)
        kept = ("run", "searcher", "limit", "trial", score, "valid", "size KB", "drawing")
        costed.append(
            {
                **{name: row[name] for name in kept},
                **{"cycles": cost.total_cycles, "SRAM KiB": cost.sram_peak_bytes / 1024},
            }
        )
    return costed


def _score(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "scale": {"zero": False}, "title": title}


def searcher_colour(names: Sequence[str]) -> Spec:
    """The colour of each searcher, whichever of them are shown."""
    return {
        **{"field": "searcher", "type": "nominal", "title": None},
        "scale": {"domain": list(dict.fromkeys(names))},
    }


def _tips(score: str) -> list[Spec]:
    return [
        *tooltip(searcher="", run="", trial="", limit=""),
        *tooltip(**{score: ".2f", "size KB": ",.3f"}),
        *tooltip(MACs=",", parameters=","),
    ]


def _scatter(cost: str, title: str, colour: Spec, unit: _Unit, *, limits: bool = False) -> Figure:
    """Scores against a cost, and the line above which there is none: the front of what is shown."""
    score, told = unit.column("score"), unit.title("validation score")
    x: Spec = {
        **{"field": cost, "type": "quantitative", "title": title, "scale": {"zero": False}},
        "axis": {"format": "~s"},
    }
    front = [
        {"filter": "datum.valid"},
        {
            "window": [{"op": "max", "field": score, "as": "best so far"}],
            **{"sort": [{"field": cost}], "frame": [None, 0]},
        },
    ]
    shape = {"field": "valid", "type": "nominal", "title": "valid"}
    layers: list[Spec] = [
        {
            "mark": {
                "type": "point",
                "filled": True,
                "opacity": 0.6,
                "size": 45,
                "cursor": "pointer",
            },
            "encoding": {
                **{"x": x, "y": _score(score, told), "color": colour},
                "tooltip": _tips(score),
                "shape": {
                    **shape,
                    "scale": {"domain": [True, False], "range": ["circle", "cross"]},
                },
            },
        },
        {
            "transform": front,
            "mark": {"type": "line", "interpolate": "step-after", "color": "#8592a6"},
            "encoding": {"x": x, "y": _score("best so far", told)},
        },
    ]
    text = "The line is the front: the best score of valid networks that cost no more."
    if limits:
        layers.append(
            {
                "data": {"name": "limits"},
                "mark": {
                    "type": "rule",
                    "strokeDash": [5, 4],
                    "color": "#e15759",
                    "strokeWidth": 1.5,
                },
                "encoding": {"x": x, "tooltip": tooltip(limit="")},
            }
        )
        text += " Dashed: the limits."
    spec = {"data": {"name": "trials"}, "layer": layers}
    return Figure(f"score-{slug(cost)}", f"Score against {title}", spec, text, 380)


def _progress(colour: Spec, unit: _Unit) -> Figure:
    best = unit.column("best")
    spec = {
        "data": {"name": "progress"},
        "mark": {"type": "line", "interpolate": "step-after", "opacity": 0.8},
        "encoding": {
            "x": {"field": "trials", "type": "quantitative", "title": "trials"},
            "y": _score(best, unit.title("best validation score so far")),
            "color": colour,
            "detail": {"field": "run"},
            "tooltip": [
                *tooltip(searcher="", run="", trials=",", images=","),
                *tooltip(**{best: ".2f"}),
            ],
        },
    }
    text = "A line for each run: the best valid score after so many trials."
    return Figure("progress", "Progress of the searches", spec, text)


def _front(colour: Spec, npu: str, unit: _Unit) -> Figure:
    score = unit.column("score")
    x = {
        **{"field": "cycles", "type": "quantitative", "title": f"cycles on {npu}"},
        "axis": {"format": "~s"},
    }
    spec = {
        "data": {"name": "front"},
        "mark": {"type": "point", "filled": True, "size": 90, "cursor": "pointer"},
        "encoding": {
            **{"x": {**x, "scale": {"zero": False}}, "color": colour},
            "y": _score(score, unit.title("validation score")),
            "tooltip": [
                *tooltip(searcher="", run="", trial="", cycles=","),
                *tooltip(**{score: ".2f", "size KB": ",.3f", "SRAM KiB": ",.1f"}),
            ],
        },
    }
    text = (
        f"What networks on the front of score and size cost on an {npu}, {N_COSTED} at most, "
        "weights taken to be as large as their bound."
    )
    return Figure("front-cycles", f"The front on an {npu}", spec, text)


def _trial_table(score: str) -> Table:
    headings = (
        Heading("trial", "trial"),
        Heading("run", "run"),
        Heading("searcher", "searcher"),
        Heading(score, score, 2),
        Heading("valid", "valid", None, "scored, and within all constraints"),
        Heading("size KB", "size KB", 3),
        Heading("MACs", "MACs", 0),
        Heading("parameters", "parameters", 0),
        Heading("images", "images", 0, "trained on"),
        Heading("seconds", "s", 1),
    )
    text = "The best first. The button of a trial draws its network."
    return Table("trials", "Trials", "trials", headings, text)


def _run_table(unit: _Unit, tests: _Unit) -> Table:
    best, test = unit.column("best"), tests.column("test")
    headings = (
        Heading("run", "run"),
        Heading("searcher", "searcher"),
        Heading("options", "options"),
        Heading("limit", "limit"),
        Heading("seed", "seed"),
        Heading("trials", "trials", 0),
        Heading("valid %", "valid %", 1, "scored, and within all constraints"),
        Heading("images", "images", 0, "trained on"),
        Heading(best, unit.column("best validation"), 2),
        Heading(test, test, 2, "of the best one, trained afresh, on data held out"),
        Heading("limit used %", "limit used %", 1),
        Heading("CPU s", "CPU s", 1),
        Heading("evaluator", "evaluator"),
    )
    return Table("runs", "Runs", "runs", headings, n_shown=30)
