#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train every candidate of the space digits_recorded, and keep what came out as a table.

    python benches/recorded.py record DIRECTORY [--shard 0/2]
    python benches/recorded.py pack DIRECTORY
    python benches/recorded.py verify [--rows 20]

"record" trains each candidate with the seeds 0 and 1, in about 45 minutes on one core. It goes on
where it was stopped, however that was, and several processes or machines may do a shard each.
"pack" makes the file that `searchers.recorded` reads from the rows of all shards. "verify" draws
some of the table's rows, trains them again and compares all that does not depend on the clock; on
the same kind of machine, with the same versions, they are equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track

import npusim
from npusim.errors import ConfigError
from searchers import recorded
from searchers.data import DataSet, load
from searchers.recorded import CURVES, DEPLOYED, EPOCHS, NPU, SEEDS
from searchers.store import read_json, write_json
from searchers.training import recipes
from searchers.training.evaluator import one_thread
from searchers.training.loop import Progress, Training
from searchers.training.tasks import Classification, classification_score
from spaces.base import Candidate, Space
from spaces.digits import digits_recorded
from spaces.export import export
from spaces.feasible import enumerate_all
from spaces.nets import build
from spaces.nets.candidate_net import observe_activations

ROOT = Path(__file__).parent.parent
N_OBSERVED = 256
"""Training images that the int8 grids of the deployed network are taken from."""
CLOCKED = ("train_ms",)
"""Figures that differ from run to run."""


def train(space: Space, candidate: Candidate, seed: int, data: DataSet) -> dict[str, Any]:
    """What one training of a candidate gives, by the names of `searchers.recorded.FIGURES`.

    It is the training of `searchers.training.evaluator.TrainEvaluator`. Before the last of `EPOCHS`
    the network is counted as it is in the middle of its training.
    """
    recipe = recipes.get(space.data_set).but(epochs=EPOCHS[-1])
    offset = recipe.number_format == "q-hat"
    net = build(space, candidate, torch.Generator().manual_seed(seed), offset)
    task = Classification(data.train, recipe, torch.device("cpu"))
    training = Training(net, task, recipe, seed)
    found: dict[str, Any] = {name: [] for name in CURVES}
    looking_s = 0.0

    def count() -> None:
        for name, split in (("validation", data.validation), ("test", data.test)):
            accuracy = classification_score(net, split)["accuracy"]
            found[name].append(round(accuracy * len(split.labels)))

    def look(progress: Progress) -> None:
        nonlocal looking_s
        if len(progress.epochs) not in EPOCHS:
            return
        start = time.process_time()
        found["loss"].append(round(1000 * progress.epochs[-1]["loss"]))
        found["train_ms"].append(round(1000 * (progress.cpu_s - looking_s)))
        if len(progress.epochs) < EPOCHS[-1]:
            count()
        looking_s += time.process_time() - start

    training.run(on_epoch=look)
    count()
    observe_activations(net, task.inputs(N_OBSERVED))
    cost = npusim.estimate(export(net), NPU)
    return {
        **found,
        "stream_bytes": cost.weights_encoded_bytes,
        "flash_bytes": cost.flash_bytes,
        "sram_bytes": cost.sram_peak_bytes,
        "cycles": cost.total_cycles,
    }


