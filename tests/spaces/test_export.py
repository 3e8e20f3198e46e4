# SPDX-License-Identifier: Apache-2.0
"""Trained candidates as int8 networks: what they compute, and the grids their weights are on."""

from __future__ import annotations

import numpy as np
import pytest
import tflite_oracle
from test_every_space import SMALLER

import spaces
from npusim.cost.lowering import program
from npusim.errors import ConfigError
from npusim.formats.tflite_write import to_bytes
from npusim.integer import run
from npusim.weights import encoded_size, reorder
from spaces.concrete import concrete_layers
from spaces.lower import lower

torch = pytest.importorskip("torch")

from drawn_nets import drawn_net, input_codes  # noqa: E402

from spaces.export import export  # noqa: E402
from spaces.nets import build  # noqa: E402

RESOLVERS = {
    "litert_ref": "BUILTIN_REF",
    "litert_opt": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "xnnpack": "AUTO",
}
UPSCALERS = {
    "x2": {"scale": 2},
    "x4": {"scale": 4},
    "prelu": {"scale": 2, "activation": "prelu"},
    "transposed": {"scale": 2, "head": "transpose_conv"},
}
UPSCALER = {
    **{"patch": 8, "layers": 3, "features": 16, "shrunk": 8},
    **{"bitwidths": (3, 4), "sparsities": (0.5, 1.0)},
}
SMALL = {name: (name, SMALLER.get(name, {})) for name in spaces.names()} | {
    name: ("super_resolution", {**UPSCALER, **options}) for name, options in UPSCALERS.items()
}


def space_of(case: str) -> spaces.Space:
    name, options = SMALL[case]
    return spaces.get(name, **options)


@pytest.mark.parametrize("case", SMALL)
class TestEverySpace:
    def test_networks_compute_in_litert_what_the_integers_say(self, case):
        tflite_oracle.require()
        # XNNPACK refuses factors of 256 and more, which random MobileNets of 1 bit have
        net, images = drawn_net(space_of(case), bitwidth=4 if "imagenet" in case else None)
        network = export(net, images)
        codes = input_codes(net, images)[:1]
        content, given = to_bytes(network), {network.inputs[0].index: codes}
        for profile, resolver in RESOLVERS.items():
            (theirs,) = tflite_oracle.run(tflite_oracle.interpreter(content, resolver), 0, given)
            ours = run(network, [codes], profile)[network.outputs[0].index]
            np.testing.assert_array_equal(ours, theirs, err_msg=profile)

    def test_operations_are_those_that_are_costed_and_all_on_the_npu(self, case):
        net, images = drawn_net(space_of(case))
        network = export(net, images)
        costed = lower(net.space, net.candidate).network
        assert [op.kind for op in network.ops] == [op.kind for op in costed.ops]
        assert [op.ofm.shape for op in network.ops] == [op.ofm.shape for op in costed.ops]
        assert [op.obstacle for op in program(network).ops if not op.on_npu] == []

    def test_each_layer_computes_what_torch_does_on_the_same_codes(self, case):
        """To one code, and what the steps of its bias come to."""
        space = space_of(case)
        if not any(decision.kind == "bitwidth" for decision in space.decisions):
            pytest.skip("weights of 32 bits are rounded")
        net, images = drawn_net(space, bitwidth=4)
        network = export(net, images, fine_bias=True)
        values = run(network, [input_codes(net, images)[:1]])
        maps = {t.name: t for t in network.tensors}
        layers = {each.layer.name: each for each in concrete_layers(net.space, net.candidate)}
        n_compared = 0
        for name, sources in net.sources.items():
            last = maps.get(f"{name}.prelu", maps.get(name))
            if not sources or last is None or any(source not in maps for source in sources):
                continue
            given = [real_values(maps.get(f"{s}.prelu", maps[s]), values) for s in sources]
            with torch.no_grad():
                expected = net.block(name)(*given).numpy()
            expected = expected.reshape(1, layers[name].ofm_depth, *expected.shape[2:])
            if expected.ndim == 4:
                expected = expected.transpose(0, 2, 3, 1)
            (scale,), (zero,) = last.quantization.scales, last.quantization.zero_points
            codes = np.clip(np.rint(expected / scale) + zero, -128, 127)
            off = np.abs(codes - values[last.index].reshape(codes.shape)).max()
            bias = next((op.bias for op in network.ops if op.name == name), None)
            step = 0 if bias is None else bias.quantization.scales.max() / scale
            slack = 2 if name + ".prelu" in maps or name + ".part1" in maps else 0
            assert off <= 1 + step / 2 + slack, name
            n_compared += 1
        assert n_compared >= 4


