# SPDX-License-Identifier: Apache-2.0
"""Rules that all files of the project keep, checked on their source."""

from __future__ import annotations

import ast
import re
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("npusim", "searchers", "spaces")
FOLDERS = (*PACKAGES, "benches", "tests")
PYTHON_FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
PACKAGE_FILES = [path for path in PYTHON_FILES if path.relative_to(ROOT).parts[0] in PACKAGES]
TEST_FILES = [path for path in PYTHON_FILES if path.is_relative_to(ROOT / "tests")]

N_LINES_MAX = 500
TORCH_FILES = {
    "searchers/deployment/trained.py",
    "searchers/one_shot/frank_wolfe.py",
    "searchers/one_shot/reinforce.py",
    "searchers/one_shot/scores.py",
    "searchers/one_shot/single_path.py",
    "searchers/training/evaluator.py",
    "searchers/training/group.py",
    "searchers/training/loop.py",
    "searchers/training/runs.py",
    "searchers/training/tasks.py",
    "searchers/udc/assemble.py",
    "searchers/udc/batches.py",
    "searchers/udc/cost.py",
    "searchers/udc/processes.py",
    "searchers/udc/projection.py",
    "searchers/udc/run_files.py",
    "searchers/udc/sampling.py",
    "searchers/udc/search.py",
    "searchers/udc/strategy.py",
    "searchers/udc/supernet.py",
    "searchers/udc/weights.py",
    "searchers/zero_cost.py",
    "spaces/nets/activations.py",
    "spaces/nets/candidate_net.py",
    "spaces/nets/files.py",
    "spaces/nets/masks.py",
    "spaces/nets/modules.py",
    "spaces/nets/quantizers.py",
    "spaces/nets/weights.py",
    "spaces/surrogate.py",
}
"""The files that may import torch where they are imported themselves."""
MAY_IMPORT = {
    "npusim": {"npusim"},
    "spaces": {"npusim", "spaces"},
    "searchers": {"npusim", "spaces", "searchers"},
}


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=label)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), label(path))


