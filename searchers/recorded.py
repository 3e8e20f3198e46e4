# SPDX-License-Identifier: Apache-2.0
"""The recorded benchmark: every candidate of a small space, trained once and kept as a table.

All candidates of `spaces.digits.digits_recorded` were trained several times by
``benches/recorded.py``. The file beside this module has what came out, so that strategies are
compared over hundreds of seeds in seconds: a trial looks up one of the candidate's trainings.
Nothing is trained, nothing is interpolated, and the best candidate within any limit is known.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from npusim.errors import ConfigError, FormatError
from searchers.base import Evaluation
from spaces.base import Candidate, Space
from spaces.costs import costs
from spaces.digits import digits_recorded
from spaces.feasible import enumerate_all
from spaces.limits import Limit

if TYPE_CHECKING:
    from searchers.data import TrainingData

FORMAT: Final = "npusim.recorded"
VERSION: Final = 1
"""Raised when the file changes its meaning."""
PATH: Final = Path(__file__).with_suffix(".npz")
EPOCHS: Final = (1, 2, 3, 4, 6, 8)
"""After how many the networks were looked at; the trainings have the last of them."""
SEEDS: Final = (0, 1)
"""Of the trainings of each candidate."""
NPU: Final = "ethos-u55-128"
CURVES: Final = ("validation", "test", "loss", "train_ms")
"""Figures of each of `EPOCHS`; see `Table`."""
DEPLOYED: Final = ("stream_bytes", "flash_bytes", "sram_bytes", "cycles")
"""Figures of the trained network on `NPU`."""

_DAMAGE: Final = (
    *(OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError),
    *(KeyError, ValueError, AttributeError, TypeError),
)
"""What reading a file raises that is no table."""

UInt = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """All trainings of all candidates of a space; rows are candidates, columns trainings.

    Attributes:
        header: JSON values: ``space`` (name), ``space_hash``, ``epochs``, ``seeds``, ``npu``,
            ``n_validation`` and ``n_test`` (images), ``provenance``.
        choices: option indices, [n, n_decisions].
        validation, test: images that the network got right, [n, n_seeds, n_epochs].
        loss: mean training loss of the epoch, in thousandths of a nat, of that shape.
        train_ms: CPU time of the training so far, of that shape.
        stream_bytes: of the weight streams that Arm's compiler would write, [n, n_seeds].
        flash_bytes, sram_bytes, cycles: of the deployed network, of that shape.
    """

    header: Mapping[str, Any]
    choices: UInt
    validation: UInt
    test: UInt
    loss: UInt
    train_ms: UInt
    stream_bytes: UInt
    flash_bytes: UInt
    sram_bytes: UInt
    cycles: UInt

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the SHA-256 of everything."""
        text = json.dumps(self.header, sort_keys=True, separators=(",", ":"))
        found = hashlib.sha256(text.encode())
        for name in ("choices", *CURVES, *DEPLOYED):
            values = np.ascontiguousarray(getattr(self, name))
            found.update(f"{name} {values.dtype.str} {values.shape}".encode())
            found.update(values.data)
        return found.hexdigest()[:16]


