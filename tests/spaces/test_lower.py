# SPDX-License-Identifier: Apache-2.0
"""Candidates as networks and programmes of the cost model."""

from __future__ import annotations

import numpy as np
import pytest
from test_every_space import SMALLER

import spaces
from npusim.errors import ConfigError
from spaces.concrete import concrete_layers
from spaces.costs import cost
from spaces.lower import lower


@pytest.mark.parametrize("name", spaces.names())
class TestEverySpace:
    def test_networks_have_the_costs_of_their_candidates(self, name):
        space = spaces.get(name, **SMALLER.get(name, {}))
        rng = np.random.default_rng(0)
        for candidate in (space.largest(), *(space.sample(rng) for _ in range(4))):
            lowered = lower(space, candidate)
            assert sum(lowered.weight_bits.values()) == cost(space, candidate, "size_bits")
            searched = [op for op in lowered.network.ops if op.name in lowered.weight_bits]
            assert sum(op.macs for op in searched) == cost(space, candidate, "macs")
            weights = {op.name: op.n_weights for op in searched}
            found = concrete_layers(space, candidate)
            assert weights == {e.layer.name: e.n_weights for e in found if e.n_weights}
            last = found[-1]
            shape = lowered.network.outputs[0].shape
            assert np.prod(shape) == last.ofm_height * last.ofm_width * last.ofm_depth

    def test_everything_runs_on_the_npu_and_weights_are_shapes_alone(self, name):
        space = spaces.get(name, **SMALLER.get(name, {}))
        lowered = lower(space, space.sample(np.random.default_rng(1)))
        assert [op.obstacle for op in lowered.program.ops if not op.on_npu] == []
        ours = [
            op
            for op in lowered.program.ops
            if op.weights is not None and op.source is not None
            and op.source.name in lowered.weight_bits
        ]  # fmt: skip
        assert {op.source.name for op in ours} == set(lowered.weight_bits)
        assert all(op.weights.ohwi is None for op in ours)


def test_weights_share_one_array():
    space = spaces.get("cifar100")
    network = lower(space, space.largest()).network
    assert network.n_weights == 26_794_720
    weights = [t.data for t in network.tensors if t.name.startswith("weights")]
    assert len(weights) == 20
    assert all(np.shares_memory(weights[0], each) for each in weights)


def test_activations_that_no_operation_has_inside_follow_it():
    space = spaces.get("super_resolution", activation="prelu", layers=1)
    kinds = [op.kind for op in lower(space, space.largest()).network.ops]
    assert kinds.count("PRELU") == kinds.count("CONV_2D") - 1  # none after the head


def test_spaces_of_networks_are_refused():
    from test_given import small_network

    from spaces.given import from_network

    space = from_network(small_network())
    with pytest.raises(ConfigError, match="must not be one of a network to be lowered, got given"):
        lower(space, space.largest())
