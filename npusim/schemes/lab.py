# SPDX-License-Identifier: Apache-2.0
"""The compression lab: every scheme on a network's weights, with the decoder's cycles and area.

import npusim
from npusim.schemes.condition import Condition
from npusim.schemes.lab import compare
found = compare(npusim.load("model.tflite"), conditions=[Condition(), Condition(nonzeros=0.25)])
for point in found.points:
    print(point.condition, [(r.scheme, r.n_bytes, r.weights_per_cycle) for r in point.results])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from npusim import schemes
from npusim._arguments import integer
from npusim.compress import layers_of, of_each
from npusim.cost.energy import energy
from npusim.cost.energy_constants import Band
from npusim.cost.estimate import estimate
from npusim.cost.layers import WeightLayer
from npusim.cost.lowering import program
from npusim.cost.result import Cost
from npusim.cost.scheme_weights import SchemeWeights, row_weights, weight_bits
from npusim.errors import ConfigError, MissingExtraError
from npusim.hardware import Machine
from npusim.network import Network
from npusim.npu import NpuConfig, get
from npusim.schemes.accuracy import Accuracy, TestData, accuracy, outputs
from npusim.schemes.base import Scheme, Values
from npusim.schemes.bounds import BOUNDS, bounds
from npusim.schemes.condition import Condition, conditioned
from npusim.schemes.decoder import Decoder
from npusim.schemes.decoder_simulation import FIFO_BITS, decode_cycles
from npusim.weights.reorder import reorder_slices


@dataclass(frozen=True, slots=True)
class Inference:
    """What one inference costs if the NPU read a scheme's streams: see `npusim.estimate`.

    Attributes:
        total_cycles, flash_bytes, sram_peak_bytes: as in `npusim.cost.result.Cost`.
        decode_bound_cycles: of operations that wait for the decoder.
        energy_pj: as `npusim.cost.energy.energy` tells it, uncalibrated.
    """

    total_cycles: int
    flash_bytes: int
    sram_peak_bytes: int
    decode_bound_cycles: int
    energy_pj: Band

    @classmethod
    def of(cls, cost: Cost) -> Inference:
        """That of a cost."""
        waiting = sum(op.cycles for op in cost.ops if op.bound == "decode")
        sizes = cost.flash_bytes, cost.sram_peak_bytes
        return cls(cost.total_cycles, *sizes, waiting, energy(cost).total_pj)

    def to_json(self) -> dict[str, Any]:
        """JSON values, `Comparison.to_json` says which."""
        return {
            "total_cycles": self.total_cycles,
            "flash_bytes": self.flash_bytes,
            "sram_peak_bytes": self.sram_peak_bytes,
            "decode_bound_cycles": self.decode_bound_cycles,
            "energy_uj": self.energy_pj.times(1e-6).to_json(),
        }


@dataclass(frozen=True, slots=True)
class SchemeResult:
    """One scheme on all layers of a network.

    Attributes:
        scheme: its name, with parameters that are no defaults.
        n_bytes: of all layers' streams.
        cycles: to decode them all once, as `decode_cycles` says; None if not simulated.
        stall_cycles: those of them that memory costs.
        n_coded: weights decoded, padding of the order included.
        n_weights: without padding.
        n_changed: weights that had to change, where a scheme cannot code all.
        error: relative L2 error of what is decoded, of the weights before any condition.
        decoder: what decodes, lanes included.
        inference: what the whole network costs then; None if that was not asked for.
        on_front: whether no other scheme is as good in bytes, cycles (of an inference, or if that
            is not known of the decoder), area (the mean of low and high) and error, and better in
            one; cycles do not count if they are not simulated.
    """

    scheme: str
    n_bytes: int
    cycles: int | None
    stall_cycles: int | None
    n_coded: int
    n_weights: int
    n_changed: int
    error: float
    decoder: Decoder
    inference: Inference | None = None
    on_front: bool = False

    @property
    def bits_per_weight(self) -> float:
        """Padding not among the weights; 0 without weights."""
        return 8 * self.n_bytes / self.n_weights if self.n_weights else 0.0

    @property
    def weights_per_cycle(self) -> float | None:
        """Decoded in the mean; None if not simulated."""
        if self.cycles is None:
            return None
        return self.n_coded / self.cycles if self.cycles else 0.0

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise, infinite without an error."""
        return -20 * math.log10(self.error) if self.error else math.inf

    def to_json(self) -> dict[str, Any]:
        """JSON values, `Comparison.to_json` says which."""
        rate = self.weights_per_cycle
        return {
            "scheme": self.scheme,
            "bytes": self.n_bytes,
            "bits_per_weight": round(self.bits_per_weight, 4),
            "decode_cycles": self.cycles,
            "stall_cycles": self.stall_cycles,
            "weights_per_cycle": None if rate is None else round(rate, 4),
            "changed_weights": self.n_changed,
            "relative_error": round(self.error, 6),
            "sqnr_db": None if math.isinf(self.sqnr_db) else round(self.sqnr_db, 3),
            "decoder": self.decoder.to_json(),
            "inference": self.inference and self.inference.to_json(),
            "on_front": self.on_front,
        }


