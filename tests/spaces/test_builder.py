# SPDX-License-Identifier: Apache-2.0
"""Spaces written down: decisions by default, ties, names, what is refused."""

from __future__ import annotations

import pytest

from npusim.errors import ConfigError
from spaces.base import Space
from spaces.builder import SpaceBuilder
from spaces.layers import DecisionVariable, Kind


def builder(**options) -> SpaceBuilder:
    return SpaceBuilder("example", "digits", (8, 8, 4), **{"widths": (0.5, 1.0), **options})


def widths(space: Space) -> dict[str, str]:
    return {layer.name: layer.width for layer in space.layers if layer.width}


def test_layers_have_the_decisions_of_the_space_in_order():
    net = builder(bitwidths=(4, 8), sparsities=(0.5, 1.0))
    x = net.conv(net.input(), 8, (3, 5), name="stem")
    net.depthwise(x, name="dw")
    assert [(d.name, d.options) for d in net.build().decisions] == [
        ("stem.width", (0.5, 1.0)),
        ("stem.kernel", (3, 5)),
        ("stem.bitwidth", (4, 8)),
        ("stem.sparsity", (0.5, 1.0)),
        ("dw.bitwidth", (4, 8)),
        ("dw.sparsity", (0.5, 1.0)),
    ]


def test_layers_may_have_options_of_their_own_or_none():
    net = builder()
    x = net.conv(net.input(), 8, widths=(0.25, 1.0), name="own")
    net.conv(x, 8, widths=None, name="full")
    found = net.build()
    assert [(d.name, d.options) for d in found.decisions] == [("own.width", (0.25, 1.0))]


def test_layers_may_have_weights_of_their_own():
    net = builder(bitwidths=(2, 4), sparsities=(0.1, 1.0))
    x = net.conv(net.input(), 8, bitwidths=(8,), sparsities=None)
    net.dense(net.global_pool(net.conv(x, 8)), 4, bitwidths=None, sparsities=(0.5,))
    space = net.build()
    assert {each.name: each.options for each in space.decisions} == {
        **{"conv1.width": (0.5, 1.0), "conv1.bitwidth": (8,)},
        **{"conv2.width": (0.5, 1.0), "conv2.bitwidth": (2, 4), "conv2.sparsity": (0.1, 1.0)},
        "dense1.sparsity": (0.5,),
    }


def test_sums_tie_widths_through_all_that_passes_a_depth_on():
    net = builder()
    a = net.conv(net.input(), 8, name="a")
    b = net.max_pool(net.depthwise(net.conv(a, 8, name="b")), 3)
    c = net.conv(a, 8, name="c")
    x = net.add(net.activation(a), b)
    net.add(x, c, net.conv(x, 8, name="d"))
    assert set(widths(net.build()).values()) == {"a.width"}


def test_what_is_added_to_the_image_is_of_full_width():
    net = builder()
    x = net.input()
    y = net.add(x, net.conv(net.conv(x, 8, name="inside"), 4, name="back"))
    net.conv(y, 8, name="after")
    assert widths(net.build()) == {"inside": "inside.width", "after": "after.width"}


def test_one_layer_of_full_width_ties_all_to_it():
    net = builder()
    a = net.conv(net.input(), 8, name="a")
    net.add(a, net.conv(a, 8, widths=None))
    assert widths(net.build()) == {}


def test_choices_tie_widths_and_name_their_decision():
    net = builder()
    x = net.conv(net.input(), 8, name="stem")
    x = net.choose({"skip": x, "conv": net.conv(x, 8, name="conv")}, "block")
    net.repeat([x, net.conv(x, 8, name="more")], "tail", least=1)
    found = net.build()
    assert set(widths(found).values()) == {"stem.width"}
    chosen = {d.name: (d.kind, d.options) for d in found.decisions if d.kind is not Kind.WIDTH}
    assert chosen == {
        "block.operator": (Kind.OPERATOR, ("skip", "conv")),
        "tail.depth": (Kind.DEPTH, (1, 2)),
    }


