# SPDX-License-Identifier: Apache-2.0
"""Comparisons of schemes on networks: sums of layers, conditions, errors, the front."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from npusim import schemes
from npusim.cost.estimate import estimate
from npusim.cost.layers import weight_layers
from npusim.errors import ConfigError, MissingExtraError, UnknownNameError
from npusim.formats import load
from npusim.hardware import machine
from npusim.network_builder import NetworkBuilder
from npusim.npu import get
from npusim.report.schemes import comparison_rows
from npusim.schemes.bounds import bounds
from npusim.schemes.condition import Condition, conditions
from npusim.schemes.decoder_simulation import decode_cycles
from npusim.schemes.lab import Inference, SchemeResult, compare, on_front
from npusim.weights import cluster, encoded_size, n_of_m, prune, reorder_slices, weight_error

NPU = get("ethos-u55-128")
SOME = ("raw", "mask-gr", "n-m", "ethos-u-mlw")


def network(seed=0, dtype=np.int8):
    rng = np.random.default_rng(seed)
    net = NetworkBuilder("net")
    x = net.input((1, 8, 8, 3), scale=0.02)
    for depth in (24, 8):
        shape = (depth, 3, 3, x.shape[3])
        drawn = np.rint(rng.laplace(0, 20, shape)).clip(-127, 127)
        weights = net.constant(drawn.astype(dtype), scales=0.01)
        x = net.op("CONV_2D", x, weights, net.bias([0] * depth, x, weights), scale=0.1)
    return net.build(x)


def coded(weights, layer):
    parts = reorder_slices(weights, None, NPU, **layer.reorder_options)
    return np.concatenate([part.values for part in parts])


def result(point, name):
    return next(found for found in point.results if found.scheme == name)


class TestSizes:
    def test_are_those_of_the_layers(self):
        net = network()
        layers = weight_layers(net, NPU)
        values = [coded(layer.weights_ohwi(), layer) for layer in layers]
        (point,) = compare(net, names=SOME).points
        assert result(point, "raw").n_bytes == sum(map(len, values)) == point.n_coded
        mlw = result(point, "ethos-u-mlw")
        assert mlw.n_bytes == sum(encoded_size(v) for v in values)
        scheme = schemes.get("ethos-u-mlw")
        assert mlw.cycles == sum(decode_cycles(scheme, v).cycles for v in values)
        assert mlw.weights_per_cycle == pytest.approx(point.n_coded / mlw.cycles)
        assert point.n_weights == sum(layer.weights_ohwi().size for layer in layers)
        assert mlw.bits_per_weight == pytest.approx(8 * mlw.n_bytes / point.n_weights)
        for name, n_bytes in point.n_bytes.items():
            assert n_bytes == sum(bounds(v, 8)[name] for v in values)

    def test_all_schemes_by_default_and_on_any_npu(self):
        pytest.importorskip("zstandard", reason="the extra [schemes] is not installed")
        found = compare(network(), "ethos-u55-32")
        assert [r.scheme for r in found.points[0].results] == schemes.names()
        assert (found.model, found.npu, found.left_out) == ("net", "ethos-u55-32", {})

    def test_what_is_not_installed_is_left_out_unless_asked_for(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
        found = compare(network(), simulate=False)
        assert "zstd" not in [r.scheme for r in found.points[0].results]
        assert "npusim[schemes]" in found.left_out["zstd"]
        with pytest.raises(MissingExtraError, match=r"^scheme 'zstd' must have the extra"):
            compare(network(), names=["zstd"])

    def test_simulation_is_left_out_on_demand(self):
        (point,) = compare(network(), names=SOME, simulate=False).points
        simulated = compare(network(), names=SOME).points[0]
        for plain, full in zip(point.results, simulated.results, strict=True):
            assert plain.n_bytes == full.n_bytes
            assert plain.cycles is plain.weights_per_cycle is plain.stall_cycles is None

    def test_lanes_fifo_and_memory_have_an_effect(self):
        def cycles(**options):
            (point,) = compare(network(), names=["mask-gr"], **options).points
            return point.results[0].cycles, point.results[0].decoder.lanes

        plain = cycles()
        assert cycles(lanes=2)[0] < plain[0]
        assert cycles(lanes=2)[1] == 2
        slow = cycles(dma_bytes_per_cycle=0.5)
        assert slow[0] > plain[0]
        assert cycles(dma_bytes_per_cycle=1.5, fifo=8)[0] > cycles(dma_bytes_per_cycle=1.5)[0]

    def test_given_parameters_are_kept_and_named(self):
        (point,) = compare(network(), names=["rans:states=8", "raw"], simulate=False).points
        assert [r.scheme for r in point.results] == ["rans:states=8", "raw"]
        assert point.results[0].decoder.steps_per_cycle == 8
        with pytest.raises(ConfigError, match=r"^weights for scheme 'zvc' must be in -4\.\.3, got"):
            compare(network(), names=["zvc:bits=3"], simulate=False)

    def test_progress_goes_up_to_all(self):
        told = []
        compare(network(), names=["raw"], conditions=conditions([1, 0.5]), done=told.append)
        assert told == sorted(told)
        assert (len(told), told[-1]) == (4, 1.0)  # two layers, two conditions

    def test_inferences_are_costed_on_a_machine(self):
        found = compare(network(), machine("ethos-u55-64"), names=["raw", "zvc"], lanes=2)
        assert (found.npu, found.where) == (
            *("ethos-u55-64", "Ethos_U55_High_End_Embedded, Shared_Sram"),
        )
        for each in found.points[0].results:
            decoder = dataclasses.replace(schemes.get(each.scheme).decoder, lanes=2)
            cost = estimate(network(), "ethos-u55-64", scheme=each.scheme, decoder=decoder)
            assert each.inference == Inference.of(cost)
            assert each.inference.total_cycles == cost.total_cycles
        assert compare(network(), names=["raw"]).points[0].results[0].inference is None

    def test_fewer_bits_cost_less_where_a_scheme_stores_them(self):
        points = compare(
            network(), machine(), names=["raw"], conditions=conditions(bits=[None, 4])
        ).points
        wide, narrow = (point.results[0].inference.flash_bytes for point in points)
        assert narrow < 0.6 * wide


class TestConditions:
    def test_weights_are_pruned_requantized_and_clustered(self):
        net = network()
        layers = weight_layers(net, NPU)
        points = compare(net, names=["raw"], conditions=conditions([1, 0.5], [None, 4])).points
        assert [r.n_bytes for p in points for r in p.results] == [
            *(n := points[0].n_coded, n // 2, n, n // 2)  # 4 bits take half
        ]
        pruned = [prune(layer.weights_ohwi(), 0.5) for layer in layers]
        assert points[2].n_zeros == sum(np.count_nonzero(w == 0) for w in pruned)
        (point,) = compare(net, names=["palette"], conditions=[Condition(clusters=4)]).points
        values = [coded(cluster(layer.weights_ohwi(), 4), layer) for layer in layers]
        palette = schemes.get("palette")
        assert point.results[0].n_bytes == sum(palette.size(v) for v in values)

    def test_patterns_apply_to_the_order_of_the_weights(self):
        net = network()
        conditioned = Condition(n_of_m=(2, 4))
        (point,) = compare(net, names=["n-m", "mask-gr"], conditions=[conditioned]).points
        assert result(point, "n-m").n_changed == 0
        values = [coded(layer.weights_ohwi(), layer) for layer in weight_layers(net, NPU)]
        sizes = [schemes.get("mask-gr").size(n_of_m(v, 2, 4)) for v in values]
        assert result(point, "mask-gr").n_bytes == sum(sizes)

    def test_error_is_that_of_the_weights(self):
        net = network()
        values = [coded(layer.weights_ohwi(), layer) for layer in weight_layers(net, NPU)]
        (point,) = compare(net, names=SOME).points
        assert result(point, "raw").error == 0
        assert math.isinf(result(point, "raw").sqnr_db)
        pattern = result(point, "n-m")
        assert pattern.n_changed == sum(np.count_nonzero(n_of_m(v, 2, 4) != v) for v in values)
        together = np.concatenate(values)
        kept = np.concatenate([n_of_m(v, 2, 4) for v in values])
        error, sqnr = weight_error(together, kept)
        assert pattern.error == pytest.approx(error)
        assert pattern.sqnr_db == pytest.approx(sqnr)

    def test_fewer_bits_have_a_larger_error(self):
        points = compare(network(), names=["raw"], conditions=conditions(bits=[8, 6, 4, 2])).points
        errors = [p.results[0].error for p in points]
        assert errors == sorted(errors)
        assert 25 < points[1].results[0].sqnr_db < 30

    def test_nine_bits_where_weights_need_them(self):
        (point,) = compare(wide_network(), names=["raw"]).points
        assert point.results[0].n_bytes == math.ceil(point.n_coded * 9 / 8)

    def test_in_words(self):
        assert str(Condition()) == "as it is"
        every = Condition(0.25, 4, 16, (2, 4))
        assert str(every) == "25 % non-zeros, 4 bits, 16 values, 2:4"
        assert every.to_json() == {"nonzeros": 0.25, "bits": 4, "clusters": 16, "n_of_m": [2, 4]}


def wide_network():
    net = NetworkBuilder("wide")
    x = net.input((1, 8, 8, 32), scale=0.02)
    drawn = np.random.default_rng(0).integers(0, 256, (32, 1, 1, 32)).astype(np.uint8)
    weights = net.constant(drawn, scales=0.01, zero_points=10)
    return net.build(net.op("CONV_2D", x, weights, net.bias([0] * 32, x, weights), scale=0.1))


class TestFront:
    def made(self, name, n_bytes, cycles, area, error=0.0):
        decoder = dataclasses.replace(
            schemes.get("mask-gr").decoder, area_ge_low=area, area_ge_high=area
        )
        return SchemeResult(name, n_bytes, cycles, 0, 100, 100, 0, error, decoder)

    def test_is_what_nothing_beats(self):
        results = [
            self.made("small", 10, 100, 900),
            self.made("fast", 90, 10, 900),
            self.made("cheap", 90, 100, 50),
            self.made("beaten", 91, 100, 50),
            self.made("equal", 90, 100, 50),
            self.made("lossy", 5, 200, 900, error=0.1),
        ]
        told = {r.scheme: r.on_front for r in on_front(results)}
        assert told == {name: name != "beaten" for name in told}


class TestErrors:
    def test_arguments(self):
        net = network()
        with pytest.raises(UnknownNameError, match=r"^scheme must be one of .*, got 'zip'"):
            compare(net, names=["zip"])
        with pytest.raises(ConfigError, match=r"^conditions must be some, got none$"):
            compare(net, conditions=[])
        with pytest.raises(ConfigError, match=r"^lanes must be in 1\.\.\d+, got 0$"):
            compare(net, lanes=0)
        with pytest.raises(ConfigError, match=r"^fifo must be in 1\.\.\d+, got 0$"):
            compare(net, fifo=0)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"nonzeros": 2}, r"^nonzeros must be in 0\.\.1, got 2$"),
            ({"bits": 9}, r"^bits must be in 1\.\.8, got 9$"),
            ({"clusters": 1}, r"^clusters must be in 2\.\.511, got 1$"),
            ({"n_of_m": (5, 4)}, r"^n of n_of_m must be in 0\.\.4, got 5$"),
            ({"n_of_m": (1, 0)}, r"^m of n_of_m must be in 1\.\.256, got 0$"),
        ],
    )
    def test_conditions(self, options, message):
        with pytest.raises(ConfigError, match=message):
            Condition(**options)


def test_rows_hold_bounds_and_schemes():
    found = compare(network(), names=SOME, conditions=conditions([1, 0.5]))
    rows = comparison_rows(found)
    assert len(rows) == 2 * (3 + len(SOME))
    assert [row["scheme"] for row in rows[:3]] == [
        f"bound {name}" for name in found.points[0].n_bytes
    ]
    raw = rows[3]
    assert raw["bytes"] == found.points[0].n_coded
    assert raw["above_entropy"] == round(raw["bytes"] / rows[0]["bytes"] - 1, 4)


def test_no_weights():
    net = NetworkBuilder("none")
    x = net.input((1, 4, 4, 8), scale=0.1)
    (point,) = compare(net.build(net.op("ADD", x, x, scale=0.1)), names=SOME).points
    assert [(r.n_bytes, r.cycles, r.bits_per_weight) for r in point.results] == 4 * [(0, 0, 0.0)]
    assert point.zero_fraction == 0.0


@pytest.mark.data
class TestModels:
    def test_real_layers_come_back_from_every_scheme(self, models_dir):
        for name in ("mlperf_kws_dscnn_int8", "coral_mbv1_025_128_uint8"):
            layers = weight_layers(load(models_dir / f"{name}.tflite"), NPU)
            for layer in layers[:: max(1, len(layers) // 4)]:
                values = coded(layer.weights_ohwi(), layer)[:30_000]
                bits = 8 if values.min() >= -128 and values.max() <= 127 else 9
                for scheme in self.installed():
                    fitted = scheme.fitted(bits=bits, row_weights=values.size // layer.shape[0])
                    wanted = fitted.conditioned(values)
                    stream = fitted.encode(wanted)
                    assert fitted.size(wanted) == len(stream)
                    decoded = fitted.decode(stream, wanted.size)
                    np.testing.assert_array_equal(decoded, wanted)

    @staticmethod
    def installed():
        return [schemes.get(name) for name in schemes.names() if name != "zstd"]

    def test_the_best_lossless_scheme_is_within_two_percent_of_entropy(self, models_dir):
        sizes, entropies = np.zeros(3), np.zeros(3)
        for name in ("tflm_pt_mobilenet_v2_224_int8", "mlperf_resnet8_int8", "mlperf_vww96_int8"):
            found = compare(
                load(models_dir / f"{name}.tflite"),
                names=["cabac"],
                conditions=conditions([1, 0.5, 0.25]),
                simulate=False,
            )
            sizes += [point.results[0].n_bytes for point in found.points]
            entropies += [point.n_bytes["entropy"] for point in found.points]
            assert sizes[-1] <= 1.02 * entropies[-1], name
        assert (sizes <= 1.005 * entropies).all()
