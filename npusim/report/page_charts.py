# SPDX-License-Identifier: Apache-2.0
"""Figures of a page that several of its sections use, as Vega-Lite specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from npusim.report.page import Figure

Spec = dict[str, Any]
ROW: Final = {"step": 17}
"""Height of a row of a scale of names, in pixels."""
_LANES_WIDTH: Final = 36
"""Room for connections that skip layers, at the right, in pixels."""
_BITS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32)


def tooltip(**formats: str) -> list[Spec]:
    """What is told of a mark: columns and how to print them, ``""`` as they are.

    >>> tooltip(name="", size_bytes=",.0f")[1]
    {'field': 'size_bytes', 'format': ',.0f', 'type': 'quantitative', 'title': 'size bytes'}
    """
    return [
        {
            "field": name,
            **({"format": form, "type": "quantitative"} if form else {"type": "nominal"}),
            "title": name.replace("_", " "),
        }
        for name, form in formats.items()
    ]


def names_axis(field: str, title: str | None = None) -> Spec:
    """A vertical scale of names in the order of the data."""
    return {
        "field": field,
        "type": "nominal",
        "sort": None,
        "title": title,
        "axis": {"ticks": False},
    }


def stacked(
    data: str,
    *,
    names: str,
    amount: str,
    parts: str,
    order: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    tips: Sequence[Spec],
) -> Spec:
    """A bar for each name, stacked of parts.

    Args:
        data: its rows have the columns `names`, `parts`, `amount` and ``part_place``, by which
            parts are stacked.
        order: all parts, for the colours.
        rows: the data, for the parts that occur.
        tips: what is told of a part.
    """
    found = {row[parts] for row in rows}
    return {
        "data": {"name": data},
        "mark": {"type": "bar", "cornerRadiusEnd": 1},
        "encoding": {
            "y": names_axis(names),
            "x": {
                "field": amount,
                "type": "quantitative",
                "title": amount,
                "stack": "zero",
                "axis": {"format": "~s"},
            },
            "color": {
                "field": parts,
                "type": "nominal",
                "scale": {"domain": list(order)},
                "title": None,
                "legend": {"values": [part for part in order if part in found]},
            },
            "order": {"field": "part_place", "type": "quantitative"},
            "tooltip": list(tips),
        },
    }


def architecture(data: str, caption: str, *, name: str = "architecture") -> Figure:
    """A network layer by layer: the longer a bar, the more channels; its full part are non-zeros.

    Args:
        data: rows of layers with ``place``, from 0; ``layer``, its name; ``what`` it computes,
            such as "conv 3×3"; ``map``, height and width of that; ``channels``; ``bits`` of a
            weight, None without; ``kept_fraction`` of its weights that are not zero, None if there
            are none or it is not known; ``skips``, a list of how many layers up those inputs are
            that are not the layer above.
        caption: of the figure.
        name: of the figure.
    """
    y: Spec = {
        "field": "place",
        "type": "ordinal",
        "title": None,
        "axis": {"labels": False, "ticks": False, "domain": False},
        "scale": {"paddingInner": 0.1},
    }
    x: Spec = {
        "type": "quantitative",
        "title": "channels",
        "scale": {"range": [0, {"expr": f"width - {_LANES_WIDTH}"}]},
    }
    colour: Spec = {
        "condition": {"test": "datum.bits === null", "value": "#9a9aa0"},
        "field": "bits",
        "type": "ordinal",
        "title": "bits of a weight",
        "scale": {"domain": list(_BITS), "scheme": "turbo"},
        "legend": {"columns": len(_BITS), "symbolOpacity": 1},
    }
    tips = tooltip(layer="", what="", map="", channels=",", bits="", kept_fraction=".1%")
    bar: Spec = {"type": "bar", "height": {"band": 0.4}, "yOffset": 8, "cornerRadiusEnd": 2}
    lane: Spec = {"value": {"expr": "width - 8 - 7 * (datum.skip % 4)"}}
    skips: Spec = {
        "transform": [
            {"flatten": ["skips"], "as": ["skip"]},
            {"calculate": "datum.place - datum.skip", "as": "source"},
        ]
    }
    layers = [
        {
            "mark": {**bar, "opacity": 0.3},
            "encoding": {"x": {**x, "field": "channels"}, "color": colour, "tooltip": tips},
        },
        {
            "mark": bar,
            "encoding": {"x": {**x, "field": "kept_channels"}, "color": colour, "tooltip": tips},
        },
        {
            "mark": {
                **{"type": "text", "align": "left", "dy": -7, "fontSize": 11.5},
                "limit": {"expr": f"width - {_LANES_WIDTH}"},
            },
            "encoding": {"x": {"value": 0}, "text": {"field": "text"}},
        },
        {
            **skips,
            "mark": {"type": "rule", "strokeWidth": 1.5},
            "encoding": {"x": lane, "y": {**y, "field": "source"}, "y2": {"field": "place"}},
        },
        {
            **skips,
            "mark": {"type": "point", "shape": "triangle-left", "filled": True, "size": 40},
            "encoding": {"x": lane, "tooltip": tooltip(layer="", skip="")},
        },
    ]
    words = [
        *("datum.layer", "':  '", "datum.what", "' · '", "datum.map", "'×'", "datum.channels"),
        "(datum.bits === null ? '' : ' · ' + datum.bits + ' bit')",
        "(datum.kept_fraction === null ? '' : ' · '",
        "format(datum.kept_fraction, '.0%') + ' non-zero')",
    ]
    kept = "datum.channels * (datum.kept_fraction === null ? 1 : datum.kept_fraction)"
    spec = {
        "data": {"name": data},
        "transform": [
            {"calculate": " + ".join(words), "as": "text"},
            {"calculate": kept, "as": "kept_channels"},
        ],
        "encoding": {"y": y},
        "layer": layers,
    }
    return Figure(name, "Architecture", spec, caption, {"step": 34})
