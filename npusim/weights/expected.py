# SPDX-License-Identifier: Apache-2.0
"""What is expected of weights that nobody has trained yet: their entropy, and the stream's bits.

A stream takes about as many bits as the entropy of what it codes, weights and padding zeros
together, and some more: `LAW` says how many, by that entropy and by the part that is padding.
Weights themselves are expected to be bell-shaped, and scaled so that the largest of those that
share a scale uses the whole range, as quantization does: the more they are, the smaller are most of
them beside the largest. Where all channels of a layer share one scale, some channels are wider than
others, too.

The constants come from synthetic layers coded by the encoder of Arm's compiler; no real model was
used. ``benches/calibrate_weight_sizes.py`` printed them, but for `VALUE_BITS`, which small streams
want twice as large and large ones smaller, `MADE_BITS`, and `CHANNEL_SPREAD`, which is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from math import erf, exp, sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer, real
from npusim.errors import ConfigError
from npusim.weights.measures import binary_entropy_bits

Float64Array = npt.NDArray[np.float64]

BITS_MIN: Final = 2
BITS_MAX: Final = 8
CLUSTERS_MAX: Final = 255
ENTROPY_BITS_MAX: Final = 9.0
"""Of a weight less its zero point."""

ENTROPY_KNOTS: Final = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 7.5, 8.0)
"""Bits of a coded value."""
PADDING_KNOTS: Final = (0.0, 0.1, 0.3, 0.6)
"""Part of the coded values that is padding."""
EXCESS_BITS: Final = (
    (0.078, -0.030, 0.087, 0.122, 0.127, 0.316, 0.520, 0.205, 0.149, -0.033),
    (0.091, -0.036, 0.118, 0.197, 0.182, 0.522, 0.847, 0.613, 0.500, 0.478),
    (0.065, -0.015, 0.086, 0.231, 0.331, 0.621, 0.389, 0.046, 0.067, 0.280),
    (0.032, 0.033, 0.201, 0.254, 0.288, -0.181, -0.524, -0.327, -0.027, 0.276),
)
"""Bits that a coded value takes beside its entropy; rows for `PADDING_KNOTS`."""
STREAM_BITS: Final = 118.4
VALUE_BITS: Final = 2.5
"""Bits of every stream, such as headers, and for every different value in it, such as palettes."""
MADE_BITS: Final = 1.0
"""Of a coded value that the compiler makes: ones among zeros."""
DEVIATION: Final = 0.03
"""Of the bytes of a stream from those expected: two thirds of synthetic streams of 512 bytes and
more are nearer, their entropies known."""

CHANNEL_SPREAD: Final = 0.3
"""Standard deviation of the logarithm of channels' widths in a layer: the median is 0.28 over 243
layers of 17 public models, quantized channel by channel, that have more than 25 weights a channel.
"""

_KEPT_COUNTS: Final = 1 << 12
_COUNTS: Final = tuple(2.0**power for power in range(25))
"""Numbers of weights that share a scale."""
_N_WIDTHS: Final = 32
_N_HALVINGS: Final = 40
_GUMBEL: Final = 0.5 * exp(-0.5772156649015329)
"""Tail of the normal distribution beyond the mean of the largest, in parts of one weight."""


@cache
def stream_law(deviations: float = 0.0) -> tuple[Float64Array, Float64Array]:
    """As the kernels take it: [1 + n_padding_knots, 1 + n_entropy_knots] and [4].

    Args:
        deviations: how many times `DEVIATION` streams are larger than expected.
    """
    table = np.zeros((1 + len(PADDING_KNOTS), 1 + len(ENTROPY_KNOTS)))
    table[0, 1:], table[1:, 0] = ENTROPY_KNOTS, PADDING_KNOTS
    table[1:, 1:] = EXCESS_BITS
    factor = 1.0 + deviations * DEVIATION
    return table, np.array([STREAM_BITS, VALUE_BITS, MADE_BITS, factor])


@dataclass(frozen=True, slots=True)
class WeightStatistics:
    """What is known of a layer's weights without having them.

    Attributes:
        bits: of a weight, 2..8.
        nonzero_fraction: part of the weights that are not zero, 0..1; None: as many as are
            expected.
        entropy_bits: empirical entropy of a weight in bits, 0..9, as `weights_entropy_bits` gives
            it; None: what is expected of the rest.
        n_clusters: number of different values, 1..255; None: as many as the bits allow.

    Raises:
        ConfigError: a value is out of its range, or both an entropy and clusters are given.

    >>> WeightStatistics(nonzero_fraction=0.0).expected(fan_in=64)
    (0.0, 1.0)
    """

    bits: int = 8
    nonzero_fraction: float | None = None
    entropy_bits: float | None = None
    n_clusters: int | None = None

    def __post_init__(self) -> None:
        integer("bits of a weight", self.bits, BITS_MIN, BITS_MAX)
        if self.nonzero_fraction is not None:
            real("nonzero_fraction", self.nonzero_fraction, 0.0, 1.0)
        if self.entropy_bits is not None:
            real("entropy_bits", self.entropy_bits, 0.0, ENTROPY_BITS_MAX)
            if self.n_clusters is not None:
                raise ConfigError("entropy_bits and n_clusters must not both be given, got both")
        if self.n_clusters is not None:
            integer("n_clusters", self.n_clusters, 1, CLUSTERS_MAX)

    def expected(self, fan_in: int, n_channels: int = 1) -> tuple[float, float]:
        """Entropy of a weight in bits, and part of the weights that are zero.

        With a part s of non-zeros this is the measure of [UDC] eq. (4), ``s * b + H2(s)``, with
        the entropy of the non-zero weights in the place of their bits b.

        Args:
            fan_in: weights of an output channel.
            n_channels: that share one scale; 1: each has its own.

        Differs: eq. (4) counts b bits for each weight that is not zero, however they are
            distributed; the stream codes what is frequent in fewer.
        """
        if self.entropy_bits is not None:
            zeros = _zeros_of_entropy(self.entropy_bits)
            return float(self.entropy_bits), self._zeros(zeros)
        if self.n_clusters is not None:
            entropy, zeros = _clustered(self.n_clusters)
        else:
            entropy, zeros = expected_entropy(self.bits, fan_in, n_channels)
        if self.nonzero_fraction is None:
            return entropy, zeros
        s = float(self.nonzero_fraction)
        values = (entropy - float(binary_entropy_bits(zeros))) / (1.0 - zeros) if zeros < 1 else 0.0
        return s * max(values, 0.0) + float(binary_entropy_bits(s)), 1.0 - s

    @property
    def assumption(self) -> str:
        """What weights are taken to be, in words.

        >>> WeightStatistics().assumption, WeightStatistics(4, nonzero_fraction=0.3).assumption
        ('bell-shaped weights of 8 bits', 'bell-shaped weights of 4 bits, 30 % of them not zero')
        """
        what = f"bell-shaped weights of {self.bits} bits"
        if self.entropy_bits is not None:
            what = f"weights with an entropy of {self.entropy_bits:.2f} bits"
        elif self.n_clusters is not None:
            what = f"bell-shaped weights in {self.n_clusters} clusters"
        if self.nonzero_fraction is None:
            return what
        return f"{what}, {self.nonzero_fraction:.0%} of them not zero".replace("%", " %")

    def _zeros(self, expected: float) -> float:
        return expected if self.nonzero_fraction is None else 1.0 - float(self.nonzero_fraction)


TRAINED: Final = WeightStatistics()
"""Weights of 8 bits as training leaves them."""


def expected_entropy(bits: int, fan_in: int, n_channels: int = 1) -> tuple[float, float]:
    """Entropy in bits, and part of zeros, of trained weights that are rounded to `bits` bits.

    Args:
        bits: of a weight, 2..8.
        fan_in: weights of an output channel.
        n_channels: that share one scale; 1: each has its own.

    >>> [round(expected_entropy(8, n)[0], 1) for n in (9, 64, 4096)]
    [7.5, 7.4, 6.7]
    >>> [round(expected_entropy(8, n, n_channels=64)[0], 1) for n in (9, 64, 4096)]
    [6.7, 6.3, 5.7]
    """
    known = integer("bits", bits, BITS_MIN, BITS_MAX), integer("fan_in", fan_in, 1, 1 << 40)
    integer("n_channels", n_channels, 1, 1 << 40)
    return _between_counts(*known, n_channels)


@lru_cache(_KEPT_COUNTS)
def _between_counts(bits: int, fan_in: int, n_channels: int) -> tuple[float, float]:
    entropies, zeros = _by_count(bits, n_channels > 1)
    at = np.log2(fan_in * n_channels)
    knots = np.log2(_COUNTS)
    return float(np.interp(at, knots, entropies)), float(np.interp(at, knots, zeros))


@cache
def _by_count(bits: int, is_shared: bool) -> tuple[Float64Array, Float64Array]:
    """Entropies and parts of zeros at `_COUNTS`: means over two shapes of bells.

    One of the weights that share a scale is the largest, positive or negative. If they are those of
    several channels, the bells are of several widths.
    """
    largest = (1 << bits - 1) - 1
    ranks = (np.arange(_N_WIDTHS) + 0.5) / _N_WIDTHS if is_shared else (0.5,)
    widths = np.exp([CHANNEL_SPREAD * NormalDist().inv_cdf(rank) for rank in ranks])
    found = [
        [_rounded(largest / widest * widths, shape, largest) for shape, widest in reach]
        for reach in (_reach(n, widths) for n in _COUNTS)
    ]
    entropies, zeros = np.array(found).mean(axis=1).T
    largest_part = 1.0 / np.array(_COUNTS)
    entropies = (1.0 - largest_part) * entropies + largest_part
    entropies += np.asarray(binary_entropy_bits(largest_part))
    return entropies, (1.0 - largest_part) * zeros


def _reach(n: float, widths: Float64Array) -> tuple[tuple[str, float], ...]:
    """The largest of n weights for each shape of a bell, where bells are of these widths."""
    of_normal = NormalDist().inv_cdf(1.0 - _GUMBEL / n)
    of_laplace = float(np.log(n) + 0.5772156649015329 + 0.5 / n) / sqrt(2)
    found = (("normal", of_normal), ("laplace", of_laplace))
    return tuple((shape, _as_rare(widest, shape, widths)) for shape, widest in found)


def _as_rare(value: float, shape: str, widths: Float64Array) -> float:
    """What bells of several widths exceed as rarely as one of width 1 exceeds a value."""
    rarity = _below(np.array([-value]), shape)[0]
    low, high = value * widths.min(), value * widths.max()
    for _ in range(_N_HALVINGS):
        middle = (low + high) / 2
        is_rarer = _below(-middle / widths, shape).mean() < rarity
        low, high = (low, middle) if is_rarer else (middle, high)
    return float(high)


def _below(values: Float64Array, shape: str) -> Float64Array:
    """Part of a bell of width 1 that is below each of some values."""
    if shape == "normal":
        return np.array([0.5 * (1.0 + erf(value / sqrt(2))) for value in values])
    tail = 0.5 * np.exp(-np.abs(values) * sqrt(2))
    below: Float64Array = np.where(values < 0, tail, 1.0 - tail)
    return below


@cache
def _edges(largest: int) -> Float64Array:
    """Where values are rounded up to -`largest`, and so on, to that beyond `largest`."""
    return np.arange(-largest - 0.5, largest + 1.0)


def _rounded(deviations: Float64Array, shape: str, largest: int) -> tuple[float, float]:
    """Entropy and part of zeros of rounded bells of some deviations, cut at +-`largest`."""
    parts = np.zeros(2 * largest + 1)
    for deviation in deviations:
        below = _below(_edges(largest) / deviation, shape)
        parts += np.diff(below) / (below[-1] - below[0]) / len(deviations)
    positive = parts[parts > 0]
    return float(-(positive * np.log2(positive)).sum()), float(parts[largest])


@cache
def _bells() -> tuple[Float64Array, Float64Array]:
    """Parts of zeros of bells by their entropy."""
    deviations = np.exp(np.linspace(np.log(0.15), np.log(90), 120))
    found = [
        np.mean([_rounded(np.array([d]), shape, 127) for shape in ("normal", "laplace")], axis=0)
        for d in deviations
    ]
    entropies, zeros = np.array([(0.0, 1.0), *found]).T
    return entropies, zeros


def _zeros_of_entropy(entropy: float) -> float:
    return float(np.interp(entropy, *_bells()))


@cache
def _clustered(n_clusters: int) -> tuple[float, float]:
    """Entropy, and part of the cluster at zero, of bells in the best clusters for the error.

    Such clusters lie as densely as the cube root of the bell: a normal bell three times as wide in
    square.
    """
    wide = NormalDist(sigma=sqrt(3.0))
    inner = [wide.inv_cdf((i + 0.5) / n_clusters) for i in range(n_clusters)]
    edges = [(low + high) / 2 for low, high in pairwise(inner)]
    below = [0.0, *(NormalDist().cdf(edge) for edge in edges), 1.0]
    parts = np.diff(below)
    return float(-(parts * np.log2(parts)).sum()), float(parts[n_clusters // 2])
