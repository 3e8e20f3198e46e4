# SPDX-License-Identifier: Apache-2.0
"""Models as commands take them that cost networks: files, patterns, candidates of search spaces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from npusim import registry
from npusim.cli.compress import load_models

if TYPE_CHECKING:
    from npusim.cost.what_if import Workload

_GROUP = "npusim.workloads"


def load_workloads(texts: Sequence[str], encoder: str) -> list[Workload]:
    """What each MODEL executes, files first and each once.

    Args:
        texts: files, patterns of files, or what the plug-in "candidate" takes.
        encoder: of weights that are known.

    Raises:
        ConfigError, FormatError, UnknownNameError: no such file or candidate, or a bad one.
    """
    from npusim.cost.what_if import Workload

    files: list[str] = []
    found = []
    for text in dict.fromkeys(texts):
        if _is_candidate(text):
            found.append(registry.get(_GROUP, "candidate")(text))
        else:
            files.append(text)
    networks = load_models(files) if files else []
    return [*(Workload.of(network, encoder) for network in networks), *found]


def _is_candidate(text: str) -> bool:
    """Whether it names a candidate: a file of one, or SPACE:CHOICE where there is no such file."""
    if text.endswith(".json"):
        return True
    return text.partition(":")[0] in registry.names("npusim.spaces") and not Path(text).exists()
