# SPDX-License-Identifier: Apache-2.0
"""Networks whose weights a compression scheme codes: what if the NPU read its streams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_networks import VARIANTS, RandomNetwork

import npusim
from npusim import schemes
from npusim.cost.energy import energy
from npusim.cost.estimate import estimate
from npusim.cost.lowering import program
from npusim.cost.weight_sizes import ExpectedSizes
from npusim.cost.what_if import Workload
from npusim.errors import ConfigError, UnknownNameError
from npusim.hardware import machine
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.npu import get
from npusim.schemes.decoder_simulation import decode_cycles
from npusim.weights import prune, reorder


def convolution(codes: np.ndarray, side: int = 16) -> Network:
    net = NetworkBuilder("one")
    x = net.input((1, side, side, codes.shape[3]), scale=0.02)
    weights = net.constant(codes.astype(np.int8), scales=0.01)
    bias = net.bias([0] * codes.shape[0], x, weights)
    return net.build(net.op("CONV_2D", x, weights, bias, scale=0.1, name="conv"))


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    dense = np.rint(np.random.default_rng(3).laplace(0, 20, (16, 3, 3, 16))).clip(-127, 127)
    return prune(dense.astype(np.int16), 0.4)


def stream_values(op, codes, npu="ethos-u55-128", core=0):
    return reorder(
        codes, npu, ofm_block_depth=op.block.ofm_block[2], traversal=op.traversal, core=core
    )


def n_fetches(op, side=16):
    return -(-side // op.block.ofm_block[0]) * -(-side // op.block.ofm_block[1])


@pytest.mark.parametrize("name", ["raw", "zvc", "mask-rle-gr", "cabac", "rans", "csr"])
def test_bytes_and_cycles_are_the_schemes(codes, name):
    scheme = schemes.get(name)
    cost = estimate(convolution(codes), scheme=name)
    op = cost.ops[0]
    assert op.depth_slices == (0, 16)
    values = stream_values(op, codes)
    fitted = scheme.fitted(8, values.size // 16)
    padded = -(-fitted.size(values) // 16) * 16
    assert op.weights_encoded_bytes == cost.weights_encoded_bytes == padded
    plain = estimate(convolution(codes))
    assert cost.flash_bytes - plain.flash_bytes == padded - plain.weights_encoded_bytes
    assert op.decode_cycles == n_fetches(op) * decode_cycles(fitted, values).decode_cycles
    assert op.compute_cycles >= op.decode_cycles
    assert cost.scheme == name
    assert cost.scheme_decoder == scheme.decoder
    assert cost.notes[0] == f"what if: weights are coded by scheme '{name}', which no Ethos-U reads"


def test_slow_decoders_set_the_pace(codes):
    fast, slow = (estimate(convolution(codes, 1), scheme=name).ops[0] for name in ("zvc", "cabac"))
    assert slow.bound == "decode"
    assert slow.npu_cycles > 3 * fast.npu_cycles
    assert slow.weights_encoded_bytes < fast.weights_encoded_bytes


def assert_equal_but_for_names(scheme, stream):
    for name in ("total_cycles", "npu_cycles", "flash_bytes", "sram_peak_bytes", "arena"):
        assert getattr(scheme, name) == getattr(stream, name), name
    for ours, theirs in zip(scheme.ops, stream.ops, strict=True):
        assert replace(ours, decode_cycles=0) == replace(theirs, decode_cycles=0)
        assert ours.decode_cycles >= theirs.decode_cycles  # at most 32 weights a cycle


class TestOwnScheme:
    """The NPU's own scheme costs what decoder="stream" says, cut for its most weights a cycle."""

    @pytest.mark.parametrize("seed", range(12))
    def test_random_networks(self, seed):
        network = RandomNetwork(
            np.random.default_rng(seed), [*VARIANTS][seed % len(VARIANTS)]
        ).build()
        for npu in ("ethos-u55-64", "ethos-u65-512"):
            costs = [
                estimate(network, npu, **how)
                for how in ({"scheme": "ethos-u-mlw"}, {"decoder": "stream"})
            ]
            assert_equal_but_for_names(*costs)

    @pytest.mark.data
    @pytest.mark.parametrize("name", ["mlperf_kws_dscnn_int8", "tinyengine_lenet300"])
    def test_real_models(self, name, models_dir):
        network = npusim.load(models_dir / f"{name}.tflite")
        costs = [
            estimate(network, **how) for how in ({"scheme": "ethos-u-mlw"}, {"decoder": "stream"})
        ]
        assert_equal_but_for_names(*costs)

    def test_the_other_encoder(self, codes):
        tight = schemes.get("ethos-u-mlw", encoder="tight")
        cost = estimate(convolution(codes), scheme=tight)
        assert (
            cost.flash_bytes == Workload.of(convolution(codes), "tight").cost(machine()).flash_bytes
        )
        assert cost.notes[0].startswith("what if: weights decode at the rates of scheme 'ethos-u-")