def imported(nodes: Iterator[ast.AST]) -> set[str]:
    """Full names of the modules that import statements among `nodes` name."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not functions, nor ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from at_import(child)


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


class TestImports:
    @each(PACKAGE_FILES)
    def test_point_inwards(self, path):
        allowed = MAY_IMPORT[path.relative_to(ROOT).parts[0]]
        ours = tops(imported(ast.walk(tree(path)))) & {*FOLDERS}
        assert ours <= allowed

    @each([path for path in PACKAGE_FILES if path.is_relative_to(ROOT / "npusim")])
    def test_npusim_never_imports_torch(self, path):
        assert "torch" not in tops(imported(ast.walk(tree(path))))

    @each(PACKAGE_FILES)
    def test_torch_is_imported_only_where_it_is_named(self, path):
        if "torch" in tops(imported(at_import(tree(path)))):
            assert label(path) in TORCH_FILES

    def test_no_file_is_named_in_vain(self):
        for name in TORCH_FILES:
            assert "torch" in tops(imported(at_import(tree(ROOT / name))))

    @each([path for path in PACKAGE_FILES if path.is_relative_to(ROOT / "npusim")])
    def test_numba_is_loaded_by_kernels_alone(self, path):
        """Modules that do so are imported from inside functions, or by one another."""
        names = imported(at_import(tree(path)))
        loads = tops(names) & {"llvmlite", "numba"} or any(
            name == "npusim._jit" or name.endswith("_kernels") for name in names
        )
        if loads:
            kernels = {"npusim/_jit.py", "npusim/weights/bits.py", "npusim/weights/lanes.py"}
            assert path.stem.endswith("_kernels") or label(path) in kernels


class TestFiles:
    @each(PYTHON_FILES)
    def test_are_short(self, path):
        assert len(path.read_text("utf-8").splitlines()) <= N_LINES_MAX

    @each(PYTHON_FILES)
    def test_say_their_licence_first(self, path):
        lines = path.read_text("utf-8").splitlines()
        first = lines[1] if lines[0].startswith("#!") else lines[0]
        assert first == "# SPDX-License-Identifier: Apache-2.0"

    @each(PYTHON_FILES)
    def test_say_what_they_are_for(self, path):
        assert ast.get_docstring(tree(path))

    @each(PYTHON_FILES)
    def test_have_a_name_that_means_something(self, path):
        assert not re.fullmatch(r"(utils?|helpers?|misc|common|.*_?v?\d+)", path.stem)

    def test_no_two_test_files_share_a_name(self):
        # pytest imports them by it, and so do they one another
        names = Counter(path.name for path in TEST_FILES)
        assert {name for name, n in names.items() if n > 1} <= {"conftest.py"}

    def test_name_no_place_of_one_machine(self):
        machine = re.compile(r"/[w]ork/|/[t]mp/\w|/[r]oot/|/[h]ome/[a-z]")
        texts = [*PYTHON_FILES, *ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.txt")]
        texts += [ROOT / "Makefile", ROOT / ".ci" / "run"]
        found = {
            label(path): machine.findall(path.read_text("utf-8"))
            for path in texts
            if machine.search(path.read_text("utf-8"))
        }
        assert found == {}


def is_kernel(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(decorator) in {"kernel", "leaf_kernel", "parallel_kernel"}
        for decorator in node.decorator_list
    )


KERNELS = [
    (path, node) for path in PACKAGE_FILES for node in ast.walk(tree(path)) if is_kernel(node)
]


class TestKernels:
    def test_there_are_some(self):
        assert len(KERNELS) > 20

    @pytest.mark.parametrize(("path", "node"), KERNELS, ids=[node.name for _, node in KERNELS])
    def test_never_raise(self, path, node):
        found = [n.lineno for n in ast.walk(node) if isinstance(n, (ast.Raise, ast.Assert))]
        assert found == []

    @pytest.mark.parametrize(("path", "node"), KERNELS, ids=[node.name for _, node in KERNELS])
    def test_are_said_to_take_what_they_take(self, path, node):
        """A docstring, or a comment beside the signature; hints mean nothing here."""
        header = path.read_text("utf-8").splitlines()[node.lineno - 1 : node.body[0].lineno]
        assert ast.get_docstring(node) or any("#" in line for line in header)

    @each(sorted({path for path, _ in KERNELS}))
    def test_live_in_kernel_modules(self, path):
        assert path.stem.endswith("_kernels")

    @each(PACKAGE_FILES)
    def test_flags_of_numba_are_chosen_in_one_place(self, path):
        calls = {
            ast.unparse(node).removeprefix("numba.")
            for node in ast.walk(tree(path))
            if isinstance(node, (ast.Name, ast.Attribute))
        }
        if label(path) != "npusim/_jit.py":
            assert calls.isdisjoint({"njit", "jit", "vectorize", "guvectorize"})


def public(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public functions and classes, and the public methods of the latter, with dotted names."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if child.name.startswith("_"):
            continue
        yield prefix + child.name, child
        if isinstance(child, ast.ClassDef):
            yield from public(child, f"{prefix}{child.name}.")


class TestDocstrings:
    @each([path for path in PACKAGE_FILES if not path.stem.endswith("_kernels")])
    def test_everything_public_has_one(self, path):
        inherits = {
            node.name
            for _, node in public(tree(path))
            if isinstance(node, ast.ClassDef) and node.bases
        }
        missing = [
            name
            for name, node in public(tree(path))
            if not ast.get_docstring(node)
            # a method that a base class of the child describes
            and not (name.partition(".")[0] in inherits and "." in name)
        ]
        assert missing == []


ASSERTING = {"raises", "warns", "fail", "deprecated_call"}
WEAK = re.compile(r"^(isinstance|callable)\(.*\)$|^.* is not None$|^True$")


def asserts(node: ast.AST, known: set[str]) -> bool:
    """Whether `node` asserts something, or calls a function of `known` (those that do)."""
    for child in ast.walk(node):
        if isinstance(child, ast.Assert) and not WEAK.match(ast.unparse(child.test)):
            return True
        if isinstance(child, ast.Call):
            name = ast.unparse(child.func).rpartition(".")[2]
            if name in ASSERTING or name in known or name.startswith("assert_"):
                return True
    return False


@cache
def asserting_helpers() -> set[str]:
    """Names of the functions in the tests that assert, by themselves or through others."""
    functions = [
        node
        for path in TEST_FILES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("test_")
    ]
    known: set[str] = set()
    while True:
        found = {node.name for node in functions if asserts(node, known)}
        if found == known:
            return known
        known = found


class TestTests:
    @each([path for path in TEST_FILES if path.name.startswith("test_")])
    def test_every_test_can_fail(self, path):
        cannot = [
            f"{node.name}:{node.lineno}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")
            and not asserts(node, asserting_helpers())
        ]
        assert cannot == []

    @pytest.mark.parametrize(
        ("body", "can_fail"),
        [
            ("encode([1])", False),
            ("assert isinstance(encode([1]), bytes)", False),
            ("assert encode([1]) is not None", False),
            ("assert True", False),
            ("assert encode([1]) == b''", True),
            ("with pytest.raises(ValueError): encode(None)", True),
            ("np.testing.assert_array_equal(a, b)", True),
        ],
    )
    def test_that_rule_itself(self, body, can_fail):
        assert asserts(ast.parse(body), set()) is can_fail

    def test_warnings_are_errors(self):
        with pytest.raises(UserWarning, match=r"^a word$"):
            warnings.warn("a word", UserWarning, stacklevel=1)
        config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        assert config["tool"]["pytest"]["ini_options"]["filterwarnings"][0] == "error"

    def test_examples_in_docstrings_and_the_readme_run(self):
        config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
        options = config["tool"]["pytest"]["ini_options"]
        assert {"tests", "README.md", "docs", *PACKAGES} <= set(options["testpaths"])
        assert {"--doctest-modules", "--doctest-glob=*.md"} <= set(options["addopts"].split())


class TestProject:
    @pytest.fixture
    def project(self) -> dict[str, Any]:
        return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

    def test_has_one_version(self, project):
        import npusim

        assert project["version"] == npusim.__version__

    def test_all_dependencies_are_pinned_for_ci(self, project):
        lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
        wanted = [*project["dependencies"]]
        for extra in project["optional-dependencies"].values():
            wanted += extra
        names = {re.split(r"[<>=!~\[; ]", wish, maxsplit=1)[0].lower() for wish in wanted}
        assert names <= pinned
        assert all("==" in line or line.startswith("#") or not line for line in lines)

    def test_continuous_integration_runs_the_readme_s_command(self):
        script = (ROOT / ".ci" / "run").read_text("utf-8")
        assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
        assert re.search(r"^time make .*\btest$", script, re.MULTILINE)
        assert "NPUSIM_REQUIRE_ORACLES=1" in script
        assert "make test" in (ROOT / "README.md").read_text("utf-8")
