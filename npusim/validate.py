# SPDX-License-Identifier: Apache-2.0
"""Our costs beside what Arm's compiler says of the same models on the same machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from npusim.cost.what_if import Workload
from npusim.errors import NpusimError
from npusim.formats import load
from npusim.hardware import Machine
from npusim.vela import Compiler

MEASURES: Final = (
    *("total_cycles", "npu_cycles", "sram_peak_bytes", "dram_peak_bytes", "flash_bytes"),
)
"""What is compared: attributes of a `Cost` and of a `Compiled`."""
WHERE: Final = ("model", "npu", "system_config", "memory_mode")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model on one machine.

    Attributes:
        model, npu, system_config, memory_mode: names.
        ours: `MEASURES` as we say; None where we refuse the model.
        theirs: as the compiler says; None where it refuses it, or was not asked.
        obstacle: why something is None; empty if nothing is.
    """

    model: str
    npu: str
    system_config: str
    memory_mode: str
    ours: Mapping[str, int] | None
    theirs: Mapping[str, int] | None
    obstacle: str = ""

    def error(self, measure: str) -> float | None:
        """Relative error of ours: 0.01 is 1 % too high; None if one is missing or theirs is 0."""
        if self.ours is None or self.theirs is None:
            return None
        mine, other = self.ours[measure], self.theirs[measure]
        if mine == other:
            return 0.0
        return mine / other - 1 if other else None

    def is_exact(self, measure: str) -> bool:
        """Whether both say the same."""
        both = self.ours is not None and self.theirs is not None
        return both and self.ours[measure] == self.theirs[measure]  # type: ignore[index]

    def to_json(self) -> dict[str, Any]:
        """JSON values, flat: a measure as ours, theirs and the relative error."""
        record: dict[str, Any] = {name: getattr(self, name) for name in WHERE}
        for name in MEASURES:
            record[name] = self.ours and self.ours[name]
            record[f"vela_{name}"] = self.theirs and self.theirs[name]
            record[f"{name}_error"] = self.error(name)
        return {**record, "obstacle": self.obstacle}


@dataclass(frozen=True, slots=True)
class Summary:
    """Errors of one measure over many comparisons.

    Attributes:
        measure: one of `MEASURES`.
        n: comparisons that both sides took part in.
        n_exact: of them, those where both say the same.
        mape: mean of the relative errors without sign, 0.01 is 1 %; without those where the
            compiler says 0 and we do not.
        largest: of them.
    """

    measure: str
    n: int
    n_exact: int
    mape: float
    largest: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def summaries(comparisons: Sequence[Comparison]) -> tuple[Summary, ...]:
    """Errors of every measure."""
    found = []
    n_both = sum(c.ours is not None and c.theirs is not None for c in comparisons)
    for measure in MEASURES:
        errors = [e for c in comparisons if (e := c.error(measure)) is not None]
        sizes = [abs(error) for error in errors]
        n_exact = sum(comparison.is_exact(measure) for comparison in comparisons)
        mean = sum(sizes) / len(sizes) if sizes else 0.0
        found.append(Summary(measure, n_both, n_exact, mean, max(sizes, default=0.0)))
    return tuple(found)


def validate(
    paths: Sequence[str],
    machines: Sequence[Machine],
    tell: Callable[[Comparison], object] = lambda comparison: None,
    *,
    optimise: str = "performance",
    arena_limit_bytes: int | None = None,
) -> tuple[Comparison, ...]:
    """Compare every model on every machine; a model that either side refuses is told as such.

    Args:
        paths: of .tflite files.
        machines: whose NPUs are Arm's.
        tell: is told each comparison when it is there.
        optimise, arena_limit_bytes: as of `npusim.estimate`.

    Raises:
        ConfigError: the compiler cannot be told of a machine.
        MissingExtraError: the compiler is not installed.
    """
    from npusim.vela import configuration

    for target in machines:
        configuration(target)
    how = {"optimise": optimise, "arena_limit_bytes": arena_limit_bytes}
    found = []
    with Compiler() as vela:
        for path in paths:
            model, workload, refusal = Path(path).stem, None, ""
            try:
                network = load(path)
                model, workload = network.name, Workload.of(network)
            except NpusimError as error:
                refusal = str(error)
            for target in machines:
                comparison = _compare(vela, path, model, workload, refusal, target, how)
                found.append(comparison)
                tell(comparison)
    return tuple(found)


def _compare(
    vela: Compiler,
    path: str,
    model: str,
    workload: Workload | None,
    refusal: str,
    target: Machine,
    how: Mapping[str, Any],
) -> Comparison:
    ours: dict[str, int] | None = None
    theirs: dict[str, int] | None = None
    obstacles = [refusal] if refusal else []
    if workload is not None:
        try:
            ours = _measures(workload.cost(target, **how))
            compiled = vela.compile(path, target, **how)
            if compiled.n_npu_ops:
                theirs = _measures(compiled)
            else:
                obstacles.append("no operation runs on the NPU: the compiler tells no memory")
        except NpusimError as error:
            obstacles.append(str(error))
    where = (target.npu.name, target.system.name, target.mode.name)
    return Comparison(model, *where, ours, theirs, "; ".join(obstacles))


def _measures(found: Any) -> dict[str, int]:
    return {name: getattr(found, name) for name in MEASURES}
