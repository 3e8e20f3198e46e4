# SPDX-License-Identifier: Apache-2.0
"""What npusim finds on this machine: versions, optional parts, plug-ins, caches, data, tools."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Any, Final

import npusim
from npusim import registry
from npusim.report.provenance import package_version, processor

TOOLS: Final[Mapping[str, str]] = {
    "iverilog": "simulates the Verilog decoders of tests/rtl",
    "verilator": "simulates the Verilog decoders of tests/rtl",
    "FVP_Corstone_SSE-300_Ethos-U55": "Arm's virtual platform",
    "chromium": "looks at reports in tests/report",
}
"""Programs that are used where they are there, and what for."""
DATA_VARIABLE: Final = "NPUSIM_DATA"
_GPU_QUERY: Final = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader")
_GPU_TIMEOUT_S: Final = 10


@dataclass(frozen=True, slots=True)
class Part:
    """An optional part of npusim.

    Attributes:
        extra: what brings it: ``pip install 'npusim[extra]'``.
        packages: that it needs, with the installed versions; None: not installed.
    """

    extra: str
    packages: Mapping[str, str | None]

    @property
    def is_there(self) -> bool:
        """Whether all of it is installed."""
        return None not in self.packages.values()


@dataclass(frozen=True, slots=True)
class KernelCache:
    """Where compiled kernels are kept.

    Attributes:
        folder: NUMBA_CACHE_DIR, or that of the package.
        writable: whether kernels can be kept there; otherwise each start compiles them.
        n_files: cached.
        n_bytes: they take.
    """

    folder: str
    writable: bool
    n_files: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Environment:
    """All that was found.

    Attributes:
        npusim, python, system, processor: versions and names.
        required: versions of the packages that npusim always needs.
        parts: optional ones.
        broken: plug-ins that cannot be imported, as ``group name``, and why.
        kernels: cache of compiled kernels.
        data: folder that NPUSIM_DATA names; None if it is not set.
        data_is_there: whether that is a folder.
        gpus: as the driver names them.
        tools: programs of `TOOLS` by name; None: not found.
    """

    npusim: str
    python: str
    system: str
    processor: str
    required: Mapping[str, str | None]
    parts: tuple[Part, ...]
    broken: Mapping[str, str]
    kernels: KernelCache
    data: str | None
    data_is_there: bool
    gpus: tuple[str, ...]
    tools: Mapping[str, str | None]

    def to_json(self) -> dict[str, Any]:
        """JSON values: the attributes by name, and of parts whether they are there."""
        record = asdict(self)
        for part, values in zip(self.parts, record["parts"], strict=True):
            values["is_there"] = part.is_there
        return record


def examine() -> Environment:
    """Look at this machine; nothing is changed, and no optional package is imported but plug-ins.

    >>> found = examine()
    >>> found.npusim == npusim.__version__, found.required["numpy"] is None
    (True, False)
    """
    required, parts = _requirements()
    folder = os.environ.get(DATA_VARIABLE)
    return Environment(
        npusim=npusim.__version__,
        python=platform.python_version(),
        system=platform.platform(),
        processor=processor(),
        required=required,
        parts=parts,
        broken=_broken(),
        kernels=_kernel_cache(),
        data=folder,
        data_is_there=folder is not None and Path(folder).is_dir(),
        gpus=_gpus(),
        tools={name: shutil.which(name) for name in TOOLS},
    )


def _requirements() -> tuple[dict[str, str | None], tuple[Part, ...]]:
    """What the installed npusim declares that it needs, always and for each extra."""
    required: dict[str, str | None] = {}
    extras: dict[str, dict[str, str | None]] = {}
    for line in requires("npusim") or []:
        found = re.match(r"[A-Za-z0-9._-]+", line)
        assert found is not None  # requirements begin with a name
        extra = re.search(r"extra == ['\"]([^'\"]+)", line)
        packages = required if extra is None else extras.setdefault(extra[1], {})
        packages[found[0]] = package_version(found[0])
    return required, tuple(Part(extra, packages) for extra, packages in extras.items())


def _broken() -> dict[str, str]:
    found = {}
    for group in registry.GROUPS:
        for name in registry.names(group):
            try:
                registry.get(group, name)
            except Exception as error:  # whatever a stranger's plug-in raises is told
                found[f"{group} {name}"] = str(error)
    return found


def _kernel_cache() -> KernelCache:
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(npusim.__file__).parent)
    files = [path for path in folder.rglob("*.nb[ci]") if path.is_file()]
    writable = os.access(folder if folder.is_dir() else folder.parent, os.W_OK)
    return KernelCache(
        str(folder), writable, len(files), sum(path.stat().st_size for path in files)
    )


def _gpus() -> tuple[str, ...]:
    if shutil.which(_GPU_QUERY[0]) is None:
        return ()
    try:
        found = subprocess.run(
            _GPU_QUERY, capture_output=True, text=True, timeout=_GPU_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()  # a driver that does not answer has no GPU for us
    return tuple(line.strip() for line in found.stdout.splitlines() if line.strip())
