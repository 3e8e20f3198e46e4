# SPDX-License-Identifier: Apache-2.0
"""What every registered space must do."""

from __future__ import annotations

import numpy as np
import pytest

import spaces
from spaces.base import WEIGHTED, Space
from spaces.concrete import concrete_layers
from spaces.costs import cost, costs
from spaces.limits import Limit

N_DRAWS = 30


@pytest.mark.parametrize("name", spaces.names())
class TestEverySpace:
    @pytest.fixture
    def space(self, name) -> Space:
        return spaces.get(name)

    def draws(self, space: Space) -> list[spaces.Candidate]:
        rng = np.random.default_rng(0)
        return [space.largest(), *(space.sample(rng) for _ in range(N_DRAWS))]

    def test_has_its_registered_name(self, space, name):
        assert space.name == name

    def test_count_is_the_product_of_its_options(self, space):
        assert space.count() == np.prod(space.n_options.astype(object))

    def test_encodings_round_trip(self, space):
        for candidate in self.draws(space):
            assert space.decode(space.encode(candidate)) == candidate
            assert space.from_json(space.to_json(candidate)) == candidate
            assert space.from_options(space.options_of(candidate)) == candidate

    def test_costs_of_many_equal_costs_of_one_and_the_concrete_layers(self, space):
        drawn = self.draws(space)
        found = costs(space, np.array([each.choices for each in drawn]), "macs")
        for candidate, macs in zip(drawn, found, strict=True):
            assert macs == cost(space, candidate, "macs")
            assert macs == sum(layer.macs for layer in concrete_layers(space, candidate))

    def test_feasible_draws_are_feasible(self, space):
        sizes = [cost(space, each, "size_bits") for each in self.draws(space)]
        limit = Limit("size_bits", int(np.median(sizes)))
        rng = np.random.default_rng(0)
        candidate = space.sample_feasible(rng, limit)
        for _ in range(N_DRAWS):
            candidate = space.mutate(candidate, rng, limit)
            assert limit.allows(space, candidate)

    def test_the_built_module_has_exactly_the_counts_of_the_size(self, space):
        torch = pytest.importorskip("torch", reason="needs torch to build modules")
        from spaces.build_torch import build

        for candidate in self.draws(space)[:10]:
            net = build(space, candidate, torch.Generator().manual_seed(0))
            net.prune(1.0)
            weights = net.weights()
            found = [
                each for each in concrete_layers(space, candidate) if each.layer.kind in WEIGHTED
            ]
            assert list(weights) == [each.layer.name for each in found]
            for each in found:
                weight = weights[each.layer.name]
                assert weight.bitwidth == each.bitwidth
                assert weight.theta.shape[:2] == (each.ofm_depth, each.ifm_depth)
                assert weight.theta.numel() == each.n_weights
                assert int((weight.theta * weight.mask).count_nonzero()) == each.n_nonzero
                deployed = weight().detach()
                assert int(deployed.count_nonzero()) <= each.n_nonzero
                assert len(deployed[deployed != 0].unique()) <= 2**each.bitwidth
            height, width, depth = space.image_shape
            ofm = net(torch.zeros(2, depth, height, width))
            last = concrete_layers(space, candidate)[-1]
            assert ofm.shape == (2, last.ofm_depth)
