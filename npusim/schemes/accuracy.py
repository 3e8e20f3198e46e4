# SPDX-License-Identifier: Apache-2.0
"""What conditioned weights do to a network's outputs: it is run, in LiteRT, on test data.

Nothing is retrained: training can win back much of what is lost.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from npusim._arguments import integer
from npusim.errors import ConfigError, MissingExtraError
from npusim.formats.tflite_write import to_bytes
from npusim.network import Network
from npusim.tensor import Tensor

N_RANDOM: Final = 64
"""Random inputs that are taken where there are no others."""
INPUT_KEYS: Final = ("inputs", "images")
"""What the inputs may be called in a file of test data."""
_N_MAX: Final = 1 << 30
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class TestData:
    """Inputs of a network, and what should come out.

    Attributes:
        source: where they are from, in words.
        inputs: shape [n, *input without its batch]: reals, or codes of the input's dtype.
        labels: right classes, int64 [n]; None if not known.
        targets: right outputs, reals, shape [n, *output without its batch]; None if not known.
    """

    __test__ = False  # no test of pytest's

    source: str
    inputs: Array
    labels: Array | None = None
    targets: Array | None = None

    @property
    def n(self) -> int:
        """How many inputs."""
        return len(self.inputs)

    def first(self, n: int) -> TestData:
        """The first `n`, or all if they are fewer.

        Raises:
            ConfigError: `n` is less than 1.
        """
        some = slice(integer("number of inputs", n, 1, _N_MAX))
        labels, targets = (
            each if each is None else each[some] for each in (self.labels, self.targets)
        )
        return TestData(self.source, self.inputs[some], labels, targets)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What a network's outputs are worth.

    Attributes:
        source: of the inputs, in words.
        n_inputs: how many.
        top1: fraction whose largest output is the label's; None without labels.
        agreement: fraction whose largest output is the one it was before.
        output_sqnr_db: signal to noise of all outputs, as reals, beside those of before; infinite
            if they are the same.
        target_psnr_db: peak signal to noise beside the targets, the peak being the distance between
            the largest and the least target; None without targets.
    """

    source: str
    n_inputs: int
    top1: float | None
    agreement: float
    output_sqnr_db: float
    target_psnr_db: float | None

    def to_json(self) -> dict[str, Any]:
        """JSON values by attribute; null for an infinite ratio."""
        record = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("output_sqnr_db", "target_psnr_db"):
            if record[name] is not None:
                finite = math.isfinite(record[name])
                record[name] = round(record[name], 3) if finite else None
        return record

    def __str__(self) -> str:
        """In a sentence."""
        parts = [] if self.top1 is None else [f"top-1 {100 * self.top1:.2f} %"]
        if self.target_psnr_db is not None:
            parts.append(f"PSNR {self.target_psnr_db:.2f} dB")
        parts.append(f"largest output as before for {100 * self.agreement:.1f} %")
        if math.isfinite(self.output_sqnr_db):
            parts.append(f"outputs' SQNR {self.output_sqnr_db:.1f} dB")
        return f"{', '.join(parts)} of {self.n_inputs:,} inputs ({self.source})"


