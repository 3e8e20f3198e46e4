# SPDX-License-Identifier: Apache-2.0
"""What an int8 network comes to where it is deployed: its codes, bytes and cycles, measured twice.

Our integers are held against LiteRT's, our costs against those of Arm's compiler. An operation that
would fall back to the CPU is an error: its weights would be missing in all sizes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np

from npusim.compress import compress
from npusim.cost.what_if import Workload
from npusim.errors import ConfigError
from npusim.formats.tflite_write import to_bytes
from npusim.hardware import Machine
from npusim.integer import run
from npusim.litert import RESOLVERS, Codes, LiteRt
from npusim.network import Network
from npusim.tensor import Tensor
from npusim.vela import Compiled, Compiler

PROFILES: Final = tuple(RESOLVERS)
"""Whose numerics are compared."""
Outputs = list[list[Codes]]
"""Of a network's outputs, for each sample."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike the codes are that two ways of running a network give.

    Attributes:
        n_codes: that were compared.
        n_equal: of them.
        largest: difference of two codes.
    """

    n_codes: int
    n_equal: int
    largest: int

    @classmethod
    def of(cls, ours: Outputs, theirs: Outputs) -> Agreement:
        """Of the outputs for the same samples."""
        pairs = [
            (np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64))
            for one, other in zip(ours, theirs, strict=True)
            for a, b in zip(one, other, strict=True)
        ]
        off = np.concatenate([np.abs(a - b) for a, b in pairs])
        return cls(off.size, int((off == 0).sum()), int(off.max()))

    @property
    def share(self) -> float:
        """Fraction of equal codes, 0..1."""
        return self.n_equal / self.n_codes

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"codes": self.n_codes, "equal": self.n_equal, "largest_difference": self.largest}


@dataclass(frozen=True, slots=True)
class Runtime:
    """One way of running a network, on the same samples as the others.

    Attributes:
        name: such as "LiteRT, litert_ref".
        scores: by name, such as accuracy, where samples have an answer.
        to_integers: agreement with our integers of the same profile; None for those themselves.
        to_torch: agreement with the network as it was trained, where there is one.
    """

    name: str
    scores: Mapping[str, float]
    to_integers: Agreement | None = None
    to_torch: Agreement | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        found: dict[str, Any] = {"runtime": self.name, **self.scores}
        for name, agreement in (("integers", self.to_integers), ("torch", self.to_torch)):
            found[name] = None if agreement is None else agreement.to_json()
        return found


@dataclass(frozen=True, slots=True)
class Deployment:
    """Sizes and costs of a network, ours and those of Arm's compiler.

    Attributes:
        model: name of the network.
        npu, system_config, memory_mode: names of the machine's parts.
        n_weights: elements of weight tensors.
        eq4_bytes: [UDC] eq. (4), mask-aware, in the 8 bits at most that are deployed.
        entropy_bytes: order-0 entropy of the coded values.
        tight_bytes: of the weight streams by our encoder ``tight``, each layer in one slice.
        stream_bytes: of the weight streams, in the slices that the compiler makes.
        flash_bytes, sram_peak_bytes, total_cycles: see `npusim.cost.result.Cost`.
        compiled: what Arm's compiler says; None where it is not installed.
    """

    model: str
    npu: str
    system_config: str
    memory_mode: str
    n_weights: int
    eq4_bytes: int
    entropy_bytes: int
    tight_bytes: int
    stream_bytes: int
    flash_bytes: int
    sram_peak_bytes: int
    total_cycles: int
    compiled: Compiled | None

    def to_json(self) -> dict[str, Any]:
        """JSON values; what the compiler says has keys that start with ``vela_``."""
        found: dict[str, Any] = {
            name: getattr(self, name) for name in self.__slots__ if name != "compiled"
        }
        for name, theirs in VELA.items():
            value = None if self.compiled is None else getattr(self.compiled, theirs)
            found[f"vela_{name}"] = value
        return found


VELA: Final = {
    "stream_bytes": "weights_encoded_bytes",
    "flash_bytes": "flash_bytes",
    "sram_peak_bytes": "sram_peak_bytes",
    "total_cycles": "total_cycles",
}
"""Fields of `npusim.vela.Compiled` by what they are called in a `Deployment`."""


def measure(network: Network, target: Machine, eq4_bytes: int | None = None) -> Deployment:
    """Sizes and costs of a network on a machine.

    Args:
        network: int8, not compiled yet.
        target: the machine; Arm's compiler is asked too where it is installed.
        eq4_bytes: [UDC] eq. (4) where bitwidths are known; None for those that the ranges of values
            need.

    Raises:
        ConfigError: an operation would fall back to the CPU; all such are named.
        CompilerError: Arm's compiler refuses the network.

    Source: [UDC] eq. (4).
    """
    cost = Workload.of(network).cost(target)
    on_cpu = [f"{op.source_op} {op.source!r} ({op.obstacle})" for op in cost.ops if op.obstacle]
    if on_cpu:
        raise _fell_back(network, on_cpu)
    sizes = compress(network, target.npu, encoders=("tight",)).stored
    compiled = _compiled(network, target)
    if compiled is not None and compiled.n_cpu_ops:
        raise _fell_back(network, [f"{kind} (by Arm's compiler)" for kind in compiled.cpu_kinds])
    names = ("eq4", "entropy", "tight")
    n_bytes = {name: sum(layer.n_bytes[name] for layer in sizes) for name in names}
    return Deployment(
        model=network.name,
        npu=target.npu.name,
        system_config=target.system.name,
        memory_mode=target.mode.name,
        n_weights=network.n_weights,
        eq4_bytes=n_bytes["eq4"] if eq4_bytes is None else eq4_bytes,
        entropy_bytes=n_bytes["entropy"],
        tight_bytes=n_bytes["tight"],
        stream_bytes=cost.weights_encoded_bytes,
        flash_bytes=cost.flash_bytes,
        sram_peak_bytes=cost.sram_peak_bytes,
        total_cycles=cost.total_cycles,
        compiled=compiled,
    )


def _fell_back(network: Network, operations: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"all operations of {network.name!r} must run on the NPU, got {len(operations)} that fall "
        f"back to the CPU: {', '.join(operations)}"
    )


def _compiled(network: Network, target: Machine) -> Compiled | None:
    if find_spec("ethosu") is None or find_spec("ethosu.regor") is None:
        return None
    with tempfile.TemporaryDirectory() as folder, Compiler() as vela:
        path = Path(folder) / "network.tflite"
        path.write_bytes(to_bytes(network))
        return vela.compile(path, target)


def integer_outputs(
    network: Network,
    samples: Iterable[Sequence[Codes]],
    profile: str = "litert_ref",
    done: Callable[[], object] = lambda: None,
) -> Outputs:
    """Outputs for each sample, in our integers.

    Args:
        network: see `npusim.integer.run`.
        samples: inputs of each.
        profile: of `npusim.integer.PROFILES`.
        done: called after each.
    """

    def once(inputs: Sequence[Codes]) -> list[Codes]:
        values = run(network, inputs, profile)
        return [values[tensor.index] for tensor in network.outputs]

    return _each(once, samples, done)


def litert_outputs(
    network: Network,
    samples: Iterable[Sequence[Codes]],
    profile: str = "litert_ref",
    done: Callable[[], object] = lambda: None,
) -> Outputs:
    """Outputs for each sample, in LiteRT; arguments as of `integer_outputs`.

    Raises:
        FormatError: LiteRT refuses the network.
        MissingExtraError: there is no LiteRT.
    """
    return _each(partial(LiteRt(to_bytes(network), profile)), samples, done)


def _each(
    once: Callable[[Sequence[Codes]], list[Codes]],
    samples: Iterable[Sequence[Codes]],
    done: Callable[[], object],
) -> Outputs:
    found = []
    for inputs in samples:
        found.append(once(inputs))
        done()
    return found


def runtimes(
    network: Network,
    samples: Sequence[Sequence[Codes]],
    score: Callable[[Outputs], Mapping[str, float]] = lambda outputs: {},
    torch_outputs: Outputs | None = None,
    done: Callable[[], object] = lambda: None,
) -> list[Runtime]:
    """A network run in our integers and, where it is installed, in LiteRT, for every profile.

    Args:
        network: see `npusim.integer.run`.
        samples: inputs of each.
        score: what outputs are worth; of the samples in their order.
        torch_outputs: of the network as it was trained, as codes.
        done: called after each inference, `n_inferences` times in all.
    """
    found = []
    for profile in PROFILES:
        runs = {f"npusim, {profile}": integer_outputs(network, samples, profile, done)}
        if has_litert():
            runs[f"LiteRT, {profile}"] = litert_outputs(network, samples, profile, done)
        ours = next(iter(runs.values()))
        for name, outputs in runs.items():
            to_integers = None if outputs is ours else Agreement.of(ours, outputs)
            to_torch = None if torch_outputs is None else Agreement.of(torch_outputs, outputs)
            found.append(Runtime(name, score(outputs), to_integers, to_torch))
    return found


def n_inferences(n_samples: int) -> int:
    """How many `runtimes` makes."""
    return n_samples * len(PROFILES) * (1 + has_litert())


def has_litert() -> bool:
    """Whether LiteRT is installed."""
    return find_spec("ai_edge_litert") is not None


def random_samples(network: Network, n: int, seed: int = 0) -> list[list[Codes]]:
    """Inputs for a network, every code equally likely; of floats standard normal.

    Raises:
        ConfigError: an input is neither of integers nor of floats.
    """
    rng = np.random.default_rng(seed)
    return [[_drawn(tensor, rng) for tensor in network.inputs] for _ in range(n)]


def _drawn(tensor: Tensor, rng: np.random.Generator) -> Codes:
    if tensor.dtype == "float32":
        return rng.standard_normal(tensor.shape).astype(np.float32)
    if tensor.dtype not in ("int8", "uint8", "int16", "int32"):
        raise ConfigError(f"inputs must be numbers to be drawn, got {tensor!s}")
    limits = np.iinfo(tensor.dtype)
    codes = rng.integers(limits.min, limits.max, tensor.shape, np.int64, endpoint=True)
    return codes.astype(tensor.dtype)
