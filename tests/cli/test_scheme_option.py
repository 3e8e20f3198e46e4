# SPDX-License-Identifier: Apache-2.0
"""``--scheme`` of the commands that cost networks."""

from __future__ import annotations

import json

import pytest

import npusim
from npusim import schemes
from npusim.cost.estimate import estimate


@pytest.fixture
def record(run):
    """The JSON that ``npusim estimate`` prints."""

    def record(*args):
        code, out, err = run("estimate", *args, "--format", "json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return record


def test_is_that_of_the_library(record, model):
    found = record(model, "--scheme", "rans:states=8", "--npu", "ethos-u55-32")
    expected = estimate(
        npusim.load(model), "ethos-u55-32", scheme=schemes.get("rans", states=8)
    ).to_json()
    assert {name: found[name] for name in expected} == json.loads(json.dumps(expected))
    assert found["scheme"] == "rans:states=8"
    assert found["scheme_decoder"]["steps_per_cycle"] == 8


def test_lanes(record, model):
    one, four = (
        record(model, "--scheme", "cabac", "--lanes", lanes)["ops"][0]["decode_cycles"]
        for lanes in ("1", "4")
    )
    assert four < one


def test_the_compilers_rate(record, model):
    found = record(model, "--scheme", "cabac", "--decoder", "compiler")
    assert (found["decoder"], found["scheme_decoder"]) == ("compiler", None)


def test_is_told_in_every_form(run, model):
    out = run("estimate", model, "--scheme", "zvc")[1]
    assert "what if weights were in scheme zvc" in " ".join(out.split())
    assert "which no Ethos-U reads" in " ".join(out.split())
    two = run("estimate", model, "--scheme", "zvc", "--npu", "ethos-u55-32,ethos-u55-64")[1]
    assert "costs of an inference, what if weights were in scheme zvc" in " ".join(two.split())
    csv = run("estimate", model, "--scheme", "zvc", "--npu", "all", "--format", "csv")[1]
    assert "zvc" in csv.splitlines()[1].split(",")


def test_sweeps_and_differences(run, model):
    code, out, _ = run("sweep", model, "--vary", "sram_bytes_per_cycle=1,2", "--scheme", "raw")
    assert code == 0
    args = (model, "--set", "sram_bytes_per_cycle=1", "--scheme", "raw", "--format", "json")
    slow = json.loads(run("estimate", *args)[1])
    assert f"{slow['total_cycles']:,}" in out
    code, out, _ = run("diff", model, "--npu", "ethos-u55-32,ethos-u55-64", "--scheme", "raw")
    assert code == 0
    assert "what if" in out or "raw" in out


REFUSED = [
    (["--scheme", "zip"], "scheme must be one of "),
    (["--scheme", "raw:width=2"], "parameter of scheme 'raw' must be one of bits, got 'width'"),
    (["--scheme", "raw:"], "parameter of a scheme must be NAME=VALUE, got ''"),
    (["--scheme", "raw", "--encoder", "tight"], "--scheme must not go with --encoder, got raw"),
    (["--scheme", "raw", "--weights", "bits=4"], "--scheme must not go with --weights, got raw"),
    (["--scheme", "raw", "--decoder", "stream"], "decoder 'stream' must not go with scheme 'raw'"),
    (["--scheme", "raw", "--width", "conv0"], "--width must not go with --scheme, got raw"),
    (["--lanes", "2"], "--lanes must go with --scheme, got 2"),
    (["--scheme", "raw", "--lanes", "0"], "lanes must be in 1..1048576, got 0"),
    (
        ["--scheme", "raw", "--lanes", "2", "--decoder", "compiler"],
        "--lanes must not go with --decoder, got compiler",
    ),
]


@pytest.mark.parametrize(("args", "message"), REFUSED, ids=lambda value: " ".join(value)[:40])
def test_refused(run, model, args, message):
    code, out, err = run("estimate", model, *args)
    assert (code, out) == (2, "")
    assert err.startswith(f"npusim: {message}")


def test_candidates_have_no_weights_to_code(run):
    code, _, err = run("estimate", "digits:largest", "--scheme", "zvc")
    assert code == 2
    assert "must be known for exact sizes, got only shape" in err
