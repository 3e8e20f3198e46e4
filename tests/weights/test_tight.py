# SPDX-License-Identifier: Apache-2.0
"""The tight encoder: never larger than Arm's two, readable by Arm's decoder, smaller on most."""

from __future__ import annotations

from collections.abc import Iterator

import arm
import arm_process
import generators
import numpy as np
import plans
import pytest
import real_layers

from npusim.weights import decode, encode, encoded_size, tight
from npusim.weights.format import MINUS_ZERO
from npusim.weights.plan import Plan, regor_plan

CORNERS = {name: v for name, v in generators.corner_cases().items() if v.size <= 40_000}
OPTIONS = [
    {},
    {"effort": 0},
    {"effort": 1},
    {"effort": 2, "direct_offset": "free"},
    {"effort": 5},
    {"direct_offset": "free"},
]


def laplace(scale: float, n: int = 60_000, seed: int = 1) -> np.ndarray:
    values = np.random.default_rng(seed).laplace(0, scale, n)
    return np.clip(np.rint(values), -127, 127).astype(np.int16)


def smaller_of_arms(values: np.ndarray) -> int:
    return min(len(arm.legacy_encode(values)), len(arm.regor_encode(values)))


def check(values: np.ndarray, **options) -> None:
    stream = encode(values, "tight", **options)
    assert len(stream) <= smaller_of_arms(values)
    assert encoded_size(values, "tight", **options) == len(stream)
    assert np.array_equal(decode(stream), values)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_never_larger_than_arms_on_random_tensors(options):
    rng = np.random.default_rng(1)
    for _ in range(60):
        check(generators.tensor(rng, 3000), **options)


@pytest.mark.parametrize("kind", generators.KINDS, ids=lambda kind: kind.__name__)
def test_never_larger_than_arms_on_every_kind_of_weights(kind):
    rng = np.random.default_rng(2)
    for n in (1, 2, 50, 3000):
        check(kind(rng, n))


@pytest.mark.parametrize("name", CORNERS)
def test_never_larger_than_arms_on_corner_cases(name):
    check(CORNERS[name], effort=2)


@pytest.mark.slow
@pytest.mark.parametrize("direct_offset", tight.DIRECT_OFFSETS)
def test_never_larger_than_arms_on_many_tensors(direct_offset):
    rng = np.random.default_rng(3)
    for _ in range(2500):
        check(generators.tensor(rng, 20_000), effort=1, direct_offset=direct_offset)


@pytest.mark.slow
def test_never_larger_than_arms_at_every_effort():
    rng = np.random.default_rng(4)
    for _ in range(40):
        values = generators.tensor(rng, 20_000)
        sizes = [encoded_size(values, "tight", effort=effort) for effort in range(10)]
        assert sizes == sorted(sizes, reverse=True)
        check(values, effort=9)


def test_arm_decodes_tight_streams():
    rng = np.random.default_rng(5)
    tensors = [generators.tensor(rng, 2000) for _ in range(50)] + list(CORNERS.values())
    options = [{}, {"direct_offset": "free"}, {"effort": 0}]
    streams = [encode(v, "tight", **options[i % 3]) for i, v in enumerate(tensors)]
    for values, arms in zip(tensors, arm_process.decode(streams), strict=True):
        assert np.array_equal(arms, values)


def test_more_effort_never_gives_a_larger_stream():
    rng = np.random.default_rng(6)
    for _ in range(6):
        values = generators.tensor_of(rng, 4000)
        sizes = [encoded_size(values, "tight", effort=effort) for effort in range(7)]
        assert sizes == sorted(sizes, reverse=True)


def test_effort_finds_sections_that_none_does_not():
    """Pieces of other scales with more values than a palette holds: Arm's encoders see one."""
    values = np.concatenate([laplace(scale, 6000) for scale in (3, 60, 3, 60)])
    none, default = (encoded_size(values, "tight", effort=effort) for effort in (0, 3))
    assert default < 0.99 * none
    assert default == encoded_size(values, "tight")


@pytest.mark.parametrize(("scale", "most"), [(8, 0.965), (15, 0.945)])
def test_laplace_weights_take_less_than_under_arms_encoders(scale, most):
    """Arm's encoders put a palette of 32 before weights that are better coded directly."""
    values = laplace(scale)
    assert encoded_size(values, "tight", effort=1) <= most * smaller_of_arms(values)


def folded_values(plan: Plan) -> Iterator[tuple[int, set[int]]]:
    """Of each section: direct offset, folded values of its weights as they are coded."""
    for section in plans.sections_of(plan):
        palette = section.palette
        shift = palette.direct_offset - len(palette.entries)
        table = dict(enumerate(palette.entries))
        yield palette.direct_offset, {table.get(x, x + shift) for x in section.indices}


def test_conservative_direct_offsets_are_as_arms():
    """No value of a section lies below its direct offset: so it is in all streams of Arm's."""
    rng = np.random.default_rng(8)
    tensors = [generators.tensor(rng, 3000) for _ in range(80)] + [laplace(4, 5000)]
    for values in tensors:
        for offset, folded in folded_values(tight.tight_plan(values, 2)):
            assert offset <= max(1, min(folded))


def test_free_direct_offsets_pay():
    values = laplace(4)
    free = encoded_size(values, "tight", effort=1, direct_offset="free")
    assert free < 0.985 * encoded_size(values, "tight", effort=1)
    plan = tight.tight_plan(values, 1, "free")
    assert any(offset > min(folded) for offset, folded in folded_values(plan))


def test_zeros_coded_directly_take_the_least_index():
    """Arm's encoders send them as minus zero, folded value 1: an index longer than need be."""
    values = laplace(15)
    (ours,) = plans.sections_of(tight.tight_plan(values, 0))
    assert ours.palette.entries == []  # where Arm's have one, whose indices the others lack
    assert 0 in ours.indices
    ((_, folded),) = folded_values(tight.tight_plan(values, 0))
    assert MINUS_ZERO not in folded
    wide = laplace(100)
    ((_, folded),) = folded_values(regor_plan(wide))
    assert MINUS_ZERO in folded


def totals(path, options: dict[str, object]) -> np.ndarray:
    """Bytes of a model's weight streams: legacy, regor, tight."""
    sums = np.zeros(3, int)
    for _, values in real_layers.layer_values(path):
        sizes = [encoded_size(values, encoder) for encoder in ("legacy", "regor")]
        sizes.append(encoded_size(values, "tight", **options))
        assert sizes[2] <= min(sizes)
        sums += sizes
    return sums


@pytest.mark.data
@pytest.mark.slow
def test_real_models_take_less(models_dir):
    """The table's figure: at most 0.985 of legacy over the models, 0.95 on uint8 ones."""
    sums = {path.stem: totals(path, {}) for path in models_dir.glob("*.tflite")}
    legacy, _, ours = np.sum(list(sums.values()), axis=0)
    assert ours <= 0.985 * legacy
    for name in ("coral_mbv2_10_224_uint8", "coral_mbv1_025_128_uint8"):
        legacy, _, ours = sums[name]
        assert ours <= 0.95 * legacy, name


@pytest.mark.data
def test_a_real_model_takes_less_and_comes_back(models_dir):
    path = models_dir / "mlperf_kws_dscnn_int8.tflite"
    for _, values in real_layers.layer_values(path):
        check(values)
