# SPDX-License-Identifier: Apache-2.0
"""Functions of a few decisions as arrays: one axis of option indices for each decision."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from npusim.errors import ConfigError

JOINT_MAX = 1 << 20
"""Most option combinations that a table, or a step of the feasible set's programme, may have."""


class TooEntangledError(ConfigError):
    """Too many decisions depend on one another to go through their combinations."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Values by options of the decisions they depend on.

    Attributes:
        scope: positions of the decisions, rising.
        values: one axis of option indices for each decision of `scope`.
    """

    scope: tuple[int, ...]
    values: np.ndarray

    def on(self, scope: Sequence[int]) -> np.ndarray:
        """Values with an axis for each decision of `scope`, of length 1 where they do not matter.

        Args:
            scope: positions, rising, among them all of this table's.
        """
        axes = iter(self.values.shape)
        return self.values.reshape([next(axes) if p in self.scope else 1 for p in scope])

    def at(self, column: Callable[[int], np.ndarray]) -> np.ndarray:
        """Values for the option indices that `column` gives for each position."""
        found: np.ndarray = self.values[tuple(column(position) for position in self.scope)]
        return found

    def reduced(self) -> Table:
        """The same without decisions that change nothing."""
        scope, values = list(self.scope), self.values
        for axis in reversed(range(values.ndim)):
            first = values.take([0], axis)
            if (values == first).all():
                values = first.squeeze(axis)
                del scope[axis]
        return Table(tuple(scope), np.array(values, order="C"))


def constant(value: int | bool) -> Table:
    """A table that depends on nothing."""
    return Table((), np.asarray(value))


def combine(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray], first: Table, second: Table
) -> Table:
    """``function(first, second)`` for all options of the decisions of both."""
    scope = union(first.scope, second.scope)
    return Table(scope, function(first.on(scope), second.on(scope)))


def union(*scopes: Iterable[int]) -> tuple[int, ...]:
    """Positions in any of `scopes`, rising."""
    return tuple(sorted(set().union(*scopes)))


def tabulate(
    function: Callable[[Callable[[int], np.ndarray]], np.ndarray], n_options: np.ndarray
) -> Table:
    """A function of decisions for all options of those it asks for.

    Args:
        function: takes what gives the option index of a position, and works on arrays too.
        n_options: number of options of each decision.

    Raises:
        TooEntangledError: more than `JOINT_MAX` combinations.
    """
    asked: set[int] = set()

    def record(position: int) -> np.ndarray:
        asked.add(position)
        return np.asarray(0)

    function(record)
    scope = union(asked)
    shape = tuple(int(n_options[position]) for position in scope)
    check_joint(shape)
    axes = dict(zip(scope, np.ix_(*(np.arange(n) for n in shape)), strict=True))
    values = np.broadcast_to(function(axes.__getitem__), shape)
    return Table(scope, values).reduced()


def check_joint(shape: Sequence[int]) -> None:
    """Raise TooEntangledError for more than `JOINT_MAX` combinations."""
    if (n_joint := math.prod(shape)) > JOINT_MAX:
        raise TooEntangledError(
            f"options of decisions that depend on one another must have "
            f"at most {JOINT_MAX} combinations, got {n_joint}"
        )
