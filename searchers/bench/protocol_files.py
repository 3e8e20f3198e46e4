# SPDX-License-Identifier: Apache-2.0
"""Protocols of benchmarks as TOML files, read strictly; those that npusim brings, by name.

seeds = 10                          # 0 to 9; or a list of seeds
npu = "ethos-u55-128"               # for fronts of cycles

[budget]                            # of each search: trials, images, seconds, or several
trials = 12

[[tasks]]
space = "digits"
limits = ["0.5KB", "1KB"]           # or such as "50M macs"
evaluator = "short"                 # any that npusim search --evaluator takes
epochs = 4                          # of a trial
final_epochs = 8                    # before the final test

[[searchers]]
searcher = "random"

[[searchers]]
searcher = "evolution"
name = "small population"
options = {population = 10}
tuning = {images = 500_000, cpu_s = 300.0, runs = ["runs/tuning"]}
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import spaces
from npusim.errors import ConfigError, FormatError, MissingExtraError, UnknownNameError
from npusim.hardware import DEFAULT_NPU
from searchers.base import Budget
from searchers.bench.protocol import Entrant, Protocol, Task, Tuning
from searchers.evaluators import INSTANT, TrainConfig, make
from searchers.store import read_json, rows
from searchers.study import HeldOutEvaluator
from spaces.base import Space
from spaces.limits import Limit
from spaces.npu_limits import parse_limit

_TOP = {"seeds": (int, list), "npu": str, "budget": dict, "tasks": list, "searchers": list}
_TASK = {
    **{"name": str, "space": str, "space_options": dict, "limits": list, "evaluator": str},
    **{"epochs": int, "final_epochs": int, "data_set": str, "budget": dict, "also": list},
}
_SEARCHER = {"name": str, "searcher": str, "options": dict, "tuning": dict}
_BUDGET = {"trials": int, "images": int, "seconds": (int, float)}
_SPENT = {"trials": int, "images": int, "wall_s": (int, float), "cpu_s": (int, float)}
_TUNING = {**_SPENT, "runs": list}
_WORDS = {int: "a whole number", str: "a text", dict: "a table", list: "a list", float: "a number"}


def names() -> list[str]:
    """Protocols that npusim brings, sorted."""
    folder = resources.files("searchers.bench") / "protocols"
    return sorted(each.name.removesuffix(".toml") for each in folder.iterdir())


def text_of(name: str) -> str:
    """The file of a protocol that npusim brings.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in names():
        raise UnknownNameError("protocol", name, [*names(), "FILE.toml"])
    path = resources.files("searchers.bench") / "protocols" / f"{name}.toml"
    return path.read_text("utf-8")


