# SPDX-License-Identifier: Apache-2.0
"""Arm's compiler as an oracle, inside this process: models in, compiled models out."""

from __future__ import annotations

import numpy as np
import pytest

from npusim.network import Network, Op
from npusim.tensor import Quantization, Tensor

_ARCHITECTURES = {
    "ethos-u55-32": ("EthosU55", 32, 1),
    "ethos-u55-64": ("EthosU55", 64, 1),
    "ethos-u55-128": ("EthosU55", 128, 1),
    "ethos-u55-256": ("EthosU55", 256, 1),
    "ethos-u65-256": ("EthosU65", 256, 1),
    "ethos-u65-512": ("EthosU65", 256, 2),
}

_SYSTEM = """
[architecture]
macs={macs}
cores={n_cores}
[vela]
system_config_name=Ethos_test
memory_mode_name=Test
[System_Config.Ethos_test]
core_clock=500e6
axi0_port=Sram
axi1_port=OffChipFlash
Sram_clock_scale=1.0
Sram_burst_length=32
Sram_read_latency=32
Sram_write_latency=32
OffChipFlash_clock_scale=0.125
OffChipFlash_burst_length=128
OffChipFlash_read_latency=64
OffChipFlash_write_latency=64
[Memory_Mode.Test]
const_mem_area=Axi1
arena_mem_area=Axi0
cache_mem_area=Axi0
"""

_OPTIONS = """
[compiler]
output_format=TFLite
cop_format=COP1
[scheduler]
optimize=Performance
arena_size_limit=1073741824
"""


def compile_model(model: bytes, npu: str) -> bytes:
    """The .tflite file that Vela makes of one, for weights in flash and all else in SRAM."""
    regor = pytest.importorskip("ethosu.regor", reason="ethos-u-vela is the oracle")
    architecture, macs, n_cores = _ARCHITECTURES[npu]
    system = _SYSTEM.format(macs=macs, n_cores=n_cores)
    compiled = regor.compile(architecture, model, "TFLITE", system, options=_OPTIONS, verbose=False)
    return bytes(compiled.model)


def layers(*specs, size=8, ifm_bits=8, seed=0) -> Network:
    """A chain of layers with random weights, each reading the one before.

    A spec is (kind, weights shape as in the file, attributes that differ from one, same padding).
    """
    rng = np.random.default_rng(seed)
    map_dtype, bias_dtype = ("int8", "int32") if ifm_bits == 8 else ("int16", "int64")
    tensors: list[Tensor] = []

    def tensor(shape, dtype, quantization, data=None):
        name = f"t{len(tensors)}"
        tensors.append(Tensor(len(tensors), name, tuple(shape), dtype, quantization, data))
        return tensors[-1]

    def feature_map(*shape):
        return tensor(shape, map_dtype, Quantization.of(0.5))

    first_kind, first_shape, _ = specs[0]
    depth = first_shape[-1] if first_kind != "DEPTHWISE_CONV_2D" else specs[0][2].pop("ifm_depth")
    last = network_input = feature_map(1, size, size, depth)
    ops = []
    for kind, shape, attributes in specs:
        axis = 3 if kind == "DEPTHWISE_CONV_2D" else 0
        n = shape[axis]
        weights = rng.integers(-127, 128, shape).astype(np.int8)
        scales = Quantization.of(np.full(n, 0.01), 0, axis)
        bias = rng.integers(-1000, 1000, n).astype(bias_dtype)
        inputs = (
            last,
            tensor(shape, "int8", scales, weights),
            tensor((n,), bias_dtype, Quantization.of(np.full(n, 0.005)), bias),
        )
        dilation = {"dilation_w": 1, "dilation_h": 1}
        common = {"padding": "SAME", "stride_w": 1, "stride_h": 1, "fused_activation": "NONE"}
        own = {"depth_multiplier": 1} if axis == 3 else {"quantized_bias_type": "float32"}
        last = feature_map(1, size, size, n)
        ops.append(
            Op(
                len(ops),
                kind,
                f"op{len(ops)}",
                inputs,
                (last,),
                common | dilation | own | attributes,
            )
        )
    return Network("layers", tuple(tensors), tuple(ops), (network_input,), (last,))
