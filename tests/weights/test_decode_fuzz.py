# SPDX-License-Identifier: Apache-2.0
"""Damaged streams: the decoder gives an array or a StreamError, always what the reference says.

The reference is the plain-Python decoder: same weights, or the same error at the same bit.
"""

from __future__ import annotations

import generators
import numpy as np
import pytest
from hand_made import BAD, GOOD, stream

from npusim.errors import StreamError
from npusim.weights import decode, encode, reference, slices, status

UNLIMITED = 2**40


def seed_streams(rng: np.random.Generator) -> list[bytes]:
    """Short streams of all encoders, of every kind of weights, and ones no encoder writes."""
    seeds = [stream(good.bits) for good in GOOD.values()] + [bad.stream for bad in BAD.values()]
    for encoder in ("legacy", "regor"):
        for kind in generators.KINDS:
            seeds.append(encode(kind(rng, int(rng.integers(1, 100))), encoder))
        seeds += [encode(generators.tensor(rng, 300), encoder) for _ in range(20)]
    for _ in range(60):
        sections = [generators.random_section(rng, 12) for _ in range(int(rng.integers(1, 4)))]
        seeds.append(reference.emit(sections))
    return [seed for seed in seeds if len(seed) <= 400]


def mutate(rng: np.random.Generator, seeds: list[bytes]) -> bytes:
    """A seed with a few bits or bytes changed, moved, cut off or taken from another seed."""
    data = bytearray(seeds[int(rng.integers(len(seeds)))])
    for _ in range(int(rng.choice([1, 1, 1, 2, 4, 16]))):
        n = len(data)
        near = int(n * rng.random() ** 2) if n else 0  # headers stand at the front
        change = int(rng.integers(8)) if n else 5
        if change <= 1:
            data[near] ^= 1 << int(rng.integers(8))
        elif change == 2:
            data[near] = int(rng.integers(256))
        elif change == 3:
            del data[near : near + int(rng.choice([1, 1, 2, 8, 400]))]
        elif change == 4:
            data[near:near] = rng.bytes(int(rng.choice([1, 2, 16])))
        elif change == 5:
            other = seeds[int(rng.integers(len(seeds)))]
            data[near:] = other[int(rng.integers(len(other) + 1)) :]
        elif change == 6:
            data[near:near] = data[: int(rng.integers(n + 1))]
        else:
            fill = int(rng.choice([0, 255]))
            data[near : near + 4] = bytes([fill]) * len(data[near : near + 4])
    return bytes(data[:600])


def reference_verdict(content: bytes, max_weights: int) -> bytes | tuple[str, int]:
    try:
        return np.array(reference.decode(content, max_weights), np.int16).tobytes()
    except reference.BadStream as error:
        return f"{status.MESSAGES[error.status]} (at bit {error.bit})", error.bit


def verdict(content: bytes, max_weights: int | None) -> bytes | tuple[str, int]:
    try:
        return decode(content, max_weights).tobytes()
    except StreamError as error:
        return str(error), error.bit_offset


def differing(seed: int, n: int) -> tuple[list[bytes], int, set[str]]:
    """Streams judged otherwise than the reference does, how many are good, errors that occurred."""
    rng = np.random.default_rng(seed)
    seeds = seed_streams(rng)
    found, n_good, errors = [], 0, set()
    for _ in range(n):
        content = mutate(rng, seeds)
        limit = None if rng.random() < 0.8 else int(rng.integers(0, 400))
        expected = reference_verdict(content, UNLIMITED if limit is None else limit)
        if verdict(content, limit) != expected:
            found.append(content)
        if isinstance(expected, bytes):
            n_good += 1
        else:
            errors.add(expected[0].partition(" (at bit")[0])
    return found, n_good, errors


def test_damaged_streams_get_the_references_verdict():
    found, n_good, errors = differing(seed=1, n=2500)
    assert found == []
    assert n_good > 200
    assert errors == set(status.MESSAGES.values())  # each kind of damage is met


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_ten_times_ten_thousand_damaged_streams_get_the_references_verdict(seed):
    found, n_good, errors = differing(seed=100 + seed, n=10_000)
    assert found == []
    assert n_good > 800
    assert errors == set(status.MESSAGES.values())


def test_noise_gets_the_references_verdict():
    rng = np.random.default_rng(2)
    for _ in range(1500):
        content = rng.bytes(int(rng.integers(0, 80)))
        assert verdict(content, None) == reference_verdict(content, UNLIMITED)


def test_slices_judges_as_decode_does():
    rng = np.random.default_rng(3)
    seeds = seed_streams(rng)
    n_good = 0
    for _ in range(500):
        content = mutate(rng, seeds)
        expected = verdict(content, None)
        if isinstance(expected, bytes):
            n_good += 1
            rows = slices(content)
            assert 2 * sum(row.n_weights + row.n_zeros for row in rows) == len(expected)
        else:
            with pytest.raises(StreamError) as caught:
                slices(content)
            assert (str(caught.value), caught.value.bit_offset) == expected
    assert n_good > 40


def test_long_streams_with_a_damaged_bit_get_the_references_verdict():
    """Long enough for the kernel's fast paths, which look ahead by whole words."""
    rng = np.random.default_rng(4)
    for encoder in ("legacy", "regor"):
        for kind in generators.KINDS:
            content = bytearray(encode(kind(rng, 3000), encoder))
            at = int(rng.integers(len(content)))
            content[at] ^= 1 << int(rng.integers(8))
            damaged = bytes(content)
            assert verdict(damaged, None) == reference_verdict(damaged, UNLIMITED)
            cut = damaged[: int(rng.integers(len(damaged)))]
            assert verdict(cut, None) == reference_verdict(cut, UNLIMITED)