def tasks(n_candidates: int, shard: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and seeds of a shard: all rows with the first seed, in a mixed order, then the next."""
    order = np.random.default_rng(0).permutation(n_candidates)
    everything = [(int(row), seed) for seed in SEEDS for row in order]
    return everything[shard[0] :: shard[1]]


def end_last_line(path: Path) -> None:
    """Cut off what a killed process left half-written."""
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1
    if whole != len(content):
        os.truncate(path, whole)


def read_rows(directory: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """The whole rows of all shards, by row and seed."""
    found = {}
    for path in sorted(directory.glob("rows-*.jsonl")):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                row = json.loads(line)
                found[row["row"], row["seed"]] = row
    return found


def provenance() -> dict[str, str]:
    """What the numbers depend on, and where they come from."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.machine()
    code = ("searchers/training", "searchers/data", "spaces/nets", "spaces/concrete.py")
    git = ["git", "log", "-1", "--format=%h", "--", *code]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    return {
        "command": "python benches/recorded.py record",
        "commit": commit.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{processor}, {torch.backends.cpu.get_cpu_capability()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scikit-learn", "torch")},
        "space_hash": digits_recorded().content_hash,
    }


def same_origin(directory: Path) -> dict[str, str]:
    """The provenance of a directory, which is that of this process but for its date.

    Raises:
        ConfigError: rows that are there already come from something else.
    """
    path, own = directory / "provenance.json", provenance()
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, own)
        return own
    found = read_json(path)
    different = [name for name in own if name != "date" and found.get(name) != own[name]]
    if different:
        raise ConfigError(
            f"rows of {directory} must come from one place, got other {', '.join(different)}"
        )
    return found


def record(directory: Path, shard: tuple[int, int]) -> None:
    """Train what is missing of a shard; each row is on the disk before the next is begun."""
    space, data = digits_recorded(), load("digits")
    assert isinstance(data, DataSet)
    same_origin(directory)
    path = directory / f"rows-{shard[0]}of{shard[1]}.jsonl"
    end_last_line(path)
    done = read_rows(directory)
    candidates = space.enumerate()
    missing = [task for task in tasks(len(candidates), shard) if task not in done]
    with path.open("a") as file, one_thread():
        for row, seed in track(missing, f"shard {shard[0]} of {shard[1]}"):
            found = train(space, candidates[row], seed, data)
            file.write(json.dumps({"row": row, "seed": seed, **found}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def pack(directory: Path, path: Path) -> recorded.Table:
    """Write the table of all rows.

    Raises:
        ConfigError: rows are missing.
    """
    space, data = digits_recorded(), load("digits")
    assert isinstance(data, DataSet)
    rows, choices = read_rows(directory), enumerate_all(space)
    wanted = [[(row, seed) for seed in SEEDS] for row in range(len(choices))]
    missing = sum(key not in rows for keys in wanted for key in keys)
    if missing:
        raise ConfigError(f"rows must be {len(choices) * len(SEEDS)}, got {missing} too few")
    recipe = recipes.get(space.data_set)
    header = {
        "space": space.name,
        "space_hash": space.content_hash,
        "epochs": list(EPOCHS),
        "seeds": list(SEEDS),
        "npu": NPU,
        "n_validation": len(data.validation.labels),
        "n_test": len(data.test.labels),
        "n_epoch_images": len(data.train.labels) // recipe.batch_size * recipe.batch_size,
        "provenance": read_json(directory / "provenance.json"),
    }
    figures = {
        name: smallest(np.array([[rows[key][name] for key in keys] for keys in wanted]))
        for name in (*CURVES, *DEPLOYED)
    }
    table = recorded.Table(header, smallest(choices), **figures)
    recorded.write(table, path)
    return recorded.read(path, space)


def smallest(values: np.ndarray) -> np.ndarray:
    """Integers from 0 in the smallest unsigned type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max())))


def verify(n: int, seed: int) -> int:
    """Train some of the table's rows again; returns how many differ, after naming each."""
    space, data, table = digits_recorded(), load("digits"), recorded.recorded()
    assert isinstance(data, DataSet)
    rng = np.random.default_rng(seed)
    here, there = provenance(), table.header["provenance"]
    for name in ("machine", "torch", "numpy"):
        if here[name] != there[name]:
            print(f"{name}: here {here[name]}, of the table {there[name]}")
    n_different = 0
    with one_thread():
        for row in track(rng.choice(len(table.choices), n, replace=False).tolist(), "training"):
            column = int(rng.integers(len(SEEDS)))
            candidate = space.candidate(table.choices[row].tolist())
            found = train(space, candidate, table.header["seeds"][column], data)
            kept = {name: getattr(table, name)[row, column].tolist() for name in found}
            different = [
                f"{name} {kept[name]} is now {found[name]}"
                for name in found
                if name not in CLOCKED and found[name] != kept[name]
            ]
            n_different += bool(different)
            for text in different:
                print(f"row {row}, seed {table.header['seeds'][column]}: {text}")
    print(
        f"{n} of {table.choices.shape[0] * len(SEEDS)} trainings done again, {n_different} differ"
    )
    return n_different


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="train what is missing")
    recording.add_argument("directory", type=Path)
    recording.add_argument("--shard", default="0/1", help="part of how many parts, such as 0/2")
    packing = commands.add_parser("pack", help="make the table of all rows")
    packing.add_argument("directory", type=Path)
    packing.add_argument("--out", type=Path, default=recorded.PATH)
    verifying = commands.add_parser("verify", help="train rows again and compare")
    verifying.add_argument("--rows", type=int, default=20)
    verifying.add_argument("--seed", type=int, default=0, help="decides which rows")
    arguments = parser.parse_args()
    if arguments.command == "record":
        part, parts = (int(each) for each in arguments.shard.split("/"))
        record(arguments.directory, (part, parts))
    elif arguments.command == "pack":
        table = pack(arguments.directory, arguments.out)
        print(f"{table.choices.shape[0]} candidates, digest {table.digest}: {arguments.out}")
    else:
        sys.exit(1 if verify(arguments.rows, arguments.seed) else 0)


if __name__ == "__main__":
    main()
