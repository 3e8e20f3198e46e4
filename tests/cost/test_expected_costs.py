# SPDX-License-Identifier: Apache-2.0
"""Networks of the depth that searches have, their weights not known, against Arm's compiler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import regor_oracle as oracle
from deep_networks import FAMILIES, DeepNetwork

from npusim.cost.estimate import estimate
from npusim.cost.lowering import program
from npusim.cost.program import Program
from npusim.cost.weight_sizes import ExpectedSizes, Statistics
from npusim.hardware import machine
from npusim.npu import names
from npusim.weights.expected import TRAINED, WeightStatistics
from npusim.weights.measures import weights_entropy_bits

stats = pytest.importorskip("scipy.stats", reason="needs scipy: pip install 'npusim[search]'")
MEASURES = ("total_cycles", "sram_peak_bytes", "flash_bytes")


class TrainedNetwork(DeepNetwork):
    """With weights as training and quantization by channel leave them."""

    def scales(self, n_channels: int) -> Any:
        return np.full(n_channels, 0.01)

    def codes(self, shape: tuple[int, ...]) -> Any:
        draw = self.rng.standard_normal if self.maybe(0.5) else self.rng.laplace
        values = draw(size=shape)
        axes = (1, 2, 3)[: len(shape) - 1] if shape[0] > 1 else tuple(range(len(shape) - 1))
        largest = np.abs(values).max(axis=axes, keepdims=True)
        return np.rint(values / largest * 127).astype(np.int8)


def entropies(lowered: Program) -> Statistics:
    known = {"": TRAINED}
    for op in lowered.ops:
        if op.weights is not None and op.weights.ohwi is not None and op.source is not None:
            values = op.weights.ohwi()
            entropy = float(weights_entropy_bits(values))
            part = float((values != 0).mean())
            known[op.source.name] = WeightStatistics(entropy_bits=entropy, nonzero_fraction=part)
    return known


def costs(n_networks: int) -> dict[str, np.ndarray]:
    """What the compiler says, and we from weights, bits and entropies: [n_networks, 3] each."""
    found: dict[str, list[list[int]]] = {"compiler": [], "weights": [], "bits": [], "entropy": []}
    for seed in range(n_networks):
        rng = np.random.default_rng((5, seed))
        network = TrainedNetwork(rng, list(FAMILIES)[seed % len(FAMILIES)]).build()
        target = machine(names()[seed % 4])
        report = oracle.compile_model(network, target.npu.name).perf_report
        arena = report.memories["Sram"].peakUsage
        found["compiler"].append([report.totalCycles, arena, report.readOnlyPeakUsage])
        lowered = program(network)
        for what, weights in (
            ("weights", None),
            ("bits", ExpectedSizes(target.npu, TRAINED)),
            ("entropy", ExpectedSizes(target.npu, entropies(lowered))),
        ):
            cost = estimate(lowered, target, weights=weights)
            found[what].append([getattr(cost, measure) for measure in MEASURES])
    return {what: np.array(rows) for what, rows in found.items()}


def check(n_networks: int) -> None:
    found = costs(n_networks)
    theirs = found["compiler"]
    errors = {what: np.abs(ours / theirs - 1) for what, ours in found.items()}
    for what in ("weights", "bits", "entropy"):
        for column, measure in enumerate(MEASURES):
            pair = theirs[:, column], found[what][:, column]
            rho, tau = stats.spearmanr(*pair)[0], stats.kendalltau(*pair)[0]
            error = errors[what][:, column]
            print(
                f"{what} {measure}: MAPE {error.mean():.3%}, largest {error.max():.2%}, "
                f"exact {(error == 0).mean():.1%}, rho {rho:.5f}, tau {tau:.5f}"
            )
            if measure == "total_cycles" and n_networks >= 100:
                assert rho >= 0.999
                assert tau >= 0.985
    cycles, sram, flash = errors["weights"].T
    assert cycles.mean() <= 0.003
    assert cycles.max() <= 0.02
    assert (sram == 0).mean() >= 0.98
    assert flash.mean() <= 0.001
    for what, cycles_max, flash_max in (("bits", 0.07, 0.15), ("entropy", 0.05, 0.04)):
        cycles, _, flash = errors[what].T
        assert cycles.mean() <= 0.015
        assert (cycles <= 0.05).mean() >= 0.99
        assert cycles.max() <= cycles_max
        assert flash.mean() <= flash_max


def test_some_networks() -> None:
    check(20)


@pytest.mark.slow
def test_many_networks() -> None:
    check(400)
