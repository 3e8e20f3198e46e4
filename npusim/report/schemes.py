# SPDX-License-Identifier: Apache-2.0
"""Compression schemes compared: tables for people, rows for CSV, and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from npusim import schemes
from npusim.errors import MissingExtraError
from npusim.report.plots import matplotlib_module, save

if TYPE_CHECKING:
    from rich.table import Table

    from npusim.schemes.base import Scheme
    from npusim.schemes.lab import Comparison, Point, SchemeResult

ROW_COLUMNS: Final = (
    *("model", "npu", "nonzeros", "bits", "clusters", "n_of_m", "weights", "coded_weights"),
    *("zero_fraction", "scheme", "bytes", "bits_per_weight", "above_entropy", "decode_cycles"),
    *("stall_cycles", "weights_per_cycle", "area_ge_low", "area_ge_high", "seek"),
    *("changed_weights", "relative_error", "sqnr_db", "on_front"),
)
"""Columns of `comparison_rows`."""
_BLUE, _RED, _GREY = "#4477aa", "#ee6677", "#bbbbbb"


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A flat row for each scheme and bound of each point; bounds have sizes only."""
    rows = []
    for point in comparison.points:
        values = point.to_json()
        pattern = "" if point.condition.n_of_m is None else "{}:{}".format(*point.condition.n_of_m)
        common = {"model": comparison.model, "npu": comparison.npu, **values, "n_of_m": pattern}
        for name, n_bytes in point.n_bytes.items():
            size = {"scheme": f"bound {name}", "bytes": n_bytes, **_relative(point, n_bytes)}
            rows.append(common | size)
        for result, record in zip(point.results, values["schemes"], strict=True):
            low, high = result.decoder.area_ge
            own = {**record, "area_ge_low": low, "area_ge_high": high, "seek": result.decoder.seek}
            rows.append(common | own | _relative(point, result.n_bytes))
    return [{name: row.get(name, "") for name in ROW_COLUMNS} for row in rows]


def _relative(point: Point, n_bytes: int) -> dict[str, float | None]:
    """Bits a weight, and the fraction above the order-0 entropy of the coded values."""
    entropy = point.n_bytes["entropy"]
    return {
        "bits_per_weight": round(8 * n_bytes / point.n_weights, 4) if point.n_weights else None,
        "above_entropy": round(n_bytes / entropy - 1, 4) if entropy else None,
    }


