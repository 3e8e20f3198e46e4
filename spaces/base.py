# SPDX-License-Identifier: Apache-2.0
"""A search space as a plain value: decision variables, the layers that use them, candidates.

A `Space` is known before any search: a graph of `Layer` values whose width, bitwidth and sparsity
may each name a `DecisionVariable`. Layers that name the same one are tied: they always get the same
option. A `Candidate` fixes one option of every decision. Nothing here trains, costs or draws in a
way that depends on anything but its arguments; integer shapes are in `spaces.concrete`, costs in
`spaces.costs`, the feasible set of a limit in `spaces.feasible`, moves in `spaces.moves`.

Later kinds of decision (operator, depth, kernel, resolution) are one more `Kind`, and one more
attribute of `Layer` that may name a decision.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from npusim.errors import ConfigError, FormatError, UnknownNameError

if TYPE_CHECKING:
    import networkx

    from spaces.limits import Limit

CANDIDATE_FORMAT = "npusim.candidate"
CANDIDATE_VERSION = 1
"""Raised when the JSON of a candidate changes its meaning."""

BITWIDTH_MAX = 32
DENOMINATOR_MAX = 10**6
"""Of an option as a fraction: fine enough for any option, coarse enough for i64 products."""

Option = int | float
"""One value that a decision variable can take, in the unit of its `Kind`."""


class Kind(StrEnum):
    """What a decision variable chooses; its options are ordered numbers for every kind so far."""

    WIDTH = "width"
    """Fraction of a layer's output channels that exist, in (0, 1]; [UDC] rho."""
    BITWIDTH = "bitwidth"
    """Bits of a weight, 1..32; 32 leaves weights as they are; [UDC] b."""
    SPARSITY = "sparsity"
    """Fraction of a layer's weights that are **not** zero, in (0, 1]; [UDC] s."""


class LayerKind(StrEnum):
    """What a layer computes."""

    INPUT = "input"
    """The image, of `Space.image_shape`."""
    CONV = "conv"
    """2-D convolution, "same" padding, without bias; batch norm; ReLU."""
    GLOBAL_POOL = "global_pool"
    """Mean over height and width."""
    DENSE = "dense"
    """Matrix product and bias on a 1x1 feature map."""


WEIGHTED = (LayerKind.CONV, LayerKind.DENSE)
"""Layers with weights: the ones that decisions apply to."""
ONE_BY_ONE = (LayerKind.GLOBAL_POOL, LayerKind.DENSE)
"""Layers whose output has height and width 1."""


@dataclass(frozen=True, slots=True)
class DecisionVariable:
    """One choice of a search space.

    Args:
        name: unique in its space.
        kind: what is chosen; sets the unit of the options.
        options: its possible values, strictly rising.

    Raises:
        ConfigError: no options, options that do not rise, or one out of the range of its kind.
    """

    name: str
    kind: Kind
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        where = f"options of decision {self.name!r}"
        if not self.options:
            raise ConfigError(f"{where} must be one or more, got none")
        for option in self.options:
            if self.kind is Kind.BITWIDTH:
                if type(option) is not int or not 1 <= option <= BITWIDTH_MAX:
                    raise ConfigError(f"{where} must be ints in 1..{BITWIDTH_MAX}, got {option!r}")
            elif not isinstance(option, int | float) or not 1 / DENOMINATOR_MAX <= option <= 1:
                raise ConfigError(f"{where} must be in {1 / DENOMINATOR_MAX}..1, got {option!r}")
        if any(a >= b for a, b in zip(self.options, self.options[1:], strict=False)):
            raise ConfigError(f"{where} must rise, got {self.options}")

    @property
    def fractions(self) -> tuple[np.ndarray, np.ndarray]:
        """Numerators and denominators of the options, i64 [n_options] each.

        0.07 * 100 is 7.000000000000001 in floats, of which the ceiling is 8; as 7/100 it is 7.
        Options count as the nearest fraction with a denominator of at most `DENOMINATOR_MAX`.
        """
        exact = [Fraction(option).limit_denominator(DENOMINATOR_MAX) for option in self.options]
        return (
            np.array([f.numerator for f in exact], dtype=np.int64),
            np.array([f.denominator for f in exact], dtype=np.int64),
        )


