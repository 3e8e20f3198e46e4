# SPDX-License-Identifier: Apache-2.0
"""Damaged .tflite files: each gives a network that can be used, or one typed error.

Files are mutated where it matters, outside of constants, most of the time; a network that comes
out is walked through, written and read again.
"""

from __future__ import annotations

import contextlib
import resource
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from example_networks import every_step_network, random_network

from npusim.errors import ConfigError, FormatError, NpusimError
from npusim.formats import load_bytes
from npusim.formats.tflite_write import to_bytes
from npusim.network import Network

INTERESTING = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x1000000),
    *(0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF),
    *(0x7F800000, 0x7FC00000, 0xFF800000),
)
LARGEST_REAL_BYTES = 700_000
"""Real models up to here are seeds: larger ones only differ in more constants."""


class Seed(NamedTuple):
    """A good file, and which of its bytes are not the values of a constant."""

    content: bytes
    structure: np.ndarray


def seed_of(content: bytes) -> Seed:
    structure = np.ones(len(content), bool)
    base = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    for tensor in load_bytes(content).tensors:
        if tensor.data is not None:
            start = tensor.data.__array_interface__["data"][0] - base
            if 0 <= start < len(content):
                structure[start : start + tensor.data.nbytes] = False
    return Seed(content, np.flatnonzero(structure))


def written_seeds() -> list[Seed]:
    networks = [every_step_network(), *(random_network(i) for i in range(6))]
    return [seed_of(to_bytes(network)) for network in networks]


def real_seeds(models_dir: Path) -> list[Seed]:
    files = sorted(models_dir.glob("**/*.tflite"))
    return [seed_of(p.read_bytes()) for p in files if p.stat().st_size <= LARGEST_REAL_BYTES]


def mutate(rng: np.random.Generator, seeds: list[Seed], seed: Seed) -> bytes:
    """Up to four changes of bytes and words, or a truncation of what they make."""
    data = bytearray(seed.content)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        everywhere = rng.random() < 0.2
        position = int(rng.integers(len(data)) if everywhere else rng.choice(seed.structure))
        position = min(position, len(data) - 1)
        word = min(position & ~3, len(data) - 4)
        match rng.integers(6):
            case 0:
                data[position] ^= 1 << rng.integers(8)
            case 1:
                data[position] = rng.integers(256)
            case 2:
                data[word : word + 4] = int(rng.choice(INTERESTING)).to_bytes(4, "little")
            case 3:
                old = int.from_bytes(data[word : word + 4], "little")
                new = (old + int(rng.integers(-9, 10)) * 4) % 2**32
                data[word : word + 4] = new.to_bytes(4, "little")
            case 4:
                other = min(int(rng.choice(seed.structure)) & ~3, len(data) - 4)
                data[word : word + 4] = data[other : other + 4]
            case _:
                source = seeds[rng.integers(len(seeds))].content
                start, end = int(rng.integers(len(source))), position + int(rng.integers(1, 100))
                data[position:end] = source[start : start + end - position]
    if rng.random() < 0.1:
        del data[rng.choice(seed.structure) :]
    return bytes(data)


def check(error: NpusimError) -> str:
    """Assert that an error says one thing, and in the house's words; return what it asks for."""
    message = str(error)
    assert " must " in message
    assert len(message) < 1000
    assert error.__cause__ is None
    return message.split(" must ")[1].split(",")[0]


def walk(network: Network) -> None:
    """Use all of a network: look-ups, weights, graph, writing."""
    for graph in (network, *network.subgraphs):
        assert len(str(graph)) > 0
        assert graph.graph().number_of_nodes() == len(graph.ops)
        assert graph.macs >= 0
        for tensor in graph.tensors:
            assert tensor.n_elements >= 0
            assert tensor.n_bytes >= 0
            if tensor.data is not None:
                assert tensor.data.shape == tensor.shape
                assert len(tensor.data.tobytes()) == tensor.data.nbytes
        for op in graph.ops:
            assert all(t is graph.tensors[t.index] for t in op.inputs if t is not None)
            try:
                assert abs(op.weights_ohwi()).max(initial=0) <= 255
            except ConfigError as error:
                check(error)
    try:
        again = to_bytes(network)
    except ConfigError as error:
        check(error)
        return
    assert load_bytes(again, network.name) == network


def verdict(content: bytes) -> str:
    """Read one file; "network", or what the error is about."""
    start = time.process_time()
    try:
        network = load_bytes(content, "damaged")
    except FormatError as error:
        result = check(error)
        named = str(error).startswith("damaged: ")
    else:
        walk(network)
        result, named = "network", True
    assert named
    assert time.process_time() - start < 2 + len(content) * 5e-6
    return result


def fuzz(n_files: int, seeds: list[Seed], seed: int) -> Counter[str]:
    """How often each verdict came up; a file that breaks the reader is named by its number."""
    rng = np.random.default_rng(seed)
    verdicts: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(n_files):
        content = mutate(rng, seeds, seeds[number % len(seeds)])
        try:
            verdicts[verdict(content)] += 1
        except Exception as error:
            error.add_note(f"file {number} of fuzz(..., seed={seed})")
            raise
    grown_bytes = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown_bytes < 300e6
    return verdicts


def test_good_files_are_read() -> None:
    assert {verdict(seed.content) for seed in written_seeds()} == {"network"}


def test_damaged_files_give_a_network_or_an_error() -> None:
    verdicts = fuzz(800, written_seeds(), seed=1)
    assert verdicts["network"] > 80
    assert len(verdicts) > 20
    assert verdicts.total() == 800


@pytest.mark.data
def test_damaged_real_files_give_a_network_or_an_error(models_dir: Path) -> None:
    verdicts = fuzz(300, real_seeds(models_dir), seed=2)
    assert verdicts["network"] > 30
    assert verdicts.total() == 300


@pytest.mark.slow
def test_ten_thousand_damaged_files_give_a_network_or_an_error() -> None:
    verdicts = fuzz(10_000, written_seeds(), seed=3)
    assert verdicts["network"] > 1000
    assert len(verdicts) > 50
    assert verdicts.total() == 10_000


@pytest.mark.slow
@pytest.mark.data
def test_ten_thousand_damaged_real_files_give_a_network_or_an_error(models_dir: Path) -> None:
    verdicts = fuzz(10_000, [*real_seeds(models_dir), *written_seeds()], seed=4)
    assert verdicts["network"] > 1000
    assert verdicts.total() == 10_000


def test_memory_is_bounded_by_the_length_of_the_file() -> None:
    rng = np.random.default_rng(4)
    seeds = written_seeds()
    for number in range(100):
        content = mutate(rng, seeds, seeds[number % len(seeds)])
        tracemalloc.start()
        with contextlib.suppress(FormatError):
            load_bytes(content)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 64 * len(content) + (1 << 20)
