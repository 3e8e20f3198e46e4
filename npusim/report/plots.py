# SPDX-License-Identifier: Apache-2.0
"""Plots of what weights take; matplotlib, from the extra [plot], is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from npusim.compress import CompressReport, Sweep


def _matplotlib() -> Any:
    try:
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError("a plot", "plot", error) from error
    return matplotlib


def check_plot(path: str) -> None:
    """Refuse, before any work, a plot that could not be written.

    Raises:
        ConfigError: the file's ending names no picture format.
        MissingExtraError: matplotlib is not installed.
    """
    figure = _matplotlib().figure.Figure()
    known = sorted(figure.canvas.get_supported_filetypes())
    if Path(path).suffix.removeprefix(".").lower() not in known:
        raise ConfigError(f"--plot must end in one of {', '.join(known)}, got {path!r}")


def plot_layers(reports: Sequence[CompressReport], path: str) -> None:
    """Draw each layer's flash as a stacked bar: order-0 entropy, the stream's rest, scales.

    Diamonds mark the streams of encoder "tight", where measured. One panel a model.
    """
    sizes = [max(1, len(report.stored)) for report in reports]
    figure = _matplotlib().figure.Figure(
        figsize=(9, 1.6 + sum(0.24 * size + 1.0 for size in sizes)), layout="constrained"
    )
    panels = figure.subplots(len(reports), 1, squeeze=False, height_ratios=sizes)[:, 0]
    for axes, report in zip(panels, reports, strict=True):
        rows = range(len(report.stored))
        left = [0.0] * len(report.stored)
        parts: list[tuple[str, str, list[float]]] = [
            ("order-0 entropy", "#4477aa", [0.0] * len(left)),
            (f"{report.encoder} above it", "#ee6677", [0.0] * len(left)),
            ("biases and scales", "#ccbb44", [0.0] * len(left)),
        ]
        for i, layer in enumerate(report.stored):
            stream = layer.n_bytes[report.encoder]
            entropy = min(layer.n_bytes["entropy"], stream)
            for part, value in zip(
                parts, (entropy, stream - entropy, layer.scale_bytes), strict=True
            ):
                part[2][i] = value / 1000
        for label, color, values in parts:
            axes.barh(rows, values, left=left, label=label, color=color)
            left = [a + b for a, b in zip(left, values, strict=True)]
        if "tight" in report.n_bytes and report.encoder != "tight":
            tight = [layer.n_bytes["tight"] / 1000 for layer in report.stored]
            axes.plot(tight, rows, "D", color="black", markersize=3, label="tight")
        names = [
            layer.name if len(layer.name) < 44 else "…" + layer.name[-42:]
            for layer in report.stored
        ]
        axes.set_yticks(rows, names, fontsize=7)
        axes.invert_yaxis()
        axes.margins(y=0.01)
        axes.set_xlabel("KB (1000 bytes)")
        axes.set_title(f"{report.model} on {report.npu}: flash {report.flash_bytes / 1000:,.1f} KB")
        axes.legend(fontsize=8)
    _save(figure, path)


def plot_sweeps(sweeps: Sequence[Sweep], path: str) -> None:
    """Draw flash against bitwidth, a line for each share of non-zeros: [UDC] Fig. 1, left."""
    figure = _matplotlib().figure.Figure(figsize=(7, 4.6 * len(sweeps)), layout="constrained")
    panels = figure.subplots(len(sweeps), 1, squeeze=False)[:, 0]
    for axes, sweep in zip(panels, sweeps, strict=True):
        base = sweep.baseline
        shares = list(dict.fromkeys(point.nonzeros for point in sweep.points))
        colors = _matplotlib().colormaps["viridis"].resampled(len(shares))
        for number, share in enumerate(shares):
            line = [point for point in sweep.points if point.nonzeros == share]
            axes.plot(
                [point.bits for point in line],
                [point.flash_bytes / 1000 for point in line],
                marker="o",
                markersize=3,
                color=colors(number),
                label=f"{100 * share:g} % non-zeros",
            )
        axes.axhline(base.flash_bytes / 1000, color="grey", linestyle=":", label="as it is")
        axes.invert_xaxis()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("bitwidth")
        axes.set_ylabel("flash, KB (1000 bytes)")
        axes.set_title(f"{base.model} on {base.npu} ({base.encoder})")
        axes.legend(fontsize=7)
    _save(figure, path)


def _save(figure: Any, path: str) -> None:
    from npusim.cli.output import write_whole

    write_whole(Path(path), lambda place: figure.savefig(place, dpi=150))