@dataclass(frozen=True)
class Point:
    """All schemes on a network's weights under one condition.

    Attributes:
        condition: what was done to the weights.
        n_weights, n_zeros: of all layers, without padding.
        n_coded: values in the order they are read, padding included.
        n_bytes: by each of `npusim.schemes.bounds.BOUNDS`.
        results: of the schemes, in the order asked for.
        accuracy: what is left of the network's outputs; None if it was not run.
    """

    condition: Condition
    n_weights: int
    n_zeros: int
    n_coded: int
    n_bytes: Mapping[str, int]
    results: tuple[SchemeResult, ...]
    accuracy: Accuracy | None = None

    @cached_property
    def zero_fraction(self) -> float:
        """Zeros among the weights; 0 without weights."""
        return self.n_zeros / self.n_weights if self.n_weights else 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON values, `Comparison.to_json` says which."""
        return {
            **self.condition.to_json(),
            "weights": self.n_weights,
            "coded_weights": self.n_coded,
            "zero_fraction": round(self.zero_fraction, 6),
            "bounds": dict(self.n_bytes),
            "accuracy": self.accuracy and self.accuracy.to_json(),
            "schemes": [result.to_json() for result in self.results],
        }


@dataclass(frozen=True)
class Comparison:
    """Schemes on one network.

    Attributes:
        model, npu: names; the order of the weights is that NPU's.
        where: system config and memory mode that inferences were costed with; empty if none was.
        points: one for each condition.
        left_out: schemes that are not installed, by name why not.
    """

    model: str
    npu: str
    points: tuple[Point, ...]
    left_out: Mapping[str, str]
    where: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values, the output of ``npusim schemes compare --format json``.

        Keys: ``model``, ``npu``, ``where``, ``left_out``; ``points``: a list of ``nonzeros``,
        ``bits``, ``clusters``, ``n_of_m`` (null: not done), ``weights``, ``coded_weights``,
        ``zero_fraction``, ``bounds`` (bytes by name), ``accuracy`` (null, or attributes of
        `npusim.schemes.accuracy.Accuracy`), ``schemes``: a list of ``scheme``, ``bytes``,
        ``bits_per_weight``, ``decode_cycles``, ``stall_cycles``, ``weights_per_cycle`` (null if not
        simulated), ``changed_weights``, ``relative_error``, ``sqnr_db`` (null without an error),
        ``decoder`` (attributes of `npusim.schemes.decoder.Decoder`, and ``area_ge``, low and high),
        ``inference`` (null, or attributes of `Inference`, ``energy_uj`` as low, value and high),
        ``on_front``. Keys may be added in later versions, none is renamed.
        """
        return {
            "model": self.model,
            "npu": self.npu,
            "where": self.where,
            "left_out": dict(self.left_out),
            "points": [point.to_json() for point in self.points],
        }


