# SPDX-License-Identifier: Apache-2.0
"""What is left of a network's outputs: figures by hand, files of test data, LiteRT."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from npusim.errors import ConfigError, MissingExtraError
from npusim.integer import run
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.npu import get
from npusim.schemes.accuracy import (
    TestData,
    accuracy,
    load_test_data,
    outputs,
    random_test_data,
)
from npusim.schemes.condition import Condition, conditioned
from npusim.schemes.lab import compare

RNG = np.random.default_rng(3)
ONE = np.zeros((1, 6, 6, 3))


def network(name="small") -> Network:
    net, rng = NetworkBuilder(name), np.random.default_rng(1)
    x = net.input((1, 6, 6, 3), scale=0.05, zero_point=7)
    drawn = np.rint(rng.laplace(0, 25, (8, 3, 3, 3))).clip(-127, 127).astype(np.int8)
    kernel = net.constant(drawn, scales=0.01)
    x = net.op("CONV_2D", x, kernel, net.bias([100] * 8, x, kernel), scale=0.1)
    x = net.op("MEAN", x, np.array([1, 2], np.int32), scale=0.05)
    kernel = net.constant(rng.integers(-127, 128, (5, 8)).astype(np.int8), scales=0.01)
    return net.build(net.op("FULLY_CONNECTED", x, kernel, net.bias([0] * 5, x, kernel), scale=0.05))


def saved(path, **arrays) -> str:
    np.savez(path, **arrays)
    return str(path)


class TestFigures:
    def test_by_hand(self):
        before = np.array([[1.0, 2.0], [4.0, 0.0], [3.0, 1.0], [0.0, 5.0]])
        found = np.array([[2.0, 1.0], [4.0, 0.0], [3.0, 1.0], [0.0, 5.0]])
        data = TestData("hand", np.zeros((4, 1)), np.array([1, 0, 0, 0]), before + 1)
        known = accuracy(found, before, data)
        assert known.top1 == 0.5
        assert known.agreement == 0.75
        assert known.output_sqnr_db == pytest.approx(10 * math.log10(56 / 2))
        errors = np.array([[0, 2], [1, 1], [1, 1], [1, 1]])
        expected = 10 * math.log10(5**2 / np.mean(errors**2))
        assert known.target_psnr_db == pytest.approx(expected)
        assert str(known) == (
            "top-1 50.00 %, PSNR 13.01 dB, largest output as before for 75.0 %, outputs' SQNR "
            "14.5 dB of 4 inputs (hand)"
        )

    def test_the_same_outputs(self):
        same = np.array([[1.0, 2.0]])
        known = accuracy(same, same, TestData("x", np.zeros((1, 1))))
        assert (known.top1, known.agreement, known.target_psnr_db) == (None, 1.0, None)
        assert known.output_sqnr_db == math.inf
        assert known.to_json()["output_sqnr_db"] is None
        assert str(known) == "largest output as before for 100.0 % of 1 inputs (x)"


class TestFiles:
    def test_reals_and_codes(self, tmp_path):
        net = network()
        codes = RNG.integers(-128, 128, (4, 6, 6, 3)).astype(np.int64)
        given = load_test_data(saved(tmp_path / "a.npz", images=codes, labels=[0, 1, 2, 4]), net)
        assert (given.source, given.n) == ("a.npz", 4)
        assert given.inputs.dtype == np.int8
        assert given.labels.tolist() == [0, 1, 2, 4]
        assert given.first(2).labels.tolist() == [0, 1]
        assert given.first(9).n == 4
        reals = (codes - 7) * np.float32(0.05)
        other = load_test_data(
            saved(tmp_path / "b.npz", inputs=reals, targets=np.zeros((4, 5))), net
        )
        assert other.targets.shape == (4, 5)
        pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
        np.testing.assert_array_equal(outputs(net, given), outputs(net, other))

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"labels": [1]}, "must hold one of inputs, images, got 0"),
            ({"inputs": ONE, "images": ONE}, "must hold one of inputs, images, got 2"),
            ({"inputs": ONE[0]}, r"must have shape \[n, 6, 6, 3\], got \[6, 6, 3\]"),
            ({"inputs": ONE[:0]}, r"must have shape \[n, 6, 6, 3\], got \[0, 6, 6, 3\]"),
            ({"inputs": ONE.astype(int) + 128}, "codes in -128..127, got 128..128; reals must"),
            ({"inputs": ONE + np.nan}, "must be finite, got NaN or infinity"),
            ({"inputs": ONE.astype(bool)}, "must be numbers, got bool"),
            ({"inputs": ONE, "labels": [0, 0]}, r"must be 1 integers, got int64 of shape \(2,\)"),
            ({"inputs": ONE, "labels": [0.5]}, r"must be 1 integers, got float64 of shape"),
            ({"inputs": ONE, "labels": [5]}, r"labels in .* must be in 0\.\.4, got 5\.\.5"),
            ({"inputs": ONE, "targets": [[0] * 4]}, r"must have shape \(1, 5\), got \(1, 4\)"),
        ],
    )
    def test_refused(self, tmp_path, arrays, message):
        with pytest.raises(ConfigError, match=message):
            load_test_data(saved(tmp_path / "x.npz", **arrays), network())

    def test_no_file_and_no_arrays(self, tmp_path):
        with pytest.raises(ConfigError, match=r"must be readable \(No such file or directory\)"):
            load_test_data(str(tmp_path / "none.npz"), network())
        (tmp_path / "text.npz").write_text("inputs")
        with pytest.raises(ConfigError, match=r"must be arrays that numpy\.savez wrote, got"):
            load_test_data(str(tmp_path / "text.npz"), network())
        np.save(tmp_path / "one.npy", np.zeros(3))
        with pytest.raises(ConfigError, match=r"must be arrays that numpy\.savez wrote, got"):
            load_test_data(str(tmp_path / "one.npy"), network())


class TestRunning:
    @pytest.fixture(autouse=True)
    def _litert(self):
        pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

    def test_outputs_are_the_codes_reals(self):
        net = network()
        data = random_test_data(net, 3)
        told = []
        found = outputs(net, data, told.append)
        assert told == [1, 2, 3]
        for one, real in zip(data.inputs, found, strict=True):
            codes = run(net, [one[None]])[net.outputs[0].index]
            assert np.abs(codes.ravel() * 0.05 - real).max() < 0.0501  # LiteRT's own rounding

    def test_random_inputs_have_a_seed(self):
        net = network()
        first, again, other = (random_test_data(net, 5, seed) for seed in (0, 0, 1))
        assert (first.inputs == again.inputs).all()
        assert (first.inputs != other.inputs).any()
        assert first.source == "random codes, seed 0"

    def test_the_lab_runs_every_condition(self):
        net = network()
        data = random_test_data(net, 20)
        some = [Condition(), Condition(bits=8), Condition(nonzeros=0.2)]
        found = compare(net, names=["raw"], conditions=some, simulate=False, data=data)
        same, close, far = (point.accuracy for point in found.points)
        assert (same.agreement, same.output_sqnr_db) == (1.0, math.inf)
        assert close.output_sqnr_db > far.output_sqnr_db + 10
        changed = conditioned(net, some[2], get("ethos-u55-128"))
        assert far == accuracy(outputs(changed, data), outputs(net, data), data)
        assert found.to_json()["points"][2]["accuracy"] == far.to_json()

    def test_without_a_condition_a_network_is_not_run(self):
        assert compare(network(), names=["raw"], simulate=False).points[0].accuracy is None

    def test_what_cannot_be_run(self):
        net = NetworkBuilder("two")
        a, b = net.input((1, 4), scale=0.1), net.input((1, 4), scale=0.1)
        with pytest.raises(ConfigError, match="'two' must have one input to be run, got 2"):
            random_test_data(net.build(net.op("ADD", a, b, scale=0.1)))
        net = NetworkBuilder("real")
        x = net.input((1, 4), dtype="float32")
        with pytest.raises(ConfigError, match="input of 'real' must be int8, uint8 or int16"):
            random_test_data(net.build(net.op("ADD", x, x, dtype="float32")))

    def test_litert_is_needed(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
        with pytest.raises(MissingExtraError, match=r"^running a model must have the extra \[dep"):
            outputs(network(), random_test_data(network(), 1))
