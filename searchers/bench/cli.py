# SPDX-License-Identifier: Apache-2.0
"""The commands ``npusim bench`` and ``npusim bench merge``."""

from __future__ import annotations

import json
import re
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import click

from npusim.cli.output import progress, table_text
from npusim.errors import ConfigError, MissingExtraError

DEFAULT = "digits"
PATH = click.Path(path_type=Path)
PLOT = click.option("--plot/--no-plot", default=True, show_default=True, help="Write a plot.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


class _BenchGroup(click.Group):
    """A group whose command "run" needs not be named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_BenchGroup)
def bench() -> None:
    """Compare search strategies: the same space, limits, budget, evaluator and seeds for each."""


@bench.command()
@click.argument("protocol", default=DEFAULT)
@click.option(
    "--searchers",
    help="Strategies, comma-separated, with options as in evolution:population=20, instead of the "
    "protocol's.",
)
@click.option(
    "--limits",
    "--sizes",
    help="Limits, comma-separated, such as 1.5KB (B, KB, KiB, MB, MiB; 1 KB = 1000 B) or 50M macs, "
    "instead of those of every task.",
)
@click.option("--seeds", type=int, help="Repetitions with seeds 0, 1, ...")
@click.option("--trials", type=int, help="Budget of each search, instead of the protocol's.")
@click.option("--images", type=int, help="The same in images trained on.")
@click.option("--seconds", type=float, help="The same in seconds; results are not repeatable then.")
@click.option("--space", help="Search space of the one task.")
@click.option("--evaluator", help="Of the one task, as of npusim search.")
@click.option("--epochs", type=int, help="Epochs of a trial.")
@click.option("--final-epochs", type=int, help="Epochs of the training before the final test.")
@click.option(
    "--npu", help="On which fronts are costed, such as ethos-u55-128; none for no cycles."
)
@click.option("--workers", default=2, show_default=True, help="Processes, one thread each.")
@click.option("--part", default="1/1", show_default=True, metavar="K/N", help="Run one part of N.")
@click.option(
    "--out",
    default=Path("runs/bench"),
    show_default=True,
    type=PATH,
    help="Directory of the results; a benchmark that is there already is resumed or extended.",
)
@click.option("--print-protocol", is_flag=True, help="Print the whole protocol, and run nothing.")
@PLOT
@AS_JSON
def run(
    protocol: str,
    workers: int,
    part: str,
    out: Path,
    print_protocol: bool,
    plot: bool,
    as_json: bool,
    **changes: Any,
) -> None:
    """Compare search strategies: the same space, limits, budget, evaluator and seeds for each.

    PROTOCOL is a TOML file, or one that npusim brings: cost, digits, nas_bench_201,
    nas_bench_macro, planted, recorded.  [default: digits] The other options change it.

    Results depend on neither the number of workers nor interruptions: after Ctrl-C, or anything
    worse, the same command goes on; more seeds or searchers reuse what is there. Parts that were
    run on several machines are put together by npusim bench merge.
    """
    from searchers.bench import protocol_files
    from searchers.bench.run import run_benchmark

    tables, folder = protocol_files.read_tables(protocol)
    found = protocol_files.protocol_of(_changed(tables, changes), folder)
    if print_protocol:
        click.echo(protocol_files.write(found).rstrip("\n"))
        return
    _require(plot)
    try:
        with progress("searching and testing", 1) as show:
            results = run_benchmark(found, out, workers, part=_part(part), on_progress=show)
    except BrokenProcessPool:
        click.echo("npusim: a worker process died; run the same command again to go on", err=True)
        click.get_current_context().exit(1)
    _tell(results, out, plot, as_json)


@bench.command()
@click.argument("parts", nargs=-1, required=True, type=PATH)
@click.option("--out", required=True, type=PATH, help="Directory of the whole; must not exist.")
@PLOT
@AS_JSON
def merge(parts: tuple[Path, ...], out: Path, plot: bool, as_json: bool) -> None:
    """Put parts together that were run with --part on several machines.

    All must have the same protocol. What is in no part can be run in the new directory afterwards,
    by npusim bench OUT/protocol.toml --out OUT.
    """
    from searchers.bench.merge import merge as merge_parts

    _require(plot)
    _tell(merge_parts(parts, out), out, plot, as_json)


def _changed(tables: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Tables of a protocol with what was said on the command line in their place."""
    from searchers.bench.protocol_files import tables_in

    found = dict(tables)
    tasks = [dict(task) for task in tables_in(tables, "tasks")]
    said = {name: value for name, value in changes.items() if value is not None}
    budget = {name: said[name] for name in ("trials", "images", "seconds") if name in said}
    if budget:
        found["budget"] = budget
        for task in tasks:
            task.pop("budget", None)
    if "seeds" in said:
        found["seeds"] = said["seeds"]
    if "npu" in said:
        found.pop("npu", None)
        found |= {} if said["npu"] == "none" else {"npu": said["npu"]}
    if "searchers" in said:
        found["searchers"] = [_entrant(text) for text in _items(said["searchers"])]
    for name in ("space", "evaluator"):
        if name in said and len(tasks) != 1:
            raise ConfigError(
                f"--{name} must go with a protocol of one task, got one of {len(tasks)} tasks"
            )
    for task in tasks:
        if "limits" in said:
            task["limits"] = _items(said["limits"])
        if "space" in said:
            task.pop("name", None)
            task.pop("space_options", None)
        if "evaluator" in said:
            for name in ("epochs", "final_epochs", "data_set"):
                task.pop(name, None)
        for name in ("space", "evaluator", "epochs", "final_epochs"):
            if name in said:
                task[name] = said[name]
    if "tasks" in tables:
        found["tasks"] = tasks
    return found


def _entrant(text: str) -> dict[str, Any]:
    from searchers import get
    from searchers.options import parse_label, resolve

    name, given = parse_label(text)
    values = resolve(name, get(name), given)
    options = {key: values[key] for key in given if values[key] is not None}
    return {"name": text, "searcher": name, "options": options}


def _items(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise ConfigError(f"a comma-separated list must have no empty item, got {text!r}")
    return items


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--part must be K/N with K in 1..N, such as 1/3, got {text!r}")
    return int(match[1]), int(match[2])


def _require(plot: bool) -> None:
    """Refuse, before any work, what needs a package that is not there."""
    try:
        import scipy  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("a benchmark", "bench", error) from error
    if plot:
        from searchers.report import require_plots

        require_plots()


def _tell(results: dict[str, Any], out: Path, plot: bool, as_json: bool) -> None:
    """Write all files of the results, and print what they say."""
    from searchers.bench import tables
    from searchers.store import write_json

    write_json(out / "results.json", results)
    tables.write_csv(results, out / "results.csv")
    if plot:
        from searchers.bench.plots import plot_curves

        plot_curves(results, out / "curves.png")
    if as_json:
        click.echo(json.dumps(results))
        return
    text = table_text([tables.results_table(results), tables.costs_table(results)])
    click.echo(text.rstrip("\n"))
    for note in results["notes"]:
        click.echo(note)
    click.echo(f"results in {out}")
