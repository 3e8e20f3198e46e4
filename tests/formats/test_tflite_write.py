# SPDX-License-Identifier: Apache-2.0
"""Writing .tflite: what is written reads back equal, and real readers agree with ours."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_oracle
from example_networks import every_step_network, random_network

import npusim
from npusim.errors import ConfigError, UnknownNameError
from npusim.formats import load_bytes, tflite_schema, tflite_write
from npusim.formats.tflite_write import to_bytes, write
from npusim.network import Network, Op
from npusim.network_builder import NetworkBuilder
from npusim.tensor import DTYPES, Quantization, Tensor

A, B = (Tensor(i, name, (1,), "int8") for i, name in enumerate("ab"))


def of_op(op: Op, **more: Any) -> Network:
    return Network("n", (A, B), (op,), (A,), (B,), **more)


def relu(**fields: Any) -> Op:
    arguments = {"index": 0, "kind": "RELU", "name": "b", "inputs": (A,), "outputs": (B,)}
    return Op(**{**arguments, **fields})


def round_trip(network: Network) -> Network:
    return load_bytes(to_bytes(network), network.name)


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_read_back_equal(seed: int) -> None:
    network = random_network(seed)
    assert round_trip(network) == network
    assert to_bytes(network) == to_bytes(round_trip(network))


def test_write_and_load_a_file(tmp_path: Path) -> None:
    network = every_step_network()
    write(network, tmp_path / "every_step.tflite")
    assert npusim.load(tmp_path / "every_step.tflite") == network
    with pytest.raises(ConfigError, match=r"model must go to a writable file, got '.*/no/x'"):
        write(network, tmp_path / "no" / "x")


def attribute_values(field: tflite_schema.Field) -> Iterable[Any]:
    """Values to write: the default, ends of ranges, every enumerator."""
    if field.type in tflite_schema.ENUMS:
        return tflite_schema.ENUMS[field.type]
    low = -(2**31) if field.minimum is None else field.minimum
    return {
        "bool": (False, True),
        "bytes": ((), (0, 255)),
        "float": (0.0, -1.5, float(np.float32(3e38))),
        "floats": ((), (0.5, -2.0)),
        "int": (max(low, 0), low, 2**31 - 1),
        "int64": (0, -(2**63), 2**63 - 1),
        "ints": ((), (-(2**31), 0, 2**31 - 1)),
        "string": ("", "text é"),
        "subgraph": (0, 1),
    }[field.type]


def every_kind() -> Iterable[tuple[str, dict[str, Any]]]:
    for kind in tflite_schema.CODES:
        fields = [field for field in tflite_schema.fields(kind) if field.name]
        choices = [list(attribute_values(field)) for field in fields]
        for i in range(max(map(len, choices), default=1)):
            values = (values[i % len(values)] for values in choices)
            yield kind, {f.name: value for f, value in zip(fields, values, strict=True)}


def every_attribute_network() -> Network:
    """Every kind with each of some values of each attribute; connected without sense."""
    maps = tuple(Tensor(i, "", (1,) * 4, "int8") for i in range(5))
    side = Network("side", (), (), (), ())
    ops = tuple(
        Op(i, kind, f"{kind.lower()}#{i}", (*maps[:1], maps[1], maps[2]), (), attributes)
        for i, (kind, attributes) in enumerate(every_kind())
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
    )
    ops = tuple(replace(op, index=i, name=f"{i}") for i, op in enumerate(ops))
    return Network("every", maps, ops, (maps[0],), (), subgraphs=(side,))


def test_every_attribute_of_every_kind_reads_back() -> None:
    network = every_attribute_network()
    back = round_trip(network)
    assert len({op.kind for op in back.ops}) == len(tflite_schema.CODES) - 4
    for ours, theirs in zip(network.ops, back.ops, strict=True):
        assert theirs.kind == ours.kind
        assert theirs.attributes == ours.attributes
        assert {n: type(v) for n, v in theirs.attributes.items()} == {
            n: type(v) for n, v in ours.attributes.items()
        }
        assert theirs.known


def test_an_independent_reader_sees_every_attribute() -> None:
    tflite_oracle.require()
    network = every_attribute_network()
    tflite_oracle.compare(network, to_bytes(network))


@pytest.mark.parametrize("seed", range(8))
def test_an_independent_reader_agrees(seed: int) -> None:
    tflite_oracle.require()
    network = random_network(seed)
    tflite_oracle.compare(network, to_bytes(network))


@pytest.mark.parametrize("seed", range(20))
def test_litert_runs_what_is_written(seed: int) -> None:
    """Every resolver accepts the file, and finds the shapes of all feature maps as we do."""
    tflite_oracle.require()
    network = random_network(seed)
    for resolver in tflite_oracle.RESOLVERS:
        interpreter = tflite_oracle.interpreter(to_bytes(network), resolver)
        for details in interpreter.get_tensor_details():
            if details["index"] < len(network.tensors):
                assert tuple(details["shape"]) == network.tensors[details["index"]].shape
        (output,) = tflite_oracle.run(interpreter, seed)
        assert output.shape == (1, 10)


def test_constants_of_every_dtype_read_back() -> None:
    rng = np.random.default_rng(0)
    tensors = []
    for index, (dtype, (bits, storage)) in enumerate(DTYPES.items()):
        shape = (3, index % 4 + 1)
        if not storage:
            data = None
        elif dtype == "string":
            data = np.array([b"x" * n for n in range(3 * shape[1])], object).reshape(shape)
        elif dtype == "bool":
            data = rng.random(shape) < 0.5
        elif bits < 8:
            half = 2 ** (bits - 1) if dtype.startswith("int") else 0
            data = (rng.integers(0, 2**bits, shape) - half).astype(storage)
        else:
            data = np.frombuffer(rng.bytes(bits // 8 * 3 * shape[1]), storage).reshape(shape)
        tensors.append(Tensor(index, dtype, shape, dtype, None, data))
    network = Network("n", tuple(tensors), (), (), ())
    assert sum(tensor.data is not None for tensor in round_trip(network).tensors) == 21
    assert round_trip(network) == network


def test_fields_of_tensors_read_back() -> None:
    tensors = (
        Tensor(0, "é", (2, 3), "int8", Quantization.of([0.5, 2, 3], [1, -2, 3], axis=1)),
        Tensor(1, "", (), "float32", None, np.array(np.nan, np.float32)),
        Tensor(2, "v", (1, 2), "int16", None, None, True, (-1, 2)),
        Tensor(3, "r", (), "resource"),
        Tensor(4, "e", (0, 2), "int8"),
    )
    network = Network("n", tensors, (), tensors[:1], tensors[2:4])
    assert round_trip(network) == network


def test_description_metadata_and_side_graphs_read_back() -> None:
    side = Network("side", (A,), (), (A,), (A,))
    metadata = (("a", b"1"), ("a", b""), ("", bytes(100)))
    network = of_op(relu(), description="what é", metadata=metadata, subgraphs=(side, side))
    assert round_trip(network) == network


def test_custom_operations_read_back() -> None:
    custom = relu(kind="CUSTOM:x", known=False, custom_code="x", custom_options=b"\0\1", version=5)
    assert round_trip(of_op(custom)) == of_op(custom)
    npu = relu(kind="ETHOS_U", custom_code="ethos-u", custom_options=b"\1\4\1", inputs=(None, A))
    assert round_trip(of_op(npu)) == of_op(npu)


def test_intermediates_read_back() -> None:
    network = of_op(relu(intermediates=(None, A)))
    assert round_trip(network) == network


def test_constants_start_at_multiples_of_16_bytes_and_are_shared() -> None:
    net = NetworkBuilder("n")
    x = net.input((1, 7))
    data = np.arange(7, dtype=np.int8)
    for values in (data, data, data.copy(), np.arange(7, dtype=np.int32)):
        x = net.op("TILE", x, values, shape=(1, 7))
    content = to_bytes(net.build(x))
    base = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    offsets = [
        tensor.data.__array_interface__["data"][0] - base
        for tensor in load_bytes(content).tensors
        if tensor.data is not None
    ]
    assert [offset % 16 for offset in offsets] == [0] * 4
    assert offsets[0] == offsets[1]
    assert len(set(offsets)) == 3


@pytest.mark.parametrize(
    ("op", "error", "message"),
    [
        (
            relu(kind="BUILTIN_212", known=False),
            ConfigError,
            r"kind of BUILTIN_212 'b' must be known or custom to be written",
        ),
        (relu(kind="ETHOS_U"), ConfigError, r"kind of ETHOS_U 'b' must be known or custom"),
        (relu(version=0), ConfigError, r"version of RELU 'b' must be in 1..2147483647, got 0"),
        (
            relu(attributes={"x": 1}),
            ConfigError,
            r"attributes of RELU 'b' must be none, got x",
        ),
        (
            relu(kind="SOFTMAX"),
            ConfigError,
            r"attributes of SOFTMAX 'b' must be beta, got none",
        ),
        (
            relu(kind="SOFTMAX", attributes={"beta": "1"}),
            ConfigError,
            r"beta of SOFTMAX 'b' must be real numbers, got dtype",
        ),
        (
            relu(kind="MUL", attributes={"fused_activation": "SIN"}),
            UnknownNameError,
            r"fused_activation of MUL 'b' must be one of NONE, .*, got 'SIN'",
        ),
    ],
)
def test_what_cannot_be_written_is_refused(op: Op, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        to_bytes(of_op(op))


def test_more_data_than_a_file_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_write, "_FILE_BYTES_MAX", 10_000)
    with pytest.raises(ConfigError, match=r"of 'every_step' must fit a file of 10000 bytes, got"):
        to_bytes(every_step_network())
