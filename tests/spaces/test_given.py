# SPDX-License-Identifier: Apache-2.0
"""Spaces of networks that are there already."""

from __future__ import annotations

import numpy as np
import pytest

import npusim
import spaces
from npusim.errors import ConfigError, FormatError
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from spaces.concrete import concrete_layers, describe
from spaces.costs import cost
from spaces.given import from_network
from spaces.limits import Limit


def small_network(shared: bool = False) -> Network:
    """A convolution, a depthwise one, the convolution again if `shared`, and two outputs."""
    net = NetworkBuilder("small")
    image = net.input((1, 8, 8, 4), scale=0.1)
    weights = net.constant(np.ones((4, 3, 3, 4), np.int8), scales=0.1)
    x = net.op("CONV_2D", image, weights, net.bias([0] * 4, image, weights), scale=0.1, name="a")
    depthwise = net.constant(np.ones((1, 5, 5, 4), np.int8), scales=0.1)
    y = net.op("DEPTHWISE_CONV_2D", x, depthwise, None, scale=0.1, name="b", stride_h=2, stride_w=2)
    z = net.op("CONV_2D", x, weights, None, scale=0.1, name="c") if shared else x
    return net.build(y, net.op("RELU", z, name="image"))


def test_layers_keep_their_sizes_and_search_their_weights():
    network = small_network()
    space = from_network(network, bitwidths=(4, 8), sparsities=(0.5, 1.0))
    assert [decision.name for decision in space.decisions] == [
        "a.bitwidth", "a.sparsity", "b.bitwidth", "b.sparsity"
    ]  # fmt: skip
    full = space.largest()
    assert cost(space, full, "macs") == network.macs
    assert cost(space, full, "size_bits") == 8 * network.n_weights == 8 * (144 + 100)
    half = space.from_options(
        {"a.bitwidth": 4, "a.sparsity": 0.5, "b.bitwidth": 8, "b.sparsity": 1}
    )
    assert cost(space, half, "size_bits") == 3 * 144 + 8 * 100
    sizes = {
        each.layer.name: (each.ofm_height, each.ofm_depth) for each in concrete_layers(space, half)
    }
    assert sizes == {"image#": (8, 4), "a": (8, 4), "b": (4, 4), "image": (8, 4), "outputs": (4, 4)}
    assert "72 of 144 weights" in describe(space, half)


def test_shared_weights_count_once():
    space = from_network(small_network(shared=True))
    assert [each.name for each in space.layers if each.weighted] == ["a", "b"]
    assert cost(space, space.largest(), "macs") == small_network(shared=True).macs


def test_files_are_spaces_by_their_name(tmp_path):
    from npusim.formats import tflite_write

    path = tmp_path / "small.tflite"
    tflite_write.write(small_network(), path)
    space = spaces.get(str(path), bitwidths=(4,))
    assert space.count() == 11**2
    candidate = space.sample_feasible(np.random.default_rng(0), Limit.size("50B"))
    assert cost(space, candidate, "size_bits") <= 400
    with pytest.raises(ConfigError, match=r"must be ones it has.*multiplier"):
        spaces.get(str(path), multiplier=2)
    path.write_bytes(b"nothing")
    with pytest.raises(FormatError):
        spaces.get(str(path))


def test_networks_that_make_no_space_are_refused():
    net = NetworkBuilder("plain")
    image = net.input((1, 8, 8, 4), scale=0.1)
    plain = net.build(net.op("RELU", image))
    with pytest.raises(ConfigError, match="network 'plain' must have weights to be a space"):
        from_network(plain)
    empty = NetworkBuilder("empty")
    constant = empty.constant(np.ones((1, 2, 2, 1), np.int8), scales=0.1)
    with pytest.raises(ConfigError, match="network 'empty' must have an input to be a space"):
        from_network(empty.build(constant))


@pytest.mark.data
def test_real_models_keep_their_weights_and_macs(models_dir):
    names = ("mlperf_vww96_int8", "mlperf_kws_dscnn_int8", "openmv_blazeface128")
    for name in names:
        network = npusim.load(str(models_dir / f"{name}.tflite"))
        space = from_network(network)
        full = space.largest()
        assert cost(space, full, "macs") == network.macs
        assert cost(space, full, "size_bits") == 8 * network.n_weights
        limit = Limit("size_bits", 2 * network.n_weights)
        assert limit.allows(space, space.sample_feasible(np.random.default_rng(0), limit))
