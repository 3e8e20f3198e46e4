# SPDX-License-Identifier: Apache-2.0
"""Makes an HTML file of a page, and files of its figures and data.

The page draws its figures with the Vega that the package vl-convert brings, which also makes the
pictures. Nothing is fetched, neither when the page is made nor when it is opened.
"""

from __future__ import annotations

import csv
import io
import json
import math
import string
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from npusim._files import write_whole
from npusim.errors import ConfigError, MissingExtraError
from npusim.report.page import (
    Columns,
    Figure,
    Heading,
    Page,
    Section,
    Table,
    data_names,
    rows_of,
)
from npusim.report.page_theme import LIGHT, THEMES

if TYPE_CHECKING:
    from types import ModuleType

VEGA_LITE: Final = "6.1"
"""Version of the specs; vl-convert has several."""
_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase + "-_"
_PICTURE_WIDTH: Final = 720
_SCALE: Final = 2.0
"""Pixels of a PNG for each of the figure's."""


def check_page() -> None:
    """Refuse, before any work, a page that could not be made.

    Raises:
        MissingExtraError: what it needs is not installed.
    """
    _vl_convert()
    _jinja2()


def render(page: Page) -> str:
    """The page as HTML, with all it needs inside.

    Raises:
        ConfigError: two sections have one name.
        MissingExtraError: what it needs is not installed.
    """
    names = [section.name for section in page.sections]
    if len(set(names)) < len(names):
        raise ConfigError(f"names of sections must be unique, got {', '.join(names)}")
    folder = files("npusim.report") / "page_template"
    environment = _jinja2().Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "page.html").read_text("utf-8"))
    found: str = template.render(
        page=page,
        is_table=lambda part: isinstance(part, Table),
        css=(folder / "page.css").read_text("utf-8"),
        script=(folder / "page.js").read_text("utf-8"),
        vega=_vega(),
        content=_script_json(_content(page)),
    )
    return found


def write_page(page: Page, path: str) -> None:
    """Write the page, whole or not at all.

    Raises:
        ConfigError: `path` cannot be written, or as `render`.
        MissingExtraError: what it needs is not installed.
    """
    text = render(page)
    write_whole("--out", path, lambda part: part.write_text(text, encoding="utf-8"))


def _content(page: Page) -> dict[str, Any]:
    """What the page's script reads."""
    return {"themes": THEMES, "sections": [_section(section) for section in page.sections]}


def _section(section: Section) -> dict[str, Any]:
    drawings = section.drawings
    return {
        "name": section.name,
        "data": {
            name: {column: _compact(values) for column, values in columns.items()}
            for name, columns in section.data.items()
        },
        "filters": [
            {"column": each.column, "label": each.label, "kind": each.kind}
            for each in section.filters
        ],
        "figures": [
            {
                "name": part.name,
                "title": part.title,
                "spec": {**part.spec, "height": part.height},
                "data": data_names(part.spec),
            }
            for part in section.parts
            if isinstance(part, Figure)
        ],
        "tables": [
            {
                "name": part.name,
                "data": part.data,
                "shown": part.n_shown,
                "headings": _headings(part.headings),
            }
            for part in section.parts
            if isinstance(part, Table)
        ],
        "drawings": drawings
        and {
            "data": drawings.data,
            "parts": [dict(part) for part in drawings.parts],
            "rows": [
                [
                    _pack(places, len(next(iter(part.values()))))
                    for part, places in zip(drawings.parts, zip(*rows, strict=True), strict=True)
                ]
                for rows in drawings.rows
            ],
            "first": drawings.first,
            "told": {"data": drawings.told[0], "headings": _headings(drawings.told[1])},
        },
    }


def _headings(headings: Sequence[Heading]) -> list[dict[str, Any]]:
    return [{"column": each.column, "text": each.text, "digits": each.digits} for each in headings]


def _compact(values: Sequence[Any]) -> Any:
    """Texts of which few differ as numbers of their list: pages of many trials are half as long."""
    if not values or not all(isinstance(value, str) for value in values):
        return list(values)
    known = {text: place for place, text in enumerate(dict.fromkeys(values))}
    if 2 * len(known) > len(values):
        return list(values)
    return {"texts": list(known), "packed": _pack([known[text] for text in values], len(known))}


def _pack(numbers: Sequence[int], most: int) -> str:
    """Numbers below `most` as text: each takes the same few digits to the base 64.

    >>> _pack([0, 1, 63], 64), _pack([0, 64], 65)
    ('01_', '0010')
    """
    width = 1
    while len(_DIGITS) ** width < most:
        width += 1
    powers = [len(_DIGITS) ** place for place in reversed(range(width))]
    return "".join(
        _DIGITS[number // power % len(_DIGITS)] for number in numbers for power in powers
    )


def _script_json(value: Any) -> str:
    """JSON that may stand within a script element; numbers that are not finite become null."""
    text = json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def standalone(section: Section, figure: Figure) -> dict[str, Any]:
    """The figure's spec with its data, size and colours: whole, for any Vega-Lite."""
    values = {name: rows_of(section.columns(name)) for name in data_names(figure.spec)}
    return {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE.split('.')[0]}.json",
        "description": f"{figure.title}. {figure.caption}".strip(),
        "title": figure.title,
        "width": _PICTURE_WIDTH,
        "height": figure.height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": LIGHT,
        **figure.spec,
        "datasets": _finite(values),
    }


def write_figures(
    page: Page, folder: str, done: Callable[[int, int], None] = lambda done, total: None
) -> list[Path]:
    """Write each figure as PNG, SVG and JSON (its whole spec), and all data as CSV and JSON.

    Files are named SECTION--FIGURE and SECTION--DATA, those of data end in ``.data.json``.

    Args:
        page: whose figures to write.
        folder: is made where it is missing.
        done: called with the number of figures written, and of all.

    Returns:
        The files.

    Raises:
        ConfigError: a file cannot be written.
        MissingExtraError: what it needs is not installed.
    """
    convert = _vl_convert()
    root = Path(folder)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--figures must be a folder that can be made, got {folder!r} ({error.strerror})"
        ) from None
    found: list[Path] = []

    def write(name: str, content: bytes) -> None:
        found.append(root / name)
        write_whole("--figures", str(found[-1]), lambda part: part.write_bytes(content))

    pairs = [
        (section, part)
        for section in page.sections
        for part in section.parts
        if isinstance(part, Figure)
    ]
    for number, (section, figure) in enumerate(pairs, start=1):
        spec = standalone(section, figure)
        name = f"{section.name}--{figure.name}"
        write(f"{name}.json", json.dumps(spec, indent=1).encode())
        write(f"{name}.svg", convert.vegalite_to_svg(spec, VEGA_LITE).encode())
        write(f"{name}.png", convert.vegalite_to_png(spec, VEGA_LITE, scale=_SCALE))
        done(number, len(pairs))
    for section in page.sections:
        for name in section.data:
            columns = section.data[name]
            write(f"{section.name}--{name}.csv", _csv(columns).encode())
            text = json.dumps(_finite(rows_of(columns)))
            write(f"{section.name}--{name}.data.json", text.encode())
    return found


def _csv(columns: Columns) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()


@cache
def _vega() -> str:
    """The libraries that draw: Vega, Vega-Lite and Vega-Embed, in one script."""
    found: str = _vl_convert().javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return found


def _vl_convert() -> ModuleType:
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtraError("a report", "report", error) from error
    return vl_convert


def _jinja2() -> ModuleType:
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError("a report", "report", error) from error
    return jinja2
