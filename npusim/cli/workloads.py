# SPDX-License-Identifier: Apache-2.0
"""Models as commands take them that cost networks: files, patterns, candidates of search spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from npusim import registry
from npusim._arguments import choice
from npusim.cli.compress import load_models
from npusim.errors import ConfigError

if TYPE_CHECKING:
    from npusim.cost.what_if import Workload
    from npusim.weights.expected import WeightStatistics

_GROUP: Final = "npusim.workloads"
_STATISTICS: Final = {
    "bits": "bits",
    "nonzeros": "nonzero_fraction",
    "entropy": "entropy_bits",
    "clusters": "n_clusters",
}


def load_workloads(texts: Sequence[str], options: Mapping[str, Any]) -> list[Workload]:
    """What each MODEL executes, files first and each once.

    Args:
        texts: files, patterns of files, or what the plug-in "candidate" takes.
        options: what `npusim.cli.hardware.schedule_options` took.

    Raises:
        ConfigError, FormatError, UnknownNameError: no such file or candidate, or a bad one; no such
            encoder or scheme, or statistics of weights that are none.
    """
    from npusim import schemes
    from npusim.cost.what_if import Workload
    from npusim.weights import ENCODERS

    encoder = "regor" if options["encoder"] is None else options["encoder"]
    choice("--encoder", encoder, ENCODERS)
    statistics = None if options["weights"] is None else _statistics(options["weights"])
    if statistics is not None and options["encoder"] is not None:
        raise ConfigError(f"--encoder must not go with --weights, got {encoder}")
    files: list[str] = []
    found = []
    for text in dict.fromkeys(texts):
        if is_candidate(text):
            candidate = registry.get(_GROUP, "candidate")(text)
            found.append(candidate if statistics is None else candidate.expecting(statistics))
        else:
            files.append(text)
    networks = load_models(files) if files else []
    found = [*(Workload.of(network, encoder, statistics) for network in networks), *found]
    if options["scheme"] is None:
        return found
    scheme, decoder = schemes.parse(options["scheme"]), None
    if options["lanes"] is not None:
        decoder = replace(scheme.decoder, lanes=options["lanes"])
    return [workload.in_scheme(scheme, decoder) for workload in found]


def _statistics(text: str) -> WeightStatistics:
    """What ``bits=4,nonzeros=50%`` says of weights."""
    from npusim.weights.expected import WeightStatistics

    values: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        choice("--weights", name, _STATISTICS)
        number = value.removesuffix("%")
        try:
            found = float(number) / (100 if number != value else 1)
        except ValueError:
            raise ConfigError(f"--weights must be NAME=NUMBER, got {part!r}") from None
        if not equals or _STATISTICS[name] in values:
            raise ConfigError(f"--weights must give each number once, got {text!r}")
        whole = name in ("bits", "clusters") and found.is_integer()
        values[_STATISTICS[name]] = int(found) if whole else found
    return WeightStatistics(**values)


def is_candidate(text: str) -> bool:
    """Whether it names a candidate: a file of one, or SPACE:CHOICE where there is no such file."""
    if text.endswith(".json"):
        return True
    return text.partition(":")[0] in registry.names("npusim.spaces") and not Path(text).exists()
