# SPDX-License-Identifier: Apache-2.0
"""A section of a page that compares compression schemes on the weights of networks."""

from __future__ import annotations

from collections.abc import Sequence

from npusim.report.page import Figure, Filter, Heading, Section, Table, columns_of
from npusim.report.page_charts import Spec, names_axis, tooltip
from npusim.report.schemes import comparison_rows
from npusim.schemes.lab import Comparison


def scheme_section(found: Sequence[Comparison]) -> Section:
    """Bits a weight, decoders' speed and area of every scheme, model and condition.

    Args:
        found: one for each model, of the same schemes and conditions.
    """
    rows = []
    for comparison in found:
        conditions = [str(point.condition) for point in comparison.points]
        measured = comparison_rows(comparison)
        each = len(measured) // len(conditions)
        for place, row in enumerate(measured):
            low, high = row["area_ge_low"] or 0, row["area_ge_high"] or 0
            rows.append(
                {
                    "scheme": row["scheme"],
                    "model": row["model"],
                    "condition": conditions[place // each],
                    "bytes": row["bytes"],
                    "bits_per_weight": row["bits_per_weight"],
                    "above_entropy": row["above_entropy"],
                    "weights_per_cycle": row["weights_per_cycle"] or None,
                    "stall_cycles": row["stall_cycles"] if row["stall_cycles"] != "" else None,
                    "inference_cycles": row["total_cycles"] or None,
                    "area_kge": (low + high) / 2000 or None,
                    "relative_error": row["relative_error"] or None,
                    "front": bool(row["on_front"]),
                    "kind": "bound" if row["scheme"].startswith("bound ") else "scheme",
                }
            )
    left_out = {text for comparison in found for text in comparison.left_out.values()}
    headings = (
        Heading("scheme", "scheme"),
        Heading("bytes", "bytes", 0),
        Heading("bits_per_weight", "bits a weight", 3),
        Heading("above_entropy", "above entropy", 3, "as a fraction of the order-0 entropy"),
        Heading("weights_per_cycle", "weights a cycle", 3, "of the decoder, in the mean"),
        Heading("stall_cycles", "stalls", 0, "cycles the decoder waits for memory"),
        Heading("inference_cycles", "cycles", 0, "of an inference, if the NPU read these streams"),
        Heading("area_kge", "area, kGE", 1, "of the decoder: mostly engineering estimates"),
        Heading("relative_error", "error", 4, "relative, L2; none where lossless"),
        Heading("front", "on the front", None, "of bytes, cycles, area and error"),
    )
    return Section(
        "schemes",
        "Compression schemes compared",
        {"schemes": columns_of(rows)},
        (
            Figure("sizes", "Bits a weight", _sizes(), _SIZES_TEXT, {"step": 20}),
            Figure("decoders", "Size against speed of the decoder", _decoders(), _DECODERS_TEXT),
            Table("schemes", "All schemes", "schemes", headings, n_shown=40),
        ),
        " ".join(sorted(left_out)),
        (Filter("model", "model", "one"), Filter("condition", "weights", "one")),
    )


_SIZES_TEXT = (
    "Exact bytes of all layers in the order in which the NPU reads them. Bounds are what no code "
    "of their kind can be below."
)
_DECODERS_TEXT = (
    "Below and to the right is better. The larger a dot, the larger its decoder; those in colour "
    "are on the front of bytes, cycles, area and error. Rates and areas are mostly engineering "
    "estimates: see npusim schemes show."
)


def _sizes() -> Spec:
    return {
        "data": {"name": "schemes"},
        "mark": {"type": "bar", "cornerRadiusEnd": 2},
        "encoding": {
            "y": {**names_axis("scheme"), "sort": "x"},
            "x": {"field": "bits_per_weight", "type": "quantitative", "title": "bits a weight"},
            "color": {
                **{"field": "kind", "type": "nominal", "title": None},
                "scale": {"domain": ["scheme", "bound"], "range": ["#4e79a7", "#9a9aa0"]},
            },
            "tooltip": [
                *tooltip(scheme="", bytes=",", bits_per_weight=".3f"),
                *tooltip(above_entropy="+.1%", relative_error=".4f"),
            ],
        },
    }


def _decoders() -> Spec:
    x: Spec = {
        **{"field": "weights_per_cycle", "type": "quantitative"},
        **{"scale": {"type": "log"}, "title": "weights a cycle"},
    }
    y: Spec = {
        **{"field": "bits_per_weight", "type": "quantitative", "title": "bits a weight"},
        "scale": {"zero": False},
    }
    colour = {"condition": {"test": "datum.front", "value": "#4e79a7"}, "value": "#9a9aa0"}
    tips = [
        *tooltip(scheme="", bytes=",", bits_per_weight=".3f", weights_per_cycle=".3f"),
        *tooltip(area_kge=",.1f"),
    ]
    return {
        "data": {"name": "schemes"},
        "transform": [{"filter": "datum.weights_per_cycle > 0"}],
        "encoding": {"x": x, "y": y},
        "layer": [
            {
                "mark": {"type": "point", "filled": True, "opacity": 0.75},
                "encoding": {
                    "color": colour,
                    "size": {
                        **{"field": "area_kge", "type": "quantitative", "legend": None},
                        "scale": {"range": [40, 900]},
                    },
                    "tooltip": tips,
                },
            },
            {
                "transform": [{"filter": "datum.front"}],
                "mark": {"type": "text", "align": "left", "dx": 8, "fontSize": 10},
                "encoding": {"text": {"field": "scheme"}},
            },
        ],
    }
