# SPDX-License-Identifier: Apache-2.0
"""What there is to say about a space, as records, tables and a picture of its graph."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from npusim._files import write_whole
from npusim.errors import ConfigError
from spaces.base import Layer, LayerKind, Space
from spaces.costs import MEASURES
from spaces.feasible import feasible_set
from spaces.limits import Limit, format_size
from spaces.programme import cost_range
from spaces.tables import TooEntangledError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

LAYER_COLUMNS = ("layer", "kind", "inputs", "ofm", "kernel", "stride", "decisions")
SPACE_COLUMNS = ("space", "data_set", "layers", "decisions", "candidates", "limits")
_COLOURS = {
    LayerKind.INPUT: "#dddddd",
    LayerKind.CONV: "#4477aa",
    LayerKind.DEPTHWISE: "#66ccee",
    LayerKind.TRANSPOSE_CONV: "#228833",
    LayerKind.DENSE: "#aa3377",
    LayerKind.GIVEN: "#bbbbbb",
    LayerKind.ADD: "#ccbb44",
    LayerKind.CHOICE: "#ee6677",
}
_OTHER_COLOUR = "#f4f4f4"
_DARK = ("#4477aa", "#228833", "#aa3377")
_BOX_INCHES = (2.3, 0.46)
_PITCH_INCHES = (2.8, 0.75)
_LANE_INCHES = 0.16
_MARGIN_INCHES = 0.3
_INITIALS = ("w width", "b bitwidth", "s sparsity", "k kernel", "c choice", "r resolution")
_LAYERS_DRAWN_MAX = 400
_DPI = 100


def layer_rows(space: Space) -> list[dict[str, Any]]:
    """One record a layer, with the columns `LAYER_COLUMNS`; sizes are the largest."""
    return [
        {
            "layer": layer.name,
            "kind": str(layer.kind) if layer.given is None else layer.given.operator,
            "inputs": " ".join(layer.inputs),
            "ofm": _ofm(space, layer),
            "kernel": _kernel(space, layer),
            "stride": layer.stride,
            "decisions": " ".join(layer.decisions.values()),
        }
        for layer in space.layers
    ]


def _ofm(space: Space, layer: Layer) -> str:
    height, width = space.maps[layer.name][-1]
    return f"{height}x{width}x{space.depths[layer.name].full}"


def _kernel(space: Space, layer: Layer) -> str:
    if isinstance(layer.kernel, str):
        options = space.decisions[space.position(layer.kernel)].options
        return ", ".join(str(option) for option in options)
    return str(layer.kernel)


def space_row(space: Space) -> dict[str, Any]:
    """A space as one record, with the columns `SPACE_COLUMNS`."""
    return {
        "space": space.name,
        "data_set": space.data_set,
        "layers": len(space.layers),
        "decisions": len(space.decisions),
        "candidates": space.count(),
        "limits": ", ".join(str(limit) for limit in space.limits),
    }


def summary(space: Space, limit: Limit | None = None) -> dict[str, Any]:
    """What a space is, costs, and how many of its candidates are within a limit.

    Keys: those of `space_row`; ``hash``; ``costs``, by measure the least and the most, None where
    they cannot be found; and ``within``: limit, log10 of the number of candidates and of their
    share, whether the number is exact, and the method by which candidates are drawn.
    """
    found = {**space_row(space), "hash": space.content_hash, "costs": {}, "within": None}
    for measure in MEASURES:
        try:
            least, most = cost_range(space, measure)
            found["costs"][measure] = {"least": least, "most": most}
        except TooEntangledError:
            found["costs"][measure] = None
    if limit is not None:
        feasible = feasible_set(space, limit)
        log10_count = math.log10(feasible.count())
        found["within"] = {
            "measure": limit.measure,
            "most": limit.most,
            "log10_count": log10_count,
            "log10_share": log10_count - math.log10(space.count()),
            "exact": feasible.exact,
            "method": feasible.method,
        }
    return found


def layer_table(space: Space) -> RichTable:
    """The layers of a space as a table."""
    from rich.table import Table

    table = Table(title=f"space {space.name}")
    for column in LAYER_COLUMNS:
        right = column in ("ofm", "kernel", "stride")
        table.add_column(column, justify="right" if right else "left")
    for row in layer_rows(space):
        table.add_row(*(str(row[column]) for column in LAYER_COLUMNS))
    return table


def space_table(spaces: list[Space]) -> RichTable:
    """Spaces as a table, a row each."""
    from rich.table import Table

    table = Table()
    for column in SPACE_COLUMNS:
        right = column in ("layers", "decisions", "candidates")
        table.add_column(column.replace("_", " "), justify="right" if right else "left")
    for space in spaces:
        row = space_row(space) | {"candidates": format_count(space.count())}
        table.add_row(*(str(row[column]) for column in SPACE_COLUMNS))
    return table


def notes(space: Space, limit: Limit | None) -> list[str]:
    """What there is to say about a space besides its layers, a line each."""
    found = summary(space, limit)
    lines = [f"{format_count(found['candidates'])} candidates, hash {found['hash']}"]
    by_options: dict[tuple[Any, ...], list[str]] = {}
    for decision in space.decisions:
        by_options.setdefault((decision.kind, decision.options), []).append(decision.name)
    for (kind, options), names in by_options.items():
        listed = " ".join(str(option) for option in options)
        lines.append(f"{len(names)} x {kind}: {listed}")
    for measure, costs in found["costs"].items():
        if costs is not None:
            lines.append(
                f"{measure}: {_cost(measure, costs['least'])} to {_cost(measure, costs['most'])}"
            )
    if (within := found["within"]) is not None:
        rule = "" if within["exact"] else "at most "
        lines.append(
            f"within {limit}: {rule}10^{within['log10_count']:.2f} candidates, "
            f"a share of 10^{within['log10_share']:.2f} ({within['method']})"
        )
    return lines


def format_count(count: int) -> str:
    """A number of candidates for people.

    >>> format_count(15625), format_count(44**20)
    ('15,625', '7.397e+32')
    """
    return f"{count:,}" if count < 10**9 else f"{count:.4g}"


def _cost(measure: str, cost: int) -> str:
    return format_size(cost) if measure == "size_bits" else f"{cost:,}"


def plot_graph(space: Space, path: str) -> None:
    """Draw a space's graph from top to bottom, a box a layer with its largest ofm and decisions.

    Raises:
        ConfigError: `path` cannot be written, or there are too many layers to be drawn.
        MissingExtraError: matplotlib is not installed.
    """
    import networkx

    from npusim.report.plots import check_plot

    check_plot(path)
    if len(space.layers) > _LAYERS_DRAWN_MAX:
        raise ConfigError(
            f"layers to draw must be at most {_LAYERS_DRAWN_MAX}, got {len(space.layers)} "
            f"of space {space.name!r}"
        )
    import matplotlib.figure

    rows = list(networkx.topological_generations(space.graph()))
    places = {
        name: (_PITCH_INCHES[0] * (i - (len(row) - 1) / 2), level)
        for level, row in enumerate(rows)
        for i, name in enumerate(row)
    }
    lanes = _lanes(space, rows, places)
    half = _BOX_INCHES[0] / 2
    right = max([*lanes.values(), *(x + half for x, _ in places.values())]) + _MARGIN_INCHES
    left = min(x for x, _ in places.values()) - half - _MARGIN_INCHES
    high = _PITCH_INCHES[1] * (len(rows) + 1)
    figure = matplotlib.figure.Figure(figsize=(right - left, high))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(left, right)
    axes.set_ylim(len(rows) - 0.3, -1.3)  # rows count downwards
    axes.text(0, -1.0, f"space {space.name}", ha="center", fontsize=10)
    axes.text(0, -0.7, f"[{', '.join(_INITIALS)}]", ha="center", fontsize=5)
    for layer in space.layers:
        _draw_layer(axes, space, layer, places, lanes)
    write_whole("--plot", path, lambda part: figure.savefig(part, dpi=_DPI))


def _lanes(
    space: Space, rows: list[list[str]], places: dict[str, tuple[float, int]]
) -> dict[tuple[str, str], float]:
    """Where edges that pass rows go down, right of the boxes of those rows: x by edge."""
    lanes: dict[tuple[str, str], float] = {}
    taken: list[tuple[int, int, float]] = []
    for layer in space.layers:
        for source in layer.inputs:
            first, last = places[source][1], places[layer.name][1]
            if last - first < 2:
                continue
            boxes = [places[name][0] for row in rows[first : last + 1] for name in row]
            x = max(boxes) + _BOX_INCHES[0] / 2 + _LANE_INCHES
            while any(a < last and first < b and abs(x - other) < 1e-6 for a, b, other in taken):
                x += _LANE_INCHES
            taken.append((first, last, x))
            lanes[source, layer.name] = x
    return lanes


def _draw_layer(
    axes: Any,
    space: Space,
    layer: Layer,
    places: dict[str, tuple[float, int]],
    lanes: dict[tuple[str, str], float],
) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = places[layer.name]
    wide, high = _BOX_INCHES[0], _BOX_INCHES[1] / _PITCH_INCHES[1]
    colour = _COLOURS.get(layer.kind, _OTHER_COLOUR)
    corner, style = (x - wide / 2, y - high / 2), "round,pad=0,rounding_size=0.06"
    axes.add_patch(FancyBboxPatch(corner, wide, high, style, fc=colour, zorder=2))
    ink = "white" if colour in _DARK else "black"
    label = _label(space, layer)
    axes.text(x, y, label, ha="center", va="center", fontsize=6.5, color=ink, zorder=3)
    line, arrow = {"color": "black", "lw": 0.8, "zorder": 1}, {"arrowstyle": "-|>", "lw": 0.8}
    for source in layer.inputs:
        from_x, from_y = places[source]
        lane = lanes.get((source, layer.name))
        if lane is None:
            start, end = (from_x, from_y + high / 2), (x, y - high / 2)
        else:
            axes.plot([from_x, lane, lane], [from_y, from_y, y], **line)
            start, end = (lane, y), (x + wide / 2, y)
        axes.annotate(
            "", end, start, arrowprops={**arrow, "shrinkA": 0, "shrinkB": 0, "fc": "black"}
        )


def _label(space: Space, layer: Layer) -> str:
    kernel = "" if layer.kernel == 1 else f" {_kernel(space, layer).replace(', ', '/')}"
    kind = str(layer.kind) if layer.given is None else layer.given.operator
    name = layer.name if len(layer.name) <= 34 else f"{layer.name[:16]}...{layer.name[-15:]}"
    searched = [attribute[0] for attribute in layer.decisions]
    more = f"  [{' '.join(searched)}]" if searched else ""
    return f"{name}\n{kind}{kernel}  {_ofm(space, layer)}{more}"