@dataclass(frozen=True, slots=True)
class Layer:
    """One node of a space's graph; an attribute that is searched names its decision variable.

    Args:
        name: unique in its space.
        kind: what it computes.
        inputs: names of the layers it reads, all of them earlier in `Space.layers`.
        ofm_depth: output channels of a layer with weights, at full width; 0 for the others.
        kernel: height and width of a convolution's kernel.
        stride: step of a convolution in both directions.
        width, bitwidth, sparsity: names of decisions, or None for full width, 32 bits, no zeros.
    """

    name: str
    kind: LayerKind
    inputs: tuple[str, ...] = ()
    ofm_depth: int = 0
    kernel: int = 1
    stride: int = 1
    width: str | None = None
    bitwidth: str | None = None
    sparsity: str | None = None

    @property
    def decisions(self) -> dict[Kind, str]:
        """The decisions this layer names itself, by kind."""
        chosen = {
            Kind.WIDTH: self.width,
            Kind.BITWIDTH: self.bitwidth,
            Kind.SPARSITY: self.sparsity,
        }
        return {kind: name for kind, name in chosen.items() if name is not None}


@dataclass(frozen=True, slots=True)
class Candidate:
    """All choices of a space fixed: one option index per decision, and the space they belong to."""

    space_hash: str
    choices: tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """A search space: which networks there are, before any of them is trained.

    Args:
        name: what it is registered as.
        data_set: name of the data its candidates are trained on.
        image_shape: [H, W, C] of the input.
        decisions: the choices; their order is the order of `Candidate.choices`.
        layers: the network in topological order; the first is the input, the last the output.

    Raises:
        ConfigError: a name is used twice, an input is not an earlier layer, a decision is unknown,
            of another kind than the attribute that names it, or named by no layer.
    """

    name: str
    data_set: str
    image_shape: tuple[int, int, int]
    decisions: tuple[DecisionVariable, ...]
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        kinds = {decision.name: decision.kind for decision in self.decisions}
        if len(kinds) != len(self.decisions):
            raise ConfigError(f"decision names of space {self.name!r} must be unique, got a repeat")
        earlier: dict[str, LayerKind] = {}
        used: set[str] = set()
        for layer in self.layers:
            _check_layer(layer, earlier, kinds)
            earlier[layer.name] = layer.kind
            used.update(layer.decisions.values())
        if unused := sorted(set(kinds) - used):
            raise ConfigError(f"decisions must be used by a layer, got unused {', '.join(unused)}")

    def __hash__(self) -> int:
        return hash(self.content_hash)

    # -- what it is

    @cached_property
    def content_hash(self) -> str:
        """16 hexadecimal digits of the definition's SHA-256: equal spaces, equal hashes."""
        text = json.dumps(self.definition(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def definition(self) -> dict[str, Any]:
        """The whole space as JSON values: what `content_hash` covers."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    @cached_property
    def n_options(self) -> np.ndarray:
        """Options of each decision, i64 [n_decisions]."""
        return np.array([len(decision.options) for decision in self.decisions], dtype=np.int64)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {decision.name: i for i, decision in enumerate(self.decisions)}

    def position(self, decision: str) -> int:
        """Index in `decisions` of the decision of that name."""
        if decision not in self._positions:
            raise UnknownNameError("decision", decision, self._positions)
        return self._positions[decision]

    def count(self) -> int:
        """Number of candidates, exact."""
        return math.prod(len(decision.options) for decision in self.decisions)

    def graph(self) -> networkx.DiGraph[str]:
        """The layers as a networkx graph: node attribute ``layer``, edges from inputs."""
        import networkx

        graph: networkx.DiGraph[str] = networkx.DiGraph(name=self.name)
        for layer in self.layers:
            graph.add_node(layer.name, layer=layer)
            graph.add_edges_from((source, layer.name) for source in layer.inputs)
        return graph

    def __str__(self) -> str:
        lines = [f"space {self.name}: {self.count():.3g} candidates, hash {self.content_hash}"]
        for layer in self.layers:
            named = ", ".join(f"{kind} {name}" for kind, name in layer.decisions.items())
            lines.append(f"  {layer.name:<10} {layer.kind:<12} {layer.ofm_depth or '':>5}  {named}")
        for decision in self.decisions:
            options = " ".join(str(option) for option in decision.options)
            lines.append(f"  {decision.name} ({decision.kind}): {options}")
        return "\n".join(lines)

    # -- candidates

    def candidate(self, choices: Sequence[int]) -> Candidate:
        """The candidate with these option indices, shape [n_decisions].

        Raises:
            ConfigError: their number or an index is out of range.
        """
        indices = tuple(int(choice) for choice in choices)
        if len(indices) != len(self.decisions):
            raise ConfigError(
                f"choices of space {self.name!r} must be {len(self.decisions)}, got {len(indices)}"
            )
        for index, decision in zip(indices, self.decisions, strict=True):
            if not 0 <= index < len(decision.options):
                raise ConfigError(
                    f"choice of decision {decision.name!r} must be "
                    f"in 0..{len(decision.options) - 1}, got {index}"
                )
        return Candidate(self.content_hash, indices)

    def require(self, candidate: Candidate) -> None:
        """Raise ConfigError where `candidate` is of another space."""
        if candidate.space_hash != self.content_hash:
            raise ConfigError(
                f"candidate must be of space {self.name!r} (hash {self.content_hash}), "
                f"got one of hash {candidate.space_hash}"
            )

    def options_of(self, candidate: Candidate) -> dict[str, Option]:
        """The chosen option of each decision, by the decision's name."""
        self.require(candidate)
        return {
            decision.name: decision.options[choice]
            for decision, choice in zip(self.decisions, candidate.choices, strict=True)
        }

    def from_options(self, options: Mapping[str, Option]) -> Candidate:
        """The candidate with these options, by the decisions' names.

        Raises:
            ConfigError: a decision is missing, unknown, or lacks that option.
        """
        if unknown := sorted(set(options) - set(self._positions)):
            raise UnknownNameError("decision", unknown[0], self._positions)
        choices = []
        for decision in self.decisions:
            if decision.name not in options:
                raise ConfigError(f"options must have decision {decision.name!r}, got none of it")
            if (option := options[decision.name]) not in decision.options:
                raise ConfigError(
                    f"option of decision {decision.name!r} must be one of "
                    f"{', '.join(map(str, decision.options))}, got {option!r}"
                )
            choices.append(decision.options.index(option))
        return self.candidate(choices)

    def largest(self) -> Candidate:
        """The last option of every decision: full width, most bits, fewest zeros."""
        return self.candidate([len(decision.options) - 1 for decision in self.decisions])

    def sample(self, rng: np.random.Generator) -> Candidate:
        """Each decision drawn independently and uniformly."""
        return self.candidate(rng.integers(self.n_options).tolist())

    def sample_feasible(self, rng: np.random.Generator, limit: Limit) -> Candidate:
        """A candidate within `limit`, exactly uniform among those.

        Raises:
            InfeasibleError: none is; names the smallest there is.
        """
        from spaces.feasible import feasible_set

        return feasible_set(self, limit).sample(rng)

    def neighbours(self, candidate: Candidate) -> list[Candidate]:
        """All candidates that differ from it in exactly one decision."""
        from spaces.moves import single_changes

        self.require(candidate)
        changed = single_changes(self, candidate.choices)
        return [Candidate(self.content_hash, tuple(row)) for row in changed.tolist()]

    def mutate(
        self, candidate: Candidate, rng: np.random.Generator, limit: Limit | None = None
    ) -> Candidate:
        """A random neighbour; with a limit one within it, see `spaces.moves.mutate`."""
        from spaces.moves import mutate

        return mutate(self, candidate, rng, limit)

    # -- encodings

    def encode(self, candidate: Candidate) -> np.ndarray:
        """The candidate as a point of the unit cube, f64 [n_decisions]: first option 0, last 1."""
        self.require(candidate)
        steps = np.maximum(self.n_options - 1, 1)
        point: np.ndarray = np.asarray(candidate.choices, dtype=np.float64) / steps
        return point

    def decode(self, point: np.ndarray) -> Candidate:
        """The candidate nearest to a point of the unit cube, shape [n_decisions]."""
        point = np.asarray(point, dtype=np.float64)
        if point.shape != self.n_options.shape:
            raise ConfigError(f"point must have shape {self.n_options.shape}, got {point.shape}")
        if not np.all((point >= 0) & (point <= 1)):
            raise ConfigError(f"point must be in 0..1, got {point.min()}..{point.max()}")
        return self.candidate(np.rint(point * (self.n_options - 1)).astype(np.int64).tolist())

    def to_json(self, candidate: Candidate) -> str:
        """The candidate as one line of versioned JSON, options by name."""
        return json.dumps(
            {
                "format": CANDIDATE_FORMAT,
                "version": CANDIDATE_VERSION,
                "space": self.name,
                "space_hash": self.content_hash,
                "options": self.options_of(candidate),
            }
        )

    def from_json(self, text: str) -> Candidate:
        """Read back what `to_json` wrote.

        Raises:
            FormatError: not such JSON, or of another version.
            ConfigError: of another space.
        """
        try:
            found = json.loads(text)
        except ValueError as error:
            raise FormatError(f"candidate must be JSON, got {error}") from None
        header = (found.get("format"), found.get("version")) if isinstance(found, dict) else None
        if header != (CANDIDATE_FORMAT, CANDIDATE_VERSION) or "options" not in found:
            raise FormatError(
                f"candidate must be {CANDIDATE_FORMAT} version {CANDIDATE_VERSION}, got {header}"
            )
        self.require(Candidate(found.get("space_hash"), ()))
        return self.from_options(found["options"])


def _check_layer(layer: Layer, earlier: Mapping[str, LayerKind], kinds: Mapping[str, Kind]) -> None:
    where = f"layer {layer.name!r}"
    if layer.name in earlier:
        raise ConfigError(f"layer names must be unique, got {layer.name!r} twice")
    if (layer.kind is LayerKind.INPUT) != (not earlier):
        raise ConfigError(f"the input must be the first layer and only that, got {where}")
    n_inputs = 0 if layer.kind is LayerKind.INPUT else 1
    if len(layer.inputs) != n_inputs:
        raise ConfigError(f"inputs of {where} must be {n_inputs}, got {len(layer.inputs)}")
    for source in layer.inputs:
        if source not in earlier:
            raise ConfigError(f"inputs of {where} must be earlier layers, got {source!r}")
        if layer.kind is LayerKind.DENSE and earlier[source] not in ONE_BY_ONE:
            raise ConfigError(f"input of dense {where} must be a 1x1 map, got {source!r}")
    weighted = layer.kind in WEIGHTED
    if weighted != (layer.ofm_depth >= 1):
        rule = "at least 1" if weighted else "0"
        raise ConfigError(f"ofm_depth of {where} must be {rule}, got {layer.ofm_depth}")
    for what, size in (("kernel", layer.kernel), ("stride", layer.stride)):
        if size < 1 or (layer.kind is not LayerKind.CONV and size != 1):
            rule = "at least 1" if layer.kind is LayerKind.CONV else "1"
            raise ConfigError(f"{what} of {where} must be {rule}, got {size}")
    for kind, decision in layer.decisions.items():
        if not weighted:
            raise ConfigError(f"{where} must have no {kind} decision, got {decision!r}")
        if decision not in kinds:
            raise UnknownNameError("decision", decision, kinds)
        if kinds[decision] is not kind:
            raise ConfigError(
                f"{kind} of {where} must name a {kind} decision, "
                f"got {decision!r} of kind {kinds[decision]}"
            )
