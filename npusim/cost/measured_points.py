# SPDX-License-Identifier: Apache-2.0
"""Files of measured cycles, and the models they belong to."""

from __future__ import annotations

import csv
import io
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npusim._arguments import positive
from npusim.errors import ConfigError, FormatError


def read_points(path: str) -> dict[str, float]:
    """Measured cycles by name of the network.

    Args:
        path: of a .toml file with a table for each network that has the key ``cycles``, or of a
            .csv file with the columns ``name`` and ``cycles``.

    Raises:
        ConfigError: the file cannot be read, or a number of cycles is not more than 0.
        FormatError: it is neither.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"points must be a readable file, got {path!r} ({reason})") from None
    if path.lower().endswith(".toml"):
        values = _toml(path, text)
    elif path.lower().endswith(".csv"):
        values = _csv(path, text)
    else:
        raise FormatError(f"{path}: points must be a .toml or .csv file, got another ending")
    if not values:
        raise FormatError(f"{path}: points must be some, got none")
    return {name: positive(f"cycles of {name!r}", value) for name, value in values.items()}


def _toml(path: str, text: str) -> dict[str, Any]:
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FormatError(f"{path}: points must be TOML, got: {error}") from None
    for name, table in tables.items():
        if not isinstance(table, Mapping) or "cycles" not in table:
            raise FormatError(f"{path}: [{name}] must have the key cycles, got none")
    return {name: table["cycles"] for name, table in tables.items()}


def _csv(path: str, text: str) -> dict[str, Any]:
    rows = csv.DictReader(io.StringIO(text))
    if not {"name", "cycles"} <= set(rows.fieldnames or ()):
        got = ", ".join(rows.fieldnames or ()) or "none"
        raise FormatError(f"{path}: points must have the columns name and cycles, got {got}")
    values: dict[str, Any] = {}
    for row in rows:
        if row["name"] in values:
            raise FormatError(f"{path}: each point must be there once, got {row['name']!r} again")
        try:
            values[row["name"]] = float(row["cycles"])
        except (TypeError, ValueError):
            raise FormatError(
                f"{path}: cycles of {row['name']!r} must be a number, got {row['cycles']!r}"
            ) from None
    return values


def model_of(name: str, folder: str) -> str | None:
    """The file below a folder that is called `name`, or the one that has it in its name.

    Returns:
        Its path, or None if there is none.

    Raises:
        ConfigError: there are several.
    """
    files = sorted(Path(folder).rglob("*.tflite"))
    found = [path for path in files if path.stem == name]
    found = found or [path for path in files if name in path.stem]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(f"model of point {name!r} must be one file, got {names}")
    return str(found[0]) if found else None
