# SPDX-License-Identifier: Apache-2.0
"""A search space as a plain value: decision variables, the layers that use them, candidates.

A `Space` is known before any search: a graph of `Layer` values whose attributes may each name a
`DecisionVariable`. Layers that name the same one are tied: they always get the same option. A
`Candidate` fixes one option of every decision. Nothing here trains, costs or draws in a way that
depends on anything but its arguments; integer shapes are in `spaces.concrete`, costs in
`spaces.costs`, the feasible set of a limit in `spaces.feasible`, moves in `spaces.moves`.

Where a choice leaves layers out, their decisions have no effect. They then count as their first
option, always: each network is one candidate.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from npusim.errors import ConfigError, FormatError, UnknownNameError
from spaces import structure
from spaces.layers import BITWIDTH_MAX as BITWIDTH_MAX
from spaces.layers import WEIGHTED as WEIGHTED
from spaces.layers import DecisionVariable as DecisionVariable
from spaces.layers import Given as Given
from spaces.layers import Kind as Kind
from spaces.layers import Layer as Layer
from spaces.layers import LayerKind as LayerKind
from spaces.layers import Option as Option
from spaces.layers import check_layer
from spaces.tables import Table

if TYPE_CHECKING:
    import networkx

    from spaces.limits import Limit

CANDIDATE_FORMAT = "npusim.candidate"
CANDIDATE_VERSION = 1
"""Raised when the JSON of a candidate changes its meaning."""


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
        data_set: name of the data its candidates are trained on; empty if none is known.
        image_shape: [H, W, C] of the input.
        decisions: the choices; their order is the order of `Candidate.choices`.
        layers: the network in topological order; the first is the input, the last the output.
        limits: what its candidates are searched within by default, as `Limit` values.

    Raises:
        ConfigError: a name is used twice, an input is not an earlier layer, a decision is unknown,
            of another kind than the attribute that names it, or named by no layer, a layer does
            not lead to the output, or maps that are added or chosen from differ in shape.
    """

    name: str
    data_set: str
    image_shape: tuple[int, int, int]
    decisions: tuple[DecisionVariable, ...]
    layers: tuple[Layer, ...]
    limits: tuple[Limit, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        decisions = {decision.name: decision for decision in self.decisions}
        if len(decisions) != len(self.decisions):
            raise ConfigError(f"decision names of space {self.name!r} must be unique, got a repeat")
        earlier: dict[str, Layer] = {}
        used: set[str] = set()
        for layer in self.layers:
            check_layer(layer, earlier, decisions)
            earlier[layer.name] = layer
            used.update(layer.decisions.values())
        if not self.layers:
            raise ConfigError(f"space {self.name!r} must have layers, got none")
        if unused := sorted(set(decisions) - used):
            raise ConfigError(f"decisions must be used by a layer, got unused {', '.join(unused)}")
        self._check_ends()
        _ = self.depths, self.maps

    def _check_ends(self) -> None:
        read = {name for layer in self.layers for name in layer.inputs}
        for layer in self.layers[:-1]:
            if layer.name not in read:
                raise ConfigError(
                    f"all layers but the last must be read, got unread {layer.name!r}"
                )

    def __hash__(self) -> int:
        return hash(self.content_hash)

    # -- what it is

    @cached_property
    def content_hash(self) -> str:
        """16 hexadecimal digits of the definition's SHA-256: equal spaces, equal hashes."""
        text = json.dumps(self.definition(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def definition(self) -> dict[str, Any]:
        """The whole space as JSON values: what `content_hash` covers.

        What is as by default is left out, so that what layers may have later changes no hash.
        """
        found: dict[str, Any] = _plain(self)
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

    @cached_property
    def depths(self) -> dict[str, structure.Depth]:
        """Channels of each layer's ofm, by the layer's name."""
        return structure.depths(self.layers, self.image_shape[2])

    @cached_property
    def maps(self) -> dict[str, np.ndarray]:
        """Height and width of each layer's ofm, by name, i64 [n_resolutions, 2]."""
        named = [decision for decision in self.decisions if decision.kind is Kind.RESOLUTION]
        resolutions = [int(side) for side in named[0].options] if named else []
        return structure.maps(self.layers, self.image_shape[:2], resolutions)

    @cached_property
    def present(self) -> dict[str, Table]:
        """Whether each layer is there, by name: bool tables of operator and depth decisions."""
        return structure.presence(self.layers, self.decisions)

    @cached_property
    def conditions(self) -> dict[int, Table]:
        """When a decision has an effect, by position: bool tables, of those that may have none."""
        return structure.conditions(self.layers, self.decisions, self.present)

    def count(self) -> int:
        """Number of candidates, exact."""
        if self.conditions:
            from spaces.feasible import count_all

            return count_all(self)
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
        wide = max(len(layer.name) for layer in self.layers)
        for layer in self.layers:
            named = ", ".join(f"{what} {name}" for what, name in layer.decisions.items())
            depth = layer.ofm_depth or ""
            lines.append(f"  {layer.name:<{wide}} {layer.kind:<14} {depth:>5}  {named}".rstrip())
        for decision in self.decisions:
            options = " ".join(str(option) for option in decision.options)
            lines.append(f"  {decision.name} ({decision.kind}): {options}")
        return "\n".join(lines)

    # -- candidates

    def canonical(self, choices: np.ndarray) -> np.ndarray:
        """Option indices with 0 for the decisions that have no effect, same shape [n, n_decisions].

        Args:
            choices: integers in range.
        """
        if not self.conditions:
            return choices
        found = choices.copy()
        for position, condition in self.conditions.items():
            found[:, position] *= condition.at(lambda other: choices[:, other])
        return found

    def candidate(self, choices: Sequence[int]) -> Candidate:
        """The candidate with these option indices, shape [n_decisions]; see `canonical`.

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
        if self.conditions:
            row = np.array([indices], dtype=np.int64)
            indices = tuple(self.canonical(row)[0].tolist())
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
        """A candidate, each equally likely."""
        return self.candidate(self.sample_many(rng, 1)[0].tolist())

    def sample_many(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Option indices of `n` candidates drawn independently and uniformly, i64 [n, n_decisions].

        Without choices that leave layers out, each decision is drawn independently of the others.
        """
        if self.conditions:
            from spaces.feasible import sample_all

            return sample_all(self, rng, n)
        return rng.integers(self.n_options, size=(n, len(self.decisions)))

    def sample_feasible(self, rng: np.random.Generator, limit: Limit) -> Candidate:
        """A candidate within `limit`, exactly uniform among those where that can be.

        Only in spaces whose decisions depend on one another too much to be counted it is the end
        of a Markov chain; see `spaces.feasible.feasible_set`.

        Raises:
            InfeasibleError: none is; names the smallest there is.
        """
        from spaces.feasible import feasible_set

        return feasible_set(self, limit).sample(rng)

    def enumerate(self) -> list[Candidate]:
        """All candidates of a small space.

        Raises:
            ConfigError: more than `spaces.tables.JOINT_MAX` combinations of options.
        """
        from spaces.feasible import enumerate_all

        return [Candidate(self.content_hash, tuple(row)) for row in enumerate_all(self).tolist()]

    def neighbours(self, candidate: Candidate) -> list[Candidate]:
        """All candidates that one change of one decision leads to."""
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

    def crossover(
        self,
        first: Candidate,
        second: Candidate,
        rng: np.random.Generator,
        limit: Limit | None = None,
    ) -> Candidate:
        """A candidate with decisions of both; with a limit one within it.

        See `spaces.moves.crossover`.
        """
        from spaces.moves import crossover

        return crossover(self, first, second, rng, limit)

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


def _plain(value: Any) -> Any:
    """`value` in JSON's types; dataclasses without fields that are as by default."""
    if is_dataclass(value):
        return {
            each.name: _plain(getattr(value, each.name))
            for each in fields(value)
            if each.compare and getattr(value, each.name) != each.default
        }
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, (Kind, LayerKind)) else value
