# SPDX-License-Identifier: Apache-2.0
"""Int8 feature maps of candidates: TFLite's grid, ranges, and where grids are shared."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch to quantize")

from npusim.errors import ConfigError  # noqa: E402
from spaces.builder import SpaceBuilder  # noqa: E402
from spaces.digits import digits  # noqa: E402
from spaces.nets import ActivationQuantizer, build  # noqa: E402
from spaces.nets.activations import Mode  # noqa: E402
from spaces.nets.candidate_net import observe_activations, recalibrate  # noqa: E402


def calibrated(low, high, learned=False):
    quantizer = ActivationQuantizer()
    quantizer.mode = Mode.OBSERVE
    quantizer(torch.tensor([low, high]))
    if learned:
        quantizer.learn()
    quantizer.mode = Mode.ON
    return quantizer.eval()


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.0, 6.0), (-1.0, 3.0), (-2.0, 0.0), (0.5, 2.0)])
def test_values_are_those_of_the_affine_convention(low, high, learned):
    quantizer = calibrated(low, high, learned)
    scale, zero_point = quantizer.scale, quantizer.zero_point
    assert scale == pytest.approx((max(high, 0.0) - min(low, 0.0)) / 255, rel=1e-6)
    assert zero_point == round(-128 - min(low, 0.0) / scale)
    x = torch.linspace(low - 1, high + 1, 1001)
    codes = np.clip(np.rint(x.numpy() / np.float32(scale)) + zero_point, -128, 127)
    found = quantizer(x).detach().numpy()
    # a tie that float32 breaks differently is one step
    assert np.mean(np.abs(found - (codes - zero_point) * scale) > 1e-5) < 0.01
    assert quantizer(torch.zeros(1)).item() == 0.0  # padding is exact


def test_gradients_stop_at_the_ends_of_the_range():
    for learned in (False, True):
        quantizer = calibrated(-1.0, 3.0, learned)
        x = torch.tensor([-2.0, 0.5, 3.5], requires_grad=True)
        quantizer(x).sum().backward()
        assert x.grad.tolist() == [0.0, 1.0, 0.0]
    # what is above moves the upper end by its gradient, what is below the lower end
    assert quantizer.high.grad.item() == pytest.approx(1.0, abs=0.01)
    assert quantizer.low.grad.item() == pytest.approx(1.0, abs=0.01)


def test_ranges_follow_in_training_alone():
    quantizer = calibrated(0.0, 1.0)
    quantizer(torch.tensor([-1.0, 11.0]))
    assert (quantizer.low.item(), quantizer.high.item()) == (0.0, 1.0)
    quantizer.train()(torch.tensor([-1.0, 11.0]))
    assert quantizer.low.item() == pytest.approx(-0.01)
    assert quantizer.high.item() == pytest.approx(1.1)


def net_of(make):
    net = SpaceBuilder("one", "digits", (8, 8, 4))
    make(net, net.input())
    space = net.build()
    return build(space, space.largest(), torch.Generator().manual_seed(0)).eval()


def test_layers_that_move_values_keep_the_grid_of_what_they_read():
    def make(net, x):
        x = net.conv(x, 8, name="conv")
        x = net.depth_to_space(net.max_pool(net.average_pool(x, 3, 1), 3, 2), 2)
        net.conv(x, 4, name="last")

    net = net_of(make)
    assert list(net.quantizers()) == ["image", "conv", "last"]
    for name in ("average_pool1", "max_pool1", "depth_to_space1"):
        assert net.quantizer(name) is net.block("conv").ofm_quantizer
    images = torch.rand(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    observe_activations(net, [images])
    net.quantize_activations()
    ends = net.quantizer("conv").high.item()
    net.train()
    pooled = net.block("average_pool1")(net.block("conv")(net.input_quantizer(images)))
    assert net.quantizer("conv").high.item() != ends
    on_grid = net.quantizer("average_pool1")(pooled, observe=False)
    codes = on_grid / net.quantizer("conv").scale
    assert torch.allclose(codes, codes.round(), atol=1e-3)


def test_nets_are_as_before_until_quantized_and_then_nearly():
    space = digits()
    net = build(space, space.largest(), torch.Generator().manual_seed(0))
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    recalibrate(net, [images])
    with torch.no_grad():
        before = net(images)
        observe_activations(net, [images])
        assert torch.equal(net(images), before)
        net.quantize_activations(Mode.ON)
        after = net(images)
    error = (after - before).abs().max() / before.abs().max()
    assert 0 < error < 0.1  # of 255 steps, through four layers
    scale = net.quantizer("classifier").scale
    assert torch.allclose(after / scale, (after / scale).round(), atol=1e-3)
    net.quantize_activations(Mode.OFF)
    with torch.no_grad():
        assert torch.equal(net(images), before)


def test_learned_ranges_are_parameters_with_a_gradient():
    space = digits()
    net = build(space, space.largest(), torch.Generator().manual_seed(0))
    keys = set(net.state_dict())
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    observe_activations(net, [images])
    net.quantize_activations(learned=True)
    assert set(net.state_dict()) == keys
    net.train()(images).square().sum().backward()
    ends = [p for name, p in net.named_parameters() if name.endswith((".low", ".high"))]
    assert len(ends) == 2 * len(net.quantizers())
    assert all(end.grad is not None for end in ends)


def test_what_was_never_observed_is_refused():
    with pytest.raises(ConfigError, match="must have observed a range, got none yet"):
        _ = ActivationQuantizer().scale
    space = digits()
    net = build(space, space.largest(), torch.Generator().manual_seed(0))
    with pytest.raises(ConfigError, match="of layer 'image' must have observed a range"):
        net.quantize_activations()
