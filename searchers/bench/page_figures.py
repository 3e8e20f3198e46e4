# SPDX-License-Identifier: Apache-2.0
"""The figures of a benchmark's section, as Vega-Lite specs."""

from __future__ import annotations

from collections.abc import Sequence

from npusim.report.page import Figure
from npusim.report.page_charts import Spec, names_axis, tooltip


def _number(field: str, title: str) -> Spec:
    return {"field": field, "type": "quantitative", "title": title, "scale": {"zero": False}}


def _with_unit(text: str, unit: str) -> str:
    return f"{text}, {unit}" if unit else text


_ROWS: Spec = {"field": "problem", "type": "nominal", "title": "problem", "sort": None}


def scores(colour: Spec, unit: str) -> Figure:
    """A dot for each seed, means and intervals."""
    title = _with_unit("test score", unit)
    own = {"color": colour, "yOffset": _ROWS}
    spec = {
        "data": {"name": "summary"},
        "encoding": {"y": names_axis("searcher")},
        "layer": [
            {
                "data": {"name": "results"},
                "mark": {"type": "point", "filled": True, "opacity": 0.45, "size": 40},
                "encoding": {
                    **{"x": _number("score", title), **own},
                    "tooltip": [
                        *tooltip(searcher="", problem="", seed=""),
                        *tooltip(**{"score": ".2f", "size KB": ",.3f"}),
                    ],
                },
            },
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"x": _number("low", title), "x2": {"field": "high"}, **own},
            },
            {
                "mark": {"type": "tick", "thickness": 4, "height": 16},
                "encoding": {
                    **{"x": _number("score", title), **own},
                    "tooltip": [
                        *tooltip(searcher="", problem="", seeds=""),
                        *tooltip(score=".2f", low=".2f", high=".2f"),
                    ],
                },
            },
        ],
    }
    text = (
        "A dot for each seed; the tick is the mean, the line its 95 % bootstrap interval. Problems "
        "of one strategy are below each other, in the order of the table."
    )
    return Figure("scores", "Results on data held out", spec, text, {"step": 46})


def ranks(colour: Spec, has_groups: bool) -> Figure:
    """Mean ranks on a line for each problem, with bars over those that do not differ."""
    x = {
        **_number("mean rank", "mean rank over seeds, 1 is best"),
        "axis": {"tickMinStep": 1},
        "scale": {"zero": False, "nice": False, "padding": 12},  # room for a point at rank 1
    }
    points: Spec = {
        "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
        "encoding": {
            **{"x": x, "color": colour},
            "tooltip": tooltip(**{"searcher": "", "problem": "", "mean rank": ".2f"}),
        },
    }
    bars: Spec = {
        "data": {"name": "groups"},
        "mark": {"type": "rule", "strokeWidth": 4, "color": "#8592a6", "strokeCap": "round"},
        "encoding": {
            **{"x": {**x, "field": "first"}, "x2": {"field": "last"}},
            "yOffset": {
                **{"field": "number", "type": "ordinal"},
                "scale": {"range": [8, 22]},
            },
            "tooltip": tooltip(members="", problem=""),
        },
    }
    spec = {
        "data": {"name": "ranks"},
        "encoding": {"y": names_axis("problem")},
        "layer": [points, *([bars] if has_groups else [])],
    }
    text = (
        "The further to the left, the better. Strategies under one grey bar do not differ "
        "significantly (Wilcoxon's signed-rank test by seed, Holm's correction, 5 %)."
    )
    return Figure("ranks", "Ranks, and what differs", spec, text, {"step": 56})


def matrix(names: Sequence[str]) -> Figure:
    """Probability of each strategy to be above each other one; significant ones with a star."""
    spec = {
        "data": {"name": "pairs"},
        "encoding": {
            "x": {
                **{"field": "other", "type": "nominal", "sort": list(names), "title": "against"},
                "axis": {"labelAngle": -20},
            },
            "y": {"field": "row", "type": "nominal", "sort": None, "title": None},
            "tooltip": [
                *tooltip(searcher="", other="", problem=""),
                *tooltip(superiority=".2f", difference=".2f", p=".4f"),
                *tooltip(**{"p Holm": ".4f", "significant": ""}),
            ],
        },
        "layer": [
            {
                "mark": {"type": "rect", "cornerRadius": 3},
                "encoding": {
                    "color": {
                        **{"field": "superiority", "type": "quantitative", "legend": None},
                        "scale": {
                            **{"domain": [0, 0.5, 1], "range": ["#c0504d", "#e9eaee", "#1d6f5b"]},
                        },
                    },
                },
            },
            {
                "mark": "text",
                "encoding": {
                    "text": {"field": "text"},
                    "color": {
                        "condition": {
                            "test": "abs(datum.superiority - 0.5) > 0.3",
                            "value": "#ffffff",
                        },
                        "value": "#10243c",
                    },
                },
            },
        ],
    }
    text = (
        "Probability that a result of the strategy at the left is above one of that below, ties "
        "counting half: 0.5 says that neither is better. A star: significant at 5 % after Holm's "
        "correction over all pairs of the problem."
    )
    return Figure("matrix", "Every strategy against every other", spec, text, {"step": 30})