def comparison_table(comparison: Comparison, point: Point) -> Table:
    """A row for each scheme and bound, the smallest first."""
    from rich.table import Table

    title = f"{comparison.model} in the order of {comparison.npu}, {point.condition}"
    table = Table(
        title=title,
        caption=f"{point.n_weights:,} weights, {100 * point.zero_fraction:.1f} % zeros; "
        f"{point.n_coded:,} coded with padding. * on the front of bytes, cycles, area and error; "
        "rates and areas: mostly engineering estimates, see npusim schemes show",
    )
    table.add_column("scheme", no_wrap=True)
    for name in ("bytes", "bits/w", "above H0", "w/cycle", "stalls", "area kGE", "SQNR dB"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("seek", no_wrap=True)
    rows: list[tuple[int, list[str]]] = [
        (n_bytes, [f"(bound) {name}", *_sizes(point, n_bytes), *[""] * 5])
        for name, n_bytes in point.n_bytes.items()
    ]
    for result in point.results:
        name = f"{result.scheme}{' *' if result.on_front else ''}"
        rows.append((result.n_bytes, [name, *_sizes(point, result.n_bytes), *_decoding(result)]))
    for _, cells in sorted(rows, key=lambda row: row[0]):
        table.add_row(*cells)
    return table


def _sizes(point: Point, n_bytes: int) -> list[str]:
    found = _relative(point, n_bytes)
    width, above = found["bits_per_weight"], found["above_entropy"]
    return [
        f"{n_bytes:,}",
        "" if width is None else f"{width:.3f}",
        "" if above is None else f"{100 * above:+.1f} %",
    ]


def _decoding(result: SchemeResult) -> list[str]:
    rate, stalls = result.weights_per_cycle, result.stall_cycles
    low, high = (area / 1000 for area in result.decoder.area_ge)
    return [
        "" if rate is None else f"{rate:.2f}",
        "" if stalls is None else f"{stalls:,}",
        f"{low:,.1f}-{high:,.1f}",
        "" if result.error == 0 else f"{result.sqnr_db:.1f}",
        result.decoder.seek,
    ]


def scheme_rows() -> list[dict[str, Any]]:
    """A flat row for each scheme with its default parameters; those not installed say so."""
    rows = []
    for name in schemes.names():
        try:
            rows.append(_described(schemes.get(name)))
        except MissingExtraError as error:
            rows.append(dict.fromkeys(LIST_COLUMNS, "") | {"name": name, "what": str(error)})
    return rows


LIST_COLUMNS: Final = (
    *("name", "what", "parameters", "lossless", "symbol", "steps_per_cycle", "bits_per_cycle"),
    *("weights_per_cycle", "table_bits", "area_ge_low", "area_ge_high", "seek", "source"),
)
"""Columns of `scheme_rows`."""


def _described(scheme: Scheme) -> dict[str, Any]:
    decoder = scheme.decoder.to_json()
    low, high = decoder.pop("area_ge")
    parameters = " ".join(f"{name}={value}" for name, value in scheme.parameters.items())
    record = {
        "name": scheme.name,
        "what": (type(scheme).__doc__ or "").partition("\n")[0],
        "parameters": parameters,
        "lossless": scheme.lossless,
        **decoder,
        "area_ge_low": low,
        "area_ge_high": high,
    }
    return {column: record[column] for column in LIST_COLUMNS}


def scheme_table() -> Table:
    """A row for each scheme."""
    from rich.table import Table

    table = Table(title="compression schemes, default parameters")
    table.add_column("scheme", no_wrap=True)
    table.add_column("what", min_width=30)
    table.add_column("steps/cycle and lane", justify="right")
    table.add_column("tables, bits", justify="right")
    table.add_column("area, kGE", justify="right", no_wrap=True)
    table.add_column("seek", no_wrap=True)
    for row in scheme_rows():
        if row["source"] == "":  # not installed
            table.add_row(row["name"], row["what"])
            continue
        table.add_row(
            row["name"],
            row["what"],
            f"{row['steps_per_cycle']:g} x {row['symbol']}",
            f"{row['table_bits']:,}",
            f"{row['area_ge_low'] / 1000:,.1f}-{row['area_ge_high'] / 1000:,.1f}",
            row["seek"],
        )
    return table


def plot_comparisons(comparisons: Sequence[Comparison], path: str) -> None:
    """Draw bits a weight against weights a cycle, the area of a dot that of the decoder.

    One panel for each model and condition; schemes on the front are coloured. Schemes that were not
    simulated are not shown.

    Raises:
        ConfigError: `path` cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    panels = [(comparison, point) for comparison in comparisons for point in comparison.points]
    figure = matplotlib_module().figure.Figure(figsize=(7, 5 * len(panels)), layout="constrained")
    columns = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (comparison, point) in zip(columns, panels, strict=True):
        _draw(axes, comparison, point)
    save(figure, path)


def _draw(axes: Any, comparison: Comparison, point: Point) -> None:
    shown = [result for result in point.results if result.weights_per_cycle]
    for result in shown:
        area = sum(result.decoder.area_ge) / 2000
        at = (result.weights_per_cycle, result.bits_per_weight)
        color = _BLUE if result.on_front else _GREY
        axes.scatter(*at, s=20 + 6 * area, color=color, alpha=0.7, linewidths=0)
        axes.annotate(result.scheme, at, fontsize=7, xytext=(4, 3), textcoords="offset points")
    entropy = _relative(point, point.n_bytes["entropy"])["bits_per_weight"]
    if entropy is not None:
        axes.axhline(entropy, color=_RED, linestyle=":", label="order-0 entropy")
        axes.legend(fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("weights a cycle (dots: area of the decoder)")
    axes.set_ylabel("bits a weight")
    axes.set_title(f"{comparison.model}, {point.condition}", fontsize=9)
