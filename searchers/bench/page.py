# SPDX-License-Identifier: Apache-2.0
"""Benchmarks as sections of a page: protocol, results, ranks, tests, curves, fronts, costs.

`BenchReader` is registered as "benches" in the group ``npusim.reports``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Final

from npusim.errors import FormatError
from npusim.hardware import Machine, machine
from npusim.report.page import Figure, Filter, Heading, Section, Table, columns_of, slug
from searchers.bench import page_figures as figures
from searchers.bench.curves import AXES, curves
from searchers.bench.fronts import CYCLES, joined
from searchers.bench.protocol import REFERENCE
from searchers.bench.results import FORMAT, VERSION, is_of
from searchers.page_runs import searcher_colour, section_of
from searchers.rank_tests import ALPHA
from searchers.store import read_json
from searchers.stored import is_run, read_run

_RESULTS: Final = "results.json"
Rows = list[dict[str, Any]]


class BenchReader:
    """Reads directories of benchmarks; see `npusim.report.reader.Reader`."""

    machine: Machine | None = None

    def reads(self, text: str) -> bool:
        """Whether it is the directory of a benchmark that has been finished once."""
        return (Path(text) / _RESULTS).is_file()

    def sections(self, texts: Sequence[str], show: Callable[[float], None]) -> list[Section]:
        """Two sections for each benchmark: its results, and all its searches that kept trials.

        Raises:
            FormatError: the results are not those of a benchmark.
            NpusimError: see `searchers.stored.read_run`.
        """
        found = []
        for number, folder in enumerate(map(Path, texts), start=1):
            results = read_json(folder / _RESULTS)
            kind = (results.get("format"), results.get("version"))
            if kind != (FORMAT, VERSION):
                raise FormatError(
                    f"{folder / _RESULTS} must be {FORMAT} version {VERSION}, got {kind}"
                )
            found.append(bench_section(folder.name, results))
            by_space: dict[str, dict[str, Any]] = {}
            for cell in results["cells"]:
                if is_run(path := folder / cell["directory"]):
                    run = read_run(path)
                    by_space.setdefault(run.space.content_hash, {})[path.name] = run
            npu = results["protocol"].get("npu")
            target = self.machine or (machine(npu) if npu else None)
            for part, runs in by_space.items():
                trials = section_of(runs, target)
                name = slug(f"{trials.name}-{folder.name}")
                if any(section.name == name for section in found):  # a space of other options
                    name = f"{name}-{part}"
                found.append(trials.renamed(name, f"{trials.title} in {folder.name}"))
            show(number / len(texts))
        return found


def bench_section(name: str, results: Mapping[str, Any]) -> Section:
    """The results of `searchers.bench.results.collect`."""
    problems = results["problems"]
    names = [each["name"] for each in results["protocol"]["searchers"]]
    units = {problem["unit"][0] for problem in problems}
    unit = units.pop() if len(units) == 1 else ""
    data: dict[str, Rows] = {
        "protocol": _protocol(results["protocol"]),
        "summary": [_summary(problem, row) for problem in problems for row in problem["rows"]],
        "results": [_result(problem, cell) for problem, cell in _tested(results)],
        "ranks": _ranks(results),
        "groups": _groups(problems),
        "pairs": _pairs(problems, names),
        "tests": _tests(results),
        "costs": [_cost(row) for row in results["costs"]],
        "spent": [part for row in results["costs"] for part in _spent(row)],
        **{f"curves-{axis}": _curves(results, axis) for axis in AXES},
        **{f"front-{measure}": _front(results, measure) for measure in _measures(problems)},
    }
    colour = searcher_colour(names)
    plain = {**searcher_colour([*names, REFERENCE]), "legend": None}
    parts: list[Figure | Table] = []
    if data["results"]:
        parts += [_summary_table(unit, problems), figures.scores(plain, unit)]
    if data["ranks"]:
        parts.append(figures.ranks(colour, bool(data["groups"])))
    if data["pairs"]:
        parts += [_tests_table(), figures.matrix(names), _pairs_table()]
    for axis, title in AXES.items():
        if data[f"curves-{axis}"]:
            parts.append(figures.anytime(f"curves-{axis}", title, colour, unit))
    for measure in _measures(problems):
        if data[f"front-{measure}"]:
            title = _title(measure, results["protocol"].get("npu"))
            reference = _reference_text(problems, measure)
            parts.append(figures.front(f"front-{measure}", title, colour, reference))
    if any(row["over one random %"] is not None for row in data["summary"]):
        parts.append(figures.improvements(plain))
    if data["results"]:
        parts.append(figures.limits_used(plain))
    parts += [_costs_table(), figures.costs(), _protocol_table()]
    return Section(
        slug(f"bench-{name}"),
        f"Benchmark {name}{_tabular(problems)}",
        {key: columns_of(rows) for key, rows in data.items() if rows},
        tuple(parts),
        " ".join(results["notes"]),
        (Filter("searcher", "searcher"), Filter("problem", "problem")),
    )


def _tabular(problems: Sequence[Mapping[str, Any]]) -> str:
    if all(problem["is_tabular"] for problem in problems):
        return " (tabular)"
    return " (tabular in part)" if any(problem["is_tabular"] for problem in problems) else ""


def _measures(problems: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(m for problem in problems for m in problem["references"]))


def _title(measure: str, npu: str | None) -> str:
    if measure == CYCLES:
        return f"cycles on {npu}"
    return {"size_bits": "compressed size, KB", "macs": "multiply-accumulates"}.get(
        measure, measure.replace("_", " ")
    )


def _shown(measure: str, cost: float) -> float:
    """A cost in the unit that it is shown in."""
    return cost / 8000 if measure == "size_bits" else cost


def _tested(results: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return [
        (problem, cell)
        for problem in results["problems"]
        for cell in results["cells"]
        if is_of(cell, problem["task"], problem["limit"]) and cell["test"] is not None
    ]


def _protocol(protocol: Mapping[str, Any]) -> Rows:
    """Key and value of everything that the protocol says."""

    def plain(where: str, value: Any) -> Rows:
        if isinstance(value, Mapping):
            return [row for k, v in value.items() for row in plain(f"{where}.{k}", v)]
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return [row for i, v in enumerate(value) for row in plain(f"{where}[{i}]", v)]
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return [{"key": where, "value": text}]

    return [row for key, value in protocol.items() for row in plain(key, value)]


def _summary(problem: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    scale = problem["unit"][1]

    def part(name: str, key: str = "mean", times: float = scale) -> float | None:
        return None if row[name] is None else times * row[name][key]

    volumes = row["hypervolume"]
    return {
        **{"searcher": row["searcher"], "problem": problem["name"], "seeds": row["n"]},
        **{"score": part("test"), "low": part("test", "low"), "high": part("test", "high")},
        **{"mean rank": row["mean_rank"], "gain": part("gain"), "regret": part("regret")},
        "over one random %": part("relative_improvement", times=1),
        "over low %": part("relative_improvement", "low", 1),
        "over high %": part("relative_improvement", "high", 1),
        **{
            f"hypervolume {measure} %": 100 * volumes[measure]["mean"]
            if measure in volumes
            else None
            for measure in ("size_bits", CYCLES)
        },
        "limit used %": 100 * row["limit_used"],
        "within limit %": 100 * row["n_within"] / row["n"],
    }


def _summary_table(unit: str, problems: Sequence[Mapping[str, Any]]) -> Table:
    headings = [
        Heading("problem", "problem"),
        Heading("searcher", "searcher"),
        Heading("seeds", "seeds", 0),
        Heading("score", f"test {unit}", 2, "on data held out, mean over seeds"),
        Heading("low", "from", 2, "95 % bootstrap interval of the mean"),
        Heading("high", "to", 2, "95 % bootstrap interval of the mean"),
        Heading("mean rank", "mean rank", 2, "over seeds; 1 is best"),
        Heading("gain", "gain", 2, "over the first strategy, paired by seed"),
        Heading("over one random %", "over one random %", 1, "relative, over the mean candidate"),
    ]
    if any(problem["optimum"] is not None for problem in problems):
        headings.append(Heading("regret", "regret", 2, "below the best score within the limit"))
    for measure, text in (("size_bits", "size"), (CYCLES, "cycles")):
        if any(measure in problem["references"] for problem in problems):
            told = f"of all fronts of score and {text} joined"
            headings.append(Heading(f"hypervolume {measure} %", f"hypervolume, {text} %", 1, told))
    headings += [
        Heading("limit used %", "limit used %", 1),
        Heading("within limit %", "within limit %", 1, "of all results: 100 is what must be"),
    ]
    return Table("summary", "Results", "summary", tuple(headings), n_shown=60)


def _result(problem: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    limit = cell["limit"]
    return {
        **{"searcher": cell["searcher"], "problem": problem["name"], "seed": cell["seed"]},
        "score": problem["unit"][1] * cell["test_score"],
        "limit used %": 100 * cell["best"]["costs"][limit["measure"]] / limit["most"],
        **{"size KB": cell["best"]["costs"]["size_bits"] / 8000, "images": cell["n_images"]},
        "CPU s": cell["cpu_s"] + cell["search_cpu_s"],
    }


def _ranks(results: Mapping[str, Any]) -> Rows:
    rows = [
        {"problem": problem["name"], "searcher": name, "mean rank": rank}
        for problem in results["problems"]
        if problem["tests"]
        for name, rank in problem["tests"]["mean_ranks"].items()
    ]
    overall = results["overall"]
    return rows + [
        {"problem": "all problems", "searcher": name, "mean rank": rank}
        for name, rank in (overall["mean_ranks"].items() if overall else ())
    ]


def _groups(problems: Sequence[Mapping[str, Any]]) -> Rows:
    rows = []
    for problem in problems:
        tests = problem["tests"] or {"groups": [], "mean_ranks": {}}
        for number, members in enumerate(tests["groups"]):
            at = [tests["mean_ranks"][name] for name in members]
            rows.append(
                {
                    **{"problem": problem["name"], "number": number, "first": min(at)},
                    **{"last": max(at), "members": ", ".join(members)},
                }
            )
    return rows


def _tests(results: Mapping[str, Any]) -> Rows:
    rows = []
    for problem in results["problems"]:
        if tests := problem["tests"]:
            found = tests["friedman"] or {"f": None, "p": None}
            rows.append(
                {
                    **{"problem": problem["name"], "blocks": len(tests["seeds"])},
                    **{"F": found["f"], "p": found["p"], "first": tests["best"]},
                    "better than": ", ".join(tests["better_than"]) or "none",
                    "least p": tests["least_p_holm"],
                }
            )
    if overall := results["overall"]:
        found = overall["friedman"] or {"f": None, "p": None}
        first = min(overall["mean_ranks"], key=overall["mean_ranks"].__getitem__)
        rows.append(
            {
                **{"problem": "all problems", "blocks": overall["n_blocks"], "F": found["f"]},
                **{"p": found["p"], "first": first, "better than": None, "least p": None},
            }
        )
    return rows


def _tests_table() -> Table:
    headings = (
        Heading("problem", "problem"),
        Heading("blocks", "blocks", 0, "seeds that all strategies have; of all problems together"),
        Heading("F", "Friedman F", 2, "as Iman and Davenport corrected it"),
        Heading("p", "p", 4, "probability of so large an F if no strategy differed"),
        Heading("first", "first", None, "by its mean; of all problems by its mean rank"),
        Heading("better than", "significantly better than", None, "after Holm's correction, 5 %"),
        Heading("least p", "least p", 4, "that so many seeds and pairs can give, corrected"),
    )
    return Table("tests", "Do strategies differ at all?", "tests", headings)


def _pairs(problems: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Rows:
    """Both directions of every pair; what is said of the first holds of ``searcher``."""
    rows: Rows = []
    for number, problem in enumerate(problems):
        scale = problem["unit"][1]
        for pair, turned in product((problem["tests"] or {"pairs": []})["pairs"], (False, True)):
            sign = -1 if turned else 1
            ends = [sign * scale * pair["difference"][key] for key in ("low", "high")]
            above = 1 - pair["superiority"] if turned else pair["superiority"]
            significant = pair["p_holm"] <= ALPHA
            rows.append(
                {
                    **{"place": number, "problem": problem["name"]},
                    "searcher": pair["worse" if turned else "better"],
                    "other": pair["better" if turned else "worse"],
                    "difference": sign * scale * pair["difference"]["mean"],
                    **{"low": min(ends), "high": max(ends)},
                    **{"p": pair["p"], "p Holm": pair["p_holm"], "significant": significant},
                    **{"superiority": above, "text": f"{above:.2f}{'*' if significant else ''}"},
                }
            )
    place = {name: i for i, name in enumerate(names)}
    rows.sort(key=lambda row: (row["place"], place[row["searcher"]], place[row["other"]]))
    for row in rows:
        del row["place"]
        row["row"] = (
            f"{row['searcher']} · {row['problem']}" if len(problems) > 1 else row["searcher"]
        )
    return rows


def _pairs_table() -> Table:
    headings = (
        Heading("problem", "problem"),
        Heading("searcher", "searcher"),
        Heading("other", "against"),
        Heading("difference", "difference", 2, "of means, paired by seed"),
        Heading("low", "from", 2, "95 % bootstrap interval"),
        Heading("high", "to", 2, "95 % bootstrap interval"),
        Heading("p", "p", 4, "Wilcoxon's signed-rank test, two-sided, exact"),
        Heading("p Holm", "p, corrected", 4, "by Holm, over all pairs of the problem"),
        Heading("superiority", "superiority", 2, "probability to be above the other"),
        Heading("significant", "significant", None, "corrected p at most 0.05"),
    )
    return Table("pairs", "Tests of all pairs", "pairs", headings)


def _curves(results: Mapping[str, Any], axis: str) -> Rows:
    scales = {problem["name"]: problem["score_unit"][1] for problem in results["problems"]}
    return [
        {**row, **{key: scales[row["problem"]] * row[key] for key in ("mean", "low", "high")}}
        for row in curves(results, axis)
    ]


def _front(results: Mapping[str, Any], measure: str) -> Rows:
    """Of each strategy the front of all its seeds."""
    rows = []
    for problem in results["problems"]:
        own = [c for c in results["cells"] if is_of(c, problem["task"], problem["limit"])]
        for name in dict.fromkeys(cell["searcher"] for cell in own):
            if name == REFERENCE:
                continue
            found = [c["fronts"].get(measure) for c in own if c["searcher"] == name]
            points = joined([front for front in found if front])
            rows += [
                {
                    **{"problem": problem["name"], "searcher": name},
                    **{"cost": _shown(measure, cost), "score": problem["score_unit"][1] * score},
                }
                for cost, score in zip(points["cost"], points["score"], strict=True)
            ]
    return rows


def _reference_text(problems: Sequence[Mapping[str, Any]], measure: str) -> str:
    points = []
    for problem in problems:
        if point := problem["references"].get(measure):
            score = problem["score_unit"][1] * point["score"]
            points.append(
                f"{_shown(measure, point['cost']):,.4g} and {score:.4g} ({problem['name']})"
            )
    return "; ".join(points)


def _cost(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{"searcher": row["searcher"], "trials": row["trials"], "images": row["images"]},
        "training CPU s": row["evaluation_cpu_s"],
        **{"own CPU s": row["own_cpu_s"], "tuning images": row["tuning"]["images"]},
        **{"tuning CPU s": row["tuning"]["cpu_s"], "all images": row["total_images"]},
        "all CPU s": row["total_cpu_s"],
        "wall s": row["evaluation_wall_s"] + row["own_wall_s"] + row["tuning"]["wall_s"],
    }


def _spent(row: Mapping[str, Any]) -> Rows:
    parts = {
        "training": row["evaluation_cpu_s"],
        "the searcher's own": row["own_cpu_s"],
        "tuning": row["tuning"]["cpu_s"],
    }
    return [
        {"searcher": row["searcher"], "part": name, "CPU s": value, "part_place": i}
        for i, (name, value) in enumerate(parts.items())
    ]


def _costs_table() -> Table:
    headings = (
        Heading("searcher", "searcher"),
        Heading("trials", "trials", 0),
        Heading("images", "images", 0, "trained on, by trials and by the searcher itself"),
        Heading("training CPU s", "training, CPU s", 1, "or other evaluation of candidates"),
        Heading("own CPU s", "own, CPU s", 2, "proposing and learning"),
        Heading("tuning images", "tuning images", 0, "spent on its options, as the protocol says"),
        Heading("tuning CPU s", "tuning, CPU s", 1, "spent on its options, as the protocol says"),
        Heading("all images", "all images", 0),
        Heading("all CPU s", "all, CPU s", 1),
        Heading("wall s", "all, wall s", 1),
    )
    text = "Of all problems and seeds together; final tests are not counted."
    return Table("costs", "What each strategy took", "costs", headings, text, 40)


def _protocol_table() -> Table:
    headings = (Heading("key", "key"), Heading("value", "value"))
    return Table("protocol", "Protocol", "protocol", headings, n_shown=12)
