# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim estimate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from npusim._arguments import choice
from npusim._files import check_writable
from npusim.cli.compress import one_or_list
from npusim.cli.hardware import cpu_cycles, hardware_options, schedule, schedule_options, setups
from npusim.cli.output import FORMAT, OUTPUT, csv_text, emit, json_text, progress, table_text
from npusim.cli.workloads import load_workloads
from npusim.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from npusim.cost.energy import Energy
    from npusim.cost.result import Cost
    from npusim.report.estimates import Estimate

_PLOT_KINDS = ("layers", "roofline", "memory", "waterfall")


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, type=click.Path(), required=True)
@hardware_options
@schedule_options
@click.option("--ops", is_flag=True, help="Every operation, also where there are several tables.")
@click.option("--sort", metavar="COLUMN", help="Sort operations; numbers from the largest.")
@click.option("--explain", is_flag=True, help="Where the cycles go and what bounds operations.")
@click.option(
    "--sensitivity", is_flag=True, help="What 10 % more or less of the hardware would do."
)
@click.option(
    "--width",
    "layers",
    multiple=True,
    metavar="LAYER",
    help="The next cheaper number of channels of the layer with this in its name; may be repeated.",
)
@click.option(
    "--saving",
    type=float,
    help="Per cent of all cycles that the width must save; 1 if not given.",
)
@click.option("--energy", is_flag=True, help="Energy as bands; uncalibrated constants.")
@click.option("--energy-constants", metavar="FILE.toml", help="Other constants, calibrated or not.")
@click.option("--energy-node", type=float, metavar="NM", help="Process node, if not 22 nm.")
@click.option(
    "--energy-memory",
    "technologies",
    multiple=True,
    metavar="ROLE=NAME",
    help="What a memory is made of, such as flash=mram; may be repeated.",
)
@click.option("--plot", metavar="FILE", help="Draw a plot too (.png, .svg, .pdf ...).")
@click.option(
    "--plot-kind",
    type=click.Choice(_PLOT_KINDS),
    help="Cycles by layer and cause (layers, if not given), roofline, SRAM over time (memory), or "
    "the network's waterfall.",
)
@FORMAT
@OUTPUT
def estimate(**options: Any) -> None:
    """What networks cost on NPUs: cycles, memory, and why.

    MODEL is a quantized .tflite file, an .onnx file, a quoted pattern of files, or a candidate of a
    search space: SPACE:largest, SPACE:smallest or SPACE:seed=N, or a .json file of one. One model
    on one NPU is shown operation by operation, several as a row each. Cycles and SRAM are those
    that Arm's compiler Vela 5.2.0 (regor) would print for the model, which are estimates
    themselves.

    JSON is one object for one cost and a list for several; its keys are those of
    npusim.cost.result.Cost.to_json, and with the options for them waterfall, bounds, energy,
    sensitivities and widths.
    """
    _check(options)
    found = _estimates(options)
    _check_cpu_kinds(options, [each.cost for each in found])
    from npusim.report import estimates as report

    per_op, explain = options["ops"] or len(found) == 1, options["explain"]
    energy = options["energy"]
    if options["plot"] is not None:
        report.plot(found, options["plot_kind"] or "layers", options["plot"])
    if options["sort"] is not None:
        found = [report.sorted_by(each, options["sort"]) for each in found]
    if options["form"] == "json":
        text = json_text(one_or_list([each.to_json(explain=explain) for each in found]))
    elif options["form"] == "csv" and options["sensitivity"]:
        text = csv_text(report.sensitivity_rows(found), report.SENSITIVITY_COLUMNS)
    elif options["form"] == "csv" and per_op:
        rows = [row for each in found for row in report.op_rows(each, explain=explain)]
        text = csv_text(rows, report.op_columns(explain=explain, energy=energy))
    elif options["form"] == "csv":
        rows = report.cost_rows(found, explain=explain)
        text = csv_text(rows, report.cost_columns(explain=explain, energy=energy))
    else:
        text = table_text(report.tables(found, per_op=per_op, explain=explain))
    emit(text, options["output"])