def real_values(tensor, values):
    """Codes of a map as torch has it."""
    quantization = tensor.quantization
    x = (values[tensor.index].astype(np.float32) - quantization.zero_points) * quantization.scales
    x = torch.from_numpy(x.astype(np.float32))
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


def digits(seed=0, **options):
    return drawn_net(spaces.get("digits", bitwidths=(1, 2, 3, 4, 6, 8, 32)), seed, **options)


def beta_share(weight):
    """Of the largest magnitude that Q-hat has."""
    beta, r = float(weight.beta), float(weight.log_range.detach().exp())
    return beta / (beta + r)


def weights_of(network):
    return [op.weights for op in network.ops if op.weights is not None]


def encoded_bytes(codes):
    values = codes.astype(np.int8).reshape(codes.shape[0], 1, 1, -1)
    return encoded_size(reorder(values, npu="ethos-u55-128"), encoder="regor")


class TestWeights:
    @pytest.mark.parametrize("bitwidth", [1, 2, 3, 4, 6, 8])
    def test_are_on_the_grid_of_their_bitwidth_with_exact_zeros(self, bitwidth):
        net, images = digits(bitwidth=bitwidth)
        found = weights_of(export(net, images))
        levels = max((1 << (bitwidth - 1)) - 1, 1)
        for tensor, weight in zip(found, net.weights().values(), strict=True):
            assert np.abs(tensor.data).max() == levels
            kept = weight.mask.numpy()
            kept = kept.transpose(0, 2, 3, 1) if kept.ndim == 4 else kept
            assert not tensor.data[kept == 0].any()
            assert np.count_nonzero(tensor.data) <= weight.n_nonzero

    @pytest.mark.parametrize("bitwidth", [4, 32])
    def test_come_back_with_the_factor_of_batch_norm(self, bitwidth):
        net, images = digits(bitwidth=bitwidth)
        for name, tensor in zip(net.weights(), weights_of(export(net, images)), strict=True):
            block = net.block(name)
            deployed = block.weight().detach().numpy()
            if hasattr(block.norm, "running_var"):
                norm = block.norm
                factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                deployed = deployed * factor.detach().numpy()[:, None, None, None]
                deployed = deployed.transpose(0, 2, 3, 1)
            scales = tensor.quantization.scales.reshape(-1, *(1,) * (deployed.ndim - 1))
            error = np.abs(tensor.data * scales - deployed) / scales
            assert error.max() < (0.51 if bitwidth == 32 else 1e-4)

    def test_of_q_hat_become_8_bit_with_as_many_levels(self):
        net, images = digits(bitwidth=4, offset=True)
        for tensor, weight in zip(
            weights_of(export(net, images)), net.weights().values(), strict=True
        ):
            assert float(weight.beta) > 0
            codes = np.abs(tensor.data)
            assert codes.max() == 127
            assert len(np.unique(codes[codes > 0])) <= 8  # 0..7 steps from beta on
            assert codes[codes > 0].min() == np.rint(codes.max() * beta_share(weight))

    def test_of_q_hat_that_no_palette_holds_have_consecutive_codes(self):
        """Beta is rounded to whole steps; the NPU's encoder codes small numbers in fewer bits."""
        net, images = digits(bitwidth=6, offset=True)
        found = weights_of(export(net, images))
        for tensor, weight in zip(found, net.weights().values(), strict=True):
            beta, r = float(weight.beta), float(weight.log_range.detach().exp())
            codes, first = np.abs(tensor.data.astype(int)), max(1, round(beta / (r / 31)))
            assert first <= codes[codes > 0].min()
            assert codes.max() <= first + 31 < 127
            spread = np.rint((beta + (codes - first) * r / 31) * 127 / (beta + r)) * (codes > 0)
            deployed = np.abs(weight().detach().numpy())
            scale = deployed.sum() / codes.sum()
            in_order = np.moveaxis(codes, -1, 1) if codes.ndim == 4 else codes
            assert np.abs(in_order * scale - deployed).max() < 0.6 * r / 31
            if codes.size > 10_000:
                signs = np.sign(tensor.data)
                assert encoded_bytes(signs * codes) < 0.97 * encoded_bytes(signs * spread)

    def test_of_q_hat_have_8_bits_where_consecutive_codes_would_need_more(self):
        net, images = digits(bitwidth=8, offset=True)
        for tensor in weights_of(export(net, images)):
            assert np.abs(tensor.data).max() == 127

    def test_have_finer_biases_where_that_is_asked_for(self):
        net, images = digits(bitwidth=4)
        coarse, fine = export(net, images), export(net, images, fine_bias=True)
        for a, b in zip(weights_of(coarse), weights_of(fine), strict=True):
            np.testing.assert_array_equal(16 * a.data.astype(int), b.data)
            np.testing.assert_array_equal(a.quantization.scales, 16 * b.quantization.scales)
        for one, other in zip(coarse.ops, fine.ops, strict=True):
            if one.bias is not None:
                assert np.abs(16 * one.bias.data.astype(int) - other.bias.data).max() <= 8

    def test_of_channels_without_any_left_have_a_scale_like_the_others(self):
        """Their variance is 0, so that the factor of batch norm is huge."""
        net, images = digits(bitwidth=4)
        block = net.block("conv2")
        with torch.no_grad():
            block.weight.mask[5] = 0
            block.norm.running_var[5] = 0
            block.norm.running_mean[5] = 0
        (second,) = (op for op in export(net, images).ops if op.name == "conv2")
        step = float(block.weight.log_range.detach().exp()) / 7
        assert second.weights.quantization.scales[5] == pytest.approx(step)
        shift = float(block.norm.bias[5].detach())
        found = second.bias.data[5] * second.bias.quantization.scales[5]
        assert found == pytest.approx(shift, abs=float(second.bias.quantization.scales[5]) / 2)

    def test_of_channels_that_batch_norm_switches_off_leave_the_shift_alone(self):
        net, images = digits(bitwidth=4)
        norm = net.block("conv1").norm
        with torch.no_grad():
            norm.weight[:3] = torch.tensor([0.0, 1e-12, -1e-30])
            norm.bias[:3] = 0.4
        network = export(net, images)
        first = network.ops[0]
        bias = first.bias
        real = bias.data * bias.quantization.scales.astype(float)
        assert real[:3] == pytest.approx(0.4, rel=1e-6)
        assert not first.weights.data[:3].any()
        assert abs(bias.data).max() <= 1 << 30


