# SPDX-License-Identifier: Apache-2.0
"""A training from its start to a tested network, in a directory that can be resumed.

The directory has ``training.json``, which names the training and is written first;
``checkpoint.pt`` while it lasts; ``log.csv``, a row an epoch; in the end ``net.pt``, the network as
deployed, and ``results.json``.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from npusim import __version__
from npusim.errors import ConfigError, FormatError
from searchers.data import DataSet, SuperResolutionData
from searchers.store import read_json, write_json, write_text
from searchers.training.group import Group
from searchers.training.loop import N_OBSERVED, Progress, Training
from searchers.training.recipes import Recipe
from searchers.training.tasks import (
    Classification,
    SuperResolution,
    Task,
    classification_score,
    load_for,
    scale_of,
    super_resolution_score,
)
from spaces.base import Candidate, Space
from spaces.nets import CandidateNet, build
from spaces.nets.activations import Mode
from spaces.nets.candidate_net import observe_activations
from spaces.nets.files import NET_KIND, read_state, require_space, save_net, write_state

RUN_FORMAT = "npusim.training"
RUN_VERSION = 1
CHECKPOINT_KIND = "npusim.checkpoint"


@dataclass(frozen=True)
class Run:
    """What to train, on what, and how.

    Args:
        space, candidate: the network.
        recipe: the settings.
        seed: from 0; decides the first weights and all that is drawn.
        quantized: in the paper's three stages; else dense in floating point.
        data_set: name; None for that of the space.
        data: directory of data sets; None for NPUSIM_DATA.
        start: a trained network of the space to start from, or None for fresh weights.

    Raises:
        ConfigError: the seed is negative.
    """

    space: Space
    candidate: Candidate
    recipe: Recipe
    seed: int = 0
    quantized: bool = True
    data_set: str | None = None
    data: Path | None = field(default=None)
    start: Path | None = None

    def __post_init__(self) -> None:
        self.space.require(self.candidate)
        if self.seed < 0:
            raise ConfigError(f"seed must be at least 0, got {self.seed}")

    def identity(self) -> dict[str, Any]:
        """What makes it this training and no other, as JSON values; where data lies is not part."""
        found: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "space": {"name": self.space.name, "hash": self.space.content_hash},
                    "choices": list(self.candidate.choices),
                    "recipe": asdict(self.recipe),
                    "seed": self.seed,
                    "quantized": self.quantized,
                    "data_set": self.data_set or self.space.data_set,
                    "start": None if self.start is None else _digest(self.start),
                }
            )
        )
        return found


def train(
    run: Run,
    directory: Path,
    device: torch.device | str = "cpu",
    checkpoint_interval_s: float = 60.0,
    on_step: Callable[[int, int, float], None] = lambda step, n_steps, loss: None,
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Train and test, or go on with what the directory has; returns what ``results.json`` has.

    With torch.distributed initialized all processes call it alike, and the first writes the files.

    Args:
        run: what to train.
        directory: is created where it is missing.
        device: "cpu" or "cuda".
        checkpoint_interval_s: seconds between checkpoints; a killed training loses no more. Ctrl-C
            lets the step end, writes one and raises KeyboardInterrupt; a second does not wait.
        on_step: called after each step with the steps done, their number, and the mean loss of the
            epoch so far.
        tensorboard: write event files to the directory, too.

    Raises:
        ConfigError: the directory has another training, or see `searchers.data.load`.
        FormatError: a file of the directory is corrupted.
        MissingExtraError: `tensorboard` without its extra.
    """
    check(run, directory)
    if (directory / "results.json").exists():
        return read_json(directory / "results.json")
    device, group = torch.device(device), Group()
    parts = _parts(run)
    net = _net(run).to(device)
    training = Training(net, parts.task(device), run.recipe, run.seed, run.quantized, group)
    checkpoint = directory / "checkpoint.pt"
    if checkpoint.exists():
        stored = read_state(checkpoint, CHECKPOINT_KIND)
        require_space(checkpoint, stored, run.space)
        training.load(stored["training"])
    with ExitStack() as stack:
        interrupted = stack.enter_context(_after_the_step()) if group.size == 1 else bool
        if group.rank == 0 and not (directory / "training.json").exists():
            directory.mkdir(parents=True, exist_ok=True)
            header = {"format": RUN_FORMAT, "version": RUN_VERSION, **run.identity()}
            write_json(directory / "training.json", header | {"npusim": __version__})
        log = _logger(directory if tensorboard and group.rank == 0 else None, stack)
        saved_s = [time.monotonic()]

        def after_epoch(progress: Progress) -> None:
            if group.rank == 0:
                write_text(directory / "log.csv", _csv(progress.epochs))
                log(progress.epochs[-1])

        def after_step(progress: Progress) -> None:
            in_epoch = (progress.step - 1) % training.batches + 1
            loss = progress.loss / in_epoch if progress.loss else progress.epochs[-1]["loss"]
            on_step(progress.step, training.plan.n_steps, loss)
            due = time.monotonic() - saved_s[0] >= checkpoint_interval_s
            if group.rank == 0 and (due or interrupted()):
                _save_checkpoint(checkpoint, run, training)
                saved_s[0] = time.monotonic()
            if interrupted():
                raise KeyboardInterrupt

        training.run(after_step, after_epoch)
    results = _results(run, net, training, parts)
    if group.rank == 0:
        save_net(directory / "net.pt", net)
        write_json(directory / "results.json", results)  # last: the training is whole with it
        checkpoint.unlink(missing_ok=True)
    return results