def _check(options: Mapping[str, Any]) -> None:
    """Refuse what cannot be done before anything is."""
    if options["output"] is not None:
        check_writable("--output", options["output"])
    if options["plot"] is not None:
        from npusim.report.plots import check_plot

        check_plot(options["plot"])
        check_writable("--plot", options["plot"])
    elif options["plot_kind"] is not None:
        raise ConfigError(f"--plot-kind must go with --plot, got {options['plot_kind']}")
    if not options["energy"]:
        for name in ("energy_constants", "energy_node"):
            if options[name] is not None:
                flag = f"--{name.replace('_', '-')}"
                raise ConfigError(f"{flag} must go with --energy, got {options[name]}")
        if options["technologies"]:
            given = ", ".join(options["technologies"])
            raise ConfigError(f"--energy-memory must go with --energy, got {given}")
    if options["scheme"] is not None and options["layers"]:
        raise ConfigError(f"--width must not go with --scheme, got {options['scheme']}")
    if options["saving"] is not None and not options["layers"]:
        raise ConfigError(f"--saving must go with --width, got {options['saving']:g}")
    if options["saving"] is not None and not 0 <= options["saving"] <= 100:
        raise ConfigError(f"--saving must be in 0..100 per cent, got {options['saving']:g}")
    if options["form"] == "csv" and options["layers"]:
        raise ConfigError("--width must go with --format table or json, got csv")
    if options["sort"] is not None:
        from npusim.report.costs import OP_COLUMNS

        choice("--sort", options["sort"], OP_COLUMNS)


def _estimates(options: Mapping[str, Any]) -> list[Estimate]:
    """Every model on every machine."""
    from npusim.cost.sensitivity import sensitivities
    from npusim.cost.widths import find_layer, layer_widths
    from npusim.report.estimates import Estimate

    machines, how = setups(options), schedule(options)
    workloads = load_workloads(options["models"], options)
    saving = 0.01 if options["saving"] is None else options["saving"] / 100
    found: list[Estimate] = []
    with progress("estimating", len(workloads) * len(machines)) as show:
        for workload in workloads:
            for setup in machines:
                target = setup.machine()
                cost = workload.cost(target, **how)
                made = Estimate(
                    cost,
                    target,
                    setup.overrides,
                    assumed_weights=options["weights"],
                    energy=_energy(cost, options) if options["energy"] else None,
                    sensitivities=sensitivities(workload, target, **how)
                    if options["sensitivity"]
                    else (),
                    widths={
                        layer: layer_widths(workload, target, layer, saving=saving, **how)
                        for layer in (find_layer(workload.program, t) for t in options["layers"])
                    },
                )
                found.append(made)
                show(len(found))
    return found


def _energy(cost: Cost, options: Mapping[str, Any]) -> Energy:
    from npusim.cost.energy import NODE_NM, energy

    node = NODE_NM if options["energy_node"] is None else options["energy_node"]
    memories = {}
    for text in options["technologies"]:
        role, equals, technology = (part.strip() for part in text.partition("="))
        if not equals or role in memories:
            raise ConfigError(f"--energy-memory must be ROLE=NAME, each once, got {text!r}")
        memories[role] = technology
    return energy(cost, options["energy_constants"], node_nm=node, memories=memories)


def _check_cpu_kinds(options: Mapping[str, Any], costs: Sequence[Cost]) -> None:
    """Refuse cycles of a kind that no operation of the CPU has."""
    kinds = {op.source_op for cost in costs for op in cost.ops if not op.on_npu}
    for kind in cpu_cycles(options["cpu_cycles"]):
        if kind not in kinds:
            raise UnknownNameError("kind of --cpu-cycles", kind, kinds)
