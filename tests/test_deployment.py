# SPDX-License-Identifier: Apache-2.0
"""Networks deployed and measured: agreement of codes, sizes beside the compiler's, refusals."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from npusim import deployment
from npusim.deployment import Agreement, integer_outputs, litert_outputs, measure, random_samples
from npusim.errors import ConfigError, FormatError, MissingExtraError, UnknownNameError
from npusim.formats.tflite_write import to_bytes
from npusim.hardware import machine
from npusim.litert import LiteRt
from npusim.network_builder import NetworkBuilder
from npusim.report import deployments as report
from npusim.report.deployments import runtime_table


def small(final="RESHAPE", bits=4):
    rng = np.random.default_rng(0)
    net = NetworkBuilder("small")
    x = net.input((1, 8, 8, 16), scale=0.05, zero_point=3)
    top = (1 << (bits - 1)) - 1
    codes = rng.integers(-top, top + 1, (32, 3, 3, 16)).astype(np.int8)
    codes[rng.random(codes.shape) < 0.5] = 0
    weights = net.constant(codes, scales=0.01)
    x = net.op("CONV_2D", x, weights, net.bias([0] * 32, x, weights), scale=0.3)
    if final == "RESHAPE":
        return net.build(net.op("RESHAPE", x, np.array([1, 2048], np.int32), shape=(1, 2048)))
    return net.build(net.op(final, x, scale=16 / 256, zero_point=127))


class TestAgreement:
    def test_counts_codes_of_all_outputs_and_samples(self):
        ours = [[np.array([1, 2]), np.array([3])], [np.array([-128, 5]), np.array([0])]]
        theirs = [[np.array([1, 3]), np.array([3])], [np.array([127, 5]), np.array([0])]]
        found = Agreement.of(ours, theirs)
        assert (found.n_codes, found.n_equal, found.largest) == (6, 4, 255)
        assert found.share == pytest.approx(4 / 6)
        assert found.to_json() == {"codes": 6, "equal": 4, "largest_difference": 255}


class TestRuntimes:
    def test_our_integers_are_litert_s(self):
        pytest.importorskip("ai_edge_litert")
        network = small()
        samples = random_samples(network, 3)
        calls = []
        found = deployment.runtimes(
            network,
            samples,
            score=lambda outputs: {"mean": float(np.mean([codes for (codes,) in outputs]))},
            torch_outputs=integer_outputs(network, samples, "tflm"),
            done=lambda: calls.append(1),
        )
        assert len(calls) == deployment.n_inferences(3) == 18
        assert [each.name for each in found[:2]] == ["npusim, litert_ref", "LiteRT, litert_ref"]
        assert [each.to_integers is None for each in found] == [True, False] * 3
        assert {each.to_integers.largest for each in found[1::2]} == {0}
        assert {each.to_torch.n_codes for each in found} == {3 * 2048}
        assert found[0].scores == found[1].scores
        assert found[1].to_json()["integers"]["equal"] == 3 * 2048

    def test_without_litert_our_integers_are_run_alone(self, monkeypatch):
        monkeypatch.setattr(deployment, "has_litert", lambda: False)
        network = small()
        found = deployment.runtimes(network, random_samples(network, 1))
        assert [each.name for each in found] == [
            f"npusim, {profile}" for profile in deployment.PROFILES
        ]
        assert runtime_table(found, 1, "samples").row_count == 0


class TestMeasures:
    def test_are_the_compiler_s(self):
        pytest.importorskip("ethosu.regor", reason="ethos-u-vela is the oracle")
        found = measure(small(), machine("ethos-u55-64"))
        compiled = found.compiled
        assert (compiled.n_cpu_ops, compiled.cpu_kinds) == (0, ())
        assert found.stream_bytes == compiled.weights_encoded_bytes
        assert found.flash_bytes == compiled.flash_bytes
        assert found.total_cycles == compiled.total_cycles
        assert found.eq4_bytes == pytest.approx(found.stream_bytes, rel=0.12)  # of few weights
        assert found.entropy_bytes < found.tight_bytes <= found.stream_bytes
        assert found.n_weights == 32 * 9 * 16
        record = report.to_json(found, [], 0, "none")
        assert record["vela_flash_bytes"] == record["flash_bytes"]
        titles = report.size_table(found).columns[0].cells
        assert next(iter(titles)) == "eq. (4), ≤ 8 bits"

    def test_leave_out_a_compiler_that_is_not_there(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ethosu", None)
        monkeypatch.setattr(deployment, "find_spec", lambda name: None)
        found = measure(small(), machine(), eq4_bytes=1234)
        assert found.compiled is None
        assert found.eq4_bytes == 1234
        assert found.to_json()["vela_total_cycles"] is None

    def test_refuse_operations_of_the_cpu_by_name(self):
        message = (
            r"all operations of 'small' must run on the NPU, got 1 .* LOG_SOFTMAX 'log_softmax'"
        )
        with pytest.raises(ConfigError, match=message):
            measure(small("LOG_SOFTMAX"), machine())


class TestRefusals:
    def test_of_litert(self):
        pytest.importorskip("ai_edge_litert")
        with pytest.raises(UnknownNameError, match="profile of LiteRT must be one of"):
            LiteRt(to_bytes(small()), "tflm")
        with pytest.raises(FormatError, match=r"model must be one that LiteRT \(litert_ref\) runs"):
            LiteRt(b"no model")
        made = LiteRt(to_bytes(small()))
        with pytest.raises(ConfigError, match="inputs must be 1 arrays, got 0"):
            made([])
        with pytest.raises(ConfigError, match="inputs must fit the model"):
            made([np.zeros((1, 2), np.int8)])

    def test_without_litert(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        with pytest.raises(MissingExtraError, match=r"LiteRT must have the extra \[deploy\]"):
            litert_outputs(small(), [])

    def test_of_inputs_that_cannot_be_drawn(self):
        net = NetworkBuilder("text")
        x = net.input((1,), "string")
        network = net.build(net.op("RESHAPE", x, shape=(1,), new_shape=(1,)))
        with pytest.raises(ConfigError, match="inputs must be numbers to be drawn, got string"):
            random_samples(network, 1)


def test_floats_are_drawn_from_a_normal_distribution():
    net = NetworkBuilder("floats")
    x = net.input((10_000,), "float32")
    network = net.build(net.op("QUANTIZE", x, scale=0.1, dtype="int8"))
    ((drawn,),) = random_samples(network, 1)
    assert drawn.dtype == np.float32
    assert (drawn.mean(), drawn.std()) == pytest.approx((0, 1), abs=0.05)
