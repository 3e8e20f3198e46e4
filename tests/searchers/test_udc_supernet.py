# SPDX-License-Identifier: Apache-2.0
"""The shared-weight network: at one-hot samples it is the candidate; its masks; many samples."""

from __future__ import annotations

import sys
import weakref
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import spaces
from npusim.errors import ConfigError
from searchers.udc import supernet as supernet_module
from searchers.udc.full_layers import parts
from searchers.udc.sampling import Decisions, Noise, draw
from searchers.udc.supernet import Supernet
from spaces.base import Candidate, Space
from spaces.concrete import concrete_layers
from spaces.digits import digits
from spaces.layers import LayerKind
from spaces.nets import CandidateNet, build

sys.path.insert(0, str(Path(__file__).parents[1] / "spaces"))
from random_spaces import small_spaces

SMALLER = {
    "cifar100": {"multiplier": 1, "depth": 8},
    "imagenet": {"image": 32, "operators": True, "widen": 0.1},
    "tiny_imagenet": {"widen": 0.1, "kernel": 5},
    "super_resolution": {"patch": 16, "features": 8, "shrunk": 6, "activation": "prelu"},
    "nas_bench_201": {"cells": 1},
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def supernet(space: Space, seed: int = 0, **options) -> Supernet:
    net = Supernet(space, torch.Generator().manual_seed(seed), **options)
    with torch.no_grad():  # nothing may be told from defaults
        for parameter in net.parameters():
            if parameter is not net.theta and parameter is not net.log_r:
                parameter.copy_(torch.rand(parameter.shape) + 0.5)
    net.refresh_masks(uniform(space))
    return net


def uniform(space: Space) -> torch.Tensor:
    decisions = Decisions.of(space)
    return decisions.valid / decisions.n_options[:, None].double()


def one_hot(space: Space, candidates: list[Candidate]) -> torch.Tensor:
    choices = torch.tensor([candidate.choices for candidate in candidates], dtype=torch.int64)
    return Decisions.of(space).one_hot(choices)


def images(space: Space, n_mc: int, n: int = 6) -> torch.Tensor:
    height, width, depth = space.image_shape
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n_mc, n, depth, height, width, generator=generator)


def alone(net: Supernet, candidate: Candidate) -> CandidateNet:
    """The candidate as its own network, with the part of the shared weights that it has."""
    space = net.space
    found = build(space, candidate, torch.Generator())
    shared = net.weights(one_hot(space, [candidate]))
    flat = {each.layer.name: (each, w[0]) for each, w in zip(net.full, shared, strict=True)}
    for concrete in concrete_layers(space, candidate):
        layer, key = concrete.layer, concrete.layer.name.replace(".", "/")
        if not concrete.inputs:
            continue
        block = found.blocks[key]
        with torch.no_grad():
            if layer.weighted:
                full, weights = flat[layer.name]
                block.weight.quantizes = False
                block.weight.theta.copy_(part(space, full, weights.view(full.shape), concrete))
                if block.bias is not None:
                    block.bias.copy_(net.biases[key][: concrete.ofm_depth])
            if layer.norm:
                block.norm.weight.copy_(net.norms[key].weight[: concrete.ofm_depth])
                block.norm.bias.copy_(net.norms[key].bias[: concrete.ofm_depth])
            if layer.activation == "prelu":
                block.activate.weight.copy_(net.slopes[key][: concrete.ofm_depth])
    return found


