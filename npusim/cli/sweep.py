# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim sweep``."""

from __future__ import annotations

from typing import Any

import click

from npusim._files import check_writable
from npusim.cli.compress import one_or_list
from npusim.cli.hardware import hardware_options, only_setup, schedule, schedule_options
from npusim.cli.output import FORMAT, OUTPUT, csv_text, emit, json_text, progress, table_text
from npusim.cli.workloads import load_workloads
from npusim.errors import ConfigError


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, type=click.Path(), required=True)
@click.option(
    "--vary",
    "varied",
    multiple=True,
    required=True,
    metavar="NAME=VALUES",
    help="What is varied: npu, system_config, memory_mode, arena_limit_bytes or a field of the "
    "hardware, with values between commas or first:last:step; all combinations are run.",
)
@click.option(
    "--minimise",
    "objectives",
    multiple=True,
    metavar="NAME",
    help="What the best machines have little of, repeated; by default time, SRAM, and what is "
    "varied of bandwidths, clock, SHRAM and multipliers (macs_per_cycle).",
)
@click.option("--best", is_flag=True, help="Only machines that no other one beats.")
@hardware_options
@schedule_options
@click.option("--plot", metavar="FILE", help="Draw a plot too (.png, .svg, .pdf ...).")
@FORMAT
@OUTPUT
def sweep(**options: Any) -> None:
    """A model on every machine that some fields of the hardware span; the best ones are marked.

    MODEL is as for npusim estimate. A machine is best (Pareto optimal) if no other one has less of
    something that is minimised and no more of all else. Machines on which the network cannot run
    are listed with the reason.

    JSON is one object for one model and a list for several; its keys are those of
    npusim.cost.what_if.HardwareSweep.to_json.
    """
    if options["output"] is not None:
        check_writable("--output", options["output"])
    if options["plot"] is not None:
        from npusim.report.plots import check_plot

        check_plot(options["plot"])
        check_writable("--plot", options["plot"])
    from npusim.cost.what_if import HardwareSweep, parse_axis
    from npusim.cost.what_if import sweep as measure
    from npusim.report import machines as report

    axes = [parse_axis(text) for text in options["varied"]]
    setup, how = only_setup(options), schedule(options)
    if how["arena_limit_bytes"] is not None and any(a.name == "arena_limit_bytes" for a in axes):
        limit = options["arena_limit"]
        raise ConfigError(f"--arena-limit must not go with --vary arena_limit_bytes, got {limit}")
    workloads = load_workloads(options["models"], options)
    n_machines = report.n_machines(axes)
    found: list[HardwareSweep] = []
    with progress("sweeping", len(workloads) * n_machines) as show:
        for workload in workloads:
            one = measure(
                *(workload, setup, axes, options["objectives"]),
                done=lambda n: show(len(found) * n_machines + n),
                **how,
            )
            found.append(one.only_best() if options["best"] else one)
    if options["plot"] is not None:
        report.plot_sweeps(found, options["plot"])
    if options["form"] == "json":
        text = json_text(one_or_list([each.to_json() for each in found]))
    elif options["form"] == "csv":
        rows = [row for each in found for row in report.sweep_rows(each)]
        text = csv_text(rows, report.sweep_columns(axes))
    else:
        text = table_text([report.sweep_table(each) for each in found])
    emit(text, options["output"])