@contextmanager
def _after_the_step() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C wait for the end of a step, so that nothing is lost; a second does not.

    Yields:
        What says whether there was one. Never in threads, which signals do not reach.
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield lambda: False  # or it is ignored, as in the background of a script
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def check(run: Run, directory: Path) -> None:
    """Refuse a directory that has another training, before anything is trained or written.

    Raises:
        ConfigError: it has another, or is a file.
        FormatError: its ``training.json`` is not one.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"training directory must be a directory, got file {directory}")
    header = directory / "training.json"
    if not header.exists():
        return
    stored = read_json(header)
    found = (stored.get("format"), stored.get("version"))
    if found != (RUN_FORMAT, RUN_VERSION):
        raise FormatError(f"{header} must be {RUN_FORMAT} version {RUN_VERSION}, got {found}")
    before, now = _flat(stored), _flat(run.identity())
    different = [
        f"{what} must be {json.dumps(before.get(what))}, got {json.dumps(value)}"
        for what, value in now.items()
        if before.get(what) != value
    ]
    if different:
        raise ConfigError(f"directory {directory} has another training: {'; '.join(different)}")


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """JSON values by name, those of an object as ``object.name``."""
    found = {}
    for name, value in values.items():
        inner = value if isinstance(value, dict) else {}
        found |= {f"{name}.{each}": inner[each] for each in inner} or {name: value}
    return found


class _Images:
    """Classification: all but the test data to train, accuracy on the test data."""

    def __init__(self, run: Run, data: DataSet):
        self._run, self._data = run, data

    def task(self, device: torch.device) -> Task:
        return Classification(self._data.train + self._data.validation, self._run.recipe, device)

    def score(self, net: CandidateNet) -> dict[str, float]:
        return classification_score(net, self._data.test)


class _SuperResolution:
    """Super-resolution: PSNR and SSIM on all test folders, and PSNR of bicubic interpolation."""

    def __init__(self, run: Run, data: SuperResolutionData):
        self._run, self._data = run, data
        self._scale = scale_of(run.space)

    def task(self, device: torch.device) -> Task:
        pairs = self._data.pairs("train", self._scale)
        return SuperResolution(pairs, self._scale, self._run.recipe, device)

    def score(self, net: CandidateNet) -> dict[str, float]:
        found = {}
        for name in self._data.tests:
            pairs = self._data.pairs(name, self._scale)
            score = super_resolution_score(net, pairs, self._scale)
            found |= {f"{name}_{what}": value for what, value in score.items()}
            found[f"{name}_bicubic_psnr"] = self._data.bicubic_psnr(name, self._scale)
        return found


def _parts(run: Run) -> _Images | _SuperResolution:
    data = load_for(run.space, run.data_set, run.data)
    if isinstance(data, SuperResolutionData):
        return _SuperResolution(run, data)
    return _Images(run, data)


def _net(run: Run) -> CandidateNet:
    generator = torch.Generator().manual_seed(run.seed)
    net = build(run.space, run.candidate, generator, run.recipe.number_format == "q-hat")
    if run.start is not None:
        stored = read_state(run.start, NET_KIND)
        require_space(run.start, stored, run.space)
        net.inherit(stored["state"])
    return net


def _results(
    run: Run, net: CandidateNet, training: Training, parts: _Images | _SuperResolution
) -> dict[str, Any]:
    """Scores with feature maps in floating point and in int8, times, settings."""
    net.quantize_activations(Mode.OFF)
    scores = {"float_maps": parts.score(net)}
    if run.quantized:
        if not net.input_quantizer.calibrated:
            observe_activations(net, training.task.inputs(N_OBSERVED))
        net.quantize_activations(Mode.ON)
        scores["int8_maps"] = parts.score(net)
    weights = net.weights().values()
    return {
        **run.identity(),
        "npusim": __version__,
        "torch": torch.__version__,
        "device": str(training.device),
        "threads": torch.get_num_threads(),
        "processes": training.group.size,
        "n_weights": sum(weight.theta.numel() for weight in weights),
        "n_nonzero": sum(int(weight.mask.sum()) for weight in weights),
        "scores": scores,
        "n_steps": training.plan.n_steps,
        "loss": training.progress.epochs[-1]["loss"],
        "wall_s": training.progress.wall_s,
        "cpu_s": training.progress.cpu_s,
    }


def _save_checkpoint(path: Path, run: Run, training: Training) -> None:
    state = {"space": run.space.name, "space_hash": run.space.content_hash}
    write_state(path, CHECKPOINT_KIND, {**state, "training": training.state()})


def _csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _logger(directory: Path | None, stack: ExitStack) -> Callable[[dict[str, float]], None]:
    """What takes a row of the log to TensorBoard; nothing without a directory."""
    if directory is None:
        return lambda row: None
    from npusim.errors import MissingExtraError

    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("event files", "tensorboard", error) from error
    writer = SummaryWriter(str(directory))
    stack.callback(writer.close)

    def log(row: dict[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                writer.add_scalar(name, value, int(row["epoch"]))

    return log


def _digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
