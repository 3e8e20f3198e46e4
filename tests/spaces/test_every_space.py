# SPDX-License-Identifier: Apache-2.0
"""What every registered space must do."""

from __future__ import annotations

import json

import numpy as np
import pytest

import spaces
from npusim.errors import FormatError
from spaces.base import WEIGHTED, LayerKind, Space
from spaces.concrete import concrete_layers
from spaces.costs import cost, costs
from spaces.definitions import from_definition
from spaces.feasible import feasible_set
from spaces.limits import Limit

N_DRAWS = 30
SMALLER = {
    "cifar100": {"multiplier": 1},
    "imagenet": {"image": 32, "operators": True, "widen": 0.25},
    "tiny_imagenet": {"widen": 0.25},
    "super_resolution": {"patch": 16},
    "nas_bench_201": {"cells": 1},
}
"""Options that leave a space what it is and make its networks small enough to be built."""


@pytest.mark.parametrize("name", spaces.names())
class TestEverySpace:
    @pytest.fixture
    def space(self, name) -> Space:
        return spaces.get(name, **SMALLER.get(name, {}))

    def draws(self, space: Space) -> list[spaces.Candidate]:
        rng = np.random.default_rng(0)
        return [space.largest(), *(space.sample(rng) for _ in range(N_DRAWS))]

    def test_has_its_registered_name(self, space, name):
        assert space.name == name

    def test_has_its_options_by_default(self, name):
        assert spaces.get(name).limits or name == "nas_bench_201"

    def test_comes_back_from_its_definition(self, space):
        definition = json.loads(json.dumps(space.definition()))
        assert from_definition(definition, space.content_hash) == space
        with pytest.raises(FormatError, match=rf"space {space.name!r} must be of hash 0, got one"):
            from_definition(definition, "0")
        definition["layers"][0]["kind"] = "x"
        with pytest.raises(FormatError, match="definition must be of a space, got ValueError"):
            from_definition(definition, space.content_hash)

    def test_counts_no_more_candidates_than_options_make(self, space):
        n_combinations = np.prod(space.n_options.astype(object))
        assert (space.count() == n_combinations) is (not space.conditions)
        assert 1 < space.count() <= n_combinations

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
        assert feasible_set(space, limit).method == "dynamic programme"
        rng = np.random.default_rng(0)
        candidate = space.sample_feasible(rng, limit)
        for _ in range(N_DRAWS):
            candidate = space.mutate(candidate, rng, limit)
            assert limit.allows(space, candidate)

    def test_the_built_module_has_exactly_the_counts_of_the_size(self, space, request):
        torch = pytest.importorskip("torch", reason="needs torch to build modules")
        from spaces.nets import build

        n_threads = torch.get_num_threads()
        request.addfinalizer(lambda: torch.set_num_threads(n_threads))
        torch.set_num_threads(1)  # small maps: more threads wait for one another
        for candidate in self.draws(space)[:5]:
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
                ifm_depth = 1 if each.layer.kind is LayerKind.DEPTHWISE else each.ifm_depth
                assert weight.theta.shape[:2] == (each.ofm_depth, ifm_depth)
                assert weight.theta.numel() == each.n_weights
                assert int((weight.theta * weight.mask).count_nonzero()) == each.n_nonzero
                deployed = weight().detach()
                assert int(deployed.count_nonzero()) <= each.n_nonzero
                assert len(deployed[deployed != 0].unique()) <= 2**each.bitwidth
            n_parameters = sum(p.numel() for n, p in net.named_parameters() if "log_range" not in n)
            assert n_parameters == cost(space, candidate, "n_parameters")
            height, width, depth = space.image_shape
            with torch.no_grad():
                ofm = net(torch.zeros(2, depth, height, width))
            last = concrete_layers(space, candidate)[-1]
            flat = (last.ofm_depth,)
            shape = (
                flat
                if last.layer.kind is LayerKind.DENSE
                else (*flat, last.ofm_height, last.ofm_width)
            )
            assert ofm.shape == (2, *shape)