class TestDecoders:
    def test_lanes_share_the_work_and_have_streams_of_their_own(self, codes):
        scheme = schemes.get("huffman")
        four = replace(scheme.decoder, lanes=4)
        one, many = (estimate(convolution(codes), scheme=scheme, decoder=d) for d in (None, four))
        assert many.ops[0].decode_cycles < 0.35 * one.ops[0].decode_cycles
        assert many.flash_bytes > one.flash_bytes  # four tables
        assert many.scheme_decoder.lanes == 4

    def test_cores_have_decoders_of_their_own(self, codes):
        one, two = (
            estimate(convolution(codes), f"ethos-u65-{macs}", scheme="raw") for macs in (256, 512)
        )
        assert 2 * two.ops[0].decode_cycles == one.ops[0].decode_cycles
        assert (one.scheme_decoder.lanes, two.scheme_decoder.lanes) == (1, 2)

    def test_the_compilers_rate_can_be_kept(self, codes):
        cost = estimate(convolution(codes, 1), scheme="cabac", decoder="compiler")
        assert cost.scheme_decoder is None
        assert cost.ops[0].decode_cycles == 0
        own = estimate(convolution(codes, 1), scheme="cabac")
        assert cost.flash_bytes == own.flash_bytes
        assert cost.total_cycles < own.total_cycles

    def test_rates_change_cycles(self, codes):
        twice = replace(schemes.get("cabac").decoder, steps_per_cycle=2.0)
        slow, fast = (
            estimate(convolution(codes), scheme="cabac", decoder=decoder).ops[0].decode_cycles
            for decoder in (None, twice)
        )
        assert slow / 2 <= fast < 0.6 * slow


def test_weights_that_a_scheme_cannot_code_are_said_to_change(codes):
    cost = estimate(convolution(codes), scheme="n-m")
    assert cost.notes[1] == "scheme 'n-m' changes weights that it cannot code"
    assert cost.weights_encoded_bytes < estimate(convolution(codes), scheme="raw").flash_bytes


def test_energy_of_the_decoder_is_that_of_its_gates_and_cycles(codes):
    cost = estimate(convolution(codes), scheme="cabac")
    price = energy(cost).prices["decoder_pj_per_kge_cycle"]
    found = energy(cost).by_component["decode"]
    assert found.value == pytest.approx(price.value * 13.0 * cost.ops[0].decode_cycles)
    fixed = estimate(convolution(codes), scheme="cabac", decoder="compiler")
    assert energy(fixed).events["decoded_pj_per_bit"] > 0
    assert energy(fixed).events.get("decoder_pj_per_kge_cycle", 0) == 0


def test_fewer_bytes_take_less_energy_of_flash(codes):
    raw, zvc = (energy(estimate(convolution(codes, 1), scheme=name)) for name in ("raw", "zvc"))
    assert zvc.by_component["flash"].value < raw.by_component["flash"].value


REFUSED = [
    ({"scheme": "raw", "weights": ExpectedSizes(get("ethos-u55-128"))}, "scheme must not go with"),
    ({"scheme": "raw", "decoder": "stream"}, "decoder 'stream' must not go with scheme 'raw'"),
    ({"decoder": schemes.get("raw").decoder}, "decoder must be that of a scheme to be a record"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_refused(codes, arguments, message):
    with pytest.raises(ConfigError, match=message):
        estimate(convolution(codes), **arguments)


def test_unknown_scheme(codes):
    with pytest.raises(
        UnknownNameError, match=r"scheme must be one of .*, got 'zvcc'; did you mean"
    ):
        estimate(convolution(codes), scheme="zvcc")


def test_weights_must_be_known(codes):
    known = program(convolution(codes))
    ops = [replace(op, weights=replace(op.weights, ohwi=None)) for op in known.ops]
    with pytest.raises(ConfigError, match="weights of 'conv' must be known for exact sizes"):
        estimate(replace(known, ops=tuple(ops)), scheme="zvc")
