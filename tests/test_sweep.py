# SPDX-License-Identifier: Apache-2.0
"""Flash against bitwidth and non-zeros: every point is what compressing by itself gives."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import npusim
from npusim.compress import compress
from npusim.errors import ConfigError, UnknownNameError
from npusim.network import Network
from npusim.network_builder import NetworkBuilder
from npusim.sweep import sweep

RNG = np.random.default_rng(0)
KERNEL = np.rint(RNG.laplace(0, 20, (40, 3, 3, 16)).clip(-127, 127)).astype(np.int8)


def network() -> Network:
    """Two convolutions with the same weights, a depthwise one, and a mean."""
    net = NetworkBuilder("small")
    x = net.input((1, 5, 5, 16), scale=0.02)
    kernel = net.constant(KERNEL, scales=0.01)
    maps = [net.op("CONV_2D", x, kernel, net.bias([0] * 40, x, kernel), scale=0.1) for _ in "ab"]
    y = net.op("ADD", *maps, scale=0.1)
    taps = net.constant(KERNEL[:, :, :, 0].transpose(1, 2, 0)[None].copy(), scales=0.01, axis=3)
    y = net.op("DEPTHWISE_CONV_2D", y, taps, net.bias([0] * 40, y, taps), scale=0.1)
    return net.build(net.op("MEAN", y, np.array([1, 2], np.int32), scale=0.1))


@pytest.mark.parametrize("npu", ["ethos-u55-128", "ethos-u65-512"])
def test_each_point_is_what_compressing_gives(npu):
    bits, nonzeros = (8, 4, 2, 1), (1.0, 0.5, 0.0)
    found = sweep(network(), npu, bits=bits, nonzeros=nonzeros, encoder="legacy")
    assert found.baseline == compress(network(), npu, encoders=["legacy"], encoder="legacy")
    order = [(point.bits, point.nonzeros) for point in found.points]
    assert order == [(width, share) for width in bits for share in nonzeros]
    for point in found.points:
        report = compress(
            *(network(), npu), encoder="legacy", bits=point.bits, nonzeros=point.nonzeros
        )
        assert point.flash_bytes == report.flash_bytes
        assert point.nonzero_fraction == pytest.approx(report.nonzero_fraction)  # other roundings
        assert point.reduction == found.baseline.flash_bytes / point.flash_bytes
    assert found.points[0].flash_bytes == found.baseline.flash_bytes  # 8 bits hold them as they are


def test_json():
    found = sweep(network(), bits=[2], nonzeros=[0.5])
    (point,) = found.points
    assert found.to_json() == {
        "model": "small",
        "npu": "ethos-u55-128",
        "encoder": "regor",
        "nonzero_fraction": round(found.baseline.nonzero_fraction, 6),
        "flash_bytes": found.baseline.flash_bytes,
        "points": [
            {
                "bits": 2,
                "nonzeros": 0.5,
                "nonzero_fraction": round(point.nonzero_fraction, 6),
                "flash_bytes": point.flash_bytes,
                "reduction": round(point.reduction, 4),
            }
        ],
    }


def test_done_layer_by_layer():
    told = []
    sweep(network(), bits=[8], nonzeros=[1], done=told.append)
    assert told == [1 / 3, 2 / 3, 1]  # the second convolution shares the first one's stream


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": [8, 0]}, r"bits must be in 1\.\.8, got 0"),
        ({"nonzeros": [1, -1]}, r"nonzeros must be in 0\.\.1, got -1"),
        ({"bits": [4, 4]}, r"bits of a sweep must be some that differ, got \[4, 4\]"),
        ({"nonzeros": []}, r"nonzeros of a sweep must be some that differ, got \[\]"),
    ],
)
def test_refused_points(options, message):
    with pytest.raises(ConfigError, match=message):
        sweep(network(), **options)


def test_refused_networks_and_names():
    with pytest.raises(UnknownNameError, match=r"encoder must be one of .*, got 'zip'"):
        sweep(network(), encoder="zip")
    net = NetworkBuilder("none")
    x = net.input((1, 4, 4, 8), scale=0.1)
    with pytest.raises(ConfigError, match="'none' must have weights on the NPU, got none"):
        sweep(net.build(net.op("ADD", x, x, scale=0.1)))


@pytest.mark.data
def test_figure_1_falls_with_bits_and_non_zeros(models_dir):
    model = npusim.load(models_dir / "mlperf_vww96_int8.tflite")
    found = sweep(model, bits=[8, 5, 3, 2], nonzeros=[1.0, 0.5, 0.2, 0.01])
    flash = np.array([point.flash_bytes for point in found.points]).reshape(4, 4)
    assert (np.diff(flash, axis=0) < 0).all()
    assert (np.diff(flash, axis=1) < 0).all()
    kept = [point.nonzero_fraction for point in found.points[:4]]
    assert all(more > less for more, less in pairwise(kept))
    assert found.points[-1].reduction == max(point.reduction for point in found.points)