def anytime(data: str, title: str, colour: Spec, unit: str) -> Figure:
    """The best score so far, with bands."""
    what = _with_unit("best score so far", unit)
    spec = {
        "data": {"name": data},
        "encoding": {
            "x": {"field": "spent", "type": "quantitative", "title": title},
            "detail": {"field": "problem"},
        },
        "layer": [
            {
                "mark": {"type": "area", "opacity": 0.2, "interpolate": "step-after"},
                "encoding": {"y": _number("low", what), "y2": {"field": "high"}, "color": colour},
            },
            {
                "mark": {"type": "line", "interpolate": "step-after"},
                "encoding": {
                    **{"y": _number("mean", what), "color": colour},
                    "strokeDash": {**_ROWS, "legend": {"labelLimit": 260}},
                    "tooltip": [
                        *tooltip(searcher="", problem="", seeds=""),
                        *tooltip(spent=",.4~r", mean=".2f", low=".2f", high=".2f"),
                    ],
                },
            },
        ],
    }
    text = "Mean over seeds; the band is its 95 % bootstrap interval."
    if title == "seconds":
        text += " Seconds are wall time, of proposals and evaluations; they never repeat exactly."
    return Figure(f"anytime-{title}", f"Progress by {title}", spec, text, 360)


def front(data: str, title: str, colour: Spec, reference: str) -> Figure:
    """The front of each strategy, over all its seeds."""
    x = {**_number("cost", title), "axis": {"format": "~s"}}
    spec = {
        "data": {"name": data},
        "mark": {"type": "line", "interpolate": "step-after", "point": True},
        "encoding": {
            **{"x": x, "y": _number("score", "score in the search"), "color": colour},
            "strokeDash": {**_ROWS, "legend": {"labelLimit": 260}},
            "tooltip": [
                *tooltip(searcher="", problem=""),
                *tooltip(cost=",.5~r", score=".2f"),
            ],
        },
    }
    text = (
        "What none of a strategy's candidates, of all seeds, beats in both. Hypervolumes of the "
        f"table are those of each seed's own front, up to the worst cost and score: {reference}; "
        "100 % is that of all fronts joined."
    )
    return Figure(data.replace("_", "-"), f"Fronts of score and {title}", spec, text, 340)


def improvements(colour: Spec) -> Figure:
    """Relative improvement over the average random candidate."""
    title = "over one random candidate, %"
    own = {"color": colour, "yOffset": _ROWS}
    spec = {
        "data": {"name": "summary"},
        "encoding": {"y": names_axis("searcher")},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {
                    **{"x": _number("over low %", title), "x2": {"field": "over high %"}, **own},
                },
            },
            {
                "mark": {"type": "point", "filled": True, "size": 70},
                "encoding": {
                    **{"x": _number("over one random %", title), **own},
                    "tooltip": [
                        *tooltip(searcher="", problem=""),
                        *tooltip(
                            **{"over one random %": ".2f", "over low %": ".2f"},
                            **{"over high %": ".2f"},
                        ),
                    ],
                },
            },
        ],
    }
    text = (
        "How far results are above those of one random candidate that was not searched for, "
        "relative to these, with 95 % bootstrap intervals: what the search is worth (Yang et al., "
        "2020)."
    )
    return Figure("improvements", "What searching is worth", spec, text, {"step": 40})


def limits_used(colour: Spec) -> Figure:
    """How much of its limit each result takes."""
    spec = {
        "data": {"name": "results"},
        "encoding": {"y": names_axis("searcher")},
        "layer": [
            {
                "mark": {"type": "tick", "thickness": 2},
                "encoding": {
                    **{"x": _number("limit used %", "of the limit, %"), "color": colour},
                    "tooltip": [
                        *tooltip(searcher="", problem="", seed=""),
                        *tooltip(**{"limit used %": ".2f", "score": ".2f"}),
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


def costs() -> Figure:
    """CPU seconds of each strategy, by what they went to."""
    spec = {
        "data": {"name": "spent"},
        "mark": {"type": "bar", "cornerRadiusEnd": 1},
        "encoding": {
            "y": names_axis("searcher"),
            "x": {"field": "CPU s", "type": "quantitative", "title": "CPU seconds"},
            "color": {"field": "part", "type": "nominal", "title": None, "sort": None},
            "order": {"field": "part_place", "type": "quantitative"},
            "tooltip": tooltip(**{"searcher": "", "part": "", "CPU s": ",.2f"}),
        },
    }
    text = "Of all problems and seeds together; final tests are not counted."
    return Figure("spent", "CPU time of each strategy", spec, text, {"step": 30})
