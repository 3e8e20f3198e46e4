# SPDX-License-Identifier: Apache-2.0
"""What a search keeps in its run directory: where it is, how it came there, and a picture of it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from searchers.store import write_json
from searchers.udc.result import Decoded
from searchers.udc.strategy import Step, Strategy

CHECKPOINT, TRAJECTORY = "checkpoint.pt", "trajectory.jsonl"


class RunFiles:
    """The files of one search; without a directory nothing is kept.

    Args:
        directory: of the run; files are in its folder ``searcher``.
        writes: whether this process writes; of several, one does.
    """

    def __init__(self, directory: Path | None, writes: bool = True):
        self._folder = None if directory is None else directory / "searcher"
        self._writes = writes and self._folder is not None
        self._steps: list[Step] = []

    @property
    def steps(self) -> Sequence[Step]:
        """All steps so far, those before an interruption too."""
        return self._steps

    def resume(self, search: Strategy) -> None:
        """Put a search where its checkpoint was, if there is one."""
        if self._folder is None or not (self._folder / CHECKPOINT).exists():
            return
        state = torch.load(self._folder / CHECKPOINT, search.device, weights_only=True)
        search.load_state_dict(state)
        lines = (self._folder / TRAJECTORY).read_text().splitlines()[: search.t]
        self._steps = [search.step_type(**json.loads(line)) for line in lines]

    def add(self, step: Step) -> None:
        """Remember a step until `save`."""
        self._steps.append(step)

    def save(self, search: Strategy) -> None:
        """Keep where a search is: first the trajectory, then, at once or not at all, the state."""
        if not self._writes or self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(asdict(step)) + "\n" for step in self._steps)
        (self._folder / TRAJECTORY).write_text(lines)
        part = self._folder / f"{CHECKPOINT}.part"
        torch.save(search.state_dict(), part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(self._folder / CHECKPOINT)

    def finish(self, search: Strategy, decoded: Decoded, figures: dict[str, Any]) -> None:
        """Write ``result.json``: the candidate, gamma and the probabilities that they come from."""
        if not self._writes or self._folder is None:
            return
        space = search.space
        pi = search.log_pi().detach().exp().cpu().numpy()
        write_json(
            self._folder / "result.json",
            {
                "candidate": space.options_of(decoded.candidate),
                "gamma": space.options_of(decoded.gamma),
                "how": decoded.how,
                "config": asdict(search.weights.config),
                "figures": figures,
                "pi": {
                    decision.name: dict(zip(map(str, decision.options), row.tolist(), strict=False))
                    for decision, row in zip(space.decisions, pi, strict=True)
                },
            },
        )
        plot(self._steps, self._folder / "trajectory.png", str(search.limits[0]))


def plot(steps: Sequence[Step], path: Path, limit: str) -> None:
    """Loss, cost and certainty over a search as a picture; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    t = [step.t for step in steps]
    figure = Figure(figsize=(7, 7), layout="constrained")
    loss, cost, sure = figure.subplots(3, 1, sharex=True)
    loss.plot(t, [step.loss for step in steps])
    loss.set(ylabel="task loss", yscale="log")
    cost.plot(t, [step.cost for step in steps], label="samples, mean")
    cost.plot(t, [step.gamma for step in steps], label="most likely candidate")
    cost.axhline(1.0, color="black", linewidth=0.8)
    cost.set(ylabel=f"cost / {limit}")
    cost.legend()
    sure.plot(t, [step.surest for step in steps], label="largest probability")
    sure.plot(t, [step.entropy_bits for step in steps], label="entropy, bits")
    sure.set(ylabel="mean over decisions", xlabel="step")
    sure.legend()
    figure.savefig(path, dpi=120)
