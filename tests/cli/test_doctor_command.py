# SPDX-License-Identifier: Apache-2.0
"""``npusim doctor`` and ``npusim completion``, and what holds for all commands in a terminal."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numba
import pytest

from npusim import cli, environment, registry
from npusim.environment import Environment, KernelCache, Part, examine
from npusim.report.environments import environment_table

COMMANDS = registry.names("npusim.commands")


@pytest.fixture
def found() -> Environment:
    """A machine where things are missing."""
    return Environment(
        npusim="1.2.3",
        python="3.11.7",
        system="Linux",
        processor="one, 2 cores",
        required={"numpy": "2.0"},
        parts=(Part("plot", {"matplotlib": "3.9"}), Part("search", {"torch": "2.5", "sk": None})),
        broken={"npusim.searchers mine": "no module named 'mine'"},
        kernels=KernelCache("cache", False, 3, 1_500_000),
        data="nowhere",
        data_is_there=False,
        gpus=(),
        tools={"iverilog": None, "chromium": "/usr/bin/chromium"},
    )


class TestDoctor:
    def test_json_is_the_machine(self, run):
        code, out, err = run("doctor", "--json")
        record = json.loads(out)
        assert (code, err) == (0, "")
        assert record == json.loads(json.dumps(examine().to_json()))
        assert record["required"]["numba"] == numba.__version__
        assert record["broken"] == {}
        assert {"plot", "report", "search"} <= {part["extra"] for part in record["parts"]}

    def test_table_tells_what_is_missing_and_what_brings_it(self, found):
        from npusim.cli.output import table_text

        text = table_text([environment_table(found)])
        lines = [line.strip("│ ").split("│") for line in text.splitlines() if "│" in line]
        rows = {row[0].strip(): (row[1].strip(), row[2].strip()) for row in lines}
        assert rows["[plot]"] == ("✓", "matplotlib 3.9")
        assert rows["[search]"] == ("–", "torch 2.5; without sk: pip install 'npusim[search]'")
        assert rows["npusim.searchers mine"] == ("–", "no module named 'mine'")
        assert rows["kernel cache"][1].startswith("cache: 3 files, 1.5 MB, cannot be written")
        assert rows["data"] == ("–", "nowhere is not a folder")
        assert rows["iverilog"][0] == "–"
        assert rows["chromium"] == ("✓", "/usr/bin/chromium")

    def test_finds_data_and_caches(self, tmp_path, monkeypatch):
        (tmp_path / "a.nbi").write_bytes(b"12345")
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
        monkeypatch.setenv("NPUSIM_DATA", str(tmp_path))
        here = examine()
        assert here.kernels == KernelCache(str(tmp_path), True, 1, 5)
        assert (here.data, here.data_is_there) == (str(tmp_path), True)

    def test_a_broken_plug_in_is_told(self, monkeypatch):
        def get(group, name):
            raise RuntimeError(f"{name} is broken")

        monkeypatch.setattr(registry, "get", get)
        assert environment._broken()["npusim.searchers random"] == "random is broken"

    @pytest.mark.parametrize(("code", "gpus"), [(0, ("Tesla T4, 15360 MiB",)), (1, ())])
    def test_gpus_are_what_the_driver_says(self, monkeypatch, tmp_path, code, gpus):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\necho 'Tesla T4, 15360 MiB'\nexit {code}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        assert environment._gpus() == gpus


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_scripts_call_npusim(self, run, shell):
        code, out, _ = run("completion", shell)
        assert code == 0
        assert "_NPUSIM_COMPLETE" in out

    def test_other_shells_are_refused(self, run):
        code, out, err = run("completion", "tcsh")
        assert (code, out) == (2, "")
        assert "'tcsh' is not one of" in err

    @pytest.mark.parametrize(
        ("words", "completed"),
        [
            ("npusim es", ["plain,estimate"]),
            ("npusim estimate --npu ethos-u65", ["plain,ethos-u65-256", "plain,ethos-u65-512"]),
            ("npusim estimate mod", ["file,mod"]),
        ],
    )
    def test_what_is_completed(self, monkeypatch, capsys, words, completed):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
        monkeypatch.setenv("_NPUSIM_COMPLETE", "bash_complete")
        with pytest.raises(SystemExit) as stop:
            cli.main([])
        assert stop.value.code == 0
        assert capsys.readouterr().out.splitlines() == completed

    @pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
    def test_bash_takes_its_script(self, run):
        script = run("completion", "bash")[1]
        command = f"{script}\ncomplete -p npusim"
        found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert found.stdout == "complete -o nosort -F _npusim_completion npusim\n"


class TestEveryCommand:
    @pytest.mark.parametrize("command", COMMANDS)
    def test_help_is_plain_text_where_it_is_piped(self, run, command):
        code, out, err = run(command, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: npusim {command}")
        assert "\x1b" not in out

    @pytest.mark.parametrize("command", COMMANDS)
    def test_mistakes_exit_with_2(self, run, command):
        code, out, err = run(command, "--no-such-option")
        assert (code, out) == (2, "")
        assert err.startswith("npusim: no such option")

    @pytest.mark.parametrize("arguments", [["space", "list"], ["schemes", "list"]])
    def test_results_have_no_colour_where_they_are_piped(self, arguments):
        found = subprocess.run(
            [sys.executable, "-m", "npusim", *arguments], capture_output=True, check=True
        )
        assert len(found.stdout.splitlines()) > 5
        assert b"\x1b" not in found.stdout + found.stderr


class TestQuiet:
    def test_shows_no_progress_on_a_terminal(self, run, model, monkeypatch):
        from npusim.cli import output

        monkeypatch.setattr(output.sys.stderr, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        assert run("estimate", model)[2] != ""
        monkeypatch.setattr(output.sys.stderr, "isatty", lambda: True)
        code, out, err = run("--quiet", "estimate", model)
        assert (code, err) == (0, "")
        assert "conv0" in out

    def test_still_tells_mistakes(self, run):
        code, out, err = run("--quiet", "estimate", "nowhere.tflite")
        assert (code, out) == (2, "")
        assert "nowhere.tflite" in err

    def test_goes_with_verbose_no_more(self, run):
        code, _, err = run("--quiet", "--verbose", "doctor")
        assert code == 2
        assert err.startswith("npusim: --quiet must not go with --verbose, got both")
