# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim diff``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from npusim._files import check_writable
from npusim.cli.hardware import hardware_options, names, schedule, schedule_options
from npusim.cli.output import FORMAT, OUTPUT, csv_text, emit, json_text, table_text
from npusim.cli.workloads import load_workloads
from npusim.errors import ConfigError


@click.command()
@click.argument("models", metavar="MODEL [MODEL]", nargs=-1, type=click.Path(), required=True)
@hardware_options
@click.option(
    "--then",
    "settings_after",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Like --set, for the second machine alone; may be repeated.",
)
@schedule_options
@FORMAT
@OUTPUT
def diff(**options: Any) -> None:
    """How two costs differ, operation by operation: two models, or one model on two machines.

    Two models, two values of --npu, --system or --memory-mode, or --then tell the second from the
    first; what is given once is the same for both. MODEL is as for npusim estimate.

    JSON is one object with the keys of npusim.cost.explain.CostDiff.to_json.
    """
    if options["output"] is not None:
        check_writable("--output", options["output"])
    from npusim.cost.explain import diff_costs
    from npusim.cost.what_if import Setup
    from npusim.hardware import parse_settings
    from npusim.report import costs as report

    workloads = load_workloads(options["models"], options)
    if len(workloads) > 2:
        raise ConfigError(f"MODEL must be one or two, got {len(workloads)}")
    pairs = [_pair(options, name) for name in ("npus", "systems", "modes")]
    before, after = (parse_settings(options[key]) for key in ("settings", "settings_after"))
    machines = [
        Setup(
            npu=pairs[0][place],
            system_config=pairs[1][place],
            memory_mode=pairs[2][place],
            config_files=tuple(options["configs"]),
            overrides={**before, **(after if place else {})},
            outstanding_limits=options["outstanding"],
            vela_axi_quirk=options["vela_axi"],
        ).machine()
        for place in (0, 1)
    ]
    if len(workloads) == 1 and machines[0] == machines[1]:
        raise ConfigError("what differs must be given: two models, two NPUs or --then, got none")
    how = schedule(options)
    first, second = (
        workload.cost(target, **how)
        for workload, target in zip((workloads[0], workloads[-1]), machines, strict=True)
    )
    found = diff_costs(first, second)
    if options["form"] == "json":
        text = json_text(found.to_json())
    elif options["form"] == "csv":
        text = csv_text(report.diff_rows(found), report.DIFF_COLUMNS)
    else:
        lines = dict.fromkeys([*report.notes(first), *report.notes(second)])
        text = table_text([report.diff_table(found), *lines])
    emit(text, options["output"])


def _pair(options: Mapping[str, Any], option: str) -> tuple[str, str]:
    """What an option gives the first and the second machine."""
    given = names(options[option])
    if len(given) > 2:
        flag = {"npus": "--npu", "systems": "--system", "modes": "--memory-mode"}[option]
        raise ConfigError(f"{flag} must be one or two, got {', '.join(given)}")
    return given[0], given[-1]
