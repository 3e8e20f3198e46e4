# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim search``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

import spaces
from npusim.cli.output import shows_progress, table_text
from npusim.errors import ConfigError
from searchers.base import Budget, is_one_shot
from searchers.evaluators import INSTANT, RunPlace, TrainConfig, make
from searchers.options import declared, parse
from spaces.limits import Limit, parse_count, parse_size

if TYPE_CHECKING:
    from searchers.base import Evaluator, Pool
    from searchers.halving import GradedEvaluator
    from searchers.packing import Placement
    from searchers.study import Study, StudyResult, TrainingEvaluator
    from spaces.npu_limits import AnyLimit, NpuLimit

SPACE = click.option("--space", default="digits", show_default=True, help="Search space.")
EPOCHS = click.option(
    "--epochs", default=TrainConfig().epochs, show_default=True, help="Epochs of a trial."
)
FINAL_EPOCHS = click.option(
    "--final-epochs",
    default=TrainConfig().final_epochs,
    show_default=True,
    help="Epochs of the training before the final test.",
)
PLOT = click.option("--plot/--no-plot", default=True, show_default=True, help="Write a plot.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
SIZE_HELP = "such as 1.5KB (units B, KB, KiB, MB, MiB; 1 KB = 1000 B)"


@click.command()
@SPACE
@click.option(
    "--space-option",
    "-o",
    "space_options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the space, such as multiplier=1 or bitwidths=[4,8]; may be repeated.",
)
@click.option("--searcher", default="evolution", show_default=True, help="Search strategy.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Option of the strategy, such as population=20; may be repeated.",
)
@click.option("--size", help=f"Hard limit on the compressed size of the weights, {SIZE_HELP}.")
@click.option(
    "--flash",
    help="Hard limit on flash: weight streams, biases, scales, constants. Estimated, but for "
    "strategies on shared weights without --size, which hold the streams of their weights to it.",
)
@click.option("--macs", help="Hard limit on the multiply-accumulates, such as 50M.")
@click.option("--cycles", help="Hard limit on the NPU's cycles beside one of these, such as 2M.")
@click.option("--sram", help="Hard limit on the peak of SRAM beside one of these, such as 64KiB.")
@click.option(
    "--npu",
    default="ethos-u55-128",
    show_default=True,
    help="NPU that --flash, --cycles and --sram are for.",
)
@click.option("--preset", help="Settings of a strategy that has some: cpu, paper.")
@click.option(
    "--trials",
    type=int,
    help="Candidates to train.  [default: 20; 1 for a strategy that trains itself]",
)
@click.option("--seed", default=0, show_default=True, help="Decides everything that is drawn.")
@click.option("--data-set", help="Data set; else the space's.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Directory of data sets; else NPUSIM_DATA."
)
@click.option(
    "--halving",
    metavar="SETTINGS",
    help="Successive halving, such as eta=3,min_epochs=1: many candidates are trained for a few "
    "epochs, the best for more, on as many images as --trials whole trials take.",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    help="Processes that train candidates side by side; the results are the same.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where to train; workers share CUDA devices as far as their memory goes.",
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Ray cluster whose machines train the candidates, as many at once as --workers says; "
    '"auto" for one that this machine is part of.',
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Run directory; a run that is there already is resumed.",
)
@click.option(
    "--evaluator",
    "evaluator_name",
    default="short",
    show_default=True,
    help="What scores candidates: short (training for --epochs), full (for --final-epochs), none "
    "(of a strategy that trains itself: its result is left to npusim finetune), "
    "supernet[:EPOCHS] (weights shared by all, trained once), zero-cost[:nwot|:synflow], "
    "surrogate:RUN (a regression on that run's trials), recorded (trainings of all of the space "
    "digits_recorded), or a function of your own, "
    "package.module:function.",
)
@EPOCHS
@FINAL_EPOCHS
@PLOT
@AS_JSON
def search(
    space: str,
    space_options: tuple[str, ...],
    searcher: str,
    options: tuple[str, ...],
    size: str | None,
    flash: str | None,
    macs: str | None,
    cycles: str | None,
    sram: str | None,
    npu: str,
    preset: str | None,
    trials: int | None,
    seed: int,
    data_set: str | None,
    data: Path | None,
    halving: str | None,
    workers: int,
    device: str,
    ray: str | None,
    out: Path,
    evaluator_name: str,
    epochs: int,
    final_epochs: int,
    plot: bool,
    as_json: bool,
) -> None:
    """Search a space for the most accurate network within hard limits on what it costs.

    Every candidate is trained for real and scored on validation data, unless --evaluator says
    otherwise. The best one is trained afresh at the end and tested, once, on data that the search
    never saw.

    After Ctrl-C, or anything worse, the same command goes on where it stopped.
    """
    import searchers
    from searchers.study import Study, run_study, take_part
    from spaces.cli import parse_option

    if trials is None:
        trials = 1 if is_one_shot(searchers.get(searcher)) else 20
    limit, further = _limits(size, flash, macs, cycles, sram, npu)
    given = [f"preset={preset}"] if preset else []
    npu_limits = [each for each in further if not isinstance(each, Limit)]
    if further and "also" in declared(searcher, searchers.get(searcher)):
        given += _as_options(size, flash, further, npu)
        further = ()
    study = Study(
        spaces.get(space, **dict(parse_option(text) for text in space_options)),
        searcher,
        limit,
        Budget(trials=trials),
        seed,
        parse((*given, *options)),
        further,
    )
    config = TrainConfig(epochs=epochs, final_epochs=final_epochs)
    _check_evaluator(evaluator_name, searcher)
    if plot:
        _require_plots()
    run = RunPlace(limit, out, seed)
    make_evaluator = partial(make, evaluator_name, study.space, config, data_set, data, run)
    evaluator = make_evaluator()
    if halving is not None:
        study = _halved(study, halving, trials, evaluator)
    placement = None if device == "cpu" else _on_cuda(study, evaluator, ray)
    study.check(out, evaluator.identity())
    study.check_workers(workers)
    if is_one_shot(searchers.get(searcher)) and int(os.environ.get("RANK", "0")) > 0:
        take_part(study, evaluator, device)  # by torchrun, beside the process that does all else
        return
    what = f"searching {space}"
    total = trials if study.halving is None else None
    with _progress(what, total) as show, _pool(make_evaluator, workers, ray, placement) as pool:
        result = run_study(
            study,
            out,
            evaluator,
            device=device,
            pool=pool,
            on_trial=lambda trial: show(trial.index + 1, total, what),
            on_progress=lambda done, steps, figures: show(done, steps, _figures(figures)),
        )
    assert result is not None  # nothing asked it to stop
    _tell(result, out, evaluator, npu_limits, plot, as_json)


def _tell(
    result: StudyResult,
    out: Path,
    evaluator: object,
    npu_limits: Sequence[NpuLimit],
    plot: bool,
    as_json: bool,
) -> None:
    """Plot what was found, and print it."""
    from searchers import report

    if plot:
        report.plot_study(result, out / "plot.png")
    if as_json:
        click.echo(json.dumps(result.to_json()))
        return
    _print(report.study_table(result))
    if result.best is not None:
        from spaces.concrete import describe

        click.echo(describe(result.study.space, result.best.candidate))
        for each in npu_limits:
            real = result.best.search_metrics.get(each.measure)  # of UDC's own weights
            n = real or each.cost(result.study.space, result.best.candidate)
            how = "of the weights of the search" if real else "estimated"
            click.echo(f"{each.measure} {n:,.0f} of {each.most:,} on {each.npu}, {how}")
    if hasattr(evaluator, "summary"):
        click.echo(evaluator.summary())
    click.echo(f"results in {out}")


def _check_evaluator(evaluator: str, searcher: str) -> None:
    """Refuse epochs that nothing is trained for, and a search that nothing would guide."""
    import searchers

    if evaluator == "none" and not is_one_shot(searchers.get(searcher)):
        raise ConfigError(
            f"evaluator 'none' must go with a strategy that trains itself, got {searcher!r}"
        )
    context = click.get_current_context()
    trains = evaluator.partition(":")[0] not in (*INSTANT, "none")
    for name in () if trains else ("epochs", "final_epochs"):
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise ConfigError(
                f"--{name.replace('_', '-')} must go with an evaluator that trains, "
                f"got {evaluator!r}"
            )


def _limits(
    size: str | None,
    flash: str | None,
    macs: str | None,
    cycles: str | None,
    sram: str | None,
    npu: str,
) -> tuple[Limit, tuple[AnyLimit, ...]]:
    """The limit that a space counts candidates within, and further ones.

    Weights alone take no more flash than everything together: a limit on that is one on them too.
    """
    from npusim.hardware import machine
    from spaces.npu_limits import NpuLimit

    machine(npu)  # there is one of that name
    limits: list[Limit] = []
    further: list[AnyLimit] = []
    if size is not None or flash is not None:
        limits.append(Limit.size(size or flash or ""))
    if macs is not None:
        limits.append(Limit("macs", parse_count("--macs", macs)))
    if not limits:
        raise ConfigError("one of --size, --flash and --macs must be given, got none")
    if flash is not None:
        further.append(NpuLimit("flash_bytes", parse_size(flash) // 8, npu))
    if cycles is not None:
        further.append(NpuLimit("total_cycles", parse_count("--cycles", cycles), npu))
    if sram is not None:
        further.append(NpuLimit("sram_peak_bytes", parse_size(sram) // 8, npu))
    return limits[0], (*limits[1:], *further)


def _as_options(
    size: str | None, flash: str | None, further: tuple[AnyLimit, ...], npu: str
) -> list[str]:
    """Further limits for searchers that keep some themselves, as `searchers.udc.searcher` does."""
    found = [f"npu={npu}"]
    if flash is not None and size is None:  # the real streams, not their estimate
        found.append("within=flash")
        further = tuple(each for each in further if each.measure != "flash_bytes")
    if further:
        found.append(f"also={', '.join(map(str, further))}")
    return found


def _halved(study: Study, settings: str, trials: int, evaluator: TrainingEvaluator) -> Study:
    """The study by successive halving, for as many images as so many whole trials take."""
    from searchers.halving import Halving

    if not hasattr(evaluator, "images_a_trial"):
        name = evaluator.identity()["evaluator"]
        raise ConfigError(f"evaluator to halve must be one that trains for epochs, got {name!r}")
    graded = cast("GradedEvaluator", evaluator)
    budget = Budget(images=trials * graded.images_a_trial)
    return replace(study, halving=Halving.parse(settings, graded.epochs), budget=budget)


def _on_cuda(study: Study, evaluator: TrainingEvaluator, ray: str | None) -> Placement:
    """Trials on the CUDA devices there are, as many on each as its free memory allows."""
    import torch

    from searchers.packing import Device, Packing, Placement, training_bytes
    from searchers.training.evaluator import TrainEvaluator

    if ray is not None:
        raise ConfigError("--device must be cpu with --ray, got cuda")
    if not torch.cuda.is_available():
        raise ConfigError("--device cuda must have a CUDA device, got none")
    if not isinstance(evaluator, TrainEvaluator):
        name = evaluator.identity()["evaluator"]
        raise ConfigError(f"evaluator for --device cuda must be one that trains, got {name!r}")
    evaluator.device = "cuda"
    devices = [
        Device(f"cuda:{n}", torch.cuda.mem_get_info(n)[0]) for n in range(torch.cuda.device_count())
    ]
    recipe = evaluator.recipe
    return Placement(Packing(devices), lambda each: training_bytes(study.space, each, recipe))


@contextmanager
def _pool(
    make_evaluator: Callable[[], Evaluator],
    n_workers: int,
    ray: str | None,
    placement: Placement | None,
) -> Iterator[Pool | None]:
    if ray is not None:
        from searchers.ray_workers import RayWorkers

        with RayWorkers(make_evaluator, n_workers, ray) as machines:
            yield machines
        return
    if n_workers == 1 and placement is None:
        yield None
        return
    from searchers.workers import Workers

    with Workers(make_evaluator, n_workers, placement) as pool:
        yield pool


def _figures(figures: Mapping[str, float]) -> str:
    """What the training of a one-shot searcher is like, in half a line."""
    return " ".join(f"{name} {value:.2f}" for name, value in figures.items()) or "training"


def _require_plots() -> None:
    from searchers.report import require_plots

    require_plots()


def _print(table: Any) -> None:
    click.echo(table_text([table]).rstrip("\n"))


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int, int | None, str], None]]:
    """Live progress with time left on a terminal's stderr; nothing where that is piped.

    Gives a function of how many are done, of how many, None where that is open, and of what goes
    on.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=6),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    with Progress(
        *columns, console=Console(stderr=True), disable=not shows_progress(), transient=True
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, total, doing: progress.update(
            task, completed=done, total=total, description=doing
        )
