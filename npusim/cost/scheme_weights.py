# SPDX-License-Identifier: Apache-2.0
"""Weights that a compression scheme codes instead of the NPU's own: what if it read those.

Bytes in flash, bytes moved and buffered, and cycles to decode are the scheme's; all else is the
machine as it is. No Ethos-U reads these streams.

    npusim.estimate(network, npu="ethos-u55-128", scheme="zvc")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from npusim.cost.program import NpuOp
from npusim.cost.weight_sizes import slice_scale_bytes, weight_streams
from npusim.npu import NpuConfig
from npusim.schemes.base import Scheme, Values
from npusim.schemes.decoder import Decoder
from npusim.schemes.decoder_simulation import decode_cycles, lane_bytes
from npusim.weights.format import STREAM_ALIGN_BYTES

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SchemeWeights:
    """Tells bytes and decoding cycles of weights in a scheme's streams.

    Each core has a decoder of its own, and for each depth slice a stream for every lane of it, all
    together padded to a multiple of 16 bytes. Weights that a scheme cannot code are changed first,
    as `Scheme.conditioned` does. The decoder is taken never to wait for memory within an
    operation; the time that its bytes take there counts like that of all other transfers.

    Attributes:
        npu: whose order the weights are coded in.
        scheme: codes them, its parameters fitted to each operation.
        decoder: rates to take instead of the scheme's own; None: those.
        bits: width of the weights, for schemes that store some as they are; 9 where they need it.
    """

    npu: NpuConfig
    scheme: Scheme
    decoder: Decoder | None = None
    bits: int = 8
    _bytes: dict[tuple[object, ...], Int64Array] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _cycles: dict[tuple[object, ...], int] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """How schedules name this way of decoding."""
        return "scheme"

    @property
    def rates(self) -> Decoder:
        """The decoder of one core."""
        return self.scheme.decoder if self.decoder is None else self.decoder

    def slices(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> Int64Array:
        """As `npusim.cost.weight_sizes.WeightSizes.slices`.

        Raises:
            ConfigError: only the shape of the operation's weights is known.
        """
        key = _key(op, ifm_bits, block_depth, depths)
        if key not in self._bytes:
            starts = list(depths[:-1])
            sizes = np.zeros((len(starts), 2), np.int64)
            for start, _, scheme, values in self._coded(op, ifm_bits, block_depth, depths):
                n_bytes = sum(lane_bytes(scheme, values, self.rates.lanes))
                sizes[starts.index(start), 0] += _aligned(n_bytes)
            for i, start in enumerate(starts):
                sizes[i, 1] = slice_scale_bytes(depths[i + 1] - start, self.npu.n_cores)
            self._bytes[key] = sizes
        return self._bytes[key]

    def cycles(self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]) -> int:
        """Cycles to decode all weights of an operation once; cores work side by side.

        Args:
            op, ifm_bits, block_depth, depths: as of `slices`.

        Raises:
            ConfigError: only the shape of the operation's weights is known.
        """
        key = _key(op, ifm_bits, block_depth, depths)
        if key not in self._cycles:
            of_core = np.zeros(self.npu.n_cores, np.int64)
            for _, core, scheme, values in self._coded(op, ifm_bits, block_depth, depths):
                of_core[core] += decode_cycles(scheme, values, decoder=self.rates).decode_cycles
            self._cycles[key] = int(of_core.max())
        return self._cycles[key]

    def _coded(
        self, op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]
    ) -> Iterator[tuple[int, int, Scheme, Values]]:
        """Start of the slice, core, the scheme for the operation, and the values it codes."""
        assert op.weights is not None
        n_rows = op.weights.shape[0]
        parts = weight_streams(op, self.npu, ifm_bits, block_depth, depths)
        n_values = sum(part.values.size for part in parts)
        bits = max((weight_bits(part.values, self.bits) for part in parts), default=self.bits)
        fitted = self.scheme.fitted(bits, row_weights(n_values, n_rows))
        for part in parts:
            yield part.ofm_offset, part.core, fitted, fitted.conditioned(part.values)


def weight_bits(values: Values, bits: int) -> int:
    """`bits`, or 9 for values outside of it: uint8 weights less their zero point, signs of a bit.

    >>> weight_bits(np.array([-128, 127], np.int16), 8), weight_bits(np.array([8], np.int16), 4)
    (8, 9)
    """
    half = 1 << (bits - 1)
    fits = not values.size or (values.min() >= -half and values.max() < half)
    return bits if fits else 9


def row_weights(n_values: int, n_rows: int) -> int:
    """Values of one output channel, as far as schemes with a row of so many go."""
    return min(1 << 16, max(1, n_values // n_rows))


def _key(op: NpuOp, ifm_bits: int, block_depth: int, depths: Sequence[int]) -> tuple[object, ...]:
    assert op.weights is not None
    return op.weights.key, op.depth_offset, ifm_bits, block_depth, *depths


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // STREAM_ALIGN_BYTES) * STREAM_ALIGN_BYTES
