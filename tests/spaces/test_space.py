# SPDX-License-Identifier: Apache-2.0
"""Spaces and candidates as values: definitions, counts, encodings, what is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys

import networkx
import numpy as np
import pytest

import spaces
from npusim.errors import ConfigError, FormatError, NpusimError, UnknownNameError
from spaces.base import Candidate, DecisionVariable, Kind, Layer, LayerKind, Space
from spaces.digits import digits

WIDTH = DecisionVariable("w", Kind.WIDTH, (0.5, 1.0))
BITS = DecisionVariable("b", Kind.BITWIDTH, (1, 8))
IMAGE = Layer("image", LayerKind.INPUT)
CONV = Layer("conv", LayerKind.CONV, ("image",), 4, kernel=3, width="w", bitwidth="b")


def space(*layers: Layer, decisions: tuple[DecisionVariable, ...] = (WIDTH, BITS)) -> Space:
    return Space("example", "digits", (8, 8, 1), decisions, layers)


def test_digits_has_the_options_of_its_docstring():
    found = digits()
    assert found.count() == (10 * 4 * 11) ** 3 * (4 * 11)
    assert [str(decision.kind) for decision in found.decisions[:3]] == [
        "width",
        "bitwidth",
        "sparsity",
    ]
    assert digits(widths=(1.0,), bitwidths=(8,), sparsities=(1.0,)).count() == 1


def test_equal_definitions_are_equal_and_hash_equally():
    assert digits() == digits()
    assert hash(digits()) == hash(digits())
    assert digits().content_hash == digits().content_hash
    assert digits().content_hash != digits(bitwidths=(1, 4, 8, 32)).content_hash
    assert pickle.loads(pickle.dumps(digits())) == digits()


def test_hash_is_the_same_in_another_process():
    code = "import spaces; print(spaces.get('digits').content_hash)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == digits().content_hash


def test_every_field_of_the_definition_enters_the_hash():
    base = space(IMAGE, CONV)
    changed = [
        dataclasses.replace(base, name="other"),
        dataclasses.replace(base, data_set="other"),
        dataclasses.replace(base, image_shape=(8, 8, 3)),
        space(IMAGE, dataclasses.replace(CONV, stride=2)),
        space(IMAGE, CONV, decisions=(dataclasses.replace(WIDTH, options=(0.25, 1.0)), BITS)),
    ]
    assert len({each.content_hash for each in (base, *changed)}) == 1 + len(changed)


def test_graph_has_the_layers_and_their_edges():
    graph = digits().graph()
    assert list(networkx.topological_sort(graph)) == [layer.name for layer in digits().layers]
    assert graph.nodes["conv2"]["layer"].ofm_depth == 32
    assert list(graph.predecessors("conv2")) == ["conv1"]


def test_printing_names_every_layer_and_option():
    text = str(digits())
    assert digits().content_hash in text
    assert all(layer.name in text for layer in digits().layers)
    assert "conv1.bitwidth (bitwidth): 1 2 4 8" in text


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ((), Kind.WIDTH, "options of decision 'x' must be one or more, got none"),
        ((1.0, 0.5), Kind.WIDTH, "must rise, got"),
        ((0.5, 0.5), Kind.WIDTH, "must rise, got"),
        ((0.0, 1.0), Kind.SPARSITY, r"must be in 1e-06..1, got 0.0"),
        ((1.5,), Kind.WIDTH, r"must be in 1e-06..1, got 1.5"),
        ((float("nan"),), Kind.WIDTH, r"must be in 1e-06..1, got nan"),
        (("half",), Kind.SPARSITY, r"must be in 1e-06..1, got 'half'"),
        ((0,), Kind.BITWIDTH, r"must be ints in 1..32, got 0"),
        ((33,), Kind.BITWIDTH, r"must be ints in 1..32, got 33"),
        ((4.0,), Kind.BITWIDTH, r"must be ints in 1..32, got 4.0"),
    ],
)
def test_decisions_refuse_options_out_of_range(options, kind, message):
    with pytest.raises(ConfigError, match=message):
        DecisionVariable("x", kind, options)


def _with(layer: Layer, **changes) -> Layer:
    return dataclasses.replace(layer, **changes)


POOL = Layer("pool", LayerKind.GLOBAL_POOL, ("conv",))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((CONV,), "input must be the first layer and only that, got layer 'conv'"),
        ((IMAGE, CONV, _with(IMAGE, name="two")), "input must be the first layer"),
        ((IMAGE, CONV, _with(CONV, inputs=("conv",))), "unique, got 'conv' twice"),
        ((IMAGE, _with(CONV, inputs=())), "inputs of layer 'conv' must be 1, got 0"),
        ((IMAGE, _with(CONV, inputs=("conv",))), "must be earlier layers, got 'conv'"),
        ((IMAGE, _with(CONV, ofm_depth=0)), "ofm_depth of layer 'conv' must be in 1..65536, got 0"),
        ((IMAGE, CONV, _with(POOL, ofm_depth=3)), "ofm_depth of layer 'pool' must be 0, got 3"),
        ((IMAGE, _with(CONV, kernel=0)), "kernel of layer 'conv' must be in 1..65536, got 0"),
        ((IMAGE, CONV, _with(POOL, stride=2)), "stride of layer 'pool' must be 1, got 2"),
        ((IMAGE, _with(CONV, width="x")), "decision must be one of b, w, got 'x'"),
        ((IMAGE, _with(CONV, width="b")), "must name a width decision, got 'b' of kind bitwidth"),
        ((IMAGE, CONV, _with(POOL, width="w")), "'pool' must have no width decision, got 'w'"),
        ((IMAGE, _with(CONV, width=None)), "must be used by a layer, got unused w"),
        (
            (IMAGE, CONV, Layer("out", LayerKind.DENSE, ("conv",), 2)),
            "input of dense layer 'out' must be a 1x1 map, got 'conv'",
        ),
    ],
)
def test_spaces_refuse_graphs_that_make_no_network(layers, message):
    with pytest.raises(NpusimError, match=message):
        space(*layers)


def test_a_decision_name_may_not_repeat():
    with pytest.raises(ConfigError, match="decision names of space 'example' must be unique"):
        space(IMAGE, CONV, decisions=(WIDTH, BITS, WIDTH))


def test_layers_that_name_one_decision_are_tied():
    second = _with(CONV, name="conv2", inputs=("conv",))
    tied = space(IMAGE, CONV, second)
    assert tied.count() == 4
    assert tied.options_of(tied.candidate((0, 1))) == {"w": 0.5, "b": 8}


def test_candidates_are_refused_by_the_name_of_what_is_wrong():
    found = space(IMAGE, CONV)
    with pytest.raises(ConfigError, match="choices of space 'example' must be 2, got 1"):
        found.candidate((0,))
    with pytest.raises(ConfigError, match=r"choice of decision 'b' must be in 0..1, got 2"):
        found.candidate((0, 2))
    with pytest.raises(ConfigError, match="candidate must be of space 'example'"):
        found.options_of(digits().largest())
    with pytest.raises(ConfigError, match="options must have decision 'b', got none of it"):
        found.from_options({"w": 1.0})
    with pytest.raises(ConfigError, match="option of decision 'b' must be one of 1, 8, got 4"):
        found.from_options({"w": 1.0, "b": 4})
    with pytest.raises(UnknownNameError, match="decision must be one of b, w, got 'c'"):
        found.from_options({"w": 1.0, "b": 8, "c": 1})


def test_points_are_refused_by_shape_and_range():
    found = space(IMAGE, CONV)
    with pytest.raises(ConfigError, match=r"point must have shape \(2,\), got \(3,\)"):
        found.decode(np.zeros(3))
    with pytest.raises(ConfigError, match=r"point must be in 0..1, got 0.0..1.5"):
        found.decode(np.array([0.0, 1.5]))
    with pytest.raises(ConfigError, match=r"point must be in 0..1"):
        found.decode(np.array([0.0, np.nan]))


def test_decode_takes_the_nearest_option():
    found = digits(widths=(0.25, 0.5, 1.0), bitwidths=(8,), sparsities=(1.0,))
    point = np.array([0.2, 0, 0, 0.3, 0, 0, 0.8, 0, 0, 0, 0])
    assert found.decode(point).choices == (0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "candidate must be JSON"),
        ("[]", "candidate must be npusim.candidate version 1, got None"),
        ('{"format": "npusim.candidate", "version": 2}', "version 1, got .*2"),
        ('{"format": "npusim.candidate", "version": 1}', "version 1"),
    ],
)
def test_json_of_another_format_is_refused(text, message):
    with pytest.raises(FormatError, match=message):
        digits().from_json(text)


def test_json_of_another_space_is_refused():
    text = digits().to_json(digits().largest())
    with pytest.raises(ConfigError, match="candidate must be of space 'digits'"):
        digits(bitwidths=(4, 8)).from_json(text)


def test_json_has_options_by_name():
    found = json.loads(digits().to_json(digits().largest()))
    assert found["version"] == 1
    assert found["options"]["conv3.bitwidth"] == 8


def test_registry_passes_options_on_and_refuses_unknown_ones():
    assert spaces.get("digits", bitwidths=(4, 8)) == digits(bitwidths=(4, 8))
    with pytest.raises(
        ConfigError, match=r"options of space 'digits' must be ones it has \(widths, .*colour"
    ):
        spaces.get("digits", colour="red")
    with pytest.raises(UnknownNameError, match=r"space must be one of .*did you mean 'digits'"):
        spaces.get("digit")


def test_candidates_are_small_values():
    first, second = digits().largest(), digits().largest()
    assert first == second
    assert hash(first) == hash(second)
    assert isinstance(first, Candidate)
    assert pickle.loads(pickle.dumps(first)) == first


HASHES = {
    "cifar100": "61e0f2f72e9d76d1",
    "digits": "37440b3e1ea429c4",
    "digits_recorded": "69bc419fa3d5e872",
    "imagenet": "2bf006390f3171ff",
    "nas_bench_201": "3c0da6a67665c2cb",
    "nas_bench_macro": "1b17485955c2ca19",
    "super_resolution": "65638b8a8b453cfb",
    "tiny_imagenet": "999565e7f5d8b821",
}


@pytest.mark.parametrize("name", sorted(HASHES))
def test_definitions_stay_what_stored_candidates_belong_to(name):
    """A changed hash makes every stored run and candidate of the space one of another space."""
    assert spaces.get(name).content_hash == HASHES[name]


def test_stored_candidates_are_read():
    options = {d.name: d.options[0] for d in digits().decisions}
    text = json.dumps(
        {
            "format": "npusim.candidate",
            "version": 1,
            "space": "digits",
            "space_hash": HASHES["digits"],
            "options": options,
        }
    )
    assert digits().from_json(text).choices == (0,) * 11


def test_what_layers_have_by_default_changes_no_hash():
    definition = space(IMAGE, CONV).definition()
    assert definition["layers"][0] == {"name": "image", "kind": "input"}
    assert definition["layers"][1]["kernel"] == 3
    assert "given" not in definition["layers"][1]
