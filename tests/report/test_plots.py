# SPDX-License-Identifier: Apache-2.0
"""What the plots show, read back from the figure before it is saved."""

from __future__ import annotations

import pytest

from npusim.compress import CompressReport, LayerSize
from npusim.errors import ConfigError
from npusim.report import plots
from npusim.sweep import Sweep, SweepPoint

mpl_figure = pytest.importorskip("matplotlib.figure", reason="plots need the extra [plot]")


def layer(name, regor, tight, entropy, same_as=""):
    sizes = {"regor": regor, "tight": tight, "entropy": entropy, "eq4": 1, "raw": 1}
    return LayerSize(
        name, "CONV_2D", (1, 1, 1, 1), "depth-first", 16, 1, 1, 0, 1, sizes, 160, same_as
    )


LAYERS = (layer("a", 3000, 2000, 1500), layer("b", 900, 800, 1000), layer("c", 1, 1, 1, "a"))
REPORT = CompressReport("m", "npu", "regor", ("regor", "tight"), None, 1.0, LAYERS, ())


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved, with their paths."""
    saved = []
    monkeypatch.setattr(plots, "save", lambda figure, path: saved.append((figure, path)))
    return saved


def test_bars_add_up_to_each_layers_flash(figures):
    plots.plot_layers([REPORT, REPORT], "layers.png")
    ((figure, path),) = figures
    assert path == "layers.png"
    assert len(figure.axes) == 2
    (axes, _) = figure.axes
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    expected = [[1.5, 0.9], [1.5, 0.0], [0.16, 0.16]]
    for found, parts in zip(widths, expected, strict=True):
        assert found == pytest.approx(parts)  # left edge plus width, in floats
    ends = [bar.get_x() + bar.get_width() for bar in axes.containers[-1]]
    assert ends == pytest.approx([3.16, 1.06])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    (tight,) = axes.lines
    assert list(tight.get_xdata()) == [2.0, 0.8]
    assert axes.get_title() == "m on npu: flash 4.2 KB"


def test_a_sweep_has_a_line_for_each_share(figures):
    points = tuple(
        SweepPoint(bits, share, share, int(1000 * bits * share), 1.0)
        for bits in (8, 2)
        for share in (1.0, 0.1)
    )
    plots.plot_sweeps([Sweep(REPORT, points)], "sweep.png")
    ((figure, _),) = figures
    *lines, baseline = figure.axes[0].lines
    assert [line.get_label() for line in lines] == ["100 % non-zeros", "10 % non-zeros"]
    assert [list(line.get_xdata()) for line in lines] == [[8, 2], [8, 2]]
    assert [list(line.get_ydata()) for line in lines] == [[8.0, 2.0], [0.8, 0.2]]
    assert set(baseline.get_ydata()) == {REPORT.flash_bytes / 1000}


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_pictures_are_of_the_kind_that_their_ending_says(tmp_path, ending):
    path = tmp_path / f"layers.{ending}"
    plots.check_plot(str(path))
    plots.plot_layers([REPORT], str(path))
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_a_high_picture_is_drawn_coarser(tmp_path):
    figure = mpl_figure.Figure(figsize=(1, 600))  # 90,000 pixels at the usual resolution
    plots.save(figure, str(tmp_path / "high.png"))
    assert int.from_bytes((tmp_path / "high.png").read_bytes()[20:24]) == 30_000


def test_refused_endings():
    for path in ("plot.xyz", "plot", ""):
        with pytest.raises(ConfigError, match=rf"^plot must end in one of .*, got '{path}'"):
            plots.check_plot(path)
