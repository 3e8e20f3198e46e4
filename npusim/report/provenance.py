# SPDX-License-Identifier: Apache-2.0
"""What made a result: versions, machine, command, inputs."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from npusim import __version__

PACKAGES: Final = ("numpy", "numba", "networkx", "torch", "scikit-learn", "vl-convert-python")
"""Whose versions results may depend on, where they are installed."""


def package_version(name: str) -> str | None:
    """Of an installed package; None if it is not.

    >>> package_version("no-such-package") is None
    True
    """
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name as the system tells it, and how many of its cores may be used."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {count} cores"


def provenance(command: Sequence[str], inputs: Sequence[str] = ()) -> dict[str, str]:
    """Rows of name and value: versions, machine, time, command, and what files had.

    Args:
        command: with its arguments.
        inputs: files and others; of files the first 16 digits of the SHA-256 are told.

    >>> provenance(["npusim", "report", "a model.tflite"])["command"]
    "npusim report 'a model.tflite'"
    """
    found = {
        "command": shlex.join(command),
        "time": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "npusim": __version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
    }
    packages = ((name, package_version(name)) for name in PACKAGES)
    found |= {name: installed for name, installed in packages if installed is not None}
    for text in inputs:
        if Path(text).is_file():
            found[f"SHA-256 of {Path(text).name}"] = _digest(Path(text))
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
