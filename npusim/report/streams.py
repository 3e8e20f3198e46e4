# SPDX-License-Identifier: Apache-2.0
"""Weight streams in files, taken apart: raw streams and those of models that Vela compiled."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from npusim._arguments import integer
from npusim.errors import ConfigError, StreamError
from npusim.formats import load_bytes
from npusim.formats.vela_stream import CompiledStream, compiled_streams, is_compiled
from npusim.weights.format import WDIV_RAW
from npusim.weights.stream import StreamSlice, slices

if TYPE_CHECKING:
    from rich.table import Table

FIELDS: Final = (
    *("header", "palette", "weight_unary", "weight_remainder"),
    *("run_unary", "run_remainder", "padding"),
)
"""What the bits of a slice are; see `npusim.weights.stream.StreamSlice`."""
ROW_COLUMNS: Final = (
    *("stream", "section", "bit_offset", "weights", "zeros_in_runs", "wdiv", "wtrunc", "zdiv"),
    *("palette", "direct_offset", *(f"{name}_bits" for name in FIELDS)),
)
"""Columns of `slice_rows`."""
_TFLITE = b"TFL3"


@dataclass(frozen=True)
class StreamReport:
    """One stream of a file.

    Attributes:
        number: position in the file, from 0.
        n_bytes: its length.
        slices: as decoded.
        source: which operation reads it; None for a raw stream.
    """

    number: int
    n_bytes: int
    slices: tuple[StreamSlice, ...]
    source: CompiledStream | None

    @property
    def n_weights(self) -> int:
        """Weights it decodes to, padding of the order included."""
        return sum(part.n_weights + part.n_zeros for part in self.slices)

    @cached_property
    def sections(self) -> tuple[int, ...]:
        """For each slice the number, from 0, of its section: a new palette starts one."""
        return tuple(n - 1 for n in accumulate(int(part.new_palette) for part in self.slices))

    @cached_property
    def bits(self) -> dict[str, int]:
        """Bits by field of all slices."""
        return {name: sum(part.bits[name] for part in self.slices) for name in FIELDS}

    @property
    def end_marker_bits(self) -> int:
        """Bits of the end marker, with its padding to 16 bytes."""
        return 8 * self.n_bytes - sum(self.bits.values())

    @property
    def waste_bits(self) -> int:
        """Bits that say nothing of a weight: padding of unary chunks, and the end marker."""
        return self.bits["padding"] + self.end_marker_bits

    def to_json(self) -> dict[str, Any]:
        """JSON values, the output of ``npusim stream --format json``.

        Keys: ``stream`` (number), ``bytes``, ``weights``, ``sections`` (how many), ``bits`` (by
        field), ``end_marker_bits``, ``waste_bits``; of a compiled model also ``op``, ``npu_op``,
        ``kind``, ``core``, ``shape``, ``traversal``, ``ofm_block_depth``, ``offset`` and
        ``scale_bytes``; ``slices``: a list of ``section``, ``bit_offset``, ``weights``,
        ``zeros_in_runs``, ``wdiv`` (7: raw), ``wtrunc``, ``zdiv`` (null: no runs), ``palette``
        (null: as before), ``direct_offset``, ``bits``.
        """
        return {
            "stream": self.number,
            **({} if self.source is None else _source_json(self.source)),
            "bytes": self.n_bytes,
            "weights": self.n_weights,
            "sections": len(set(self.sections)),
            "bits": self.bits,
            "end_marker_bits": self.end_marker_bits,
            "waste_bits": self.waste_bits,
            "slices": [
                _slice_json(part, section)
                for part, section in zip(self.slices, self.sections, strict=True)
            ],
        }


def _source_json(source: CompiledStream) -> dict[str, Any]:
    return {
        "op": source.op_index,
        "npu_op": source.npu_op,
        "kind": source.kind,
        "core": source.core,
        "shape": list(source.shape),
        "traversal": source.traversal,
        "ofm_block_depth": source.ofm_block_depth,
        "offset": source.offset,
        "scale_bytes": len(source.scales),
    }


def _slice_json(part: StreamSlice, section: int) -> dict[str, Any]:
    return {
        "section": section,
        "bit_offset": part.bit_offset,
        "weights": part.n_weights,
        "zeros_in_runs": part.n_zeros,
        "wdiv": part.wdiv,
        "wtrunc": part.wtrunc,
        "zdiv": part.zdiv if part.zero_runs else None,
        "palette": list(part.palette) if part.new_palette else None,
        "direct_offset": part.direct_offset,
        "bits": part.bits,
    }


def read_streams(path: str | os.PathLike[str], number: int | None = None) -> list[StreamReport]:
    """The streams of a file: the whole of a raw one, or all in a compiled .tflite model.

    Args:
        path: of the file.
        number: of the only stream to read, from 0; None for all.

    Raises:
        ConfigError: the file cannot be read, is a model that is not compiled, or has no stream of
            that number.
        FormatError: it is a damaged model.
        StreamError: a stream breaks its format.
    """
    file = os.fspath(path)
    found = _find(file)
    if number is not None:
        if not found:
            raise ConfigError(f"stream {number} must be in {file}, which has none")
        integer("stream", number, 0, len(found) - 1)
    reports = []
    for i, (data, source) in enumerate(found):
        if number is None or i == number:
            try:
                reports.append(StreamReport(i, len(data), tuple(slices(data)), source))
            except StreamError as error:
                plain = str(error).removesuffix(f" (at bit {error.bit_offset})")
                raise StreamError(f"stream {i} of {file}: {plain}", error.bit_offset) from None
    return reports


def _find(file: str) -> list[tuple[bytes | memoryview, CompiledStream | None]]:
    try:
        data = Path(file).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"FILE must be a readable file, got {file!r} ({reason})") from None
    if data[4:8] != _TFLITE:
        return [(data, None)]
    network = load_bytes(data, file)
    if not is_compiled(network):
        raise ConfigError(
            f"FILE must be a raw stream or a model that Vela compiled, got {file!r}, which is not "
            "compiled; its sizes: npusim compress"
        )
    return [(stream.data, stream) for stream in compiled_streams(network)]


def slice_rows(report: StreamReport) -> Iterator[dict[str, Any]]:
    """A flat row for each slice; an empty palette field means the one before."""
    for values in report.to_json()["slices"]:
        bits, palette = values.pop("bits"), values.pop("palette")
        yield {
            "stream": report.number,
            **values,
            "palette": "" if palette is None else " ".join(map(str, palette)),
            **{f"{name}_bits": n_bits for name, n_bits in bits.items()},
        }


def slice_table(report: StreamReport) -> Table:
    """A row for each slice, the totals below."""
    from rich.table import Table

    title = f"stream {report.number}: {report.n_bytes:,} bytes, {report.n_weights:,} weights"
    if report.source is not None:
        source = report.source
        title += f", {source.kind} {source.shape}, NPU operation {source.npu_op}"
        title += f", core {source.core}" if source.core else ""
    share = report.waste_bits / (8 * report.n_bytes) if report.n_bytes else 0
    table = Table(
        title=title,
        caption="bits by field; waste (padding and end marker): "
        f"{report.waste_bits:,} bits, {share:.1%}",
        show_footer=True,
    )
    for name in ("section", "weights", "zeros", "code", "runs", "palette"):
        table.add_column(name, justify="right")
    for name in FIELDS:
        table.add_column(name.replace("_", " "), f"{report.bits[name]:,}", justify="right")
    for part, section in zip(report.slices, report.sections, strict=True):
        table.add_row(
            str(section),
            f"{part.n_weights:,}",
            f"{part.n_zeros:,}",
            "raw" if part.wdiv == WDIV_RAW else f"{part.wdiv}{' trunc' * part.wtrunc}",
            str(part.zdiv) if part.zero_runs else "off",
            f"{len(part.palette)} values" if part.new_palette else "",
            *(f"{part.bits[name]:,}" for name in FIELDS),
        )
    return table


def stream_table(reports: Sequence[StreamReport]) -> Table:
    """A row for each stream of a compiled model, the totals below."""
    from rich.table import Table

    n_bytes = sum(report.n_bytes for report in reports)
    weights = sum(report.n_weights for report in reports)
    waste = sum(report.waste_bits for report in reports)
    scales = sum(len(report.source.scales) for report in reports if report.source is not None)
    table = Table(
        title="all streams",
        caption=f"{n_bytes + scales:,} bytes with biases and scales",
        show_footer=True,
    )
    table.add_column("stream", "total", justify="right")
    table.add_column("kind and shape")
    footers = ("", "", weights, n_bytes, f"{8 * n_bytes / max(weights, 1):.3f}", waste, scales)
    names = ("sections", "slices", "weights", "bytes", "bits/w", "waste bits", "scales")
    for name, footer in zip(names, footers, strict=True):
        text = footer if isinstance(footer, str) else f"{footer:,}"
        table.add_column(name, text, justify="right")
    for report in reports:
        source = report.source
        table.add_row(
            str(report.number),
            "" if source is None else f"{source.kind} {source.shape}",
            str(len(set(report.sections))),
            str(len(report.slices)),
            f"{report.n_weights:,}",
            f"{report.n_bytes:,}",
            f"{8 * report.n_bytes / max(report.n_weights, 1):.3f}",
            f"{report.waste_bits:,}",
            "" if source is None else f"{len(source.scales):,}",
        )
    return table
