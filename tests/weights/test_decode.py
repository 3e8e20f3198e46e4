# SPDX-License-Identifier: Apache-2.0
"""The decoding kernel on streams the format allows: by hand, by chance, by Arm's encoders."""

from __future__ import annotations

from functools import cache

import arm
import arm_process
import generators
import numpy as np
import pytest
from hand_made import GOOD, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.weights import decode, reference, slices
from npusim.weights import format as f
from npusim.weights.reference import Palette, Section, Slice


def random_stream(rng: np.random.Generator, most: int) -> tuple[bytes, list[Section]]:
    sections = [generators.random_section(rng, most) for _ in range(int(rng.integers(1, 4)))]
    return reference.emit(sections), sections


def values_of(sections: list[Section]) -> np.ndarray:
    return np.concatenate([generators.section_values(section) for section in sections])


@pytest.mark.parametrize("name", GOOD)
def test_bits_by_hand_are_decoded(name):
    good = GOOD[name]
    assert decode(stream(good.bits)).tolist() == good.values


@settings(deadline=None, derandomize=True, max_examples=200)
@given(seed=st.integers(0, 2**32 - 1), most=st.sampled_from([3, 30, 300]))
def test_whatever_the_format_allows_is_decoded(seed, most):
    content, sections = random_stream(np.random.default_rng(seed), most)
    decoded = decode(content)
    assert decoded.dtype == np.int16
    assert decoded.tolist() == reference.decode(content, 2**40) == values_of(sections).tolist()


def test_arm_decodes_whatever_the_format_allows_alike():
    rng = np.random.default_rng(1)
    streams = [random_stream(rng, 200)[0] for _ in range(120)]
    for content, arms in zip(streams, arm_process.decode(streams), strict=True):
        assert np.array_equal(decode(content), arms)


def extreme_sections() -> dict[str, Section]:
    """Sections at a limit of the format each."""
    rng = np.random.default_rng(2)
    entries = rng.permutation(np.arange(2, 512))[:32].tolist()
    none = Palette(False, 0, 9, [])
    direct_runs = Palette(True, 0, 9, [])
    runs = Palette(True, 31, 9, entries)

    def coded(palette, part, indices, zeros=()):
        return Section(palette, indices, list(zeros), [part])

    n = f.SLICE_LEN_MAX
    raw = rng.integers(0, 512, n).tolist()
    small = rng.integers(0, 4, n).tolist()
    ones = rng.integers(0, 2, n).tolist()
    zeros = rng.geometric(0.3, n + 1).tolist()
    sections = {
        "raw_9_bits": coded(none, Slice(n, 7, 0, 0), raw),
        "raw_9_bits_and_runs": coded(direct_runs, Slice(n, 7, 0, 2), raw, zeros),
        "longest_slice_and_runs": coded(runs, Slice(n, 5, 0, 3), small, zeros),
        "longest_emitted_slice": coded(runs, Slice(n - 1, 2, 0, 1), small[:-1], zeros[:-1]),
        "no_runs_after_first": coded(runs, Slice(n, 0, 1, 0), ones, [0] * (n + 1)),
        "one_weight_in_long_runs": coded(runs, Slice(1, 7, 1, 3), [31], [400_000, 7]),
        "direct_offset_31": coded(Palette(False, 31, 2, []), Slice(900, 4, 0, 0), [480] * 900),
        "all_quotients_31": coded(direct_runs, Slice(700, 0, 0, 0), [31] * 700, [0] * 701),
    }
    for k in range(f.WDIV_MAX + 1):
        top = min(32 << k, 512)
        sections[f"wdiv_{k}"] = coded(none, Slice(600, k, 0, 0), rng.integers(0, top, 600).tolist())
        trunc = rng.integers(0, 3 << k, 600).tolist()
        sections[f"wdiv_{k}_truncated"] = coded(none, Slice(600, k, 1, 0), trunc)
    for zdiv in range(f.ZDIV_MAX + 1):
        long = (rng.geometric(0.01, 601) * (rng.random(601) < 0.3)).tolist()
        part = Slice(600, 3, 0, zdiv)
        sections[f"zdiv_{zdiv}"] = coded(runs, part, rng.integers(0, 50, 600).tolist(), long)
    return sections


