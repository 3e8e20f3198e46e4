# SPDX-License-Identifier: Apache-2.0
"""UNIDIRECTIONAL_SEQUENCE_LSTM: gates of two products, a sum and an activation, step by step.

The states are variables: steps that compute a new state write it where the old one was. A batch
is computed map by map unless time is the first axis.

Source: [VELA] regor 5.2.0, found by comparing with its compiled operations.
"""

from __future__ import annotations

from npusim.cost.lowering import weights
from npusim.cost.lowering.convolutions import arrange_rows
from npusim.cost.lowering.graph import Graph, Link, Shape, Step, Value, whole


def lower_lstm(graph: Graph, step: Step) -> None:
    """Make an LSTM the steps above."""
    step.remove()
    time_first = bool(step.op is not None and step.op.attributes.get("time_major"))
    n_batches, n_times, _ = step.ifm.shape
    if time_first:
        n_times, n_batches, _ = step.ifm.shape
    for batch in range(1 if time_first else n_batches):
        _Unrolling(graph, step, time_first, n_batches, batch).run(n_times)


class _Unrolling:
    """The steps of one map of a batch, or of all if time is the first axis."""

    def __init__(self, graph: Graph, step: Step, time_first: bool, n_batches: int, batch: int):
        assert step.op is not None
        self.graph, self.step, self.op = graph, step, step.op
        self.time_first, self.n_batches, self.batch = time_first, n_batches, batch
        self.states = {"state": step.inputs[1], "cell_state": step.inputs[2]}
        self.name = ""

    def run(self, n_times: int) -> None:
        """Add the steps of all times."""
        state, cell = self._initial("state"), self._initial("cell_state")
        for time in range(n_times):
            self.name = f"batch {self.batch}, time {time}"
            feature = self._feature(time)
            ingoing = self._gate("input", feature, state)
            forgetting = self._gate("forget", feature, state)
            candidate = self._gate("cell", feature, state)
            cell = self._cell(cell, ingoing, forgetting, candidate)
            outgoing = self._gate("output", feature, state)
            state = self._output(cell, outgoing)
            self._emit(state, time)

    def _add(self, kind: str, inputs: list[Link], ofm: Link, what: str) -> Step:
        suffix = f"{self.name}, {what}" if self.name else what
        return self.graph.add(kind, inputs, ofm, self.step, suffix=suffix)

    def _whole_batch(self) -> bool:
        return self.time_first or self.n_batches == 1

    def _initial(self, role: str) -> Link:
        """The state as it was left; a part of it is copied to itself."""
        link = self.states[role]
        if self.time_first:
            return link
        fresh = self._variable(role)
        offset, part = (0, 0, self.batch, 0), (1, 1, 1, link.shape[-1])
        source, target = link.at(offset, part), whole(fresh).at(offset, part)
        self._add("copy", [source], target, f"initial {role}")
        return target

    def _variable(self, role: str) -> Value:
        """One more name for a state."""
        value = self.states[role].value
        fresh = value.like("")
        fresh.home, fresh.is_variable = value.home, True
        return fresh

    def _feature(self, time: int) -> Link:
        """What a step reads of the ifm."""
        link = self.step.ifm
        if self.time_first:
            return link.at((time, 0, 0), (1, self.n_batches, link.shape[2]))
        return link.at((self.batch, time, 0), (1, 1, link.shape[2]))

    def _gate(self, gate: str, feature: Link, state: Link) -> Link:
        ingoing = self._product(f"weights_{gate}", feature, has_bias=True)
        recurrent = self._product(f"weights_recurrent_{gate}", self._row(state))
        total = Link(ingoing.value.like("_sum"), ingoing.shape)
        self._add("add", [ingoing, recurrent], total, f"{gate} sum")
        active = Link(total.value.like(""), total.shape)
        self._add("activation", [total], active, gate)
        if gate == "cell":
            return active
        clamp = self._add("activation", [active], active, f"{gate} limits")
        clamp.attributes["clamps"] = True
        return active

    def _row(self, state: Link) -> Link:
        """The part of a state that belongs to the map of the batch."""
        if self._whole_batch():
            return whole(state.value)
        link = self.states["state"]
        return Link(
            state.value,
            link.shape,
            state.quantization,
            (0, 0, self.batch, 0),
            (1, 1, 1, link.shape[-1]),
        )

    def _product(self, role: str, link: Link, *, has_bias: bool = False) -> Link:
        tensor = self.op.input(role)
        assert tensor is not None
        shape = (*link.taken[:-1], tensor.shape[0])
        ofm = Link(Value(f"{self.op.name}_{self.name}_{role}", shape, "int16"), shape)
        what = role.removeprefix("weights_") + " product"
        made = self._add("fully_connected", [link], ofm, what)
        made.weights = weights.product(self.op, tensor, made.ifm_bits)
        made.has_scales = True
        arrange_rows(made)
        return Link(ofm.value, shape)

    def _written(self, step_shape: Shape, role: str) -> Link:
        """A state that is to be written."""
        fresh = self._variable(role)
        link = whole(fresh)
        if self._whole_batch():
            return link
        return link.at((0, 0, self.batch, 0), (1,) * (4 - len(step_shape)) + step_shape)

    def _cell(self, cell: Link, ingoing: Link, forgetting: Link, candidate: Link) -> Link:
        kept = Link(
            Value(f"{self.op.name}_{self.name}_kept", forgetting.shape, "int16"), forgetting.shape
        )
        source = cell.seen(forgetting.shape)
        source.offset = source.part = None
        if not self._whole_batch():
            source = Link(
                cell.value,
                self.states["cell_state"].shape,
                None,
                (0, 0, self.batch, 0),
                (1, 1, 1, forgetting.shape[-1]),
            )
        self._add("mul", [source, forgetting], kept, "kept")
        added = Link(candidate.value.like("_added"), candidate.shape)
        self._add("mul", [candidate, ingoing], added, "added")
        target = self._written(kept.shape, "cell_state")
        operands = [link.seen(target.shape) for link in (kept, added)]
        self._add("add", operands, target, "cell state")
        if self.op.attributes.get("cell_clip"):
            clamp = self._add("activation", [target], target, "cell limits")
            clamp.attributes["clamps"] = True
        return target

    def _output(self, cell: Link, outgoing: Link) -> Link:
        shape = cell.taken
        squashed = Link(Value(f"{self.op.name}_{self.name}_squashed", shape, "int16"), shape)
        self._add("activation", [cell], squashed, "squashed")
        target = self._written(shape, "state")
        self._add("mul", [squashed, outgoing], target, "state")
        return target

    def _emit(self, state: Link, time: int) -> None:
        """Copy a new state into the ofm."""
        ofm, depth = self.step.ofm, state.shape[-1]
        source = state
        shape = (1,) * (4 - len(ofm.shape)) + ofm.shape
        if self.time_first:
            offset, part = (0, time, 0, 0), (1, 1, self.n_batches, depth)
        else:
            offset, part = (0, self.batch, time, 0), (1, 1, 1, depth)
        self._add("copy", [source], ofm.seen(shape).at(offset, part), "output")
