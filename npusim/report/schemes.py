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
    *("changed_weights", "relative_error", "sqnr_db", "on_front", "where", "total_cycles"),
    *("flash_bytes", "sram_peak_bytes", "decode_bound_cycles"),
    *("energy_uj_low", "energy_uj_value", "energy_uj_high"),
    *("n_inputs", "top1", "agreement", "output_sqnr_db", "target_psnr_db"),
)
"""Columns of `comparison_rows`."""
_BLUE, _RED, _GREY = "#4477aa", "#ee6677", "#bbbbbb"


def comparison_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """A flat row for each scheme and bound of each point; bounds have sizes only."""
    rows = []
    for point in comparison.points:
        values = point.to_json()
        pattern = "" if point.condition.n_of_m is None else "{}:{}".format(*point.condition.n_of_m)
        where = {name: getattr(comparison, name) for name in ("model", "npu", "where")}
        common = {**where, **values, "n_of_m": pattern, **(values["accuracy"] or {})}
        for name, n_bytes in point.n_bytes.items():
            size = {"scheme": f"bound {name}", "bytes": n_bytes, **_relative(point, n_bytes)}
            rows.append(common | size)
        for result, record in zip(point.results, values["schemes"], strict=True):
            low, high = result.decoder.area_ge
            own = {**record, "area_ge_low": low, "area_ge_high": high, "seek": result.decoder.seek}
            rows.append(common | own | _relative(point, result.n_bytes) | _inference(result))
    return [{name: row.get(name, "") for name in ROW_COLUMNS} for row in rows]


def _inference(result: SchemeResult) -> dict[str, Any]:
    """Columns of an inference, none if there is none."""
    if result.inference is None:
        return {}
    record = result.inference.to_json()
    bands = record.pop("energy_uj")
    return record | {f"energy_uj_{end}": round(value, 3) for end, value in bands.items()}


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

    where = f", {comparison.where}" if comparison.where else ""
    table = Table(
        title=f"{comparison.model} on {comparison.npu}{where}, {point.condition}",
        caption=f"{point.accuracy}\n"
        * (point.accuracy is not None)
        + f"{point.n_weights:,} weights, {100 * point.zero_fraction:.1f} % zeros; "
        f"{point.n_coded:,} coded with padding. * on the front of bytes, cycles, area and error; "
        "rates and areas: mostly engineering estimates, see npusim schemes show; cycles and energy "
        "(uncalibrated) of an inference: what if the NPU read these streams",
    )
    table.add_column("scheme", no_wrap=True)
    columns = _columns(point)
    for name in ("bytes", "bits/w", "above H0", *columns):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("seek", no_wrap=True)
    rows: list[tuple[int, list[str]]] = [
        (n_bytes, [f"(bound) {name}", *_sizes(point, n_bytes), *[""] * len(columns), ""])
        for name, n_bytes in point.n_bytes.items()
    ]
    for number, result in enumerate(point.results):
        cells = [column[number] for column in columns.values()]
        name = f"{result.scheme}{' *' if result.on_front else ''}"
        sizes = _sizes(point, result.n_bytes)
        rows.append((result.n_bytes, [name, *sizes, *cells, result.decoder.seek]))
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


def _columns(point: Point) -> dict[str, list[str]]:
    """Cells of all schemes by title, of what there is to say."""
    results = point.results
    columns = {}
    rates = [result.weights_per_cycle for result in results]
    if any(rate is not None for rate in rates):
        columns["w/cycle"] = ["" if rate is None else f"{rate:.2f}" for rate in rates]
    if any(result.stall_cycles for result in results):
        columns["stalls"] = [f"{result.stall_cycles:,}" for result in results]
    areas = ([area / 1000 for area in result.decoder.area_ge] for result in results)
    columns["area kGE"] = [f"{low:,.1f}-{high:,.1f}" for low, high in areas]
    if any(result.error for result in results):
        columns["SQNR dB"] = [f"{r.sqnr_db:.1f}" if r.error else "" for r in results]
    inferences = [result.inference for result in results if result.inference is not None]
    if inferences:
        columns["cycles"] = [f"{each.total_cycles:,}" for each in inferences]
        bands = [each.energy_pj.times(1e-6) for each in inferences]
        columns["energy µJ"] = [f"{b.value:,.0f} ({b.low:,.0f}-{b.high:,.0f})" for b in bands]
    return columns


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
    """Draw bits a weight against cycles, the area of a dot that of the decoder.

    Cycles are those of an inference, or where none was costed those of the decoder. One panel for
    each model and condition; schemes on the front are coloured. Schemes that were not simulated are
    not shown.

    Raises:
        ConfigError: `path` cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    panels = [(comparison, point) for comparison in comparisons for point in comparison.points]
    figure = matplotlib_module().figure.Figure(figsize=(7, 5 * len(panels)), layout="constrained")
    columns = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (comparison, point) in zip(columns, panels, strict=True):
        draw_front(axes, point)
        axes.set_title(f"{comparison.model} on {comparison.npu}, {point.condition}", fontsize=9)
    save(figure, path)


def draw_front(axes: Any, point: Point) -> None:
    """Draw one panel of `plot_comparisons` into axes of matplotlib, without its title."""
    what = "decoding (dots: area of the decoder)"
    for result in point.results:
        cycles = result.cycles
        if result.inference is not None:
            cycles, what = result.inference.total_cycles, "an inference (dots: decoder's area)"
        if cycles is None:
            continue
        area = sum(result.decoder.area_ge) / 2000
        at = (cycles, result.bits_per_weight)
        color = _BLUE if result.on_front else _GREY
        axes.scatter(*at, s=20 + 6 * area, color=color, alpha=0.7, linewidths=0)
        axes.annotate(result.scheme, at, fontsize=7, xytext=(4, 3), textcoords="offset points")
    entropy = _relative(point, point.n_bytes["entropy"])["bits_per_weight"]
    if entropy is not None:
        axes.axhline(entropy, color=_RED, linestyle=":", label="order-0 entropy")
        axes.legend(fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel(f"cycles of {what}")
    axes.set_ylabel("bits a weight")