def load_test_data(path: str, network: Network) -> TestData:
    """Test data of a file that ``numpy.savez`` wrote.

    Args:
        path: holds ``inputs`` (or ``images``), and of ``labels`` and ``targets`` what is known.
        network: whose inputs and outputs they are.

    Raises:
        ConfigError: no such file, another content, shape or range, or a network of several inputs
            or outputs.
    """
    what = f"test data of {path!r}"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {
                name: file[name] for name in (*INPUT_KEYS, "labels", "targets") if name in file
            }
    except OSError as error:
        raise ConfigError(f"{what} must be readable ({error.strerror or error})") from None
    except (ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{what} must be arrays that numpy.savez wrote, got: {error}") from None
    given = [arrays[name] for name in INPUT_KEYS if name in arrays]
    if len(given) != 1:
        raise ConfigError(f"{what} must hold one of {', '.join(INPUT_KEYS)}, got {len(given)}")
    ifm, ofm = _ends(network)
    inputs = _checked(f"inputs in {path!r}", given[0], ifm)
    labels, targets = arrays.get("labels"), arrays.get("targets")
    if labels is not None:
        n_classes = math.prod(ofm.shape[1:])
        if labels.shape != inputs.shape[:1] or labels.dtype.kind not in "iu":
            raise ConfigError(
                f"labels in {path!r} must be {len(inputs)} integers, got {labels.dtype} of shape "
                f"{labels.shape}"
            )
        if labels.min() < 0 or labels.max() >= n_classes:
            raise ConfigError(
                f"labels in {path!r} must be in 0..{n_classes - 1}, "
                f"got {labels.min()}..{labels.max()}"
            )
    if targets is not None and targets.shape != (len(inputs), *ofm.shape[1:]):
        raise ConfigError(
            f"targets in {path!r} must have shape {(len(inputs), *ofm.shape[1:])}, "
            f"got {targets.shape}"
        )
    return TestData(Path(path).name, inputs, labels, targets)


def random_test_data(network: Network, n: int = N_RANDOM, seed: int = 0) -> TestData:
    """Inputs drawn evenly from all their codes: an unfriendly test, no picture looks like that.

    Raises:
        ConfigError: `n` is less than 1, or a network of several or of real inputs or outputs.
    """
    ifm, _ = _ends(network)
    n = integer("number of inputs", n, 1, _N_MAX)
    rng, shape = np.random.default_rng(seed), (n, *ifm.shape[1:])
    limits = np.iinfo(ifm.dtype)
    codes = rng.integers(limits.min, limits.max, shape, ifm.dtype, endpoint=True)
    return TestData(f"random codes, seed {seed}", codes)


def outputs(
    network: Network, data: TestData, done: Callable[[int], object] = lambda n: None
) -> Array:
    """What a network says to inputs, as reals: float64, shape [n, n_outputs].

    Args:
        network: of one input and one output.
        data: its inputs.
        done: is told how many are done.

    Raises:
        ConfigError: LiteRT cannot run the network.
        MissingExtraError: LiteRT is not installed.
    """
    ifm, ofm = _ends(network)
    interpreter = _interpreter(network)
    source = interpreter.get_input_details()[0]["index"]
    sink = interpreter.get_output_details()[0]["index"]
    codes = _codes(data.inputs, ifm)
    found = np.empty((data.n, math.prod(ofm.shape[1:])), np.float64)
    for i, one in enumerate(codes):
        interpreter.reset_all_variables()
        interpreter.set_tensor(source, one.reshape(ifm.shape))
        interpreter.invoke()
        found[i] = interpreter.get_tensor(sink).ravel()
        done(i + 1)
    return _reals(found, ofm)


def accuracy(found: Array, before: Array, data: TestData) -> Accuracy:
    """What outputs are worth (`outputs` of both networks for the same data)."""
    best = found.argmax(axis=1)
    noise, signal = float(np.sum((found - before) ** 2)), float(np.sum(before**2))
    psnr = None
    if data.targets is not None:
        wanted = data.targets.reshape(found.shape).astype(np.float64)
        error, peak = float(np.mean((found - wanted) ** 2)), float(np.ptp(wanted))
        psnr = _decibels(peak**2, error)
    return Accuracy(
        data.source,
        data.n,
        None if data.labels is None else float(np.mean(best == data.labels)),
        float(np.mean(best == before.argmax(axis=1))),
        _decibels(signal, noise),
        psnr,
    )


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def _ends(network: Network) -> tuple[Tensor, Tensor]:
    """The one input and the one output."""
    for what, tensors in (("input", network.inputs), ("output", network.outputs)):
        if len(tensors) != 1:
            raise ConfigError(
                f"model {network.name!r} must have one {what} to be run, got {len(tensors)}"
            )
    (ifm,), (ofm,) = network.inputs, network.outputs
    if ifm.dtype not in ("int8", "uint8", "int16") or ifm.shape[:1] != (1,):
        raise ConfigError(
            f"input of {network.name!r} must be int8, uint8 or int16 with a batch of 1, got {ifm!s}"
        )
    return ifm, ofm


def _checked(what: str, inputs: Array, ifm: Tensor) -> Array:
    if inputs.shape[1:] != ifm.shape[1:] or not len(inputs):
        shape = "n, " + ", ".join(map(str, ifm.shape[1:]))
        raise ConfigError(f"{what} must have shape [{shape}], got {list(inputs.shape)}")
    if inputs.dtype.kind not in "fiu":
        raise ConfigError(f"{what} must be numbers, got {inputs.dtype}")
    if inputs.dtype.kind == "f":
        if not np.isfinite(inputs).all():
            raise ConfigError(f"{what} must be finite, got NaN or infinity")
        return inputs
    limits = np.iinfo(ifm.dtype)
    if inputs.min() < limits.min or inputs.max() > limits.max:
        raise ConfigError(
            f"{what} must be codes in {limits.min}..{limits.max}, got "
            f"{inputs.min()}..{inputs.max()}; reals must be floats"
        )
    return inputs.astype(ifm.dtype)


def _codes(inputs: Array, ifm: Tensor) -> Array:
    """Reals as codes; codes as they are."""
    if inputs.dtype.kind != "f" or ifm.quantization is None:
        return inputs
    limits = np.iinfo(ifm.dtype)
    scale, point = ifm.quantization.scales[0], ifm.quantization.zero_points[0]
    codes: Array = np.rint(inputs / scale) + point
    return codes.clip(limits.min, limits.max).astype(ifm.dtype)


def _reals(codes: npt.NDArray[np.float64], ofm: Tensor) -> npt.NDArray[np.float64]:
    if ofm.quantization is None:
        return codes
    point, scale = float(ofm.quantization.zero_points[0]), float(ofm.quantization.scales[0])
    return (codes - point) * scale


def _interpreter(network: Network) -> Any:
    """LiteRT's, without delegates: they may round otherwise on another machine."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise MissingExtraError("running a model", "deploy", error) from error
    try:
        made = Interpreter(
            model_content=to_bytes(network),
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        made.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model {network.name!r} must run in LiteRT, got: {reason}") from None
    return made
