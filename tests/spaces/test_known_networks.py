# SPDX-License-Identifier: Apache-2.0
"""The full networks of the spaces against what is published about them."""

from __future__ import annotations

import pytest

import spaces
from spaces.base import Candidate, Kind, Space
from spaces.concrete import concrete_layers
from spaces.costs import cost


def kinds(space: Space) -> dict[str, int]:
    return {str(kind): sum(d.kind is kind for d in space.decisions) for kind in Kind}


def n_weights(space: Space, candidate: Candidate) -> int:
    return sum(layer.n_weights for layer in concrete_layers(space, candidate))


class TestWideResNet:
    def test_has_the_weights_and_decisions_of_the_paper_s(self):
        """26.8 million weights, as McDonnell 2018 has for depth 20 and multiplier 10."""
        space = spaces.get("cifar100")
        assert n_weights(space, space.largest()) == 26_794_720
        assert kinds(space) == {**dict.fromkeys(map(str, Kind), 0), "width": 12, "bitwidth": 20,
                                "sparsity": 20}  # fmt: skip
        assert space.count() == 10**12 * 4**20 * 11**20

    def test_multiplier_and_depth_scale_it(self):
        space = spaces.get("cifar100", multiplier=1, depth=8)
        by_hand = 27 * 16 + 9 * (2 * 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 64 * 100
        assert n_weights(space, space.largest()) == by_hand

    def test_the_layers_of_a_stage_share_a_width_and_a_block_s_inside_has_its_own(self):
        space = spaces.get("cifar100")
        widths = {layer.name: layer.width for layer in space.layers if layer.width}
        assert {widths[f"stage2.block{i}.conv2"] for i in (1, 2, 3)} == {widths["match_depth1"]}
        assert len({widths[f"stage2.block{i}.conv1"] for i in (1, 2, 3)}) == 3
        assert widths["stem"] == widths["stage1.block3.conv2"] != widths["stage2.block1.conv2"]

    @pytest.mark.parametrize(("narrow", "wide"), [(1, 2), (2, 1)])
    def test_shortcuts_between_stages_fit_any_widths(self, narrow, wide):
        space = spaces.get("cifar100", multiplier=1)
        options = space.options_of(space.largest())
        options |= {"stem.width": 0.1 * narrow, "stage2.block1.conv2.width": 0.1 * wide}
        layers = {
            each.layer.name: each for each in concrete_layers(space, space.from_options(options))
        }
        match = layers["match_depth1"]
        assert match.ifm_depth == layers["stem"].ofm_depth == -(-16 * narrow // 10)
        assert match.ofm_depth == layers["stage2.block1.conv2"].ofm_depth == -(-32 * wide // 10)


class TestMobileNetV2:
    def test_is_the_published_network(self):
        """3,504,872 parameters and 300.8 million multiply-accumulates; [UDC] table 4: 3.31 MiB."""
        space = spaces.get("imagenet", bitwidths=(8,))
        full = space.largest()
        assert cost(space, full, "n_parameters") == 3_504_872
        assert cost(space, full, "macs") == 300_774_272
        assert n_weights(space, full) == 3_469_760
        assert round(cost(space, full, "size_bits") / 8 / 2**20, 2) == 3.31

    def test_has_the_decisions_of_the_design(self):
        assert {k: n for k, n in kinds(spaces.get("imagenet")).items() if n} == {
            "width": 25,
            "bitwidth": 53,
            "sparsity": 53,
        }

    def test_wide_variant_has_5x5_kernels_and_half_more_channels(self):
        space = spaces.get("imagenet", widen=1.5, kernel=5)
        layers = {layer.name: layer for layer in space.layers}
        assert layers["stem"].ofm_depth == 48
        assert layers["block17.project"].ofm_depth == 480
        assert layers["head"].ofm_depth == 1920
        assert {layers[f"block{i}.depthwise"].kernel for i in range(1, 18)} == {5}
        assert layers["stem"].kernel == 3

    def test_operators_leave_out_blocks_where_the_shape_allows_it(self):
        space = spaces.get("imagenet", operators=True)
        chosen = {d.name: d.options for d in space.decisions if d.kind is Kind.OPERATOR}
        assert len(chosen) == 17
        skipped = [name for name, options in chosen.items() if "identity" in options]
        assert len(skipped) == 10  # blocks of stride 1 after the first of their stage
        options = space.options_of(space.largest()) | dict.fromkeys(skipped, "identity")
        options = {
            k: "bottleneck" if k in chosen and k not in skipped else v for k, v in options.items()
        }
        short = concrete_layers(space, space.from_options(options))
        names = {each.layer.name for each in short}
        assert "block3.expand" not in names
        assert "block2.expand" in names
        assert sum(each.layer.kind == "depthwise" for each in short) == 7

    def test_all_bottlenecks_cost_what_the_space_without_operators_has(self):
        plain, space = spaces.get("imagenet"), spaces.get("imagenet", operators=True)
        options = {
            d.name: "bottleneck" if d.kind is Kind.OPERATOR else d.options[-1]
            for d in space.decisions
        }
        candidate = space.from_options(options)
        for measure in ("size_bits", "macs", "n_parameters"):
            assert cost(space, candidate, measure) == cost(plain, plain.largest(), measure)

    def test_resolution_is_decided(self):
        space = spaces.get("imagenet", resolutions=(128, 224))
        options = space.options_of(space.largest())
        small = space.from_options(options | {"image.resolution": 128})
        assert cost(space, small, "size_bits") == cost(space, space.largest(), "size_bits")
        assert cost(space, space.largest(), "macs") == 300_774_272
        classifier = 1280 * 1000
        convolutions = (300_774_272 - classifier) * 128**2 // 224**2  # all maps divide
        assert cost(space, small, "macs") == convolutions + classifier


class TestSuperResolution:
    def test_has_the_cost_of_fsrcnn(self):
        """FSRCNN(56, 12, 4) with its 9x9 transpose convolution at 64x64: 51 million."""
        space = spaces.get(
            "super_resolution",
            head="transpose_conv",
            features=56,
            shrunk=12,
            layers=4,
            kernels=(3, 5),
            widths=(1.0,),
            last_kernels=(9,),
        )
        options = space.options_of(space.largest()) | {f"map{i}.kernel": 3 for i in range(1, 5)}
        by_hand = 64 * 64 * (25 * 56 + 2 * 56 * 12 + 4 * 9 * 12 * 12 + 81 * 56)
        assert cost(space, space.from_options(options), "macs") == by_hand == 51_052_544

    def test_depth_leaves_layers_out(self):
        space = spaces.get("super_resolution")
        options = space.options_of(space.largest())
        for depth in range(9):
            candidate = space.from_options(options | {"maps.depth": depth})
            names = [each.layer.name for each in concrete_layers(space, candidate)]
            assert sum(name.startswith("map") for name in names) == depth

    @pytest.mark.parametrize("scale", [2, 4])
    @pytest.mark.parametrize("head", ["depth_to_space", "transpose_conv"])
    def test_result_is_larger_by_the_scale(self, scale, head):
        space = spaces.get("super_resolution", scale=scale, head=head)
        last = concrete_layers(space, space.largest())[-1]
        assert (last.ofm_height, last.ofm_width, last.ofm_depth) == (64 * scale, 64 * scale, 1)


class TestNasBench201:
    """Parameters and multiply-accumulates of the benchmark's smallest and largest cells."""

    def everywhere(self, space: Space, operator: str) -> Candidate:
        return space.from_options({d.name: operator for d in space.decisions})

    def test_has_its_candidates(self):
        space = spaces.get("nas_bench_201")
        assert space.count() == 5**6
        assert len(space.enumerate()) == 5**6

    @pytest.mark.parametrize(
        ("operator", "n_parameters", "mega_macs"),
        [
            ("none", 73_306, 7.78),
            ("skip_connect", 73_306, 7.78),
            ("avg_pool_3x3", 73_306, 7.78),
            ("nor_conv_1x1", 73_306 + 30 * (16**2 + 32**2 + 64**2 + 2 * 112), 31.38),
            ("nor_conv_3x3", 1_531_546, 220.12),
        ],
    )
    def test_costs(self, operator, n_parameters, mega_macs):
        space = spaces.get("nas_bench_201")
        candidate = self.everywhere(space, operator)
        assert cost(space, candidate, "n_parameters") == n_parameters
        assert cost(space, candidate, "macs") / 1e6 == pytest.approx(mega_macs, abs=0.005)


class TestNasBenchMacro:
    """Parameters and multiply-accumulates of three networks of the benchmark's table."""

    @pytest.mark.parametrize(
        ("operator", "n_parameters", "macs"),
        [
            ("identity", 387_882, 7_713_280),
            ("expand3_kernel3", 1_588_874, 53_246_464),
            ("expand6_kernel5", 2_932_586, 105_660_928),
        ],
    )
    def test_costs(self, operator, n_parameters, macs):
        space = spaces.get("nas_bench_macro")
        candidate = space.from_options({d.name: operator for d in space.decisions})
        assert cost(space, candidate, "n_parameters") == n_parameters
        assert cost(space, candidate, "macs") == macs


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar100", {"multiplier": 0}, r"multiplier of cifar100 must be in 1..64, got 0"),
        ("cifar100", {"depth": 21}, r"depth of cifar100 must be 6 n \+ 2, got 21"),
        (
            "imagenet",
            {"operators": "yes"},
            "operators of imagenet must be true or false, got 'yes'",
        ),
        ("imagenet", {"widen": 0}, r"widen of imagenet must be in 0.05..8, got 0"),
        ("tiny_imagenet", {"kernel": 0}, r"kernel of tiny_imagenet must be in 1..15, got 0"),
        ("tiny_imagenet", {"image": 8}, r"image of tiny_imagenet must be in 16..1024, got 8"),
        ("tiny_imagenet", {"classes": 1}, r"classes of tiny_imagenet must be in 2..100000, got 1"),
        ("super_resolution", {"scale": 3}, "scale of super_resolution must be 2 or 4, got 3"),
        ("super_resolution", {"head": "deconv"}, "head of super_resolution must be one of"),
        ("super_resolution", {"activation": "gelu"}, "activation of super_resolution must be one"),
        ("super_resolution", {"layers": 0}, r"layers of super_resolution must be in 1..16, got 0"),
        ("nas_bench_201", {"cells": 0}, r"cells of nas_bench_201 must be in 1..20, got 0"),
    ],
)
def test_options_out_of_range_are_refused(name, options, message):
    with pytest.raises((ValueError, LookupError), match=message):
        spaces.get(name, **options)