def part(space: Space, full, weights: torch.Tensor, concrete) -> torch.Tensor:
    """The weights of a layer that a candidate has: its channels, the taps of its kernel."""
    ifm_depth = 1 if concrete.layer.kind is LayerKind.DEPTHWISE else concrete.ifm_depth
    weights = weights[: concrete.ofm_depth, :ifm_depth]
    if weights.ndim == 2:
        return weights
    at = []
    for axis, size in enumerate(space.maps[concrete.layer.inputs[0]][0].tolist()):
        stride, largest, kernel = concrete.layer.stride, full.shape[2], concrete.kernel
        if concrete.layer.kind is LayerKind.TRANSPOSE_CONV:
            starts = [max(k - stride, 0) // 2 for k in (largest, kernel)]
        else:
            starts = [max((-(-size // stride) - 1) * stride + k - size, 0) // 2
                      for k in (largest, kernel)]  # fmt: skip
        at.append(slice(starts[0] - starts[1], starts[0] - starts[1] + kernel))
        assert axis < 2
    return weights[:, :, at[0], at[1]]


def assert_is_the_candidate(net: Supernet, candidate: Candidate) -> None:
    x = images(net.space, 1)
    with torch.no_grad():
        found = net(x, one_hot(net.space, [candidate]))[0]
        expected = alone(net, candidate).train()(x[0])
    # batch norm over a handful of values amplifies rounding
    scale = expected.abs().max().clamp(min=1)
    n_channels = expected.shape[1]
    assert (found[:, :n_channels] - expected).abs().max() <= 2e-3 * scale
    assert (found[:, n_channels:] == 0).all()


@pytest.mark.parametrize("name", spaces.names())
def test_at_one_hot_samples_it_is_the_candidate(name):
    space = spaces.get(name, **SMALLER.get(name, {}))
    net, rng = supernet(space), np.random.default_rng(0)
    for candidate in [space.largest(), *(space.sample(rng) for _ in range(4))]:
        assert_is_the_candidate(net, candidate)


@given(space=small_spaces(), seed=st.integers(0, 99))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_at_one_hot_samples_it_is_the_candidate_of_random_spaces(space, seed):
    assume(space.layers[0].resolution is None)
    candidate = space.sample(np.random.default_rng(seed))
    assert_is_the_candidate(supernet(space, seed), candidate)


@pytest.mark.parametrize("name", ["digits", "tiny_imagenet", "super_resolution"])
def test_samples_side_by_side_are_what_each_is_alone(name):
    space = spaces.get(name, **SMALLER.get(name, {}))
    net, decisions = supernet(space), Decisions.of(space)
    log_pi = decisions.log_pi(torch.zeros(decisions.valid.shape).double())
    shape = tuple(decisions.valid.shape)
    noise = Noise.draw(np.random.default_rng(0), 3, shape)
    z = draw(log_pi, noise, temperature=0.66, theta=0.5).requires_grad_()
    x = images(space, 3)
    together = net(x, z)
    weights = torch.rand(together.shape)
    (together * weights).sum().backward()
    gradients = [each.grad.clone() for each in (net.theta, z)]
    net.zero_grad()
    z.grad = None
    for s in range(3):
        one = net(x[s : s + 1], z[s : s + 1])
        torch.testing.assert_close(one[0], together[s], rtol=1e-3, atol=1e-3)
        (one * weights[s : s + 1]).sum().backward()
    for first, second in zip(gradients, (net.theta.grad, z.grad), strict=True):
        assert (first - second).abs().max() <= 2e-3 * second.abs().max()


class TestStatistics:
    def test_of_the_same_images_change_nothing_but_rounding(self):
        net, x = supernet(digits()), images(digits(), 2, 40)
        z = one_hot(net.space, [digits().largest()] * 2)
        with torch.no_grad():
            own, given = net(x, z), net(x, z, net.statistics(x, z))
        # of one value too many: the variance of batch norm is the biased one
        torch.testing.assert_close(given, own, rtol=2e-2, atol=2e-2)

    def test_make_an_image_s_output_its_own(self):
        space = spaces.get("tiny_imagenet", **SMALLER["tiny_imagenet"])
        net, x = supernet(space), images(space, 1)
        z = one_hot(space, [space.largest()])
        found = net.statistics(x, z)
        with torch.no_grad():
            together, alone = net(x, z, found), net(x[:, :1], z, found)
        torch.testing.assert_close(together[:, :1], alone, rtol=1e-3, atol=1e-3)
        assert not torch.allclose(net(x[:, :1], z), alone, rtol=1e-3, atol=1e-3)


class TestParts:
    def test_are_operators_of_choices(self):
        space = spaces.get("tiny_imagenet", **SMALLER["tiny_imagenet"], operators=True)
        found = [[layer.name for layer in part] for part in parts(space)]
        assert [*chain(*found)] == [layer.name for layer in space.layers[1:]]
        assert ["block3.expand", "block3.depthwise", "block3.project", "block3.add"] in found
        assert ["block3.conv", "block3.conv_add"] in found
        assert ["block3"] in found  # the choice

    @given(space=small_spaces())
    @settings(deadline=None, derandomize=True, max_examples=60)
    def test_are_read_by_others_at_their_end_alone(self, space):
        found = parts(space)
        at = {layer.name: i for i, part in enumerate(found) for layer in part}
        assert len(at) == sum(map(len, found)) == len(space.layers) - 1
        ends = {part[-1].name for part in found} | {space.layers[0].name}
        for layer in space.layers[1:]:
            for name in layer.inputs:
                assert at.get(name, -1) <= at[layer.name]
                assert name in ends or at[name] == at[layer.name]

    def test_rematerialized_they_take_less_memory_and_give_the_same(self):
        space = spaces.get("tiny_imagenet", **SMALLER["tiny_imagenet"], operators=True)
        net, x, z = supernet(space, rematerialize=True), images(space, 1), uniform(space)[None]
        found, memory = [], []
        for net.rematerialize in (False, True):
            net.zero_grad()
            held = {}

            def keep(tensor, held=held):
                storage = tensor.untyped_storage()
                held[storage.data_ptr()] = storage.nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                output = net(x, z)
            output.square().sum().backward()
            found.append([output, *(parameter.grad for parameter in net.parameters())])
            memory.append(sum(held.values()))
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
        assert memory[1] < 0.5 * memory[0]

    def test_rematerialized_maps_are_forgotten_in_the_backward_pass_too(self, monkeypatch):
        space = spaces.get("tiny_imagenet", **SMALLER["tiny_imagenet"], operators=True)
        net, made, alive = supernet(space, rematerialize=True), [], []
        finish = supernet_module._Run.finish

        def watched(run, layer, x):
            found = finish(run, layer, x)
            made.append(weakref.ref(found))
            return found

        monkeypatch.setattr(supernet_module._Run, "finish", watched)
        net.theta.register_hook(lambda _: alive.append(sum(ref() is not None for ref in made)))
        net(images(space, 1), uniform(space)[None]).sum().backward()
        assert len(made) > len(space.layers)  # some are made twice
        assert alive[0] <= len(net.parts)


class TestMasks:
    def test_are_nested_and_keep_the_largest_weights_in_exact_number(self):
        space = digits(sparsities=(0.01, 0.3, 0.7))
        net = supernet(space)
        for at, (first, n, *_) in enumerate(net.layout.layers.tolist()):
            level = net.level[first : first + n]
            magnitude = net.theta[first : first + n].detach().abs()
            for k, s in enumerate((0.01, 0.3, 0.7)):
                kept = level <= k
                assert kept.sum() == -(-int(s * 100) * n // 100)
                assert magnitude[kept].min() >= magnitude[~kept].max()
            assert at < 4

    def test_beta_is_the_mean_of_the_largest_pruned_weights(self):
        space = digits(sparsities=(0.2, 1.0))
        net = supernet(space)
        pi = uniform(space)
        pi[space.position("conv2.sparsity")] = torch.tensor([0.25, 0.75, *[0] * 8])
        net.refresh_masks(pi)
        first, n, *_ = net.layout.layers[1].tolist()
        magnitude = net.theta[first : first + n].detach().abs().sort(descending=True).values
        expected = 0.25 * magnitude[-(-n // 5)]
        assert net.beta[1].item() == pytest.approx(expected.item(), rel=1e-6)

    def test_ends_of_ranges_stay_where_they_are(self):
        net = supernet(digits(bitwidths=(4, 8)))
        ends = net.log_r.exp() + net.beta[:, None]
        net.refresh_masks(torch.eye(11).double()[5].expand(len(net.space.decisions), -1))
        kept = net.log_r.exp() + net.beta[:, None]
        assert net.beta.max() > 0
        assert (kept >= ends - 1e-6).all()

    def test_format_q_starts_at_nothing(self):
        assert supernet(digits(), offset=False).beta.abs().max() == 0


def test_refuses_what_it_cannot_train():
    with pytest.raises(ConfigError, match="must have images of one size to be trained as one"):
        supernet(spaces.get("imagenet", resolutions=(160, 224), widen=0.1))
