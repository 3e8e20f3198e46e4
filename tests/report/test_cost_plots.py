# SPDX-License-Identifier: Apache-2.0
"""What plots of costs show, read back from the figure before it is saved."""

from __future__ import annotations

import dataclasses

import pytest
from hand_made_costs import ARENA, NETWORK, cost_of, cpu_op, op_cost

from npusim.cost.explain import STAGES, op_waterfall, waterfall
from npusim.cost.result import BOUNDS
from npusim.errors import ConfigError, UnknownNameError
from npusim.npu import get
from npusim.report import cost_plots

pytest.importorskip("matplotlib.figure", reason="plots need the extra [plot]")

WIDTHS = {"sram": 8.0, "off_chip_flash": 1.0}


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved, with their paths."""
    saved = []
    monkeypatch.setattr(cost_plots, "save", lambda figure, path: saved.append((figure, path)))
    return saved


def only_axes(figures):
    ((figure, _),) = figures
    (axes,) = figure.axes
    return axes


def test_every_bound_and_stage_has_a_style_of_its_own():
    assert set(cost_plots.BOUND_STYLES) == set(BOUNDS)
    assert set(cost_plots.STAGE_STYLES) == set(STAGES)
    for styles in (cost_plots.BOUND_STYLES, cost_plots.STAGE_STYLES):
        colors = [color for color, _ in styles.values()]
        assert len(set(colors)) == len(colors)
    markers = [marker for _, marker in cost_plots.BOUND_STYLES.values()]
    assert len(set(markers)) == len(markers)


def test_roofline(figures):
    cost_plots.plot_roofline(NETWORK, "roof.png", WIDTHS)
    axes = only_axes(figures)
    points = {group.get_label(): group.get_offsets().tolist() for group in axes.collections}
    # of 320 bytes in flash (330 cycles), of 2500 there
    assert points["bound by mac"] == [pytest.approx([64_000 / 320, 64.0])]
    assert points["bound by flash"] == [pytest.approx([2000 / 2500, 0.8])]
    roofs = {line.get_label(): line.get_xydata().tolist() for line in axes.lines[:2]}
    assert roofs["sram: 8 B/cycle"][1:] == [[16, 128], [pytest.approx(800), 128]]
    assert roofs["off chip flash: 1 B/cycle"][1] == [128, 128]
    left = axes.get_xlim()[0]
    assert roofs["off chip flash: 1 B/cycle"][0] == pytest.approx([left, left])
    assert axes.get_title() == "net on ethos-u55-128; not shown: 1 without MACs or traffic"
    for group in axes.collections:
        for intensity, rate in group.get_offsets():
            assert rate <= min(128, 8 * intensity)


def test_roofline_of_another_npu(figures):
    mine = get("ethos-u55-128").replace(name="mine", macs_per_cycle=64)
    cost_plots.plot_roofline(dataclasses.replace(NETWORK, npu="mine"), "r.png", WIDTHS, mine)
    assert only_axes(figures).lines[-1].get_label() == "peak: 64 MACs/cycle"
    assert set(only_axes(figures).lines[-1].get_ydata()) == {64}


def test_roofline_without_operations(figures):
    cost_plots.plot_roofline(cost_of(cpu_op()), "r.png", WIDTHS)
    axes = only_axes(figures)
    assert len(axes.collections) == 0
    assert "not shown: 1 " in axes.get_title()


def test_what_a_roofline_refuses():
    with pytest.raises(ConfigError, match=r"^bytes_per_cycle must have 'off_chip_flash', got \['s"):
        cost_plots.plot_roofline(NETWORK, "r.png", {"sram": 8})
    with pytest.raises(ConfigError, match=r"^bytes_per_cycle of 'sram' must be more than 0"):
        cost_plots.plot_roofline(NETWORK, "r.png", {**WIDTHS, "sram": 0})
    strange = cost_of(op_cost(bound="luck"))
    with pytest.raises(UnknownNameError, match=r"^bound must be one of .*, got 'luck'"):
        cost_plots.plot_roofline(strange, "r.png", WIDTHS)


def test_memory_over_time(figures):
    cost = dataclasses.replace(NETWORK, arena_limit_bytes=2048)
    cost_plots.plot_memory(cost, "memory.png")
    axes = only_axes(figures)
    starts = [0, 2e-3, 3.4e-3, 8.4e-3]  # ms: 1000, 700 and 2500 cycles at 500 MHz
    assert len(axes.patches) == len(ARENA)
    for patch, stretch in zip(axes.patches, ARENA, strict=True):
        assert patch.get_label() == stretch.name
        assert patch.get_x() == pytest.approx(starts[stretch.first_op])
        assert patch.get_x() + patch.get_width() == pytest.approx(starts[stretch.last_op + 1])
        assert patch.get_y() == stretch.address / 1024
        assert patch.get_height() == stretch.n_bytes / 1024
        assert (patch.get_hatch() == "//") is stretch.at_peak
    assert [line.get_ydata()[0] for line in axes.lines] == [2108 / 1024, 2.0]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        *("peak 2.1 KiB", "limit 2.0 KiB")
    ]
    assert axes.get_ylim()[1] > 2108 / 1024
    assert {text.get_text() for text in axes.texts} == {s.name for s in ARENA}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time, ms", "address in the arena, KiB")


def test_a_cost_without_an_arena():
    with pytest.raises(
        ConfigError, match=r"^cost of net must tell its arena to be drawn, got none"
    ):
        cost_plots.plot_memory(cost_of(op_cost()), "memory.png")


def test_bars_add_up_to_each_operation_s_cycles(figures):
    network = cost_of(*NETWORK.ops, cpu_op())
    cost_plots.plot_op_cycles([network, NETWORK], "layers.png", ["ethos-u55-128"] * 2)
    ((figure, path),) = figures
    assert path == "layers.png"
    assert len(figure.axes) == 2
    axes = figure.axes[0]
    for bars in axes.containers:
        stage = bars.get_label().replace(" ", "_")
        expected = [
            op_waterfall(op, "ethos-u55-128").cycles_by_stage[stage] / 1000 for op in network.ops
        ]
        assert [bar.get_width() for bar in bars] == pytest.approx(expected)
    ends = [bar.get_x() + bar.get_width() for bar in axes.containers[-1]]
    assert ends == pytest.approx([1.0, 0.7, 2.5, 0.5])
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["conv", "add", "dense", "custom"]
    assert "issue" not in [bars.get_label() for bars in axes.containers]  # nothing is lost there
    assert axes.get_title() == "net on ethos-u55-128: 4,700 cycles"


def test_waterfall(figures):
    cost_plots.plot_waterfall(NETWORK, "waterfall.png")
    axes = only_axes(figures)
    parts = [cycles / 1000 for cycles in waterfall(NETWORK).cycles_by_stage.values() if cycles]
    *bars, total = axes.patches
    assert [bar.get_height() for bar in bars] == pytest.approx(parts)
    tops = [bar.get_y() + bar.get_height() for bar in bars]
    assert [bar.get_y() for bar in bars] == pytest.approx([0, *tops[:-1]])
    assert total.get_height() == pytest.approx(4.2)
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == [
        *("ideal", "padding", "output", "fill", "weight dma", "refetch", "memory", "total")
    ]
    assert "12.3 %" in axes.get_title()


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: cost_plots.plot_roofline(NETWORK, path, WIDTHS),
        lambda path: cost_plots.plot_memory(NETWORK, path),
        lambda path: cost_plots.plot_op_cycles([NETWORK, cost_of()], path),
        lambda path: cost_plots.plot_waterfall(NETWORK, path),
    ],
    ids=["roofline", "memory", "op_cycles", "waterfall"],
)
def test_pictures_are_made(tmp_path, draw):
    path = tmp_path / "plot.png"
    draw(str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [found.name for found in tmp_path.iterdir()] == ["plot.png"]
    with pytest.raises(ConfigError, match=r"^plot must be writable, got '.*none/plot.png'"):
        draw(str(tmp_path / "none" / "plot.png"))
