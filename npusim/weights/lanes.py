# SPDX-License-Identifier: Apache-2.0
"""The inner steps of Arm's parameter searches, sixteen states at once.

Each walks a block of weight indices with one vector of costs a weight, relative to a state that is
assumed to stay the best (legacy) or active (regor). They are written as LLVM vector code, which
every target lowers to what it has (AVX2, SSE2, NEON ...): left to itself the compiler keeps the
sixteen sums in memory, which is twenty times slower. The functions whose
names end in ``_python`` say the same in Python; they also serve where Numba is switched off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
SWITCH = 40
"""Bits that a change of state must save."""
UNCODABLE = 40
"""What regor charges for an index a state cannot code; no code is that long."""
FAR = 10000
"""More than any cost relative to the best state."""


def legacy_walk_python(
    indices: Any, first: int, last: int, costs: Any, relative: Any, extremes: Any, best: int
) -> None:
    """Add the costs of ``indices[first:last]`` to `relative`, the states' cost less that of `best`.

    ``extremes[0]`` becomes the least value each state reached, ``extremes[1]`` the greatest it had
    before an index. All but `indices` are i16 with 16 lanes.
    """
    extremes[0], extremes[1] = FAR, 0
    for i in range(first, last):
        row = costs[indices[i]].astype(np.int64)
        extremes[1] = np.maximum(extremes[1], relative)
        relative[:] = np.minimum(relative, SWITCH) + row - row[best]
        extremes[0] = np.minimum(extremes[0], relative)


def legacy_turns_python(
    indices: Any, first: int, last: int, costs: Any, relative: Any, best: int, turns: Any
) -> int:
    """As `legacy_walk_python`, but relative to the state that is the best before every index.

    ``turns[j]`` becomes that state and, shifted left by four, a bit for each state that switches
    to it at index ``first + j``; i32. Returns the best state after the last index.
    """
    for i in range(first, last):
        switching = sum(1 << s for s in range(LANES) if relative[s] > SWITCH)
        turns[i - first] = best | switching << 4
        relative[:] = np.minimum(relative, SWITCH) + costs[indices[i]].astype(np.int64)
        best = int(relative.argmin())
        relative -= relative.min()
    return best


def regor_walk_python(
    indices: Any, first: int, last: int, costs: Any, relative: Any, uncodable: Any, lowest: Any,
    active: int,
) -> int:  # fmt: skip
    """Add the costs of ``indices[first:last]`` to `relative`, the cost less that of `active`.

    A state that can code again after it could not starts from the active one's cost. `uncodable`
    holds the last index each state could not code; `lowest` becomes the least difference, over
    the indices a state could code, between its cost and the active one's before that index.
    All but `indices` are i32 with 16 lanes. Returns the active state's highest cost.
    """
    lowest[:] = 1 << 30
    highest = 0
    for i in range(first, last):
        row = costs[indices[i]]
        base = int(row[active])
        refused = row == UNCODABLE
        start = np.where((uncodable == i - 1) & ~refused, 0, relative)
        relative[:] = start + row - base
        uncodable[refused] = i
        lowest[:] = np.where(refused, lowest, np.minimum(lowest, relative + base))
        highest = max(highest, base)
    return highest


def _data(context: Any, builder: Any, signature: Any, args: Any) -> list[Any]:
    """Arrays as pointers to their data, scalars as they are."""
    return [
        context.make_array(kind)(context, builder, arg).data
        if isinstance(kind, types.Array)
        else arg
        for kind, arg in zip(signature.args, args, strict=True)
    ]


def _splat(builder: Any, scalar: Any) -> Any:
    """Vector of sixteen times the same scalar."""
    vector = ir.VectorType(scalar.type, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    lane = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(lane, undefined, zeros)


def _most(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _least(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


class _Walk:
    """Code that both walks share: vector variables, the loop over indices, the row of costs."""

    def __init__(self, builder: Any, element_bits: int):
        self.builder = builder
        self.element = ir.IntType(element_bits)
        self.vector = ir.VectorType(self.element, LANES)
        self.align = element_bits // 8

    def constant(self, value: int) -> Any:
        return ir.Constant(self.vector, [value] * LANES)

    def load(self, pointer: Any) -> Any:
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        return self.builder.load(pointer, align=self.align)

    def store(self, value: Any, pointer: Any) -> None:
        pointer = self.builder.bitcast(pointer, self.vector.as_pointer())
        self.builder.store(value, pointer, align=self.align)

    def variable(self, initial: Any) -> Any:
        slot = cgutils.alloca_once(self.builder, initial.type)
        self.builder.store(initial, slot)
        return slot

    def loop(self, first: Any, last: Any) -> Any:
        i64 = ir.IntType(64)
        return cgutils.for_range_slice(self.builder, first, last, ir.Constant(i64, 1), i64)

    def costs_of(self, indices: Any, i: Any, costs: Any, state: Any) -> tuple[Any, Any]:
        """Row of costs of ``indices[i]`` and, in it, the cost of `state`."""
        builder, i64 = self.builder, ir.IntType(64)
        index = builder.sext(builder.load(builder.gep(indices, [i])), i64)
        row = builder.gep(costs, [builder.mul(index, ir.Constant(i64, LANES))])
        return self.load(row), builder.load(builder.gep(row, [state]))


@intrinsic
def _legacy_walk(typingctx, indices, first, last, costs, relative, extremes, best):  # type: ignore[no-untyped-def]
    signature = types.void(indices, first, last, costs, relative, extremes, best)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        indices, first, last, costs, relative, extremes, best = _data(
            context, builder, signature, args
        )
        walk = _Walk(builder, 16)
        sums = walk.variable(walk.load(relative))
        least = walk.variable(walk.constant(FAR))
        most = walk.variable(walk.constant(0))
        with walk.loop(first, last) as (i, _):
            row, base = walk.costs_of(indices, i, costs, best)
            total = builder.load(sums)
            builder.store(_most(builder, total, builder.load(most)), most)
            total = _least(builder, total, walk.constant(SWITCH))
            total = builder.add(total, builder.sub(row, _splat(builder, base)))
            builder.store(total, sums)
            builder.store(_least(builder, total, builder.load(least)), least)
        walk.store(builder.load(sums), relative)
        walk.store(builder.load(least), extremes)
        walk.store(builder.load(most), builder.gep(extremes, [ir.Constant(ir.IntType(64), LANES)]))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _legacy_turns(typingctx, indices, first, last, costs, relative, best, turns):  # type: ignore[no-untyped-def]
    signature = types.int64(indices, first, last, costs, relative, best, turns)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        indices, first, last, costs, relative, best, turns = _data(
            context, builder, signature, args
        )
        walk = _Walk(builder, 16)
        i16, i32 = ir.IntType(16), ir.IntType(32)
        minimum = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(i16, [walk.vector]), "llvm.vector.reduce.smin.v16i16"
        )
        sums = walk.variable(walk.load(relative))
        winner = walk.variable(builder.trunc(best, i32))
        with walk.loop(first, last) as (i, _):
            row, _base = walk.costs_of(indices, i, costs, ir.Constant(ir.IntType(64), 0))
            total = builder.load(sums)
            switching = builder.icmp_signed(">", total, walk.constant(SWITCH))
            switching = builder.zext(builder.bitcast(switching, i16), i32)
            switching = builder.shl(switching, ir.Constant(i32, 4))
            turn = builder.or_(switching, builder.load(winner))
            builder.store(turn, builder.gep(turns, [builder.sub(i, first)]))
            total = builder.add(_least(builder, total, walk.constant(SWITCH)), row)
            low = _splat(builder, builder.call(minimum, [total]))
            at_low = builder.bitcast(builder.icmp_signed("==", total, low), i16)
            lowest_state = builder.cttz(at_low, ir.Constant(ir.IntType(1), 1))
            builder.store(builder.zext(lowest_state, i32), winner)
            builder.store(builder.sub(total, low), sums)
        walk.store(builder.load(sums), relative)
        return builder.sext(builder.load(winner), ir.IntType(64))

    return signature, codegen


@intrinsic
def _regor_walk(typingctx, indices, first, last, costs, relative, uncodable, lowest, active):  # type: ignore[no-untyped-def]
    signature = types.int64(indices, first, last, costs, relative, uncodable, lowest, active)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        indices, first, last, costs, relative, uncodable, lowest, active = _data(
            context, builder, signature, args
        )
        walk = _Walk(builder, 32)
        i32 = walk.element
        sums = walk.variable(walk.load(relative))
        refusals = walk.variable(walk.load(uncodable))
        least = walk.variable(walk.constant(1 << 30))
        highest = walk.variable(ir.Constant(i32, 0))
        with walk.loop(first, last) as (i, _):
            row, base = walk.costs_of(indices, i, costs, active)
            now = builder.trunc(i, i32)
            refused = builder.icmp_signed("==", row, walk.constant(UNCODABLE))
            before = _splat(builder, builder.sub(now, ir.Constant(i32, 1)))
            again = builder.icmp_signed("==", builder.load(refusals), before)
            again = builder.and_(again, builder.not_(refused))
            start = builder.select(again, walk.constant(0), builder.load(sums))
            with_base = builder.add(start, row)
            builder.store(builder.sub(with_base, _splat(builder, base)), sums)
            updated = builder.select(refused, _splat(builder, now), builder.load(refusals))
            builder.store(updated, refusals)
            candidate = builder.select(refused, walk.constant(1 << 30), with_base)
            builder.store(_least(builder, candidate, builder.load(least)), least)
            top = builder.load(highest)
            top = builder.select(builder.icmp_signed(">", base, top), base, top)
            builder.store(top, highest)
        walk.store(builder.load(sums), relative)
        walk.store(builder.load(refusals), uncodable)
        walk.store(builder.load(least), lowest)
        return builder.sext(builder.load(highest), ir.IntType(64))

    return signature, codegen


legacy_walk = legacy_walk_python if config.DISABLE_JIT else _legacy_walk
legacy_turns = legacy_turns_python if config.DISABLE_JIT else _legacy_turns
regor_walk = regor_walk_python if config.DISABLE_JIT else _regor_walk
