# SPDX-License-Identifier: Apache-2.0
"""The command ``npusim report``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from npusim import registry
from npusim._files import check_writable
from npusim.cli.compress import load_models
from npusim.cli.hardware import hardware_options, names, schedule, schedule_options, setups
from npusim.cli.output import progress
from npusim.cli.schemes import fractions
from npusim.cli.workloads import is_candidate, load_workloads
from npusim.errors import ConfigError

if TYPE_CHECKING:
    from npusim.hardware import Machine
    from npusim.report.page import Page, Section
    from npusim.schemes.lab import Comparison

_GROUP = "npusim.reports"
_HARDWARE = ("npus", "systems", "modes", "configs", "settings", "vela_axi", "outstanding")


@click.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, type=click.Path(), required=True)
@click.option(
    "--out", default="report.html", show_default=True, metavar="FILE.html", help="The page."
)
@click.option(
    "--figures", metavar="DIR", help="Every figure as PNG, SVG and JSON, all data as CSV and JSON."
)
@click.option("--title", help="Of the page.")
@click.option(
    "--compare-schemes",
    "compared",
    metavar="NAMES",
    help="Compare these compression schemes on the weights of models that are files too, on the "
    "first machine: names between commas, or all.",
)
@click.option(
    "--prune",
    metavar="FRACTIONS",
    help="Fractions of the weights to prune before schemes are compared, such as 0,0.5,90%.",
)
@hardware_options
@schedule_options
def report(**options: Any) -> None:
    """Models, searches and benchmarks as one HTML page that needs no network.

    INPUT is the directory of a search or of a benchmark, or a model as for npusim estimate. Models
    are costed on every NPU that --npu and the other options of the hardware name, networks of
    searches on the first.
    """
    check_writable("--out", options["out"])
    from npusim.report.page import Page
    from npusim.report.page_files import check_page, write_page

    check_page()
    how = schedule(options)
    models = _models(options["inputs"])
    _check_schemes(options, models)
    sections = _read(options["inputs"], models, _target(options))
    sections += _costs(models, options, how) if models else []
    page = Page(_title(options), tuple(sections), _provenance(options["inputs"]))
    write_page(page, options["out"])
    size = Path(options["out"]).stat().st_size
    click.echo(f"{options['out']}: {size / 1e6:.1f} MB, opens in any browser")
    if options["figures"] is not None:
        _write_figures(page, options["figures"])


def _title(options: Mapping[str, Any]) -> str:
    if options["title"]:
        return str(options["title"])
    names = [
        Path(text).stem if Path(text).is_file() else Path(text).name for text in options["inputs"]
    ]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"npusim: {', '.join(names[:3])}{more}"


def _provenance(inputs: Sequence[str]) -> dict[str, str]:
    from npusim.report.provenance import provenance

    return provenance(["npusim", *sys.argv[1:]], inputs)


def _models(inputs: Sequence[str]) -> list[str]:
    """The inputs that no plug-in reads."""
    readers = [registry.get(_GROUP, name)() for name in registry.names(_GROUP)]
    found = []
    for text in dict.fromkeys(inputs):
        if any(reader.reads(text) for reader in readers):
            continue
        if Path(text).is_dir():
            known = ", ".join(registry.names(_GROUP))
            raise ConfigError(f"INPUT must be a model or a directory of {known}, got {text!r}")
        found.append(text)
    return found


def _target(options: Mapping[str, Any]) -> Machine | None:
    """The first machine that the options of the hardware name; None where none of them is given."""
    context = click.get_current_context()
    said = (context.get_parameter_source(name) for name in _HARDWARE)
    if all(source is ParameterSource.DEFAULT for source in said):
        return None
    return setups(options)[0].machine()


def _read(inputs: Sequence[str], models: Sequence[str], target: Machine | None) -> list[Section]:
    """What plug-ins make of the others; those of one plug-in together."""
    others = [text for text in dict.fromkeys(inputs) if text not in models]
    found: list[Section] = []
    for name in registry.names(_GROUP):
        reader = registry.get(_GROUP, name)()
        if hasattr(reader, "machine"):
            reader.machine = target
        own = [text for text in others if reader.reads(text)]
        if own:
            with progress(f"reading {name}", 1) as show:
                found += reader.sections(own, show)
    return found


def _costs(
    models: Sequence[str], options: Mapping[str, Any], how: Mapping[str, Any]
) -> list[Section]:
    from npusim.report.estimates import Estimate
    from npusim.report.page_costs import cost_section
    from npusim.report.page_matrix import comparison

    machines, workloads = setups(options), load_workloads(models, options)
    found: list[list[Estimate]] = []
    with progress("estimating", len(workloads) * len(machines)) as show:
        for workload in workloads:
            found.append([])
            for setup in machines:
                target = setup.machine()
                cost = workload.cost(target, **how)
                found[-1].append(Estimate(cost, target, setup.overrides))
                show(sum(map(len, found)))
    sections = [comparison([each for own in found for each in own])]
    if options["compared"] is not None:
        from npusim.report import page_schemes

        sections.append(page_schemes.scheme_section(_compared(models, options)))
    return sections + [
        cost_section(own, workload.program) for own, workload in zip(found, workloads, strict=True)
    ]


def _check_schemes(options: Mapping[str, Any], models: Sequence[str]) -> None:
    if options["compared"] is None:
        if options["prune"] is not None:
            raise ConfigError(f"--prune must go with --compare-schemes, got {options['prune']}")
        return
    from npusim import schemes

    for name in names([options["compared"]]):
        if name != "all":
            schemes.parse(name)
    fractions(options["prune"])
    if all(is_candidate(text) for text in models):
        given = ", ".join(options["inputs"])
        raise ConfigError(f"--compare-schemes must go with a model that is a file, got {given}")


def _compared(models: Sequence[str], options: Mapping[str, Any]) -> list[Comparison]:
    """Schemes on the weights of all models that are files."""
    from npusim.schemes.condition import conditions
    from npusim.schemes.lab import compare

    networks = load_models([text for text in models if not is_candidate(text)])
    target = setups(options)[0].machine()
    chosen = names([options["compared"]])
    nonzeros = [round(1 - fraction, 12) for fraction in fractions(options["prune"])] or [1.0]
    found: list[Comparison] = []
    with progress("comparing schemes", len(networks)) as show:
        for network in networks:
            found.append(
                compare(
                    network,
                    target,
                    names=None if "all" in chosen else chosen,
                    conditions=conditions(nonzeros),
                    done=lambda fraction: show(len(found) + fraction),
                )
            )
    return found


def _write_figures(page: Page, folder: str) -> None:
    from npusim.report.page_files import write_figures

    n_figures = sum(hasattr(part, "spec") for section in page.sections for part in section.parts)
    with progress("drawing", n_figures) as show:
        files = write_figures(page, folder, lambda done, total: show(done))
    click.echo(f"{folder}: {len(files)} files")
