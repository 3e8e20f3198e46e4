# SPDX-License-Identifier: Apache-2.0
"""A section of a page that compares networks on machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from npusim.cost.explain import bound_shares, waterfall
from npusim.hardware import DEFAULT_MEMORY_MODE, DEFAULT_SYSTEM_CONFIG
from npusim.report.estimates import Estimate
from npusim.report.page import Figure, Filter, Heading, Section, Table, columns_of
from npusim.report.page_charts import Spec, tooltip

_MATRIX: Final[Mapping[str, tuple[str, str]]] = {
    "inference ms": (",.3~f", "time of an inference"),
    "cycles": (",", "NPU cycles"),
    "utilisation %": (",.1f", "of the multipliers' peak"),
    "SRAM KiB": (",.1f", "arena and weight buffers"),
    "flash KiB": (",.1f", "weights, scales, tables, constants"),
}
"""Measures of the comparison: how they are printed, and what they are."""


def comparison(found: Sequence[Estimate]) -> Section:
    """All networks on all machines: a table and a matrix of colours."""
    rows = [_total_row(each) for each in found]
    cells = [
        {
            **{"measure": name, "model": row["model"], "machine": row["machine"]},
            **{"value": row[name], "text": _text(name, row[name])},
            "relative": row[name] / (max(other[name] for other in rows) or 1),
        }
        for name in _MATRIX
        for row in rows
    ]
    headings = (
        Heading("model", "model"),
        Heading("machine", "machine"),
        Heading("inference ms", "ms", 3),
        Heading("cycles", "cycles", 0),
        Heading("utilisation %", "utilisation %", 1, "of the multipliers' peak"),
        Heading("bound", "mostly bound by", None, "what bounds the operations of most cycles"),
        Heading("SRAM KiB", "SRAM KiB", 1),
        Heading("flash KiB", "flash KiB", 1),
        Heading("CPU ops", "CPU ops", 0, "operations that the NPU cannot execute"),
        Heading("fits", "fits", None, "whether all memories hold what is kept in them"),
    )
    matrix = Figure(
        "matrix", "Networks and machines compared", _matrix(), _matrix_text(), {"step": 40}
    )
    return Section(
        "costs",
        "What an inference costs",
        {"costs": columns_of(rows), "cells": columns_of(cells)},
        (
            Table("totals", "Networks on machines", "costs", headings, n_shown=40),
            matrix,
        ),
        "Cycles and memory are those that Arm's compiler Vela 5.2.0 would print, which are "
        "estimates of the hardware themselves.",
        (Filter("measure", "measure", "one"),),
    )


def _matrix() -> Spec:
    text = {"text": {"field": "text"}, "color": {"value": "#ffffff"}}
    dark = {"test": "datum.relative < 0.55", "value": "#10243c"}
    return {
        "data": {"name": "cells"},
        "encoding": {
            "x": {"field": "machine", "sort": None, "title": None, "axis": {"labelAngle": -20}},
            "y": {"field": "model", "sort": None, "title": None},
        },
        "layer": [
            {
                "mark": {"type": "rect", "cornerRadius": 3},
                "encoding": {
                    "color": {
                        "field": "relative",
                        "type": "quantitative",
                        "scale": {"domain": [0, 1], "range": ["#e3eefb", "#1d4f91"]},
                        "legend": None,
                    },
                    "tooltip": tooltip(model="", machine="", measure="", text=""),
                },
            },
            {
                "mark": "text",
                "encoding": {**text, "color": {"condition": dark, "value": "#ffffff"}},
            },
        ],
    }


def _matrix_text() -> str:
    return (
        "The darker, the more, of the measure chosen above: "
        + "; ".join(f"{name}: {what}" for name, (_, what) in _MATRIX.items())
        + "."
    )


def _text(measure: str, value: float) -> str:
    return f"{value:,.0f}" if measure == "cycles" else f"{value:,.3g}"


def _total_row(found: Estimate) -> dict[str, Any]:
    cost = found.cost
    shares = bound_shares(cost)
    return {
        "model": cost.model,
        "machine": machine_name(found),
        "inference ms": 1000 * cost.inference_s,
        "cycles": cost.total_cycles,
        "utilisation %": 100 * waterfall(cost, found.target.npu).utilisation,
        "bound": f"{shares[0].bound} ({100 * shares[0].share:.0f} %)" if shares else "",
        "SRAM KiB": cost.sram_peak_bytes / 1024,
        "flash KiB": cost.flash_bytes / 1024,
        "CPU ops": cost.n_cpu_ops,
        "fits": cost.fits,
    }


def machine_name(found: Estimate) -> str:
    """The NPU and what else is not as by default."""
    cost, words = found.cost, []
    if cost.system_config != DEFAULT_SYSTEM_CONFIG:
        words.append(cost.system_config)
    if cost.memory_mode != DEFAULT_MEMORY_MODE:
        words.append(cost.memory_mode)
    words += [f"{name}={value}" for name, value in found.overrides.items()]
    words += [f"scheme {cost.scheme}"] if cost.scheme else []
    return " ".join([cost.npu, *words])