class TestMeans:
    def test_can_be_average_pools(self):
        net, images = digits(bitwidth=8)
        mean, pool = export(net, images), export(net, images, average_pool=True)
        assert [op.kind for op in mean.ops][-2] == "MEAN"
        assert [op.kind for op in pool.ops][-2] == "AVERAGE_POOL_2D"
        codes = input_codes(net, images)[:1]
        logits = [
            run(n, [codes])[n.outputs[0].index] * n.outputs[0].quantization.scales
            for n in (mean, pool)
        ]
        assert np.abs(logits[0] - logits[1]).max() < 0.1 * np.abs(logits[0]).max()


class TestRefusals:
    def test_grids_must_be_calibrated(self):
        space = spaces.get("digits")
        net = build(space, space.largest(), torch.Generator())
        with pytest.raises(ConfigError, match=r"int8 grid of layer 'image' must be calibrated"):
            export(net)

    def test_prelus_need_images(self):
        net, _ = drawn_net(space_of("prelu"))
        with pytest.raises(ConfigError, match=r"images must be given to export PReLUs, got none"):
            export(net)

    def test_the_net_stays_as_it_was(self):
        net, images = drawn_net(space_of("prelu"))
        net.train()
        before = {name: value.clone() for name, value in net.state_dict().items()}
        export(net, images)
        assert net.training
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
