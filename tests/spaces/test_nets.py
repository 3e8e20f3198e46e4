# SPDX-License-Identifier: Apache-2.0
"""Quantized, pruned modules: values and gradients of the quantizer, masks, padding."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch to build modules")

from torch.nn import functional  # noqa: E402

from npusim.errors import ConfigError  # noqa: E402
from spaces.base import Given  # noqa: E402
from spaces.builder import SpaceBuilder  # noqa: E402
from spaces.digits import digits  # noqa: E402
from spaces.nets import build  # noqa: E402
from spaces.nets.candidate_net import recalibrate  # noqa: E402


def test_padding_is_that_of_tflite():
    """8 -> 4 with kernel 3, stride 2 pads one row below and none above; stride 1 both."""
    space = digits(widths=(1.0,), bitwidths=(32,), sparsities=(1.0,))
    net = build(space, space.largest(), torch.Generator().manual_seed(0)).eval()
    for name, size, stride, before in (("conv1", 8, 2, 0), ("conv2", 4, 1, 1)):
        block = net.blocks[name]
        x = torch.randn(1, block.weight.theta.shape[1], size, size)
        found = block(x)[0, :, 0, 0]
        corner = torch.zeros(x.shape[1], 3, 3)
        corner[:, before:, before:] = x[0, :, : 3 - before, : 3 - before]
        by_hand = (block.weight() * corner).sum((1, 2, 3)) / np.sqrt(1 + block.norm.eps)
        np.testing.assert_allclose(
            found.detach(), by_hand.clamp(min=0).detach(), atol=1e-5
        )  # float32 sums
        assert block(x).shape[2] == size // stride


def test_weights_are_drawn_from_the_generator():
    space = digits()
    first, same, other = (
        build(space, space.largest(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first.blocks["conv1"].weight.theta, same.blocks["conv1"].weight.theta)
    assert not torch.equal(first.blocks["conv1"].weight.theta, other.blocks["conv1"].weight.theta)


def test_candidates_of_another_space_are_refused():
    with pytest.raises(ConfigError, match="candidate must be of space 'digits'"):
        build(digits(bitwidths=(8,)), digits().largest(), torch.Generator())


def built(make, image=(1, 4, 7, 6)):
    """The net of a space of one candidate behind an image [N, C, H, W]."""
    _, depth, height, width = image
    net = SpaceBuilder("one", "digits", (height, width, depth))
    make(net, net.input())
    space = net.build()
    return build(space, space.largest(), torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (4, 2), (9, 4), (1, 2), (3, 1)])
def test_transpose_convolutions_are_the_transpose_of_same_convolutions(kernel, stride):
    """<conv(x), y> = <x, transpose(y)> with the weights of one in the other."""
    up = built(lambda net, x: net.transpose_conv(x, 3, kernel, stride))
    down = built(
        lambda net, x: net.conv(x, 4, kernel, stride, norm=False, bias=False, activation="none"),
        image=(1, 3, 7 * stride, 6 * stride),
    )
    weights = up.weights()["transpose_conv1"].theta  # [3, 4, k, k]
    down.weights()["conv1"].theta.data = weights.data.transpose(0, 1)
    y, x = torch.randn(1, 4, 7, 6), torch.randn(1, 3, 7 * stride, 6 * stride)
    assert up(y).shape == x.shape
    assert down(x).shape == y.shape
    left, right = (down(x) * y).sum().item(), (x * up(y)).sum().item()
    assert left == pytest.approx(right, rel=1e-3, abs=1e-3)  # float32 sums


def test_depthwise_convolutions_keep_channels_apart():
    net = built(lambda net, x: net.depthwise(x, 3, norm=False, activation="none"))
    x = torch.zeros(1, 4, 7, 6)
    x[:, 2] = 1.0
    assert net(x).abs().sum((0, 2, 3)).nonzero().flatten().tolist() == [2]


@pytest.mark.parametrize(("kind", "by_hand"), [("average_pool", 2.5), ("max_pool", 4.0)])
def test_pools_do_not_count_padding(kind, by_hand):
    net = built(lambda net, x: getattr(net, kind)(x, 3, 2), image=(1, 1, 4, 4))
    x = torch.full((1, 1, 4, 4), -100.0)
    x[0, 0, 2:, 2:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert net(x).shape == (1, 1, 2, 2)
    assert net(x)[0, 0, 1, 1].item() == by_hand  # 3x3 from row 2 on: two rows are padding


@pytest.mark.parametrize("ofm_depth", [2, 7])
def test_matched_depths_are_the_first_channels_and_zeros(ofm_depth):
    def make(net, x):
        wide = net.conv(x, ofm_depth)
        net.add(net.match_depth(x, like=wide), wide)

    net = built(make)
    x = torch.randn(1, 4, 7, 6)
    found = net.blocks["match_depth1"](x)
    kept = min(4, ofm_depth)
    assert torch.equal(found[:, :kept], x[:, :kept])
    assert found.shape[1] == ofm_depth
    assert not found[:, kept:].any()


def test_depth_becomes_space_in_steps_of_two():
    net = built(lambda net, x: net.depth_to_space(x, 4), image=(1, 32, 2, 3))
    x = torch.arange(32 * 6.0).reshape(1, 32, 2, 3)
    found = net(x)
    assert found.shape == (1, 2, 8, 12)
    for c, row, column in ((0, 0, 0), (1, 1, 0), (0, 2, 3), (1, 7, 11)):
        outer = 2 * (row // 2 % 2) + column // 2 % 2  # the first step's pixel
        inner = 2 * (row % 2) + column % 2
        channel = outer * 8 + inner * 2 + c
        assert found[0, c, row, column] == x[0, channel, row // 4, column // 4]


def test_zeros_have_the_shape_of_a_pool():
    net = built(lambda net, x: net.add(net.zero(x, 2), net.average_pool(x, 3, 2)))
    x = torch.randn(1, 4, 7, 6)
    assert torch.equal(net(x), net.blocks["average_pool1"](x))


def test_sums_and_activations():
    def make(net, x):
        net.add(net.activation(x, "relu6"), x, x, activation="prelu")

    x = torch.tensor([-1.0, 9.0, 2.0, 0.0]).reshape(1, 4, 1, 1)
    assert built(make, image=(1, 4, 1, 1))(x).flatten().tolist() == [-0.5, 24.0, 6.0, 0.0]


def test_operations_of_networks_cannot_be_trained():
    net = SpaceBuilder("given", "", (8, 8, 4), bitwidths=(4, 8))
    net.given([net.input()], Given("CONV_2D", (8, 8, 4), 4, n_weights=16, macs=1024), "op")
    space = net.build()
    with pytest.raises(ConfigError, match="layer 'op' must be of a kind that can be trained"):
        build(space, space.largest(), torch.Generator())


def test_batch_norm_is_recalibrated_to_the_mean_over_the_batches():
    net = built(lambda net, x: net.conv(x, 3, 1))
    norm = net.blocks["conv1"].norm
    norm.running_mean.fill_(100.0)
    batches = [torch.randn(8, 4, 7, 6) + shift for shift in (0.0, 1.0)]
    recalibrate(net, batches)
    ofm = [functional.conv2d(x, net.weights()["conv1"]().detach()) for x in batches]
    means = torch.stack([each.mean((0, 2, 3)) for each in ofm]).mean(0)
    variances = torch.stack([each.var((0, 2, 3)) for each in ofm]).mean(0)
    torch.testing.assert_close(norm.running_mean, means)
    torch.testing.assert_close(norm.running_var, variances)
    assert norm.momentum == 0.1
    assert not norm.training
    with pytest.raises(ConfigError, match="batches to recalibrate with must be one or more"):
        recalibrate(net, [])


def test_narrower_candidates_inherit_the_first_channels():
    space = digits(widths=(0.5, 1.0), bitwidths=(4, 8), sparsities=(0.5, 1.0))
    wide = build(space, space.largest(), torch.Generator().manual_seed(0))
    narrow = build(space, space.candidate([0] * len(space.decisions)), torch.Generator())
    narrow.inherit(wide.state_dict())
    theirs, mine = wide.weights()["conv2"].theta, narrow.weights()["conv2"].theta
    assert mine.shape == (16, 8, 3, 3)
    assert torch.equal(mine, theirs[:16, :8])
    assert narrow.weights()["conv2"].mask.all()
    found = build(space, space.candidate([0] * len(space.decisions)), torch.Generator())
    found.weights()["conv2"].theta.data = mine.data.clone()
    found.weights()["conv2"].calibrate()
    assert found.weights()["conv2"].log_range == narrow.weights()["conv2"].log_range
    with pytest.raises(ConfigError, match=r"must be at least of shape \(16, 1, 3, 3\), got blocks"):
        wide.inherit(narrow.state_dict())


def test_the_number_format_is_that_of_all_weights():
    space = digits()
    net = build(space, space.largest(), torch.Generator().manual_seed(0), offset=True)
    assert all(weight.offset for weight in net.weights().values())
    assert not any(
        weight.offset
        for weight in build(space, space.largest(), torch.Generator()).weights().values()
    )


def test_strided_depthwise_convolutions_stay_in_float32():
    net = built(lambda net, x: net.conv(net.depthwise(x, 3, 2, norm=False), 2, norm=False))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert net.block("depthwise1")(torch.ones(1, 4, 7, 6)).dtype == torch.float32
        assert net(torch.ones(1, 4, 7, 6)).dtype == torch.bfloat16