def test_matched_depths_have_the_width_of_what_they_match():
    net = builder()
    x = net.conv(net.input(), 4, name="narrow")
    y = net.conv(x, 16, name="wide")
    net.add(net.match_depth(x, like=y), y)
    found = net.build()
    assert widths(found) == {
        "narrow": "narrow.width",
        "wide": "wide.width",
        "match_depth1": "wide.width",
    }
    assert found.depths["match_depth1"].full == 16


def test_names_count_layers_of_a_kind():
    net = builder()
    x = net.conv(net.conv(net.input(), 8), 8)
    net.global_pool(net.conv(x, 8, name="third"))
    assert [layer.name for layer in net.build().layers] == [
        "image",
        "conv1",
        "conv2",
        "third",
        "pool",
    ]


class TestRefusals:
    def test_names_twice(self):
        net = builder()
        x = net.conv(net.input(), 8, name="a")
        with pytest.raises(ConfigError, match="layer names must be unique, got 'a' twice"):
            net.conv(x, 8, name="a")

    def test_unknown_sources(self):
        with pytest.raises(ConfigError, match="inputs of layer 'conv1' must be earlier layers"):
            builder().conv("nothing", 8)

    def test_tied_layers_with_other_options(self):
        net = builder()
        a = net.conv(net.input(), 8, name="a")
        net.add(a, net.conv(a, 8, widths=(0.1, 1.0), name="b"))
        with pytest.raises(ConfigError, match="tied must have the same widths, got others in a, b"):
            net.build()

    def test_sums_of_other_depths(self):
        net = builder()
        a = net.conv(net.input(), 8, name="a")
        net.add(a, net.conv(a, 16, name="b"), name="sum")
        with pytest.raises(
            ConfigError, match="inputs of layer 'sum' must have one depth, got 8 of"
        ):
            net.build()

    def test_sums_of_other_maps(self):
        net = builder()
        a = net.conv(net.input(), 8, name="a")
        net.add(a, net.conv(a, 8, stride=2), name="sum")
        with pytest.raises(ConfigError, match="'sum' must have one height and width, got"):
            net.build()

    def test_options_that_are_no_list(self):
        net = builder(widths=0.5)
        x = net.input()
        with pytest.raises(
            ConfigError, match=r"options of a width must be several values, got 0.5"
        ):
            net.conv(x, 8)

    def test_matches_of_the_image(self):
        net = builder()
        x = net.input()
        y = net.conv(x, 8)
        with pytest.raises(ConfigError, match="layer 'image' must have a width to be matched"):
            net.match_depth(y, like=x)

    def test_layers_that_lead_nowhere(self):
        net = builder()
        x = net.input()
        net.conv(x, 8, name="lost")
        net.conv(x, 8)
        with pytest.raises(
            ConfigError, match="all layers but the last must be read, got unread 'lost'"
        ):
            net.build()

    def test_depth_to_space_of_a_searched_width(self):
        net = builder()
        net.depth_to_space(net.conv(net.input(), 16), 2)
        with pytest.raises(
            ConfigError, match="must be a multiple of 4 in every candidate, got 16 of"
        ):
            net.build()

    def test_depth_to_space_of_three(self):
        net = builder()
        net.depth_to_space(net.conv(net.input(), 9, widths=None), 3)
        with pytest.raises(ConfigError, match="must be a power of 2, got 3"):
            net.build()

    def test_choices_with_another_number_of_options(self):
        net = builder()
        x = net.conv(net.input(), 8)
        decision = DecisionVariable("d", Kind.OPERATOR, ("a", "b"))
        net.choice([x, net.conv(x, 8), net.conv(x, 8)], decision, name="choice")
        with pytest.raises(ConfigError, match=r"as many as options of 'd' \(2\), got 3"):
            net.build()
