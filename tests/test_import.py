# SPDX-License-Identifier: Apache-2.0
"""Importing is cheap: nothing heavy is loaded, read, compiled or started before it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from npusim import registry

ROOT = Path(__file__).parent.parent
PACKAGES = ("npusim", "searchers", "spaces")
HEAVY = {
    "flatbuffers", "llvmlite", "matplotlib", "networkx", "numba", "rich", "scipy", "sklearn",
    "torch",
}  # fmt: skip
N_MODULES_MAX = 5
"""Modules that `import npusim` may load beyond numpy's own."""

PROBE = """
import json, sys

opened = []

def watch(event, args):
    if event == "open" and isinstance(args[0], str):
        opened.append(args[0])

sys.addaudithook(watch)
{prelude}
before = set(sys.modules)
n_opened = len(opened)
{statement}
after = set(sys.modules) - before
print(json.dumps({{"modules": sorted(after), "opened": opened[n_opened:], "more": {more}}}))
"""


def probe(statement: str, prelude: str = "", more: str = "None") -> Any:
    """What a fresh interpreter loads and opens for `statement`, and the value of `more` after."""
    code = PROBE.format(prelude=prelude, statement=statement, more=more)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def read_by_packages(opened: list[str]) -> set[str]:
    """Files of the packages that were opened, other than modules and what Numba keeps of them."""
    inside = [Path(name) for name in opened if Path(name).is_relative_to(ROOT)]
    return {
        str(path)
        for path in inside
        if path.relative_to(ROOT).parts[0] in PACKAGES
        and path.suffix not in {".py", ".pyc"}
        and "__pycache__" not in path.parts
    }


class TestImportNpusim:
    def test_loads_next_to_nothing_beyond_numpy(self):
        seen = probe("import npusim", prelude="import numpy")
        assert "npusim" in seen["modules"]
        assert len(seen["modules"]) <= N_MODULES_MAX, seen["modules"]

    def test_loads_nothing_heavy_and_not_even_numpy(self):
        seen = probe("import npusim")
        assert {name.partition(".")[0] for name in seen["modules"]}.isdisjoint(
            HEAVY | {"click", "numpy"}
        )

    def test_reads_no_file_but_modules(self):
        assert read_by_packages(probe("import npusim")["opened"]) == set()

    def test_the_probe_sees_what_it_looks_for(self):
        seen = probe("import npusim.npu; npusim.npu.get('ethos-u55-128')")
        assert {Path(name).name for name in read_by_packages(seen["opened"])} == {
            "npu_presets.json"
        }
        assert "numpy" in probe("import npusim.weights")["modules"]

    def test_names_are_there_when_asked_for(self):
        seen = probe(
            "import npusim; npusim.weights.encode",
            more="[name for name in npusim.__all__ if getattr(npusim, name) is None]",
        )
        assert seen["more"] == []
        assert "npusim.weights.stream" in seen["modules"]

    def test_unknown_name(self):
        import npusim

        with pytest.raises(AttributeError, match="module 'npusim' has no attribute 'wieghts'"):
            _ = npusim.wieghts


EVERYTHING = """
import importlib, logging, pkgutil, random, threading
import numpy as np
random.seed(5), np.random.seed(5)
states = random.getstate(), np.random.get_state()[1].tolist()

def everything():
    for package in ("npusim", "searchers", "spaces"):
        found = importlib.import_module(package)
        for module in pkgutil.walk_packages(found.__path__, package + "."):
            if not module.name.endswith("__main__"):
                try:
                    importlib.import_module(module.name)
                except ImportError as error:
                    if error.name not in {"torch", "matplotlib", "sklearn"}:
                        raise
"""
WORK_DONE = """{
    "compiled": [k.__name__ for k in importlib.import_module("npusim._jit").KERNELS
                 if getattr(k, "signatures", [])],
    "threads": threading.active_count(),
    "handlers": len(logging.getLogger().handlers) + len(logging.getLogger("npusim").handlers),
    "seeded": states != (random.getstate(), np.random.get_state()[1].tolist()),
}"""


@pytest.fixture(scope="module")
def seen() -> Any:
    return probe("everything()", prelude=EVERYTHING, more=WORK_DONE)


class TestImportEverything:
    """Every module of the three packages, one after the other, in one fresh interpreter."""

    def test_all_modules_were_seen(self, seen):
        assert {"npusim.weights.section_kernels", "searchers.base", "spaces.base"} <= set(
            seen["modules"]
        )

    def test_no_module_works(self, seen):
        assert seen["more"] == {"compiled": [], "threads": 1, "handlers": 0, "seeded": False}

    def test_no_module_reads_a_file(self, seen):
        assert read_by_packages(seen["opened"]) == set()


class TestCommandLine:
    RUN = "import npusim.cli\ntry:\n    npusim.cli.main({args!r})\nexcept SystemExit:\n    pass"

    @pytest.mark.parametrize(
        "args",
        [
            ["--help"],
            ["--version"],
            [],
            *([n, "--help"] for n in registry.names("npusim.commands")),
        ],
        ids=" ".join,
    )
    def test_help_and_version_load_nothing_heavy(self, args):
        seen = probe(self.RUN.format(args=args))
        assert "click" in seen["modules"]
        assert {name.partition(".")[0] for name in seen["modules"]}.isdisjoint(HEAVY)

    def test_version_loads_no_command(self):
        seen = probe(self.RUN.format(args=["--version"]))
        assert not [name for name in seen["modules"] if name.startswith("npusim.cli.")]
        assert "searchers" not in seen["modules"]
        assert "numpy" not in seen["modules"]
