# SPDX-License-Identifier: Apache-2.0
"""Weights of relaxed layers: kernels against one weight at a time, and against torch's autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from searchers.udc.assemble import Layout, Mixture, assemble, assemble_shared
from searchers.udc.assemble_kernels import PIECE

N_LEVELS = 4
SHAPES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3)
LONG = [(3, PIECE + 90), (2, PIECE), (70, 9), (1, 1)]
"""Rows and columns: longer than a piece, as long, many rows a piece, a single weight."""


def problem(shapes, bitwidths, n_mc: int, seed: int):
    """Layout, theta, r, beta, level and a mixture, all of them random."""
    rng = torch.Generator().manual_seed(seed)
    n, width = (torch.tensor(each) for each in zip(*[(o * j, j) for o, j in shapes], strict=True))
    places = torch.stack([n.cumsum(0) - n, n, width, width.cumsum(0) - width], 1).numpy()
    n_layers, n_weights = len(shapes), int(n.sum())

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=rng)

    layout = Layout(places, bitwidths, uniform(n_layers) + 0.1)
    theta = torch.randn(n_weights, generator=rng) * 0.5
    theta[::7] = 0.0
    r, beta = uniform(n_layers, len(bitwidths)) + 0.1, 0.2 * uniform(n_layers)
    level = torch.randint(0, N_LEVELS, (n_weights,), generator=rng).to(torch.uint8)
    mixture = Mixture(
        uniform(n_mc, n_layers, 2 + len(bitwidths)),
        uniform(n_mc, n_layers, N_LEVELS),
        uniform(n_mc, int(width.sum())),
    )
    return layout, theta, r, beta, level, mixture


def one_weight(layout, theta, r, beta, level, mixture, sample: int, at: int, i: int):
    """The definition, for weight `i` of layer `at`: [UDC] eq. (3), section 5.

    Returns also how far it is from where two levels are equally near.
    """
    first, _, width, column = layout.layers[at].tolist()
    x, start = float(theta[first + i]), float(beta[at])
    sign = 1.0 if x >= 0 else -1.0
    formats = mixture.formats[sample, at].tolist()
    total = formats[0] * x + formats[1] * float(layout.sign_scale[at]) * sign
    from_tie = 1.0
    for b, bitwidth in enumerate(layout.bitwidths):
        top, most = 2 ** (bitwidth - 1) - 1, float(r[at, b])
        d = most / top
        y = min(max(x - sign * start, -most), most) / d
        from_tie = min(from_tie, abs(y % 1 - 0.5))
        total += formats[2 + b] * (d * round(y) + sign * start)
    kept = float(mixture.kept[sample, at, int(level[first + i])])
    return total * kept * float(mixture.columns[sample, column + i % width]), from_tie


@given(shapes=SHAPES, seed=st.integers(0, 1000))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_kernel_is_its_definition(shapes, seed):
    layout, *arrays, mixture = problem(shapes, (2, 4), 2, seed)
    found = assemble(layout, *arrays, mixture).numpy()
    for at, (first, n, *_) in enumerate(layout.layers.tolist()):
        for i in {0, n // 2, n - 1}:
            expected, from_tie = one_weight(layout, *arrays, mixture, 1, at, i)
            assert abs(found[1, first + i] - expected) < 1e-5 or from_tie < 1e-4
    shared = assemble_shared(layout, *arrays, mixture).numpy()
    assert np.mean(np.abs(found - shared) > 1e-5) < 0.01


@pytest.mark.parametrize("bitwidths", [(), (8,), (2, 4, 8)])
@pytest.mark.parametrize("n_mc", [1, 3])
def test_gradients_are_those_of_the_same_in_torch(bitwidths, n_mc):
    layout, theta, r, beta, level, mixture = problem(LONG, bitwidths, n_mc, 0)
    leaves = [theta, r, mixture.formats, mixture.kept, mixture.columns]
    weights = torch.randn(n_mc, layout.n_weights, generator=torch.Generator().manual_seed(1))
    found = []
    for function in (assemble, assemble_shared):
        inputs = [each.clone().requires_grad_() for each in leaves]
        theta, r, *parts = inputs
        result = function(layout, theta, r, beta, level, Mixture(*parts))
        (result * weights).sum().backward()
        found.append([result.detach(), *(each.grad for each in inputs)])
    for ours, expected in zip(*found, strict=True):
        if expected is not None and expected.numel():
            assert (ours - expected).abs().max() <= 2e-5 * expected.abs().max()
            assert expected.abs().max() > 0


def test_gradients_do_not_depend_on_the_samples_beside():
    layout, theta, r, beta, level, mixture = problem(LONG, (2, 8), 3, 2)
    theta.requires_grad_()
    assemble(layout, theta, r, beta, level, mixture).sum().backward()
    together = theta.grad.clone()
    theta.grad = None
    for s in range(3):
        each = slice(s, s + 1)
        part = Mixture(mixture.formats[each], mixture.kept[each], mixture.columns[each])
        assemble(layout, theta, r, beta, level, part).sum().backward()
    torch.testing.assert_close(together, theta.grad, rtol=1e-6, atol=1e-6)