def write(table: Table, path: Path) -> None:
    """Write a table; the same one always as the same bytes."""
    header = {"format": FORMAT, "version": VERSION, "digest": table.digest, **table.header}
    members = {"header.json": json.dumps(header, indent=1, sort_keys=True).encode()}
    for name in ("choices", *CURVES, *DEPLOYED):
        member = io.BytesIO()
        np.save(member, getattr(table, name), allow_pickle=False)
        members[f"{name}.npy"] = member.getvalue()
    part = path.with_name(path.name + ".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    part.replace(path)


def read(path: Path, space: Space) -> Table:
    """The table of a file.

    Raises:
        FormatError: there is none, it is of another kind or version, corrupted, or not of all
            candidates of `space`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read("header.json"))
            found = header.pop("format"), header.pop("version")
            if found != (FORMAT, VERSION):
                raise FormatError(f"{path} must be {FORMAT} version {VERSION}, got {found}")
            digest = header.pop("digest")
            arrays = {
                name: np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
                for name in ("choices", *CURVES, *DEPLOYED)
            }
    except FormatError:
        raise
    except _DAMAGE as error:
        raise FormatError(f"{path} must be a recorded table, got {error!r}") from None
    table = Table(header, **arrays)
    if table.digest != digest:
        raise FormatError(f"{path} must have the digest {digest}, got {table.digest}: corrupted")
    if header["space_hash"] != space.content_hash:
        raise FormatError(
            f"{path} must be of space {space.name!r} (hash {space.content_hash}), "
            f"got one of {header['space']!r} (hash {header['space_hash']})"
        )
    if not np.array_equal(table.choices, enumerate_all(space)):
        raise FormatError(f"{path} must have every candidate of space {space.name!r}, got others")
    return table


@cache
def recorded() -> Table:
    """The table that comes with npusim."""
    return read(PATH, digits_recorded())


class RecordedEvaluator:
    """Looks up what trainings of a candidate gave; nothing is trained.

    A trial is one of the candidate's trainings, drawn by its seed, as if it had been trained with
    that seed. The result of a search is tested by the mean over all of them.

    Args:
        space: that of the table.
        epochs: after how many of a training its validation accuracy is the score: one of the
            table's, None for all. Tests are always after all.
        noise: draw one training; else a trial is the mean over them.
        table: None for `recorded`.

    Raises:
        ConfigError: the table is of another space, or has nothing after so many epochs.
    """

    is_tabular = True
    is_instant = True

    def __init__(
        self,
        space: Space,
        epochs: int | None = None,
        noise: bool = True,
        table: Table | None = None,
    ):
        table = recorded() if table is None else table
        header, points = table.header, list(table.header["epochs"])
        if space.content_hash != header["space_hash"]:
            raise ConfigError(
                f"space of evaluator 'recorded' must be {header['space']!r} "
                f"(hash {header['space_hash']}), got {space.name!r} (hash {space.content_hash})"
            )
        epochs = points[-1] if epochs is None else epochs
        if epochs not in points:
            raise ConfigError(
                f"epochs of evaluator 'recorded' must be one of {', '.join(map(str, points))}, "
                f"got {epochs}"
            )
        self.space, self.table, self.epochs, self.noise = space, table, epochs, noise
        self._rows = {tuple(row): i for i, row in enumerate(table.choices.tolist())}
        trained = {"accuracy": table.validation[:, :, points.index(epochs)]}
        trained["accuracy"] = trained["accuracy"] / header["n_validation"]
        trained["train_s"] = table.train_ms[:, :, points.index(epochs)] / 1000
        trained |= {name: getattr(table, name).astype(float) for name in DEPLOYED}
        if not noise:
            trained = {name: each.mean(1, keepdims=True) for name, each in trained.items()}
        self._trained = trained
        self._tests = table.test[:, :, -1].mean(axis=1) / header["n_test"]

    def identity(self) -> Mapping[str, Any]:
        """The table's digest, and what is looked up in it."""
        settings = {"epochs": self.epochs, "noise": self.noise}
        return {"evaluator": "recorded", "tabular": True, "table": self.table.digest, **settings}

    def summary(self) -> str:
        """What a reader of results must know."""
        what = "one training" if self.noise else "the mean training"
        return (
            f"tabular: nothing was trained, accuracies are those of {what} of each candidate, "
            f"recorded {self.table.header['provenance'].get('date', 'before')} "
            f"(table {self.table.digest})"
        )

    def search_data(self) -> tuple[TrainingData, TrainingData]:
        """Training and validation data of the table, for searchers that train themselves."""
        from searchers.data import DataSet, load

        data = load(self.space.data_set)
        assert isinstance(data, DataSet)
        return data.train, data.validation

    def evaluate(self, candidate: Candidate, seed: int) -> Evaluation:
        """Validation accuracy of a training; what it took and what was deployed are metrics.

        Images are those of the training that is looked up.
        """
        row, n_trainings = self._row(candidate), self._trained["accuracy"].shape[1]
        which = int(np.random.default_rng(seed).integers(n_trainings))
        metrics = {name: float(each[row, which]) for name, each in self._trained.items()}
        n_images = self.epochs * self.table.header["n_epoch_images"]
        return Evaluation(metrics["accuracy"], metrics, n_images)

    def test(self, candidate: Candidate, seed: int) -> Evaluation:
        """The mean test accuracy of the candidate's trainings after all epochs."""
        accuracy = self.expected(candidate)
        return Evaluation(accuracy, {"accuracy": accuracy})

    def expected(self, candidate: Candidate) -> float:
        """What `test` gives: it has no noise."""
        return float(self._tests[self._row(candidate)])

    def optimum(self, limit: Limit) -> float:
        """The highest mean test accuracy within a limit; no search sees what it is."""
        taken = costs(self.space, self.table.choices.astype(np.int64), limit.measure)
        return float(self._tests[taken <= limit.most].max())

    def _row(self, candidate: Candidate) -> int:
        self.space.require(candidate)
        return self._rows[candidate.choices]


def named(space: Space, argument: str) -> RecordedEvaluator:
    """The evaluator of what follows ``recorded:`` in its name: ``EPOCHS:mean`` or part of it.

    Raises:
        ConfigError: something else, or see `RecordedEvaluator`.
    """
    epochs, _, mean = argument.rpartition(":") if argument.endswith("mean") else (argument, "", "")
    if not (epochs.isdecimal() or not epochs) or mean not in ("", "mean"):
        raise ConfigError(
            f"evaluator 'recorded' must be recorded[:EPOCHS][:mean], got 'recorded:{argument}'"
        )
    return RecordedEvaluator(space, int(epochs) if epochs else None, noise=not mean)