def read_tables(source: str) -> tuple[dict[str, Any], Path]:
    """The tables of a file, or of a protocol that npusim brings, and what its paths start from.

    Args:
        source: ends in ``.toml``, or is one of `names`.

    Raises:
        ConfigError: there is no such file.
        FormatError: it is no TOML.
        UnknownNameError: see `text_of`.
    """
    path = Path(source)
    try:
        text = path.read_text("utf-8") if path.suffix == ".toml" else text_of(source)
        return tomllib.loads(text), path.parent
    except OSError as error:
        raise ConfigError(f"protocol must be a file, got {source!r} ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"protocol {source} must be TOML, got: {error}") from None


def read(source: str) -> Protocol:
    """The protocol of a file, or one that npusim brings; see `read_tables` and `protocol_of`."""
    return protocol_of(*read_tables(source))


def protocol_of(tables: Mapping[str, Any], folder: Path = Path()) -> Protocol:
    """The protocol that tables say, all of it checked but for what `Protocol.check` does.

    Args:
        tables: as in the file.
        folder: what the paths of tuning runs start from.

    Raises:
        UnknownNameError: a key is not known, or a name of a space, measure or npu is not.
        ConfigError: a value is missing, of another type, repeated or out of range.
        FormatError: a tuning run is none.
    """
    _check_keys("protocol", tables, _TOP, needed=("seeds", "budget", "tasks", "searchers"))
    seeds = tables["seeds"]
    if isinstance(seeds, int):
        if seeds < 1:
            raise ConfigError(f"seeds of protocol must be at least 1, got {seeds}")
        seeds = list(range(seeds))
    npu = tables.get("npu")
    return Protocol(
        tuple(_task(each, f"tasks[{i}]", npu) for i, each in enumerate(tables_in(tables, "tasks"))),
        tuple(
            _entrant(each, f"searchers[{i}]", folder)
            for i, each in enumerate(tables_in(tables, "searchers"))
        ),
        tuple(_items("seeds of protocol", seeds, int)),
        _budget("budget", tables["budget"]),
        npu,
    )


def tables_in(tables: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The tables of a list of them, such as the tasks of a protocol; none if it is not there.

    Raises:
        ConfigError: it is no list, or one of something else.
    """
    what, found = f"{name} of protocol", tables.get(name, [])
    _check_type(what, found, list)
    items: list[dict[str, Any]] = _items(what, found, dict)
    return items


def tables_of(protocol: Protocol) -> dict[str, Any]:
    """What the file of a protocol says: `protocol_of` gives the protocol again."""
    seeds = list(protocol.seeds)
    found: dict[str, Any] = {"seeds": len(seeds) if seeds == list(range(len(seeds))) else seeds}
    if protocol.npu is not None:
        found["npu"] = protocol.npu
    found["budget"] = _budget_json(protocol.budget)
    found["tasks"] = [task.to_json() for task in protocol.tasks]
    found["searchers"] = [_entrant_json(each) for each in protocol.entrants]
    return found


def write(protocol: Protocol) -> str:
    """The text of a protocol's file.

    Raises:
        MissingExtraError: the package that writes TOML is not installed.
    """
    try:
        import tomli_w
    except ImportError as error:
        raise MissingExtraError("a benchmark", "bench", error) from error
    return tomli_w.dumps(tables_of(protocol))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Fields in which two protocols' tables differ, as in ``tasks[0].epochs: 4 and 8``."""
    return list(_differences("", ours, theirs))


def _differences(where: str, ours: Any, theirs: Any) -> Iterable[str]:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in dict.fromkeys((*ours, *theirs)):
            inside = f"{where}.{name}" if where else name
            yield from _differences(inside, ours.get(name), theirs.get(name))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(f"{where}[{i}]", *pair)
    elif ours != theirs:
        yield f"{where}: {ours!r} and {theirs!r}"


def _task(table: Mapping[str, Any], where: str, npu: str | None) -> Task:
    _check_keys(where, table, _TASK, needed=("space", "limits", "evaluator"))
    said = {"name": table["space"], **table}
    name = said["evaluator"]
    if name == "none":
        raise ConfigError(f"evaluator of {where} must be one that scores, got 'none'")
    trains = name.partition(":")[0] not in INSTANT
    for key in ("epochs", "final_epochs", "data_set"):
        if not trains and key in table:
            raise ConfigError(
                f"{key} of {where} must go with an evaluator that trains, got {name!r}"
            )
    default = TrainConfig()
    epochs = {key: said.get(key, getattr(default, key)) for key in ("epochs", "final_epochs")}
    space = spaces.get(said["space"], **said.get("space_options", {}))
    limits = _items(f"limits of {where}", said["limits"], str)
    make_evaluator = partial(_make_evaluator, name, TrainConfig(**epochs), said.get("data_set"))
    budget = said.get("budget")
    also = _items(f"also of {where}", said.get("also", []), str)
    return Task(
        said["name"],
        space,
        tuple(Limit.parse(text) for text in limits),
        make_evaluator,
        None if budget is None else _budget(f"{where}.budget", budget),
        tuple(parse_limit(text, npu or DEFAULT_NPU) for text in also),
        {**said, **epochs} if trains else said,
    )


def _make_evaluator(
    name: str, config: TrainConfig, data_set: str | None, space: Space
) -> HeldOutEvaluator:
    return make(name, space, config, data_set)


def _entrant(table: Mapping[str, Any], where: str, folder: Path) -> Entrant:
    _check_keys(where, table, _SEARCHER, needed=("searcher",))
    options = table.get("options", {})
    label = ":".join([table["searcher"], *(f"{key}={value}" for key, value in options.items())])
    tuning = table.get("tuning", {})
    _check_keys(f"{where}.tuning", tuning, _TUNING)
    spent = {name: tuning.get(name, 0) for name in _SPENT}
    for path in _items(f"runs of {where}.tuning", tuning.get("runs", []), str):
        for name, value in _spent(folder / path).items():
            spent[name] += value
    return Entrant(table.get("name", label), table["searcher"], options, Tuning(**spent))


def _entrant_json(entrant: Entrant) -> dict[str, Any]:
    found: dict[str, Any] = {"name": entrant.name, "searcher": entrant.searcher}
    if entrant.options:
        found["options"] = dict(entrant.options)
    if entrant.tuning != Tuning():
        found["tuning"] = asdict(entrant.tuning)
    return found


def _spent(directory: Path) -> dict[str, Any]:
    """What a run, or all runs of a benchmark, took."""
    folders = [directory, *sorted(directory.glob("*/"))] if directory.is_dir() else []
    runs = [folder for folder in folders if (folder / "run.json").is_file()]
    if not runs:
        raise FormatError(f"tuning run must be a directory of runs, got {directory}")
    found: dict[str, Any] = dict.fromkeys(_SPENT, 0)
    for run in runs:
        for row in rows(run):
            found["trials"] += 1
            found["images"] += row["n_images"] + row["search_images"]
            found["wall_s"] += row["wall_s"] + row["search_wall_s"]
            found["cpu_s"] += row["cpu_s"] + row["search_cpu_s"]
        if (run / "test.json").is_file():
            found["images"] += read_json(run / "test.json")["n_images"]
    return found


def _budget(where: str, table: Mapping[str, Any]) -> Budget:
    _check_keys(where, table, _BUDGET)
    return Budget(**table)


def _budget_json(budget: Budget) -> dict[str, Any]:
    return {name: value for name, value in asdict(budget).items() if value is not None}


def _check_keys(
    where: str, table: Mapping[str, Any], known: Mapping[str, Any], needed: Iterable[str] = ()
) -> None:
    """Refuse keys that are not known, values of other types, and what is missing."""
    for name, value in table.items():
        if name not in known:
            raise UnknownNameError(f"key of {where}", name, known)
        _check_type(f"{name} of {where}", value, known[name])
    for name in needed:
        if name not in table:
            raise ConfigError(f"{name} of {where} must be given, got none")


def _items(what: str, values: list[Any], kind: type) -> list[Any]:
    for value in values:
        _check_type(f"each of {what}", value, kind)
    return values


def _check_type(what: str, value: Any, kind: Any) -> None:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if type(value) not in kinds:
        words = " or ".join(_WORDS[each] for each in kinds)
        raise ConfigError(f"{what} must be {words}, got {value!r}")