def compare(
    network: Network,
    npu: str | NpuConfig | Machine = "ethos-u55-128",
    *,
    names: Sequence[str] | None = None,
    conditions: Sequence[Condition] = (Condition(),),
    simulate: bool = True,
    lanes: int | None = None,
    fifo: int = FIFO_BITS,
    dma_bytes_per_cycle: float = math.inf,
    data: TestData | None = None,
    done: Callable[[float], None] | None = None,
) -> Comparison:
    """Exact sizes of a network's weights by each scheme, and what decoding takes.

    All schemes get the same weights in the same order, that in which the NPU reads them, padding
    zeros included, each layer by itself. Parameters that depend on a layer, such as the width of
    its weights, are fitted to it; the others have their defaults. Weights of uint8 models have nine
    bits once their zero point is subtracted.

    Args:
        network: as `npusim.load` reads it, not yet compiled.
        npu: preset name or record, for the order; with a machine an inference is costed too, once
            for each scheme.
        names: of the schemes, parameters allowed as `npusim.schemes.parse` takes them; None for all
            that are installed.
        conditions: what to do to the weights first, one point each.
        simulate: whether to simulate the decoders; otherwise sizes only.
        lanes, fifo, dma_bytes_per_cycle: as `npusim.schemes.decoder_simulation.decode_cycles`.
        data: inputs to run the conditioned networks on; None: they are not run. What schemes that
            are not lossless change beyond the condition is not in it.
        done: called with the fraction of the work that is done.

    Raises:
        ConfigError: an argument is out of range, there are no conditions, or the network is
            compiled already or cannot be run.
        UnknownNameError: no such NPU or scheme.
        MissingExtraError: a scheme that is named, or what runs networks, is not installed.
    """
    if not conditions:
        raise ConfigError("conditions must be some, got none")
    target = npu if isinstance(npu, Machine) else None
    config = npu.npu if isinstance(npu, Machine) else get(npu)
    chosen, left_out = _schemes(names)
    if lanes is not None:
        integer("lanes", lanes, 1, 1 << 20)
    options = {"lanes": lanes, "fifo": fifo, "dma_bytes_per_cycle": dma_bytes_per_cycle}
    decode_cycles(schemes.get("raw"), [], **options)  # type: ignore[arg-type]  # refuses wrong ones
    layers = layers_of(network, config)
    steps = _Steps(done, len(conditions) * (1 if data is None else 2) + (data is not None))
    before = None if data is None else outputs(network, data, steps.of(data.n))
    points = []
    for condition in conditions:
        changed = conditioned(network, condition, config)
        pairs = [
            _Layer(before, after)
            for before, after in zip(layers, layers_of(changed, config), strict=True)
            if not before.same_as
        ]
        work = partial(
            _measure,
            npu=config,
            chosen=chosen,
            bits=condition.bits or 8,
            options=options if simulate else None,
        )
        sums = of_each(pairs, work, steps.of(1))
        costs: list[Inference | None] = [None] * len(chosen)
        if target is not None:
            costs = [*_inferences(changed, target, chosen, lanes, condition.bits or 8)]
        point = _point(condition, chosen, lanes, simulate, sums, costs)
        if data is not None and before is not None:
            tell = steps.of(data.n)
            found = before if changed is network else outputs(changed, data, tell)
            point = replace(point, accuracy=accuracy(found, before, data))
        points.append(point)
    where = "" if target is None else f"{target.system.name}, {target.mode.name}"
    return Comparison(network.name, config.name, tuple(points), left_out, where)


@dataclass(slots=True)
class _Steps:
    """Tells `done`, over so many steps of work, the fraction of all that is done."""

    done: Callable[[float], None] | None
    n: int
    begun: int = 0

    def of(self, n: int) -> Callable[[float], None]:
        """Begin a step; what tells how many of its `n` parts are done, fractions allowed."""
        first, self.begun = self.begun, self.begun + 1

        def tell(parts: float) -> None:
            if self.done is not None:
                self.done((first + parts / n) / self.n)

        return tell


def _schemes(names: Sequence[str] | None) -> tuple[list[Scheme], dict[str, str]]:
    if names is not None:
        return [schemes.parse(name) for name in dict.fromkeys(names)], {}
    found, left_out = [], {}
    for name in schemes.names():
        try:
            found.append(schemes.get(name))
        except MissingExtraError as error:
            left_out[name] = str(error)
    return found, left_out


def _inferences(
    network: Network, target: Machine, chosen: Sequence[Scheme], lanes: int | None, bits: int
) -> Iterator[Inference]:
    lowered = program(network)
    for scheme in chosen:
        decoder = None if lanes is None else replace(scheme.decoder, lanes=lanes)
        weights = SchemeWeights(target.npu, scheme, decoder, bits)
        yield Inference.of(estimate(lowered, target, weights=weights))


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer as it was and conditioned."""

    before: WeightLayer
    after: WeightLayer

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of its weights."""
        return self.before.shape


