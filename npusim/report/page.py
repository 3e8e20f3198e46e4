# SPDX-License-Identifier: Apache-2.0
"""What a page shows, as plain data: sections of figures and tables of columns of data.

Figures are Vega-Lite specs that name the section's data, so that the page, the pictures and the
files of data are all made from one definition; see `npusim.report.page_files`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from npusim.errors import ConfigError

N_ROWS_SHOWN: Final = 12
"""Rows of a table that are there before the reader asks for more."""
Columns = Mapping[str, Sequence[Any]]
"""Data by column, all of one length: numbers, texts, truth values, None."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture of data.

    Attributes:
        name: of its files; letters, digits and hyphens, once in a section.
        title: in a line.
        spec: Vega-Lite without size and config; its data are ``{"name": N}``, N of the section's.
        caption: what a reader should see in it, or must know.
        height: in pixels; or ``{"step": pixels}`` of each row of the scale of names that is the
            whole spec's y.
    """

    name: str
    title: str
    spec: Mapping[str, Any]
    caption: str = ""
    height: int | Mapping[str, int] = 320


@dataclass(frozen=True, slots=True)
class Heading:
    """A column of a table.

    Attributes:
        column: of the data.
        text: above it.
        digits: after the point of numbers, thousands between commas; None: as they are.
        explanation: more of it, told where the reader points.
    """

    column: str
    text: str
    digits: int | None = None
    explanation: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of data; the reader may sort them.

    Attributes:
        name, title, caption: as a figure's.
        data: the name of the section's data.
        headings: its columns, from the left.
        n_shown: rows before the reader asks for more.
    """

    name: str
    title: str
    data: str
    headings: tuple[Heading, ...]
    caption: str = ""
    n_shown: int = N_ROWS_SHOWN


@dataclass(frozen=True, slots=True)
class Filter:
    """What the reader may choose of all data of a section that have a column.

    Attributes:
        column: of the data.
        label: of the choice.
        kind: "many": any of its values; "one": one of them; "flag": only where it is true.
    """

    column: str
    label: str
    kind: str = "many"

    def __post_init__(self) -> None:
        if self.kind not in ("many", "one", "flag"):
            raise ConfigError(f"kind of a filter must be many, one or flag, got {self.kind!r}")


@dataclass(frozen=True, slots=True)
class Drawings:
    """Drawings of many things, one at a time: the one that the reader points at.

    A row of any data of the section shows drawing N where its column ``drawing`` is N. Rows of
    drawings are put together from parts, of which there are few: pages stay small.

    Attributes:
        data: what the figure that draws names as its data; its rows have ``place``, from 0.
        parts: some of the rows' columns each, all different values there are.
        rows: of each drawing, of each of its rows in order, which of each part it has.
        first: number of the one that is drawn first.
        told: the name of the data that have a row for each drawing, and what is told of that.
    """

    data: str
    parts: tuple[Columns, ...]
    rows: Sequence[Sequence[tuple[int, ...]]]
    first: int
    told: tuple[str, tuple[Heading, ...]]

    def columns(self, number: int) -> dict[str, list[Any]]:
        """The data of one drawing."""
        chosen = self.rows[number]
        found: dict[str, list[Any]] = {"place": list(range(len(chosen)))}
        for part, places in zip(self.parts, zip(*chosen, strict=True), strict=True):
            for name, values in part.items():
                found[name] = [values[place] for place in places]
        return found


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with its own data.

    Attributes:
        name: letters, digits and hyphens, once in a page.
        title: in a line.
        data: columns by name.
        parts: figures and tables, from the top.
        text: a paragraph above them.
        filters: what the reader may choose.
        drawings: what is drawn where the reader points.
    """

    name: str
    title: str
    data: Mapping[str, Columns]
    parts: tuple[Figure | Table, ...]
    text: str = ""
    filters: tuple[Filter, ...] = ()
    drawings: Drawings | None = None

    def __post_init__(self) -> None:
        for name, columns in self.data.items():
            if len(lengths := {len(values) for values in columns.values()}) > 1:
                raise ConfigError(
                    f"columns of {name!r} must have one length, got {sorted(lengths)}"
                )
        known = set(self.data) | ({self.drawings.data} if self.drawings else set())
        for part in self.parts:
            for name in [part.data] if isinstance(part, Table) else data_names(part.spec):
                if name not in known:
                    raise ConfigError(f"data of {part.name!r} must be in its section, got {name!r}")

    def renamed(self, name: str, title: str) -> Section:
        """The same under another name and title."""
        return replace(self, name=name, title=title)

    def columns(self, name: str) -> Columns:
        """Its data of that name; of drawings the first."""
        if self.drawings is not None and name == self.drawings.data:
            return self.drawings.columns(self.drawings.first)
        return self.data[name]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page.

    Attributes:
        title: in a line.
        sections: from the top.
        provenance: what made it, in rows of name and value.
    """

    title: str
    sections: tuple[Section, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)


def slug(text: str) -> str:
    """A name for files and links.

    >>> slug("ResNet-8 (int8) on ethos-u55-128")
    'resnet-8-int8-on-ethos-u55-128'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns; all have the keys of the first.

    >>> columns_of([{"a": 1, "b": 2}, {"a": 3, "b": 4}])
    {'a': [1, 3], 'b': [2, 4]}
    """
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    """Columns as rows."""
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def data_names(spec: Any) -> list[str]:
    """The names of data that a spec and its parts mention, each once.

    >>> data_names({"data": {"name": "a"}, "layer": [{"data": {"name": "b"}}, {"mark": "bar"}]})
    ['a', 'b']
    """
    return list(dict.fromkeys(_data_names(spec)))


def _data_names(spec: Any) -> Iterator[str]:
    if isinstance(spec, Mapping):
        for key, value in spec.items():
            if key == "data" and isinstance(value, Mapping) and "name" in value:
                yield value["name"]
            else:
                yield from _data_names(value)
    elif isinstance(spec, (list, tuple)):
        for value in spec:
            yield from _data_names(value)
