# SPDX-License-Identifier: Apache-2.0
"""Plots of what weights take; matplotlib, from the extra [plot], is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim._files import write_whole
from npusim.errors import ConfigError, MissingExtraError
from npusim.report.names import short_name

if TYPE_CHECKING:
    from npusim.compress import CompressReport
    from npusim.sweep import Sweep

_BLUE, _RED, _YELLOW = "#4477aa", "#ee6677", "#ccbb44"
_WIDTH_INCHES = 10.5
_NAME_INCHES = 2.8
_LEGEND_INCHES = 1.7
_BAR_INCHES = 0.24
_PANEL_INCHES = 1.0
"""Room for a panel's title and axis."""
_DPI = 150
_PIXELS_MAX = 30_000
"""Highest picture; matplotlib refuses those above 65,536 pixels."""


def matplotlib_module() -> Any:
    """Matplotlib, imported.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import matplotlib.figure
    except ImportError as error:
        raise MissingExtraError("a plot", "plot", error) from error
    return matplotlib


def check_plot(path: str) -> None:
    """Refuse, before any work, a plot that could not be drawn.

    Raises:
        ConfigError: the file's ending names no picture format.
        MissingExtraError: matplotlib is not installed.
    """
    figure = matplotlib_module().figure.Figure()
    known = sorted(figure.canvas.get_supported_filetypes())
    if Path(path).suffix.removeprefix(".").lower() not in known:
        raise ConfigError(f"plot must end in one of {', '.join(known)}, got {path!r}")


def plot_layers(reports: Sequence[CompressReport], path: str) -> None:
    """Draw each layer's flash as a stacked bar: order-0 entropy, the stream's rest, scales.

    Diamonds mark the streams of encoder "tight", where measured beside another; a stream below its
    entropy has no rest. One panel a model, without layers that share another's streams.

    Raises:
        ConfigError: `path` cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    heights = [_BAR_INCHES * max(2, len(report.stored)) for report in reports]
    total = sum(height + _PANEL_INCHES for height in heights)
    figure = matplotlib_module().figure.Figure(figsize=(_WIDTH_INCHES, total))
    top = total  # placed by hand: matplotlib takes minutes to lay out hundreds of panels
    left, right = _NAME_INCHES / _WIDTH_INCHES, 1 - _LEGEND_INCHES / _WIDTH_INCHES
    for report, height in zip(reports, heights, strict=True):
        bottom = top - 0.4 * _PANEL_INCHES - height
        axes = figure.add_axes((left, bottom / total, right - left, height / total))
        _plot_bars(axes, report)
        top -= height + _PANEL_INCHES
    save(figure, path)


def _plot_bars(axes: Any, report: CompressReport) -> None:
    layers = report.stored
    rows = range(len(layers))
    streams = [layer.n_bytes[report.encoder] for layer in layers]
    entropies = [
        min(layer.n_bytes["entropy"], stream) for layer, stream in zip(layers, streams, strict=True)
    ]
    rests = [stream - entropy for stream, entropy in zip(streams, entropies, strict=True)]
    scales = [layer.scale_bytes for layer in layers]
    left = [0] * len(layers)
    for label, color, parts in (
        ("order-0 entropy", _BLUE, entropies),
        (f"{report.encoder} above it", _RED, rests),
        ("biases and scales", _YELLOW, scales),
    ):
        widths, starts = ([n_bytes / 1000 for n_bytes in values] for values in (parts, left))
        axes.barh(rows, widths, left=starts, label=label, color=color)
        left = [start + n_bytes for start, n_bytes in zip(left, parts, strict=True)]
    if "tight" in report.n_bytes and report.encoder != "tight":
        tight = [layer.n_bytes["tight"] / 1000 for layer in layers]
        axes.plot(tight, rows, "D", color="black", markersize=3, label="tight")
    axes.set_yticks(rows, [short_name(layer.name) for layer in layers], fontsize=7)
    axes.set_ylim(max(2, len(layers)) - 0.5, -0.5)
    axes.set_xlabel("KB (1000 bytes)")
    axes.set_title(f"{report.model} on {report.npu}: flash {report.flash_bytes / 1000:,.1f} KB")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def plot_sweeps(sweeps: Sequence[Sweep], path: str) -> None:
    """Draw flash against bitwidth, a line for each fraction of non-zeros: [UDC] Fig. 1, left.

    Raises:
        ConfigError: `path` cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    figure = matplotlib_module().figure.Figure(figsize=(7, 4.6 * len(sweeps)), layout="constrained")
    panels = figure.subplots(len(sweeps), 1, squeeze=False)[:, 0]
    for axes, sweep in zip(panels, sweeps, strict=True):
        base = sweep.baseline
        nonzeros = list(dict.fromkeys(point.nonzeros for point in sweep.points))
        colors = matplotlib_module().colormaps["viridis"].resampled(len(nonzeros))
        for number, share in enumerate(nonzeros):
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
    save(figure, path)


def save(figure: Any, path: str) -> None:
    """Write a figure to a file, whole or not at all, coarser if it is very high.

    Raises:
        ConfigError: `path` cannot be written.
    """
    dpi = min(_DPI, _PIXELS_MAX / figure.get_figheight())
    write_whole("plot", path, lambda part: figure.savefig(part, dpi=dpi))
