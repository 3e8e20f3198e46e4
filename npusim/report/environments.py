# SPDX-License-Identifier: Apache-2.0
"""What is on a machine as a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npusim.environment import DATA_VARIABLE, TOOLS, Environment

if TYPE_CHECKING:
    from rich.table import Table


def environment_table(found: Environment) -> Table:
    """A row for each thing, what is missing with what brings it."""
    from rich.table import Table

    table = Table(title=f"npusim {found.npusim}")
    table.add_column("what", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold", min_width=30)
    for what, text in (
        ("Python", found.python),
        ("system", found.system),
        ("processor", found.processor),
    ):
        table.add_row(what, "", text)
    for name, version in found.required.items():
        table.add_row(name, _mark(version is not None), version or "missing")
    table.add_section()
    for part in found.parts:
        text = ", ".join(
            f"{name} {version}" for name, version in part.packages.items() if version is not None
        )
        if not part.is_there:
            missing = ", ".join(name for name, version in part.packages.items() if version is None)
            text = (
                f"{text}; " * bool(text) + f"without {missing}: pip install 'npusim[{part.extra}]'"
            )
        table.add_row(f"[{part.extra}]", _mark(part.is_there), text)
    table.add_section()
    for name, why in found.broken.items():
        table.add_row(name, _mark(False), why)
    cache = found.kernels
    kept = "" if cache.writable else ", cannot be written: each start compiles; set NUMBA_CACHE_DIR"
    text = f"{cache.folder}: {cache.n_files} files, {cache.n_bytes / 1e6:.1f} MB{kept}"
    table.add_row("kernel cache", _mark(cache.writable), text)
    data = f"{DATA_VARIABLE} is not set"
    if found.data is not None:
        data = found.data if found.data_is_there else f"{found.data} is not a folder"
    table.add_row("data", _mark(found.data_is_there), data)
    table.add_row(
        "GPU", _mark(bool(found.gpus)), "; ".join(found.gpus) or "none: torch uses the CPU"
    )
    for name, path in found.tools.items():
        table.add_row(name, _mark(path is not None), path or f"not found; {TOOLS[name]}")
    return table


def _mark(there: bool) -> str:
    return "✓" if there else "–"
