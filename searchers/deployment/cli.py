# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim deploy``."""

from __future__ import annotations

from typing import Any

import click

from npusim._arguments import integer
from npusim._files import check_writable
from npusim.cli.hardware import hardware_options, only_setup
from npusim.cli.output import OUTPUT, emit, json_text, progress, table_text


@click.command()
@click.argument("model")
@click.option("--samples", default=20, show_default=True, help="Inputs to run.")
@click.option("--seed", default=0, show_default=True, help="Of random inputs.")
@hardware_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@OUTPUT
def deploy(model: str, **options: Any) -> None:
    """What an int8 network computes and costs where it is deployed, measured twice.

    MODEL is a .tflite file. It is run on random inputs in npusim's integers and in LiteRT, once
    for each way that LiteRT rounds, and compiled with Vela; LiteRT and Vela are in the extra
    [deploy] and are left out where they are not installed. An operation that would fall back to
    the CPU is an error.
    """
    if options["output"] is not None:
        check_writable("--output", options["output"])
    n_samples = integer("--samples", options["samples"], 1, 10**6)
    seed = integer("--seed", options["seed"], 0, 2**32 - 1)
    target = only_setup(options).machine()
    import npusim
    from npusim import deployment
    from npusim.report import deployments as report

    network = npusim.load(model)
    found = deployment.measure(network, target)
    samples = deployment.random_samples(network, n_samples, seed)
    n_done = 0
    with progress(f"running {network.name}", deployment.n_inferences(n_samples)) as show:

        def done() -> None:
            nonlocal n_done
            n_done += 1
            show(n_done)

        runs = deployment.runtimes(network, samples, done=done)
    if options["as_json"]:
        text = json_text(report.to_json(found, runs, n_samples, "random inputs"))
    else:
        tables = [report.size_table(found), report.runtime_table(runs, n_samples, "random inputs")]
        text = table_text(tables)
    emit(text, options["output"])
