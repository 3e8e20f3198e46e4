# SPDX-License-Identifier: Apache-2.0
"""A Hypothesis strategy: rows of numbers of any operation."""

from __future__ import annotations

from hypothesis import strategies as st

from npusim.cost import columns as col
from npusim.cost.rows import table

BLOCKED_UNITS = st.integers(col.CONVOLUTION, col.TRANSPOSE)


@st.composite
def rows(draw, units=BLOCKED_UNITS):
    """One row of any operation, shapes as they come."""
    unit = draw(units)
    extent, depth = st.integers(1, 40), st.integers(1, 150)
    sizes = {f"{m}_{axis}": draw(extent) for m in ("ifm", "ofm") for axis in ("height", "width")}
    sizes |= {"ifm_depth": draw(depth), "ofm_depth": draw(depth)}
    if unit == col.MATMUL or (unit == col.ELEMENTWISE and draw(st.booleans())):
        scalar = draw(st.booleans())
        for axis in ("height", "width", "depth"):
            sizes[f"ifm2_{axis}"] = 1 if scalar else sizes[f"ifm_{axis}"]
    kernel = st.integers(1, 12) if unit <= col.POOLING else st.just(1)
    for what, values in (
        ("kernel", kernel),
        ("stride", st.integers(1, 3)),
        ("dilation", st.integers(1, 2)),
        ("upscale", st.integers(1, 2)),
    ):
        sizes |= {f"{what}_{axis}": draw(values) for axis in ("height", "width")}
    formats = {f"{m}_format": draw(st.integers(0, 1)) for m in ("ifm", "ifm2", "ofm")}
    bits = st.sampled_from((8, 16) if unit <= col.DEPTHWISE else (8, 16, 32))
    return table(
        1,
        unit=unit,
        nearest=draw(st.integers(0, 1)),
        ifm_bits=draw(bits),
        ofm_bits=draw(st.sampled_from((8, 16, 32))),
        table_banks=draw(st.sampled_from((0, 2))),
        activation_rate=draw(st.integers(0, 2)),
        has_scales=draw(st.integers(0, 1)),
        weight_bytes=draw(st.integers(0, 5000)),
        scale_bytes=draw(st.integers(0, 500)),
        decode_cycles=draw(st.sampled_from((0, 7, 10_000))),
        **sizes,
        **formats,
    )
