# SPDX-License-Identifier: Apache-2.0
"""Reading .tflite: what files may say, in files made by hand, and how bad ones are refused."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from example_networks import every_step_network
from raw_flatbuffer import (
    BOOL,
    FLOAT32,
    INT8,
    INT32,
    UINT8,
    UINT32,
    UINT64,
    flatbuffer,
    ints,
    tensor,
)
from raw_flatbuffer import model as model_tree

import npusim
from npusim.errors import ConfigError, FormatError, NpusimError
from npusim.formats import load_bytes
from npusim.formats.tflite_write import to_bytes
from npusim.network import Network

RELU = {0: UINT32(0), 1: ints(0), 2: ints(1)}
IN_AND_OUT = [tensor(1, 2, name="a"), tensor(1, 2, name="b")]


def read(*arguments: Any, **more: Any) -> Network:
    return load_bytes(flatbuffer(model_tree(*arguments, **more)), "made")


def one_tensor(**more: Any) -> npusim.Tensor:
    buffers = more.pop("buffers", None)
    return read([{**tensor(2), **more.pop("fields", {})}], buffers=buffers, **more).tensors[0]


def test_load_names_the_network_like_its_file(tmp_path: Path) -> None:
    path = tmp_path / "some.model.tflite"
    path.write_bytes(flatbuffer(model_tree(IN_AND_OUT, [RELU])))
    network = npusim.load(path)
    assert network.name == "some.model"
    assert npusim.load(str(path)) == network
    assert [op.name for op in network.ops] == ["b"]
    assert [op.kind for op in network.ops] == ["RELU"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()])
def test_load_of_what_is_no_file_is_a_config_error(make: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    make(path)
    with pytest.raises(ConfigError, match=r"model must be a .*file, got '.*x\.tflite'"):
        npusim.load(path)


def test_load_names_the_file_that_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(b"\x89PNG\r\n\x1a\n0000")
    message = rf"^{path}: a TFLite model must have 'TFL3' at byte 4, got 12 bytes that start with"
    with pytest.raises(FormatError, match=message):
        npusim.load(path)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0\0\0\0TFL", b"plain text, no model"])
def test_other_content_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=rf"made: a TFLite model .*, got {len(data)} bytes"):
        load_bytes(data, "made")


def test_load_bytes_refuses_other_types() -> None:
    with pytest.raises(ConfigError, match=r"content of a model must be bytes, got bytearray"):
        load_bytes(bytearray(b"x"))  # type: ignore[arg-type]


def test_every_truncation_is_refused() -> None:
    content = to_bytes(every_step_network())
    for length in range(0, len(content) - 1, 7):
        with pytest.raises(FormatError, match="made: "):
            load_bytes(content[:length], "made")


@pytest.mark.parametrize(
    ("code", "legacy", "kind", "known"),
    [
        (19, 19, "RELU", True),
        (None, 19, "RELU", True),
        (0, 19, "RELU", True),
        (150, 127, "GELU", True),
        (161, 127, "RIGHT_SHIFT", True),
        (163, 127, "BUILTIN_163", False),
        (212, 127, "BUILTIN_212", False),
        (None, 51, "DELEGATE", False),
        (None, None, "ADD", True),
    ],
)
def test_operator_codes_old_and_new(
    code: int | None, legacy: int | None, kind: str, known: bool
) -> None:
    entry = {0: legacy, 3: code}
    codes = [
        {slot: INT8(v) if slot == 0 else INT32(v) for slot, v in entry.items() if v is not None}
    ]
    op = read(IN_AND_OUT, [RELU], codes=codes).ops[0]
    assert (op.kind, op.known, op.version) == (kind, known, 1)
    assert op.ifm is not None
    assert op.ifm.name == "a"


def test_custom_operators_keep_name_and_options() -> None:
    codes = [{0: INT8(32), 1: "Some", 2: INT32(3)}, {0: INT8(32), 1: "ethos-u"}]
    operators = [{**RELU, 5: b"\1\2"}, {0: UINT32(1), 1: ints(1, 1, 1, 1, 0), 2: ints(2)}]
    network = read([*IN_AND_OUT, tensor(1, name="c")], operators, codes=codes)
    some, ethos_u = network.ops
    assert (some.kind, some.known, some.version) == ("CUSTOM:Some", False, 3)
    assert (some.custom_code, some.custom_options) == ("Some", b"\1\2")
    assert (ethos_u.kind, ethos_u.known, ethos_u.custom_code) == ("ETHOS_U", True, "ethos-u")
    assert ethos_u.input("flash") is network.tensors[1]
    assert ethos_u.ifm is network.tensors[0]


def test_options_that_are_left_out_have_the_defaults_of_the_schema() -> None:
    op = read(IN_AND_OUT, [RELU], codes=[{0: INT8(0)}]).ops[0]
    assert op.attributes == {"fused_activation": "NONE", "pot_scale_int16": True}


def test_options_are_read() -> None:
    options = {0: UINT32(0), 1: INT32(2), 2: INT32(3), 4: INT32(5), 3: INT32(4), 5: INT8(3)}
    options[0] = INT8(1)
    op = read(IN_AND_OUT, [{**RELU, 3: UINT8(5), 4: options}], codes=[{0: INT8(17)}]).ops[0]
    assert op.kind == "MAX_POOL_2D"
    assert op.attributes == {
        **{"padding": "VALID", "stride_w": 2, "stride_h": 3, "filter_w": 4, "filter_h": 5},
        "fused_activation": "RELU6",
    }


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        (17, {3: UINT8(1), 4: {}}, r"options of MAX_POOL_2D must be of type 5, got type 1"),
        (17, {3: UINT8(5)}, r"options of MAX_POOL_2D must be of type 5, got no table of type 5"),
        (17, {}, r"operator 0: stride_w of MAX_POOL_2D must be at least 1, got 0"),
        (0, {3: UINT8(11), 4: {0: INT8(6)}}, r"fused_activation must be in 0..5, got 6"),
        (0, {3: UINT8(11), 4: {0: INT8(-1)}}, r"fused_activation must be in 0..5, got -1"),
        (25, {3: UINT8(9), 4: {0: FLOAT32(np.nan)}}, r"beta must be a number, got nan"),
        (129, {3: UINT8(103), 4: {0: INT32(1)}}, r"init_subgraph_index of CALL_ONCE .* got 1"),
    ],
)
def test_bad_options_are_refused(code: int, options: dict[int, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(IN_AND_OUT, [{**RELU, **options}], codes=[{0: INT8(min(code, 127)), 3: INT32(code)}])


def test_tensor_fields() -> None:
    quantization = {
        **{0: np.zeros(2, np.float32), 2: np.array([0.5, 0.25], np.float32)},
        **{3: np.array([1, -2]), 6: INT32(1)},
    }
    first = one_tensor(
        fields={0: ints(1, 2), 4: quantization, 5: BOOL(True), 7: ints(-1, 2), 3: "x"}
    )
    assert (first.name, first.shape, first.dtype) == ("x", (1, 2), "int8")
    assert first.is_variable is True
    assert first.shape_signature == (-1, 2)
    assert first.quantization is not None
    assert first.quantization.scales.tolist() == [0.5, 0.25]
    assert first.quantization.zero_points.tolist() == [1, -2]
    assert first.quantization.axis == 1


def test_absent_shape_is_a_scalar_and_absent_name_is_empty() -> None:
    network = read([{1: INT8(0)}])
    assert (network.tensors[0].shape, network.tensors[0].name) == ((), "")
    assert network.tensors[0].dtype == "float32"


def test_scales_without_zero_points_have_zeros() -> None:
    for points in ({}, {3: np.zeros(0, np.int64)}):
        first = one_tensor(fields={4: {2: np.ones(2, np.float32), **points}})
        assert first.quantization is not None
        assert first.quantization.zero_points.tolist() == [0, 0]
    shared = one_tensor(fields={4: {2: np.ones(2, np.float32), 3: np.array([7])}})
    assert shared.quantization is not None
    assert shared.quantization.zero_points.tolist() == [7, 7]


def test_quantization_without_scales_is_none() -> None:
    assert one_tensor(fields={4: {0: np.zeros(1, np.float32)}}).quantization is None


def test_axis_of_a_one_dimensional_tensor_is_0() -> None:
    first = one_tensor(fields={4: {2: np.ones(2, np.float32), 6: INT32(3)}})
    assert first.quantization is not None
    assert first.quantization.axis == 0


@pytest.mark.parametrize(
    ("code", "dtype", "content", "expected"),
    [
        (9, "int8", b"\x01\xff", [1, -1]),
        (3, "uint8", b"\x01\xff", [1, 255]),
        (7, "int16", b"\x01\x00\xff\xff", [1, -1]),
        (2, "int32", b"\x01\0\0\0\xff\xff\xff\xff", [1, -1]),
        (4, "int64", b"\x01" + b"\0" * 7 + b"\xfe" + b"\xff" * 7, [1, -2]),
        (0, "float32", b"\0\0\x80\x3f\0\0\0\xc0", [1.0, -2.0]),
        (1, "float16", b"\x00\x3c\x00\xc0", [1.0, -2.0]),
        (6, "bool", b"\x00\x01", [False, True]),
        (17, "int4", b"\x8f", [-1, -8]),
        (20, "uint4", b"\x8f", [15, 8]),
        (19, "int2", b"\x07", [-1, 1]),
        (18, "bfloat16", b"\x80\x3f\x00\xc0", [0x3F80, 0xC000]),
        (8, "complex64", b"\0\0\x80\x3f\0\0\0\xc0" * 2, [1 - 2j, 1 - 2j]),
        (
            *(5, "string"),
            b"\x02\0\0\0\x10\0\0\0\x12\0\0\0\x13\0\0\0hey",
            [b"he", b"y"],
        ),
    ],
)
def test_constants_by_hand(code: int, dtype: str, content: bytes, expected: list[Any]) -> None:
    first = one_tensor(fields={1: INT8(code), 2: UINT32(1)}, buffers=[{}, {0: content}])
    assert first.dtype == dtype
    assert first.data is not None
    assert first.data.tolist() == expected
    assert not first.data.flags.writeable


def test_constants_are_views_of_the_file() -> None:
    content = flatbuffer(model_tree([{**tensor(4), 2: UINT32(1)}], buffers=[{}, {0: b"\1\2\3\4"}]))
    data = load_bytes(content).tensors[0].data
    assert data is not None
    assert np.shares_memory(data, np.frombuffer(content, np.uint8))


def test_buffer_0_and_empty_buffers_hold_no_constant() -> None:
    assert one_tensor(buffers=[{0: b"\1\2"}]).data is None
    assert one_tensor(fields={2: UINT32(1)}, buffers=[{}, {0: b""}]).data is None
    assert one_tensor(fields={2: UINT32(1)}, buffers=[{}, {}]).data is None


def test_data_at_an_offset_beyond_the_tables() -> None:
    """As files of more than 2 GiB have it; offsets count from the start of the file."""

    def content(offset: int) -> bytes:
        buffers = [{}, {1: UINT64(offset), 2: UINT64(2)}]
        return flatbuffer(model_tree([{**tensor(2), 2: UINT32(1)}], buffers=buffers))

    end = len(content(2))
    data = load_bytes(content(end + 1) + b"\0\7\10").tensors[0].data
    assert data is not None
    assert data.tolist() == [7, 8]
    with pytest.raises(FormatError, match=r"buffer 1: data must lie inside the file of"):
        load_bytes(content(end + 2) + b"\0\7\10")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({1: INT8(23)}, r"tensor 0: type must be in 0..22, got 23"),
        ({1: INT8(-1)}, r"tensor 0: type must be in 0..22, got -1"),
        ({2: UINT32(2)}, r"tensor 0: buffer must be one of 2, got number 2"),
        ({2: UINT32(1)}, r"data of int8\[2\] must take 2 bytes, got 3"),
        ({2: UINT32(1), 0: ints(2**31 - 1, 2**31 - 1)}, r"must take 4611686014132420609 bytes"),
        ({2: UINT32(1), 0: ints(-1, -3)}, r"tensor 0: lengths of axes must be at least 0, got"),
        ({2: UINT32(1), 0: ints(*[1] * 40)}, r"must have at most 32 axes, got 40"),
        ({2: UINT32(1), 1: INT8(6), 0: ints(3)}, r"data of a bool tensor must be 0 and 1, got 3"),
        ({2: UINT32(1), 1: INT8(13)}, r"tensor of dtype resource must have no data, got 3 bytes"),
        ({2: UINT32(1), 1: INT8(5)}, r"must hold 2 strings, got \d+ in 3 bytes"),
        ({6: {}}, r"'t' must be dense, got a sparse tensor"),
        ({10: UINT32(4)}, r"'t' must have its data in this file, got external buffer 4"),
        ({4: {4: UINT8(2)}}, r"quantization must be affine, got details of type 2"),
        ({4: {2: np.ones(2, np.float32), 3: np.zeros(3, int)}}, r"two vectors of one length"),
        ({4: {2: np.ones(3, np.float32)}}, r"as many as axis 0 is long, got 3"),
        ({4: {2: np.array([-1], np.float32)}}, r"scales must be finite and at least 0, got -1.0"),
        ({3: b"\xff"}, r"tensor 0: string must be UTF-8"),
    ],
)
def test_bad_tensors_are_refused(fields: dict[int, Any], message: str) -> None:
    with pytest.raises(FormatError, match=rf"^made: .*{message}"):
        one_tensor(fields=fields, buffers=[{}, {0: b"\1\2\3"}])


@pytest.mark.parametrize(
    "content",
    [
        b"\x02\0\0\0\x10\0\0\0\x12\0\0\0\x14\0\0\0hey",
        b"\x02\0\0\0\x10\0\0\0\x0f\0\0\0\x13\0\0\0hey",
        b"\x02\0\0\0\x0f\0\0\0\x12\0\0\0\x13\0\0\0hey",
        b"\x02\0\0\0\xff\xff\xff\xff\x12\0\0\0\x13\0\0\0hey",
    ],
)
def test_strings_outside_their_data_are_refused(content: bytes) -> None:
    with pytest.raises(FormatError, match=r"strings of a string tensor must follow each other"):
        one_tensor(fields={1: INT8(5), 2: UINT32(1)}, buffers=[{}, {0: content}])


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        ({0: UINT32(1)}, r"operator 0: operator code must be one of 1, got number 1"),
        ({1: ints(2)}, r"operator 0: inputs must be in -1..1, got 2"),
        ({1: ints(-2)}, r"operator 0: inputs must be in -1..1, got -2"),
        ({2: ints(-1)}, r"operator 0: outputs must be in 0..1, got -1"),
        ({8: ints(9)}, r"operator 0: intermediates must be in -1..1, got 9"),
        ({2: ints(0)}, r"'a' must be written before it is read, got RELU 'a' before RELU 'a'"),
    ],
)
def test_bad_operators_are_refused(operator: dict[int, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read(IN_AND_OUT, [{**RELU, **operator}])


def test_bad_models_are_refused() -> None:
    tree = model_tree(IN_AND_OUT, [RELU])
    with pytest.raises(FormatError, match=r"schema version must be 3, got 4"):
        load_bytes(flatbuffer({**tree, 0: UINT32(4)}))
    with pytest.raises(FormatError, match=r"a model must have at least one subgraph, got none"):
        load_bytes(flatbuffer({**tree, 2: []}))
    with pytest.raises(FormatError, match=r"network inputs must be in 0..1, got 7"):
        load_bytes(flatbuffer({**tree, 2: [{**tree[2][0], 1: ints(7)}]}))


def test_left_out_inputs_and_intermediates() -> None:
    operator = {**RELU, 1: ints(-1, 0), 8: ints(-1, 1)}
    operator[2] = ints()
    op = read(IN_AND_OUT, [operator]).ops[0]
    assert op.inputs[0] is None
    assert op.ifm is not None
    assert op.intermediates[0] is None
    assert op.intermediates[1] is not None
    assert op.name == "relu"


def test_names_of_operations_are_unique() -> None:
    tensors = [tensor(1, name=name) for name in ("a", "b", "b", "", "")]
    operators = [{0: UINT32(0), 1: ints(i), 2: ints(i + 1)} for i in range(4)]
    assert [op.name for op in read(tensors, operators).ops] == ["b", "b#2", "relu", "relu#2"]


def test_side_graphs_and_metadata() -> None:
    side = {0: [tensor(3, name="s")], 1: ints(0), 2: ints(), 3: [], 4: "init"}
    call = {0: UINT32(1), 3: UINT8(103), 4: {0: INT32(1)}}
    network = read(
        *(IN_AND_OUT, [RELU, call]),
        codes=[{0: INT8(19)}, {0: INT8(127), 3: INT32(129)}],
        buffers=[{}, {0: b"1.5"}],
        side_graphs=[side],
        slot3="text",
        slot6=[{0: "version", 1: UINT32(1)}, {0: "version", 1: UINT32(0)}],
    )
    assert network.description == "text"
    assert network.metadata == (("version", b"1.5"), ("version", b""))
    assert network.subgraph(1).name == "init"
    assert network.subgraph(1).tensors[0].name == "s"
    assert network.ops[1].attributes == {"init_subgraph_index": 1}
    assert network.ops[1].name == "call_once"
    side[0] = [tensor(3, dtype=99)]
    with pytest.raises(FormatError, match=r"made: subgraph 1: tensor 0: type must be in 0..22"):
        read(IN_AND_OUT, [RELU], side_graphs=[side])


def test_errors_stay_short_for_long_names() -> None:
    with pytest.raises(FormatError, match=r"must be written once") as caught:
        read([tensor(1), tensor(1, name="x" * 9999)], [RELU, RELU])
    assert len(str(caught.value)) < 500


N = 100_000
SCALES = np.ones(N, np.float32)
HOSTILE = {
    "operators": lambda: model_tree(IN_AND_OUT, [{}] * N),
    "tensors": lambda: model_tree([IN_AND_OUT[0]] * N),
    "buffers": lambda: model_tree(IN_AND_OUT, buffers=[{0: bytes(N)}] * N),
    "inputs": lambda: model_tree(
        IN_AND_OUT,
        [
            {0: UINT32(0), 1: shared, 2: ints()}
            for shared in [np.zeros(N, np.int32)]
            for _ in range(1000)
        ],
    ),
    "scales": lambda: model_tree(
        [{**tensor(N), 4: shared} for shared in [{2: SCALES}] for _ in range(1000)]
    ),
    "names": lambda: model_tree(
        [{**tensor(1), 3: name} for name in ["x" * N] for _ in range(1000)]
    ),
    "names of operators": lambda: model_tree(
        [tensor(1), tensor(1, name="x" * N)],
        [{0: UINT32(0), 2: ints(1)} for _ in range(1000)],
    ),
    "unpacking": lambda: model_tree(
        [{**tensor(2 * N), 1: INT8(17), 2: UINT32(1)} for _ in range(1000)],
        buffers=[{}, {0: bytes(N)}],
    ),
    "booleans": lambda: model_tree(
        [{**tensor(N), 1: INT8(6), 2: UINT32(1)} for _ in range(1000)],
        buffers=[{}, {0: bytes(N)}],
    ),
    "metadata": lambda: model_tree(
        IN_AND_OUT, buffers=[{}, {0: bytes(N)}], slot6=[{0: "m", 1: UINT32(1)}] * 1000
    ),
    "side graphs": lambda: model_tree(IN_AND_OUT, side_graphs=[{0: [tensor(1)] * 100, 3: []}] * N),
}


@pytest.mark.parametrize("part", HOSTILE)
def test_small_files_that_say_much_are_refused_quickly(part: str) -> None:
    """One long part that many others point to must cost no more than the file is long."""
    content = flatbuffer(HOSTILE[part]())
    assert len(content) < 1_500_000
    start = time.process_time()
    with pytest.raises(FormatError, match=r"parts of the file must not overlap"):
        load_bytes(content)
    assert time.process_time() - start < 5.0
    tracemalloc.start()
    with pytest.raises(NpusimError):
        load_bytes(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * len(content) + (1 << 22)
