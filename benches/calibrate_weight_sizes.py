# SPDX-License-Identifier: Apache-2.0
"""Fit the constants of `npusim.weights.expected`: stream bits against the entropy of what is coded.

    python benches/calibrate_weight_sizes.py [--layers 8000] [--seed 0]

Synthetic layers of all kinds that take weights, values bell-shaped or uniform, with and without a
scale for every channel, at 2 to 8 bits, pruned or not, are measured with the encoder of Arm's
compiler ("regor"), which npusim reproduces byte for byte. No model is used. Prints the constants as
Python, and how far the fitted sizes are from the measured ones.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from npusim.cost.weight_sizes_kernels import coded_entropy
from npusim.weights import encoded_size, reorder
from npusim.weights.expected import ENTROPY_KNOTS, PADDING_KNOTS, VALUE_BITS
from npusim.weights.traversal import choose_traversal

Array = npt.NDArray[np.float64]
KINDS = ("CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
N_ROUNDS = 10
SMOOTHNESS = 1e-2
ROUNDING_BITS = 64
"""What rounding to 16 bytes adds on average."""


def log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    """An integer whose logarithm is uniform; every other time a multiple of 8."""
    value = int(np.exp(rng.uniform(np.log(low), np.log(high))))
    return max(value // 8 * 8, 8) if rng.random() < 0.5 else value


def draw_shape(rng: np.random.Generator) -> tuple[str, tuple[int, int, int, int]]:
    """Kind and (O, H, W, I) of a layer."""
    kernel = int(rng.choice([3, 3, 3, 5]))
    wide, deep = log_uniform(rng, 4, 256), log_uniform(rng, 4, 256)
    shapes = (
        (wide, 1, 1, deep),
        (max(wide // 2, 4), kernel, kernel, max(deep // 4, 1)),
        (2 * wide, kernel, kernel, 1),
        (wide, 1, 1, 2 * deep),
    )
    number = int(rng.integers(len(KINDS)))
    return KINDS[number], shapes[number]


def draw_weights(rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.int16]:
    """Weights as training and quantization leave them."""
    shapes = (rng.standard_normal, partial(rng.laplace, 0, 1), partial(rng.uniform, -1, 1))
    draw = shapes[int(rng.choice(3, p=[0.4, 0.4, 0.2]))]
    n_channels, n = shape[0], int(np.prod(shape[1:]))
    values = draw(size=(n_channels, n))
    values *= np.exp(rng.normal(0, rng.choice([0.0, 0.3, 0.6]), (n_channels, 1)))
    bits = int(rng.choice([8, 8, 8, 8, 8, 7, 6, 5, 4, 3, 2]))
    by_channel = rng.random() < 0.6
    largest = np.abs(values).max(axis=1 if by_channel else None, keepdims=True)
    codes = np.rint(values / largest * (2 ** (bits - 1) - 1))
    if rng.random() < 0.25:
        codes[np.abs(values) < np.quantile(np.abs(values), rng.uniform(0.1, 0.95))] = 0
    return codes.astype(np.int16).reshape(shape)


def measure(n_layers: int, seed: int) -> Array:
    """Weights, coded weights, entropy in bits, part of non-zeros and stream bits of each layer."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n_layers):
        kind, shape = draw_shape(rng)
        weights = draw_weights(rng, shape)
        options: dict[str, Any] = {"traversal": choose_traversal(shape, kind, 8)}
        npu = ("ethos-u55-32", "ethos-u55-128")[int(rng.integers(2))]
        values = reorder(weights, npu, ofm_block_depth=16 * int(rng.integers(1, 5)), **options)
        counts = np.unique(weights, return_counts=True)[1] / weights.size
        entropy = float(-(counts * np.log2(counts)).sum())
        bits = 8 * encoded_size(values, "regor")
        rows.append((weights.size, values.size, entropy, np.mean(weights != 0), bits))
    return np.array(rows, np.float64)


def hats(x: Array, knots: tuple[float, ...]) -> Array:
    """Piecewise linear functions that are 1 at one knot each, shape [n, n_knots]."""
    return np.array([np.interp(x, knots, row) for row in np.eye(len(knots))]).T


def bends(n_rows: int, n_columns: int) -> Array:
    """Second differences along rows, and first ones between rows, of a table that is raveled."""
    at = np.arange(n_rows * n_columns).reshape(n_rows, n_columns)
    unit = np.eye(at.size)
    along = unit[at[:, :-2]] - 2 * unit[at[:, 1:-1]] + unit[at[:, 2:]]
    across = unit[at[:-1]] - unit[at[1:]]
    return np.concatenate([along.reshape(-1, at.size), across.reshape(-1, at.size)])


def fit(rows: Array) -> tuple[Array, float, Array]:
    """Excess bits [n_padding_knots, n_entropy_knots], bits of a stream, relative errors."""
    n, n_coded, entropy, nonzero, bits = rows.T
    padding = 1 - n / n_coded
    coded = np.array([coded_entropy(*of) for of in zip(entropy, 1 - nonzero, padding, strict=True)])
    products = hats(padding, PADDING_KNOTS)[:, :, None] * hats(coded, ENTROPY_KNOTS)[:, None]
    different = np.minimum(np.exp2(coded), n)
    basis = products.reshape(len(rows), -1) * n_coded[:, None]
    basis = np.c_[basis, np.ones(len(rows))]
    target, weight = bits - ROUNDING_BITS - n_coded * coded - VALUE_BITS * different, 1 / bits
    smooth = SMOOTHNESS * np.sqrt(len(rows)) * bends(len(PADDING_KNOTS), len(ENTROPY_KNOTS))
    smooth = np.c_[smooth, np.zeros(len(smooth))]
    error = np.zeros(len(rows))
    for _ in range(N_ROUNDS):  # towards least absolute errors
        found = np.linalg.lstsq(
            np.r_[basis * weight[:, None], smooth], np.r_[target * weight, np.zeros(len(smooth))]
        )[0]
        error = (target - basis @ found) / bits
        weight = 1 / bits / np.sqrt(np.maximum(np.abs(error), 3e-3))
    return found[:-1].reshape(len(PADDING_KNOTS), -1), float(found[-1]), error


def main() -> None:
    """Print the constants."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    excess, fixed, error = fit(measure(args.layers, args.seed))
    print("EXCESS_BITS: Final = (")
    for row in excess:
        print("    (" + ", ".join(f"{value:.3f}" for value in row) + "),")
    print(f")\nSTREAM_BITS: Final = {fixed:.1f}")
    print(f"mean error {np.abs(error).mean():.2%}, signed {error.mean():+.2%}")


if __name__ == "__main__":
    main()