@dataclass(frozen=True, slots=True)
class _Sums:
    """What layers add to a point: sizes, cycles, stalls, changes and noise of each scheme."""

    n_weights: int
    n_zeros: int
    n_coded: int
    signal: float
    n_bytes: dict[str, int]
    rows: npt.NDArray[np.float64]
    """Shape [n_schemes, 5]."""


def _measure(
    layer: _Layer,
    npu: NpuConfig,
    chosen: Sequence[Scheme],
    bits: int,
    options: Mapping[str, Any] | None,
) -> _Sums:
    before = _ordered(layer.before.weights_ohwi(), layer.before, npu)
    weights = layer.after.weights_ohwi()
    values = _ordered(weights, layer.after, npu)
    width = weight_bits(values, bits)
    noise_of_all = _noise(before, values)
    rows = np.zeros((len(chosen), 5))
    for row, scheme in zip(rows, chosen, strict=True):
        fitted = scheme.fitted(bits=width, row_weights=row_weights(values.size, layer.shape[0]))
        coded, changed, noise = values, 0, noise_of_all
        if not fitted.lossless:
            coded = fitted.conditioned(values)
            changed = int(np.count_nonzero(coded != values))
            noise = _noise(before, coded) if changed else noise
        if options is None:
            row[:] = fitted.size(coded), 0, 0, changed, noise
        else:
            found = decode_cycles(fitted, coded, **options)
            row[:] = found.n_bytes, found.cycles, found.stall_cycles, changed, noise
    n_zeros = weights.size - int(np.count_nonzero(weights))
    wide = before.astype(np.float64)
    sizes = bounds(values, width)
    return _Sums(weights.size, n_zeros, values.size, float(wide @ wide), sizes, rows)


def _ordered(weights: Values, layer: WeightLayer, npu: NpuConfig) -> Values:
    parts = reorder_slices(weights, None, npu, **layer.reorder_options)
    return np.concatenate([part.values for part in parts])


def _noise(exact: Values, codes: Values) -> float:
    """Squared error of codes times the step of least error."""
    if np.array_equal(exact, codes):
        return 0.0
    a, b = exact.astype(np.float64), codes.astype(np.float64)
    power = float(b @ b)
    step = float(a @ b) / power if power else 0.0
    difference = a - step * b
    return float(difference @ difference)


def on_front(results: Sequence[SchemeResult]) -> tuple[SchemeResult, ...]:
    """The same results, each told whether it is on the front of bytes, cycles, area and error."""
    figures = [
        (result.n_bytes, _cycles(result), sum(result.decoder.area_ge), result.error)
        for result in results
    ]
    return tuple(
        replace(
            result,
            on_front=not any(
                other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
                for other in figures
            ),
        )
        for result, mine in zip(results, figures, strict=True)
    )


def _cycles(result: SchemeResult) -> int:
    return (result.cycles or 0) if result.inference is None else result.inference.total_cycles


def _point(
    condition: Condition,
    chosen: Sequence[Scheme],
    lanes: int | None,
    simulate: bool,
    layers: Sequence[_Sums],
    inferences: Sequence[Inference | None],
) -> Point:
    rows = np.sum([np.zeros((len(chosen), 5)), *(layer.rows for layer in layers)], axis=0)
    signal = sum(layer.signal for layer in layers)
    n_coded = sum(layer.n_coded for layer in layers)
    n_weights = sum(layer.n_weights for layer in layers)
    results = []
    for scheme, row, inference in zip(chosen, rows, inferences, strict=True):
        decoder = scheme.decoder
        n_bytes, cycles, stalls, changed, noise = row.tolist()
        results.append(
            SchemeResult(
                scheme=scheme.label,
                n_bytes=int(n_bytes),
                cycles=int(cycles) if simulate else None,
                stall_cycles=int(stalls) if simulate else None,
                n_coded=n_coded,
                n_weights=n_weights,
                n_changed=int(changed),
                error=math.sqrt(noise / signal) if signal else 0.0,
                decoder=decoder if lanes is None else replace(decoder, lanes=lanes),
                inference=inference,
            )
        )
    n_bytes_of = {name: sum(layer.n_bytes[name] for layer in layers) for name in BOUNDS}
    return Point(
        condition,
        n_weights,
        sum(layer.n_zeros for layer in layers),
        n_coded,
        n_bytes_of,
        on_front(results),
    )
