# SPDX-License-Identifier: Apache-2.0
"""The commands ``npusim export`` and ``npusim deploy``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from npusim._arguments import integer
from npusim._files import check_writable, write_whole
from npusim.cli.hardware import hardware_options, only_setup
from npusim.cli.output import OUTPUT, emit, json_text, progress, table_text
from npusim.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from npusim.deployment import Codes, Outputs, Runtime
    from npusim.hardware import Machine
    from npusim.network import Network
    from searchers.deployment.trained import Data
    from spaces.nets import CandidateNet

N_RANDOM: Final = 20
N_TESTED: Final = 100
PATH = click.Path(path_type=Path)
OPTION = click.option(
    "--space-option",
    "--option",
    "-o",
    "options_of_space",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the space of networks whose file does not say it, such as multiplier=1.",
)
DATA_SET = click.option("--data-set", help="Data set; else that of the training.")
DATA = click.option("--data", type=PATH, help="Directory of data sets; else NPUSIM_DATA.")
FINE_BIAS = click.option(
    "--fine-bias", is_flag=True, help="Biases in finer steps, for about half a percent of size."
)
AVERAGE_POOL = click.option(
    "--average-pool", is_flag=True, help="Means over height and width as average pools."
)


@click.command()
@click.argument("run", type=PATH)
@click.option("--out", required=True, help="The .tflite file.")
@OPTION
@FINE_BIAS
@AVERAGE_POOL
@DATA_SET
@DATA
def export(
    run: Path,
    out: str,
    options_of_space: tuple[str, ...],
    fine_bias: bool,
    average_pool: bool,
    data_set: str | None,
    data: Path | None,
) -> None:
    """Write a trained candidate as an int8 .tflite model.

    RUN is the directory of a finished "npusim train" or "npusim finetune", or the net.pt in it.
    Weights keep the grid of their bitwidth, and zeros stay zeros. Data is read only if there are no
    int8 grids yet, since training was in floating point, and for PReLUs.
    """
    from npusim.formats.tflite_write import to_bytes

    if not out.endswith(".tflite"):
        raise ConfigError(f"--out must end with .tflite, got {out!r}")
    check_writable("--out", out)
    net, images = _load(run, options_of_space, data_set, data)
    network = _exported(net, fine_bias, average_pool, images)
    content = to_bytes(network)
    write_whole("--out", out, lambda path: path.write_bytes(content))
    click.echo(f"{network}; {len(content):,} bytes in {out}")


def _load(
    run: Path, options_of_space: Sequence[str], data_set: str | None, data: Path | None
) -> tuple[CandidateNet, Data]:
    """A trained network, and where its data is."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("trained networks", "search", error) from error
    from searchers.deployment.trained import Data, load_trained
    from spaces.cli import parse_option

    images = Data(data_set, data).of(run)
    options = dict(parse_option(text) for text in options_of_space)
    return load_trained(run, options, images), images


def _exported(net: CandidateNet, fine_bias: bool, average_pool: bool, data: Data) -> Network:
    from searchers.deployment.trained import calibration_images
    from spaces.export import export as export_net

    prelus = any(layer.activation == "prelu" for layer in net.space.layers)
    images = calibration_images(net, data) if prelus else None
    return export_net(net, images, fine_bias, average_pool)


@click.command()
@click.argument("model", metavar="MODEL|RUN")
@click.option(
    "--samples",
    type=int,
    help=f"Inputs to run; {N_RANDOM} if not given, of test data {N_TESTED}.",
)
@click.option("--seed", default=0, show_default=True, help="Of random inputs.")
@OPTION
@FINE_BIAS
@AVERAGE_POOL
@DATA_SET
@DATA
@hardware_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@OUTPUT
def deploy(model: str, **options: Any) -> None:
    """What an int8 network computes and costs where it is deployed, measured twice.

    MODEL is a .tflite file, which is run on random inputs; RUN is the directory of a finished
    "npusim train" or "npusim finetune", or the net.pt in it, which is exported and run on test
    data, in torch too. Either is run in npusim's integers and in LiteRT, once for each way that
    LiteRT rounds, and compiled with Vela; LiteRT and Vela are in the extra [deploy] and are left
    out where they are not installed. An operation that would fall back to the CPU is an error.
    """
    if options["output"] is not None:
        check_writable("--output", options["output"])
    if options["samples"] is not None:
        integer("--samples", options["samples"], 1, 10**6)
    integer("--seed", options["seed"], 0, 2**32 - 1)
    target = only_setup(options).machine()
    way = _model if model.endswith(".tflite") else _trained
    emit(way(model, options, target), options["output"])


def _model(model: str, options: Mapping[str, Any], target: Machine) -> str:
    """A .tflite file on random inputs."""
    import npusim
    from npusim import deployment

    for name in ("options_of_space", "fine_bias", "average_pool", "data_set", "data"):
        if options[name]:
            flag = "option" if name == "options_of_space" else name.replace("_", "-")
            raise ConfigError(f"--{flag} must go with a RUN, got {model}")
    network = npusim.load(model)
    found = deployment.measure(network, target)
    inputs = deployment.random_samples(network, options["samples"] or N_RANDOM, options["seed"])
    runs = _run(network, inputs)
    return _text(found, runs, len(inputs), "random inputs", options["as_json"])


def _trained(run: str, options: Mapping[str, Any], target: Machine) -> str:
    """A trained candidate on test data."""
    from npusim import deployment
    from npusim.deployment import Runtime
    from searchers.deployment import trained

    net, data = _load(Path(run), options["options_of_space"], options["data_set"], options["data"])
    network = _exported(net, options["fine_bias"], options["average_pool"], data)
    found = deployment.measure(network, target, trained.eq4_bytes(net))
    samples = trained.read_samples(net, data, options["samples"] or N_TESTED)

    def score(outputs: Outputs) -> dict[str, float]:
        return samples.score(trained.real_outputs(net, outputs))

    inputs, in_torch = trained.input_codes(net, samples), trained.torch_outputs(net, samples)
    runs = [Runtime("torch, int8 maps", score(in_torch))]
    runs += _run(network, inputs, score, in_torch)
    return _text(found, runs, len(inputs), "test inputs", options["as_json"])


def _run(
    network: Network,
    inputs: Sequence[Sequence[Codes]],
    score: Callable[[Outputs], Mapping[str, float]] = lambda outputs: {},
    in_torch: Outputs | None = None,
) -> list[Runtime]:
    """All runtimes, with a progress bar."""
    from npusim import deployment

    n_done = 0
    with progress(f"running {network.name}", deployment.n_inferences(len(inputs))) as show:

        def done() -> None:
            nonlocal n_done
            n_done += 1
            show(n_done)

        return deployment.runtimes(network, inputs, score, in_torch, done)


def _text(found: Any, runs: list[Runtime], n_samples: int, samples: str, as_json: bool) -> str:
    from npusim.report import deployments as report

    if as_json:
        return json_text(report.to_json(found, runs, n_samples, samples))
    return table_text([report.size_table(found), report.runtime_table(runs, n_samples, samples)])
