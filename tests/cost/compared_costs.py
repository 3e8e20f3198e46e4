# SPDX-License-Identifier: Apache-2.0
"""Costs of whole networks beside the compiler's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regor_oracle as oracle

from npusim.cost.estimate import estimate
from npusim.network import Network

Figures = tuple[int, ...]


def differs(network: Network, npu: str = "ethos-u55-128") -> tuple[Figures, Figures] | None:
    """Cycles, flash and, where the compiler tells it, SRAM, its own and ours; None if the same."""
    report = oracle.compile_model(network, npu).perf_report
    ours = estimate(network, npu)
    theirs: Figures = (report.totalCycles, report.readOnlyPeakUsage)
    figures: Figures = (ours.total_cycles, ours.flash_bytes)
    if "Sram" in report.memories:  # not of what is on the CPU alone
        theirs += (report.memories["Sram"].peakUsage,)
        figures += (ours.sram_peak_bytes,)
    return None if theirs == figures else (theirs, figures)


def differing(
    networks: Mapping[Any, Network], npu: str = "ethos-u55-128"
) -> list[tuple[Any, Figures, Figures]]:
    """Which of several networks differ, and in what."""
    found = {case: differs(network, npu) for case, network in networks.items()}
    return [(case, *both) for case, both in found.items() if both is not None]