EXTREMES = extreme_sections()


@cache
def extreme_stream(name: str) -> bytes:
    return reference.emit([EXTREMES[name]])


@pytest.mark.parametrize("name", EXTREMES)
def test_limits_of_the_format_are_decoded(name):
    values = generators.section_values(EXTREMES[name])
    assert np.array_equal(decode(extreme_stream(name)), values)


def test_arm_decodes_the_limits_of_the_format_alike():
    decoded = arm_process.decode([extreme_stream(name) for name in EXTREMES])
    for section, values in zip(EXTREMES.values(), decoded, strict=True):
        assert np.array_equal(values, generators.section_values(section))


def test_streams_may_follow_one_another():
    rng = np.random.default_rng(3)
    made = [random_stream(rng, 200) for _ in range(5)] + [(stream(GOOD["nothing"].bits), [])]
    joined = b"".join(content for content, _ in made)
    expected = np.concatenate([values_of(sections) for _, sections in made if sections])
    assert np.array_equal(decode(joined), expected)
    assert np.array_equal(arm_process.decode([joined])[0], expected)


def test_end_markers_may_fill_the_stream():
    good = GOOD["two slices"]
    assert decode(stream(good.bits) + b"\xff" * 48).tolist() == good.values


@settings(deadline=None, derandomize=True, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1))
def test_slices_account_for_every_bit(seed):
    content, sections = random_stream(np.random.default_rng(seed), 100)
    rows = slices(content)
    parts = [(section, part) for section in sections for part in section.slices]
    assert [row.n_weights for row in rows] == [part.n_weights for _, part in parts]
    ends = [row.bit_offset for row in rows[1:]]
    for row, end in zip(rows, ends, strict=False):
        assert row.bit_offset + sum(row.bits.values()) == end
    last = rows[-1].bit_offset + sum(rows[-1].bits.values()) + f.ZDIV_FIELD_BITS
    assert len(content) == -(-last // 128) * 16
    assert sum(row.n_weights + row.n_zeros for row in rows) == decode(content).size


def test_slices_tell_what_headers_say():
    rng = np.random.default_rng(4)
    for _ in range(30):
        content, sections = random_stream(rng, 50)
        rows = iter(slices(content))
        for section in sections:
            palette = section.palette
            for number, part in enumerate(section.slices):
                row = next(rows)
                assert (row.wdiv, row.wtrunc) == (part.wdiv, bool(part.wtrunc))
                assert row.zdiv == (part.zdiv if palette.zero_runs else f.ZDIV_OFF)
                assert row.zero_runs == palette.zero_runs
                assert row.new_palette == (number == 0)
                assert row.direct_offset == palette.direct_offset
                assert row.palette_bits == palette.palette_bits
                assert row.palette == tuple(map(reference.unfold, palette.entries))


def test_bits_of_a_slice_by_hand():
    (row,) = slices(stream(GOOD["zero runs"].bits))
    assert row.bits == {
        "header": 23,
        "palette": 13,
        "weight_unary": 3,  # a step of two, one of none: ten positions hold nothing
        "weight_remainder": 0,
        "run_unary": 3,  # two bits and one: nine hold nothing
        "run_remainder": 2,
        "padding": 19,
    }
    assert (row.n_weights, row.n_zeros, row.wdiv, row.zdiv) == (1, 3, 0, 1)


def test_arms_streams_are_decoded_back():
    rng = np.random.default_rng(5)
    for _ in range(40):
        values = generators.tensor(rng, 30000)
        for encoder in (arm.legacy_encode, arm.regor_encode):
            assert np.array_equal(decode(encoder(values)), values)
