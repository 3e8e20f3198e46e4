# SPDX-License-Identifier: Apache-2.0
"""Arm's compiler on the same machine as ours: what Vela 5.2.0 (regor) makes of a model.

The compiler runs in a process of its own: it prints, and on some models it ends the process.

    with Compiler() as vela:
        vela.compile("model.tflite", machine()).total_cycles
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from npusim.errors import ConfigError, MissingExtraError, NpusimError
from npusim.formats import load_bytes
from npusim.hardware import Machine
from npusim.memories import PORTS
from npusim.npu import get
from npusim.vela_ini import ROLES

_ARCHITECTURES: Final = {"ethos-u55": "EthosU55", "ethos-u65": "EthosU65"}
_AREAS: Final = {role: area for area, role in ROLES.items()}
_AXI: Final = {"axi0": "Axi0", "axi1": "Axi1"}
_NAMES: Final = {8: "Ethos_U55_of_npusim", 16: "of_npusim"}
"""Names of a system config by the width of AXI ports that the compiler then assumes."""
_NO_LIMIT: Final = 1 << 32
_SERVE: Final = "from npusim.vela import serve; serve()"


class CompilerError(NpusimError, RuntimeError):
    """The compiler refuses a model, or ends on it."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the compiler says of a model.

    Attributes:
        total_cycles: of an inference, those of the CPU not among them.
        npu_cycles: of the NPU.
        sram_peak_bytes: in SRAM, as `npusim.Cost.sram_peak_bytes`.
        dram_peak_bytes: in DRAM; 0 without.
        flash_bytes: of weights, biases, scales, tables and constants.
        n_npu_ops: operations on the NPU.
        n_cpu_ops: operations that it leaves to the CPU.
        weights_encoded_bytes: of weight streams, biases and scales not among them.
        cpu_kinds: of the operations that it leaves to the CPU.
    """

    total_cycles: int
    npu_cycles: int
    sram_peak_bytes: int
    dram_peak_bytes: int
    flash_bytes: int
    n_npu_ops: int
    n_cpu_ops: int
    weights_encoded_bytes: int
    cpu_kinds: tuple[str, ...]


def configuration(target: Machine) -> tuple[str, str]:
    """The compiler's name of an architecture, and its configuration for a machine.

    Raises:
        ConfigError: the compiler cannot be told of such a machine.
    """
    npu, family = target.npu, target.npu.name.rpartition("-")[0]
    if (
        family not in _ARCHITECTURES
        or get(npu.name).replace(axi_width_bytes=npu.axi_width_bytes) != npu
    ):
        raise ConfigError(
            "npu must be one of Arm's, without changes, for its compiler, "
            f"got {npu.name!r} with other fields"
        )
    if npu.axi_width_bytes not in _NAMES:
        raise ConfigError(
            f"axi_width_bytes must be 8 or 16 for Arm's compiler, got {npu.axi_width_bytes}"
        )
    name = _NAMES[npu.axi_width_bytes]
    lines = [
        *("[architecture]", f"macs={npu.macs_per_cycle // npu.n_cores}", f"cores={npu.n_cores}"),
        *("[vela]", f"system_config_name={name}", "memory_mode_name=of_npusim"),
        *(f"[System_Config.{name}]", f"core_clock={target.clock_hz!r}"),
    ]
    for port in PORTS:
        spec = getattr(target.system, port)
        memory, area = spec.at(npu, target.clock_hz), _AREAS[spec.role]
        bandwidth = min(memory.read_bytes_per_cycle, memory.write_bytes_per_cycle)
        lines += [
            f"{port}_port={area}",
            f"{area}_clock_scale={bandwidth / npu.axi_width_bytes!r}",
            f"{area}_burst_length={memory.burst_bytes}",
            f"{area}_read_latency={memory.read_latency_cycles}",
            f"{area}_write_latency={memory.write_latency_cycles}",
        ]
    mode = target.mode
    lines += [
        "[Memory_Mode.of_npusim]",
        f"const_mem_area={_AXI[mode.constants]}",
        f"arena_mem_area={_AXI[mode.feature_maps]}",
        f"cache_mem_area={_AXI[mode.staging]}",
    ]
    return _ARCHITECTURES[family], "\n".join(lines) + "\n"


def _compiler_options(target: Machine, optimise: str, limit_bytes: int | None) -> str:
    limit = target.mode.arena_cache_size_bytes if limit_bytes is None else limit_bytes
    return (
        "[compiler]\noutput_format=TFLite\ncop_format=COP1\nverbose_performance=true\n"
        f"[scheduler]\noptimize={optimise.capitalize()}\n"
        f"arena_size_limit={_NO_LIMIT if limit is None else limit}\n"
        "cpu_tensor_alignment=16\ntensor_allocator=HillClimb\n"
    )


class Compiler:
    """Arm's compiler in a process of its own, which is started anew if it ends.

    Raises:
        MissingExtraError: the compiler is not installed.
    """

    def __init__(self) -> None:
        if find_spec("ethosu") is None or find_spec("ethosu.regor") is None:
            raise MissingExtraError(
                "Arm's compiler", "deploy", ImportError("No module named 'ethosu.regor'")
            )
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Compiler:
        return self

    def __exit__(self, *of_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process = None

    def compile(
        self,
        path: str | os.PathLike[str],
        target: Machine,
        *,
        optimise: str = "performance",
        arena_limit_bytes: int | None = None,
    ) -> Compiled:
        """What the compiler makes of a model file.

        Args:
            path: of a .tflite file.
            target: the machine, its NPU one of Arm's.
            optimise, arena_limit_bytes: as of `npusim.estimate`.

        Raises:
            CompilerError: the compiler refuses the model, or ends on it.
            ConfigError: as `configuration`.
        """
        architecture, system = configuration(target)
        request = {
            "path": str(Path(path).resolve()),
            "architecture": architecture,
            "system": system,
            "options": _compiler_options(target, optimise, arena_limit_bytes),
        }
        answer = self._ask(request)
        if "error" in answer:
            raise CompilerError(f"{Path(path).name}: Arm's compiler refuses it: {answer['error']}")
        return Compiled(**{**answer, "cpu_kinds": tuple(answer["cpu_kinds"])})

    def _ask(self, request: dict[str, str]) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is for us; the process is ended then
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise CompilerError(f"{Path(request['path']).name}: Arm's compiler ended with {how}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def serve() -> None:
    """Compile what each line of stdin asks for: the body of the compiler's process."""
    with _answers() as answers:
        for line in sys.stdin:
            answers.write(json.dumps(_compile(json.loads(line))) + "\n")
            answers.flush()


