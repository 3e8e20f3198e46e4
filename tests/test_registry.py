# SPDX-License-Identifier: Apache-2.0
"""Plug-ins by name: every built-in one loads, and mistakes are told."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import click
import pytest

from npusim import registry
from npusim.errors import ConfigError, NpusimError, PluginError, UnknownNameError
from npusim.schemes import Scheme

BUILTIN = {
    "npusim.commands": {
        *("bench", "calibrate", "compress", "diff", "estimate", "report", "search", "stream"),
        *("sweep", "validate"),
    },
    "npusim.reports": {"benches", "runs"},
    "npusim.schemes": {"ethos-u-mlw", "raw"},
    "npusim.searchers": {"evolution", "random"},
    "npusim.spaces": {"digits"},
    "npusim.workloads": {"candidate"},
}
EVERY_NAME = [(group, name) for group in registry.GROUPS for name in registry.names(group)]


@pytest.fixture
def registered(monkeypatch):
    """Replaces what is registered by (name, value) pairs, in every group."""

    def register(*pairs: tuple[str, str]) -> None:
        def entry_points(group: str) -> list[EntryPoint]:
            return [EntryPoint(name, value, group) for name, value in pairs]

        monkeypatch.setattr(registry, "entry_points", entry_points)
        registry._found.cache_clear()

    yield register
    monkeypatch.undo()
    registry._found.cache_clear()


class TestBuiltins:
    def test_all_groups_hold_them(self):
        assert set(BUILTIN) == set(registry.GROUPS)
        for group, names in BUILTIN.items():
            assert names <= set(registry.names(group))

    @pytest.mark.parametrize(("group", "name"), EVERY_NAME)
    def test_every_registered_name_loads(self, group, name):
        found = registry.get(group, name)
        assert callable(found)
        if group == "npusim.commands":
            assert isinstance(found, click.Command)
            assert found.name == name
            assert found.get_short_help_str()
        elif group == "npusim.schemes":
            assert issubclass(found, Scheme)
            assert found.name == name
        else:
            assert found.__doc__

    def test_names_are_sorted(self):
        for group in registry.GROUPS:
            assert registry.names(group) == sorted(set(registry.names(group)))

    def test_listing_names_imports_none(self):
        code = (
            "import sys; from npusim import registry; "
            "[registry.names(group) for group in registry.GROUPS]; "
            "print([name for name in sys.modules if name.startswith(('searchers', 'spaces'))])"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"


class TestStrangers:
    def test_a_plug_in_of_another_distribution(self, tmp_path):
        info = tmp_path / "stranger-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[npusim.schemes]\nodd = stranger:Odd\n")
        (tmp_path / "stranger.py").write_text(
            "from dataclasses import dataclass\n"
            "from npusim.schemes.raw import Raw\n"
            "@dataclass(frozen=True, slots=True)\n"
            "class Odd(Raw):\n"
            "    name = 'odd'\n"
        )
        code = (
            "from npusim import schemes; "
            "print('odd' in schemes.names(), schemes.get('odd', bits=4).encode([1, 2]).hex())"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (done.stdout, done.stderr) == ("True 21\n", "")


class TestErrors:
    def test_unknown_group(self):
        message = r"entry-point group must be one of .*, got 'npusim.scheme'; did you mean"
        for ask in (registry.names, lambda group: registry.get(group, "raw")):
            with pytest.raises(UnknownNameError, match=message):
                ask("npusim.scheme")

    def test_unknown_name(self):
        message = r"^searcher must be one of .*, got 'rendom'; did you mean 'random'\?$"
        with pytest.raises(UnknownNameError, match=message):
            registry.get("npusim.searchers", "rendom")

    @pytest.mark.parametrize(
        ("value", "cause"),
        [
            ("npusim_not_there:Odd", "No module named 'npusim_not_there'"),
            ("npusim.schemes.raw:Odd", "module 'npusim.schemes.raw' has no attribute 'Odd'"),
        ],
    )
    def test_not_importable(self, registered, value, cause):
        registered(("odd", value))
        with pytest.raises(PluginError) as caught:
            registry.get("npusim.schemes", "odd")
        assert str(caught.value) == (
            f"scheme 'odd' must be importable from '{value}', got: {cause}"
        )

    def test_our_own_errors_pass(self, registered, monkeypatch, tmp_path):
        (tmp_path / "npusim_refusing.py").write_text(
            "from npusim.errors import ConfigError\nraise ConfigError('not on this machine')\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        registered(("odd", "npusim_refusing:Odd"))
        with pytest.raises(NpusimError, match=r"^not on this machine$"):
            registry.get("npusim.schemes", "odd")

    def test_one_name_for_two_objects(self, registered):
        registered(("odd", "a:Odd"), ("odd", "b:Odd"))
        message = r"^a name in npusim.spaces must be registered once, got 'odd' from 'a:Odd' and"
        with pytest.raises(ConfigError, match=message):
            registry.names("npusim.spaces")

    def test_the_same_object_twice_is_one(self, registered):
        registered(("odd", "a:Odd"), ("odd", "a:Odd"))
        assert registry.names("npusim.spaces") == ["odd"]
