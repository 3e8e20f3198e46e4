# SPDX-License-Identifier: Apache-2.0
"""Put parts of a benchmark together that were run on several machines."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from npusim.errors import ConfigError
from searchers.bench.protocol import Cell, Protocol
from searchers.bench.protocol_files import differences, protocol_of, read_tables
from searchers.bench.results import collect
from searchers.bench.run import CELLS, PROTOCOL, cell_line, finished
from searchers.store import count_trials, locked


def merge(parts: Sequence[Path], out: Path) -> dict[str, Any]:
    """One benchmark of several directories; what is in none of them can be run in it later.

    Args:
        parts: directories of `searchers.bench.run.run_benchmark`, one or more; read only.
        out: is created, whole or not at all.

    Returns:
        JSON values, see `searchers.bench.results.collect`.

    Raises:
        ConfigError: a directory is no benchmark's, the protocols differ (each field is named), two
            have different results of one study, `out` is there already, or a part is being run.
    """
    if out.exists():
        raise ConfigError(f"--out must not exist before parts are merged, got {out}")
    protocol = _protocol(parts)
    cells = protocol.cells()
    draft = out.with_name(f"{out.name}.part")
    with ExitStack() as held:
        for part in dict.fromkeys(path.resolve() for path in parts):
            held.enter_context(locked(part))
        found = _results(parts, protocol, cells)
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for cell in cells:
            _copy_run(cell, parts, draft)
    shutil.copyfile(parts[0] / PROTOCOL, draft / PROTOCOL)
    with (draft / CELLS).open("w") as file:
        for cell in cells:
            if cell.directory in found:
                file.write(cell_line(protocol, cell, found[cell.directory]))
    draft.rename(out)
    return collect(protocol, [found[c.directory] for c in cells if c.directory in found])


def _protocol(parts: Sequence[Path]) -> Protocol:
    tables = []
    for part in parts:
        if not (part / PROTOCOL).is_file():
            raise ConfigError(
                f"part must be the directory of a benchmark, with a {PROTOCOL}, got {part}"
            )
        tables.append(read_tables(str(part / PROTOCOL))[0])
    for part, other in zip(parts[1:], tables[1:], strict=True):
        if different := differences(tables[0], other):
            raise ConfigError(
                f"parts must be of one protocol, got {parts[0]} and {part}, which differ in "
                f"{'; '.join(different)}"
            )
    return protocol_of(tables[0])


def _results(
    parts: Sequence[Path], protocol: Protocol, cells: Sequence[Cell]
) -> dict[str, dict[str, Any]]:
    """Results by directory; those that several parts have must agree but for times."""
    found: dict[str, dict[str, Any]] = {}
    where: dict[str, Path] = {}
    for part in parts:
        for name, result in finished(part, protocol, cells).items():
            if name in found and without_times(found[name]) != without_times(result):
                raise ConfigError(
                    f"study {name!r} must have one result, got another one in {part} than in "
                    f"{where[name]}"
                )
            if name not in found:
                found[name], where[name] = result, part
    return found


def without_times(value: Any) -> Any:
    """JSON values without the keys that end in ``_s``: what the same seed must give again."""
    if isinstance(value, Mapping):
        return {k: without_times(v) for k, v in value.items() if not k.endswith("_s")}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def _copy_run(cell: Cell, parts: Sequence[Path], draft: Path) -> None:
    """The run directory that has the most: finished, or else of the most trials."""
    folders = [part / cell.directory for part in parts if (part / cell.directory).is_dir()]
    if not folders:
        return
    best = max(folders, key=lambda each: ((each / "result.json").exists(), count_trials(each)))
    shutil.copytree(best, draft / cell.directory)