@contextlib.contextmanager
def _answers() -> Iterator[Any]:
    """What stdout was, which is then nothing: the compiler prints there."""
    kept = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)
    with os.fdopen(kept, "w", encoding="utf-8") as answers:
        yield answers


def _compile(request: dict[str, str]) -> dict[str, Any]:
    from ethosu import regor

    try:
        compiled = regor.compile(
            request["architecture"],
            Path(request["path"]).read_bytes(),
            "TFLITE",
            request["system"],
            options=request["options"],
            verbose=False,
        )
    except Exception as error:  # the compiler's own errors have no type of their own
        lines = str(error).split("\n")
        return {"error": next((line.strip() for line in lines if line.strip()), repr(error))}
    report = compiled.perf_report
    sram, dram = (
        report.memories[area].peakUsage if area in report.memories else 0
        for area in (_AREAS["sram"], _AREAS["dram"])
    )
    return {
        "total_cycles": report.totalCycles,
        "npu_cycles": report.npuCycles,
        "sram_peak_bytes": sram,
        "dram_peak_bytes": dram,
        "flash_bytes": report.readOnlyPeakUsage,
        "n_npu_ops": report.npuOps,
        "n_cpu_ops": report.cpuOps,
        "weights_encoded_bytes": report.encodedWeights,
        "cpu_kinds": _cpu_kinds(bytes(compiled.model)) if report.cpuOps else (),
    }


def _cpu_kinds(content: bytes) -> list[str]:
    """Kinds of the operations of a compiled model that are not the NPU's."""
    kinds = [op.kind for op in load_bytes(content).ops]
    return [kind for kind in kinds if kind != "ETHOS_U"]
