# SPDX-License-Identifier: Apache-2.0
"""The README's searches with other libraries do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npusim.cost.batch import BatchEstimator
from npusim.cost.family import Family
from npusim.cost.lowering import program
from npusim.network_builder import NetworkBuilder

README = Path(__file__).parent.parent / "README.md"
FLASH_MAX = 10_000


@pytest.fixture
def names() -> dict[str, Any]:
    """What the examples take from the README's lines before them."""
    net = NetworkBuilder("three")
    x = net.input((1, 16, 16, 3), scale=0.02)
    for name, depth in (("first", 16), ("second", 24), ("third", 10)):
        weights = net.constant(np.ones((depth, 3, 3, x.shape[3]), np.int8), scales=0.01)
        bias = net.bias([0] * depth, x, weights)
        x = net.op("CONV_2D", x, weights, bias, scale=0.1, name=name)
    family = Family(program(net.build(x)))
    return {"family": family, "estimator": BatchEstimator(), "np": np}


def example(word: str) -> str:
    """The README's only example with a word in it; under ten lines of code."""
    found = [
        code
        for code in re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
        if word in code
    ]
    assert len(found) == 1
    assert sum(bool(line.strip()) for line in found[0].splitlines()) < 10
    return found[0]


def test_optuna(names: dict[str, Any]) -> None:
    optuna = pytest.importorskip("optuna", reason="needs optuna: pip install 'npusim[examples]'")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    exec(example("optuna"), names | {"optuna": optuna}, names)
    best = names["study"].best_trials
    assert best
    macs, cycles = np.array(sorted(trial.values for trial in best)).T
    assert (np.diff(macs) >= 0).all()
    assert (np.diff(cycles) >= 0).all()
    trial = best[0]
    widths = [[trial.params[name] for name in names["family"].widths]]
    cost = names["estimator"](names["family"].batch(widths))
    assert trial.values == [cost.macs[0], cost.total_cycles[0, 0]]


def test_pymoo(names: dict[str, Any]) -> None:
    pytest.importorskip("pymoo", reason="needs pymoo: pip install 'npusim[examples]'")
    import pymoo.core.problem
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.optimize import minimize

    names["pymoo"] = pymoo
    exec(example("pymoo"), names)
    result = minimize(names["Widths"](), NSGA2(pop_size=20), ("n_gen", 10), seed=1)
    cost = names["estimator"](names["family"].batch(result.X.astype(int)))
    assert len(result.F) > 3
    assert (cost.flash_bytes <= FLASH_MAX).all()
