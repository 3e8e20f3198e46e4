# SPDX-License-Identifier: Apache-2.0
"""The feasible set of a limit, exactly: its size, uniform draws from it, the best candidate in it.

A dynamic programme over the steps of `spaces.programme`, from the last to the first. For each state
and each budget, a table holds how many ways lead from there to the end within that budget. Walking
from the first state, with each row in proportion to the ways after it, draws one of the ways, each
equally likely.

Costs count as what they are above the least way to the end, so budgets count from the cheapest
candidate on. They are counted in bins of one unit, if that is not too much work; else in wider
ones, each cost rounded down, and a draw that is over the limit after all is drawn again. Either way
draws are exactly uniform.

Counts are floats: exact up to 2**53 candidates, to within rounding beyond.

Source: [UDC] has none; searchers that draw and reject need 10^16 draws where limits are tight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from npusim.errors import ConfigError, InfeasibleError
from spaces.base import Candidate, Space
from spaces.limits import Limit
from spaces.markov import MarkovChainSet, smallest_found
from spaces.programme import Programme, Step, programme
from spaces.programme import smallest as smallest
from spaces.tables import JOINT_MAX, TooEntangledError

BINS_MAX = 1 << 16
"""Most bins of a table; budgets up to this many units above the least cost are counted exactly."""
WORK_MAX = 1 << 30
"""Most moves times bins, some tenths of a second; limits the bins of large spaces."""
ENTRIES_MAX = 1 << 23
"""Most entries of the tables, 8 bytes each; limits them too."""
DRAWS_MAX = 10_000
"""Draws in a row that may be over the limit with bins wider than one unit."""


@dataclass(frozen=True, slots=True, eq=False)
class Moves:
    """Rows of a step in an order in which those are together that do the same to state and budget.

    Attributes:
        order: numbers of the rows in this order, i64 [n_rows].
        first: the moves of each state, i64 [n_before + 1]; see `spaces.feasible_kernels`.
        moves: state after, bins, place of the first row, i64 [n_moves, 3].
    """

    order: np.ndarray
    first: np.ndarray
    moves: np.ndarray

    @classmethod
    def of(cls, step: Step, shifts: np.ndarray, n_bins: int) -> Moves:
        """The moves of a step whose rows shift by `shifts` bins; without those that never fit."""
        fits = np.flatnonzero(shifts < n_bins)
        keys = (shifts[fits], step.after[fits], step.before[fits])
        order = fits[np.lexsort(keys)]
        columns = np.stack([step.before[order], step.after[order], shifts[order]])
        changes = np.any(columns[:, 1:] != columns[:, :-1], axis=0)
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
        before, after, bins = columns[:, starts]
        first = np.searchsorted(before, np.arange(step.n_before + 1)).astype(np.int64)
        return cls(order, first, np.stack([after, bins, starts], axis=1).astype(np.int64))


class FeasibleSet:
    """All candidates of a space within a limit.

    Args:
        space: what the candidates are of.
        limit: None for all of them.
        log_weights: f64 [n_options] for each decision, or None: candidates are then not equally
            likely, but in proportion to the product of the exponentials of their options'.

    Raises:
        InfeasibleError: there are none.
        TooEntangledError: the space is too entangled for the programme.
    """

    method = "dynamic programme"

    def __init__(
        self,
        space: Space,
        limit: Limit | None,
        log_weights: Sequence[np.ndarray] | None = None,
    ):
        self.space, self.limit = space, limit
        self.programme = programme(space, None if limit is None else limit.measure)
        self.budget = 0
        if limit is not None:
            _require(space, limit, self.programme.smallest, "the least")
            self.budget = min(limit.most - self.programme.smallest, _most_above(self.programme))
        self.excess = excesses(self.programme)
        n_bins_max = n_bins_for(self.programme)
        self._bin = self.budget // n_bins_max + 1
        self._n_bins = self.budget // self._bin + 1
        self._log_weights = None if log_weights is None else checked_scores(space, log_weights)
        self._tables()

    def _tables(self) -> None:
        """Fill the tables and lay them out for the walk."""
        from spaces.feasible_kernels import count_back

        steps = self.programme.steps
        n_states = [step.n_before for step in steps] + [1]
        offsets = np.cumsum([0, *(n * self._n_bins for n in n_states)])
        self._ways = np.zeros(offsets[-1])
        ways = [
            self._ways[a:b].reshape(n, self._n_bins)
            for a, b, n in zip(offsets, offsets[1:], n_states, strict=False)
        ]
        ways[-1][:] = 1.0
        self._exponent = 0
        made: list[Moves] = []
        uptos: list[np.ndarray] = []
        for i in reversed(range(len(steps))):
            moves = Moves.of(steps[i], self.excess[i] // self._bin, self._n_bins)
            weights = self._row_weights(steps[i])[moves.order]
            sizes = np.diff([*moves.moves[:, 2], len(weights)])
            sums = np.cumsum(weights)
            starts = moves.moves[:, 2]
            upto = sums - np.repeat(sums[starts] - weights[starts], sizes)
            totals = upto[starts + sizes - 1]
            count_back(moves.first, moves.moves, totals, ways[i + 1], ways[i])
            exponent = int(np.frexp(ways[i].max())[1])
            ways[i] *= 2.0**-exponent  # a power of two: nothing is rounded
            self._exponent += exponent
            made.insert(0, moves)
            uptos.insert(0, upto)
        self._by_step = list(zip(made, ways[1:], strict=True))
        self._lay_out(made, uptos, offsets[1:])

    def _row_weights(self, step: Step) -> np.ndarray:
        if self._log_weights is None:
            return np.ones(len(step.before))
        weights: np.ndarray = np.exp(row_scores(step, self._log_weights))
        return weights

    def _lay_out(self, made: list[Moves], uptos: list[np.ndarray], ahead: np.ndarray) -> None:
        n_firsts = np.cumsum([0, *(len(moves.first) for moves in made)])
        n_moves = np.cumsum([0, *(len(moves.moves) for moves in made)])
        n_rows = np.cumsum([0, *(len(moves.order) for moves in made)])
        self._layout = np.stack([n_firsts[:-1], ahead[: len(made)]], axis=1)
        self._first = np.concatenate(
            [np.zeros(0, np.int64), *(m.first + n for m, n in zip(made, n_moves, strict=False))]
        )
        self._moves = np.concatenate(
            [
                *(m.moves + np.array([0, 0, n]) for m, n in zip(made, n_rows, strict=False)),
                np.array([[0, 0, n_rows[-1]]], dtype=np.int64),
            ]
        )
        self._upto = np.concatenate([np.zeros(0), *uptos])
        steps = self.programme.steps
        most = max((len(step.decisions) for step in steps), default=0)
        self._options = np.zeros((n_rows[-1], most), dtype=np.int64)
        self._row_excess = np.zeros(n_rows[-1], dtype=np.int64)
        for i, (step, moves) in enumerate(zip(steps, made, strict=True)):
            rows = slice(n_rows[i], n_rows[i + 1])
            self._options[rows, : len(step.decisions)] = step.options[moves.order]
            self._row_excess[rows] = self.excess[i][moves.order]
        places = [
            (position, i, j)
            for i, step in enumerate(steps)
            for j, position in enumerate(step.decisions)
        ]
        self._places = np.array(places, dtype=np.int64).reshape(len(places), 3)

    @property
    def exact(self) -> bool:
        """Whether `count` is exact, and not an upper bound."""
        return self._bin == 1

    def count(self) -> int:
        """Number of candidates within the limit; an upper bound if not `exact`.

        Raises:
            ConfigError: the set has weights; `log10_count` then is of their sum.
        """
        if self._log_weights is not None:
            raise ConfigError("candidates to count must be without weights, got log_weights")
        mantissa, exponent = math.frexp(self._total())
        exponent += self._exponent - 53
        count = int(math.ldexp(mantissa, 53))
        count = count << exponent if exponent >= 0 else round(count / (1 << -exponent))
        return count * math.prod(int(self.space.n_options[p]) for p in self.programme.free)

    @property
    def log10_count(self) -> float:
        """Decimal logarithm of `count`; with weights, of the sum of the candidates' weights."""
        total = math.log10(self._total()) + self._exponent * math.log10(2)
        return total + sum(math.log10(self._free_weights(p).sum()) for p in self.programme.free)

    def log10_bounds(self) -> tuple[float, float]:
        """What `log10_count` of the true number is not below, and not above.

        The lower bound counts with costs rounded up to whole bins.
        """
        from spaces.feasible_kernels import count_back

        if self.exact:
            return self.log10_count, self.log10_count
        ahead, exponent = np.ones((1, self._n_bins)), 0
        for step, excess in zip(self.programme.steps[::-1], self.excess[::-1], strict=True):
            moves = Moves.of(step, -(-excess // self._bin), self._n_bins)
            weights = np.add.reduceat(self._row_weights(step)[moves.order], moves.moves[:, 2])
            ways = np.zeros((step.n_before, self._n_bins))
            count_back(moves.first, moves.moves, weights, ahead, ways)
            shift = int(np.frexp(ways.max())[1])
            ahead, exponent = ways * 2.0**-shift, exponent + shift
        lower = math.log10(float(ahead[0, -1])) + (exponent - self._exponent) * math.log10(2)
        return self.log10_count + lower - math.log10(self._total()), self.log10_count

    def _total(self) -> float:
        return float(self._ways[self._n_bins - 1])

    def _free_weights(self, position: int) -> np.ndarray:
        if self._log_weights is None:
            return np.ones(self.space.n_options[position])
        weights: np.ndarray = np.exp(self._log_weights[position])
        return weights

    def sample(self, rng: np.random.Generator) -> Candidate:
        """One of them, each equally likely."""
        return Candidate(self.space.content_hash, tuple(self.sample_many(rng, 1)[0].tolist()))

    def sample_many(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Option indices of `n` of them, drawn independently, i64 [n, n_decisions]."""
        drawn = self._draw(rng, n)
        n_draws = 1
        while len(drawn) < n:
            drawn = np.concatenate([drawn, self._draw(rng, n - len(drawn))])
            n_draws += 1
            if n_draws == DRAWS_MAX:
                raise RuntimeError(f"no draw of {DRAWS_MAX} was within {self.limit}: wide bins")
        return drawn

    def marginals(self) -> list[np.ndarray]:
        """Probability of each option in a draw from the set, f64 [n_options] for each decision.

        Draws in which the decision has no effect are not counted, so that the sum is the
        probability that it has one. Exact where the set is; with wider bins, that of draws before
        those over the limit are dropped.
        """
        from spaces.feasible_kernels import count_forward

        found = [np.zeros(n) for n in self.space.n_options.tolist()]
        reach = np.zeros((1, self._n_bins))
        reach[0, -1] = 1.0
        for step, (moves, ahead) in zip(self.programme.steps, self._by_step, strict=True):
            weights = self._row_weights(step)[moves.order]
            starts = moves.moves[:, 2]
            totals = np.add.reduceat(weights, starts)
            reached, masses = np.zeros_like(ahead), np.zeros(len(starts))
            count_forward(moves.first, moves.moves, totals, ahead, reach, reached, masses)
            sizes = np.diff([*starts, len(weights)])
            shares = masses / np.where(totals > 0, totals, 1.0)  # weights may be too small to tell
            rows = weights * np.repeat(shares / masses.sum(), sizes)
            for position, chosen, effect in step.scored:
                shown = np.where(effect[moves.order], rows, 0.0)
                found[position] += np.bincount(
                    chosen[moves.order], shown, minlength=len(found[position])
                )
            reach = reached / reached.max()
        for position in self.programme.free:
            weights = self._free_weights(position)
            found[position] = weights / weights.sum()
        return found

    def _draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Those of `n` draws that are within the limit, rounding aside."""
        from spaces.feasible_kernels import walk

        rows = np.zeros((n, len(self.programme.steps)), dtype=np.int64)
        uniforms = rng.random((*rows.shape, 2))
        walk(
            uniforms,
            self._layout,
            self._first,
            self._moves,
            self._upto,
            self._ways,
            self._n_bins,
            rows,
        )
        choices = np.zeros((n, len(self.space.decisions)), dtype=np.int64)
        positions, steps, columns = self._places.T
        choices[:, positions] = self._options[rows[:, steps], columns]
        for position in self.programme.free:
            upto = np.cumsum(self._free_weights(position))
            aims = rng.random(n) * upto[-1]
            choices[:, position] = np.minimum(np.searchsorted(upto, aims, "right"), len(upto) - 1)
        if self._bin > 1:
            choices = choices[self._row_excess[rows].sum(axis=1) <= self.budget]
        return choices


def excesses(found: Programme) -> list[np.ndarray]:
    """What each row of each step costs above the least way to the end, i64 [n_rows]."""
    return [
        step.costs + ahead[step.after] - least[step.before]
        for step, least, ahead in zip(found.steps, found.least, found.least[1:], strict=False)
    ]


def n_bins_for(found: Programme) -> int:
    """How many bins the tables of a programme may have."""
    n_states = 1 + sum(step.n_before for step in found.steps)
    n_rows = 1 + sum(len(step.before) for step in found.steps)
    return max(2, min(BINS_MAX, WORK_MAX // n_rows, ENTRIES_MAX // n_states))


def checked_scores(space: Space, scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Scores of options, f64 [n_options] each, one for each decision.

    Raises:
        ConfigError: another number of them, or one that is not finite.
    """
    found = [np.asarray(each, dtype=np.float64) for each in scores]
    if len(found) != len(space.decisions):
        n_decisions = len(space.decisions)
        raise ConfigError(f"scores must be of {n_decisions} decisions, got {len(found)}")
    for decision, values in zip(space.decisions, found, strict=True):
        where, wanted = f"scores of decision {decision.name!r}", (len(decision.options),)
        if values.shape != wanted:
            raise ConfigError(f"{where} must have shape {wanted}, got {values.shape}")
        if not np.isfinite(values).all():
            raise ConfigError(f"{where} must be finite, got {values}")
    return found


def row_scores(step: Step, scores: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of the scores that are decided in each row of a step, f64 [n_rows]."""
    total = np.zeros(len(step.before))
    for position, chosen, effect in step.scored:
        total += np.where(effect, scores[position][chosen], 0.0)
    return total


def _most_above(found: Programme) -> int:
    return sum(int(excess.max()) for excess in excesses(found))


def _require(space: Space, limit: Limit, least: int, what: str) -> None:
    if least > limit.most:
        raise InfeasibleError(
            f"limit on {limit.measure} must be at least {least} ({Limit(limit.measure, least)}), "
            f"{what} in space {space.name!r}, got {limit.most} ({limit})",
            least,
        )


def require_feasible(space: Space, limit: Limit) -> None:
    """Raise InfeasibleError, with the least cost there is, if no candidate is within `limit`."""
    try:
        _require(space, limit, programme(space, limit.measure).smallest, "the least")
    except TooEntangledError:
        _require(space, limit, smallest_found(space, limit.measure)[1], "the least found")


@lru_cache(maxsize=4)  # each may hold some hundred megabytes
def feasible_set(space: Space, limit: Limit) -> FeasibleSet | MarkovChainSet:
    """The feasible set of a limit, made once (up to some seconds).

    Returns:
        One whose draws are exactly uniform, or, where the space is too entangled for that, one
        that draws by a Markov chain; its `method` says which.

    Raises:
        InfeasibleError: there is no candidate within the limit.
    """
    require_feasible(space, limit)
    try:
        return FeasibleSet(space, limit)
    except TooEntangledError:
        return MarkovChainSet(space, limit)


@lru_cache(maxsize=4)  # each may hold some hundred megabytes
def _all(space: Space) -> FeasibleSet:
    return FeasibleSet(space, None)


def count_all(space: Space) -> int:
    """Number of candidates of a space, exact however many there are."""
    found = programme(space, None)
    ways = np.ones(1, dtype=object)
    for step in reversed(found.steps):
        before = np.zeros(step.n_before, dtype=object)
        np.add.at(before, step.before, ways[step.after])
        ways = before
    return int(ways[0]) * math.prod(int(space.n_options[p]) for p in found.free)


def sample_all(space: Space, rng: np.random.Generator, n: int) -> np.ndarray:
    """Option indices of `n` candidates, each equally likely, i64 [n, n_decisions]."""
    return _all(space).sample_many(rng, n)


def enumerate_all(space: Space) -> np.ndarray:
    """Option indices of every candidate of a small space, i64 [n, n_decisions].

    Raises:
        ConfigError: more than `JOINT_MAX` combinations of options.
    """
    n_joint = math.prod(int(n) for n in space.n_options)
    if n_joint > JOINT_MAX:
        raise ConfigError(f"candidates to enumerate must be at most {JOINT_MAX}, got {n_joint}")
    every = np.indices(tuple(space.n_options)).reshape(len(space.decisions), n_joint).T
    rows: np.ndarray = np.ascontiguousarray(every, dtype=np.int64)
    found: np.ndarray = rows[(space.canonical(rows) == rows).all(axis=1)]
    return found
