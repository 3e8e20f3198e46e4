# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim stream``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npusim.cli.output import FORMAT, OUTPUT, check_writable, csv_text, emit, json_text, table_text
from npusim.errors import ConfigError, StreamError

if TYPE_CHECKING:
    from rich.table import Table

_TFLITE = b"TFL3"
_FIELDS = (
    *("header", "palette", "weight_unary", "weight_remainder"),
    *("run_unary", "run_remainder", "padding"),
)
_CSV_COLUMNS = (
    *("stream", "section", "bit_offset", "weights", "zeros_in_runs", "wdiv", "wtrunc", "zdiv"),
    *("palette", "direct_offset", *(f"{name}_bits" for name in _FIELDS)),
)


@click.command()
@click.argument("file", metavar="FILE")
@click.option("--stream", "number", type=int, help="Only this stream of a compiled model, from 0.")
@FORMAT
@OUTPUT
def stream(file: str, number: int | None, form: str, output: str | None) -> None:
    """What is inside a weight stream: sections, palettes, divisors, bits by field, waste.

    FILE is a raw stream, or a .tflite model that Arm's Vela has compiled.
    """
    if output is not None:
        check_writable("--output", output)
    records = list(_records(file, number))
    if form == "json":
        emit(json_text(records), output)
    elif form == "csv":
        rows = [row for record in records for row in _rows(record)]
        emit(csv_text(rows, _CSV_COLUMNS), output)
    else:
        emit(table_text(*(_table(record) for record in records), *_totals(records)), output)


def _streams(file: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Where each stream of a file lies, and its bytes."""
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise ConfigError(f"FILE must be readable, got {file}: {error.strerror}") from None
    if data[4:8] != _TFLITE:
        yield {"offset": 0}, data
        return
    from npusim.formats import load_bytes
    from npusim.formats.vela_stream import compiled_streams, is_compiled

    network = load_bytes(data, file)
    if not is_compiled(network):
        raise ConfigError(
            f"FILE must be a raw stream or compiled by Vela, got {file}, which is not compiled; "
            "its sizes: npusim compress"
        )
    for found in compiled_streams(network):
        where = {
            "op": found.op_index,
            "npu_op": found.npu_op,
            "kind": found.kind,
            "core": found.core,
            "shape": list(found.shape),
            "traversal": found.traversal,
            "ofm_block_depth": found.ofm_block_depth,
            "offset": found.offset,
        }
        yield where, found.data


def _records(file: str, number: int | None) -> Iterator[dict[str, Any]]:
    from npusim.weights import slices

    streams = list(_streams(file))
    if number is not None and not streams:
        raise ConfigError(f"--stream must be of a model with streams, got {file}, which has none")
    if number is not None and not 0 <= number < len(streams):
        raise ConfigError(f"--stream must be in 0..{len(streams) - 1}, got {number}")
    for i, (where, data) in enumerate(streams):
        if number is not None and i != number:
            continue
        try:
            found = slices(data)
        except StreamError as error:
            raise ConfigError(f"stream {i} of {file}: {error}") from None
        parts = []
        section = -1
        for part in found:
            section += part.new_palette
            parts.append(
                {
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
            )
        bits = {name: sum(part.bits[name] for part in found) for name in _FIELDS}
        yield {
            "stream": i,
            **where,
            "bytes": len(data),
            "weights": sum(part.n_weights + part.n_zeros for part in found),
            "sections": section + 1,
            "bits": bits,
            "end_marker_bits": 8 * len(data) - sum(bits.values()),
            "padding_bits": bits["padding"],
            "slices": parts,
        }


def _rows(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in record["slices"]:
        plain = {key: value for key, value in part.items() if key not in ("bits", "palette")}
        entries = "" if part["palette"] is None else " ".join(map(str, part["palette"]))
        bits = {f"{name}_bits": value for name, value in part["bits"].items()}
        yield {"stream": record["stream"], **plain, "palette": entries, **bits}


def _table(record: dict[str, Any]) -> Table:
    from rich.table import Table

    title = f"stream {record['stream']}: {record['bytes']:,} bytes, {record['weights']:,} weights"
    if "kind" in record:
        title += f", {record['kind']} {tuple(record['shape'])} for operation {record['npu_op']}"
    table = Table(title=title)
    for name in ("section", "weights", "zeros", "code", "runs", "palette", *_FIELDS):
        table.add_column(name.replace("_", " "), justify="right")
    for part in record["slices"]:
        code = "raw" if part["wdiv"] == 7 else f"{part['wdiv']}{' trunc' * part['wtrunc']}"
        palette = "" if part["palette"] is None else f"{len(part['palette'])} values"
        table.add_row(
            str(part["section"]),
            f"{part['weights']:,}",
            f"{part['zeros_in_runs']:,}",
            code,
            "off" if part["zdiv"] is None else str(part["zdiv"]),
            palette,
            *(f"{part['bits'][name]:,}" for name in _FIELDS),
        )
    waste = record["padding_bits"] + record["end_marker_bits"]
    share = waste / (8 * record["bytes"]) if record["bytes"] else 0
    table.caption = f"bits by field; waste (padding and end marker): {waste:,} bits, {share:.1%}"
    return table


def _totals(records: list[dict[str, Any]]) -> list[str]:
    if len(records) < 2:
        return []
    n_bytes = sum(record["bytes"] for record in records)
    weights = sum(record["weights"] for record in records)
    each = 8 * n_bytes / weights if weights else 0
    return [f"{len(records)} streams: {n_bytes:,} bytes, {weights:,} weights, {each:.3f} bits each"]
