# SPDX-License-Identifier: Apache-2.0
"""Real models: every field as an independent reader has it; written again, they compute the same.

Source of the models: NPUSIM_DATA.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tflite_oracle

import npusim
from npusim.formats import load_bytes, tflite_schema
from npusim.formats.tflite_write import to_bytes
from npusim.network import Network

SMALL = (
    *("mlperf_kws_dscnn_int8", "mww_vad_int8", "tflm_dtln_int8", "coral_split_concat"),
    *("seanet/conv0", "seanet/transpose_conv4", "seanet/strided_slice13", "seanet/leaky_relu4"),
)
BAD_AXES = "tflm_person_detect_int8"

pytestmark = pytest.mark.data


def paths(models_dir: Path) -> list[Path]:
    found = sorted(models_dir.glob("**/*.tflite"))
    if not found:
        pytest.skip(f"no .tflite file below {models_dir}")
    return found


def some(models_dir: Path, names: tuple[str, ...]) -> list[Path]:
    found = [models_dir / f"{name}.tflite" for name in names]
    missing = [path.name for path in found if not path.is_file()]
    if missing:
        pytest.skip(f"not in {models_dir}: {', '.join(missing)}")
    return found


def agree(path: Path) -> int:
    """Compare our reading of a file and of its rewriting with the independent one."""
    content = path.read_bytes()
    network = npusim.load(path)
    n_ops = tflite_oracle.compare(network, content)
    rewritten = to_bytes(network)
    assert load_bytes(rewritten, network.name) == network
    tflite_oracle.compare(network, rewritten)
    return n_ops


def test_fields_of_some_models_are_those_of_an_independent_reader(models_dir: Path) -> None:
    tflite_oracle.require()
    assert sum(agree(path) for path in some(models_dir, SMALL)) > 60


@pytest.mark.slow
def test_fields_of_all_models_are_those_of_an_independent_reader(models_dir: Path) -> None:
    tflite_oracle.require()
    assert sum(agree(path) for path in paths(models_dir)) > 1000


def test_all_models_read_and_write_back_equal(models_dir: Path) -> None:
    kinds = set()
    for path in paths(models_dir):
        network = npusim.load(path)
        assert load_bytes(to_bytes(network), network.name) == network, path
        kinds |= {op.kind for graph in (network, *network.subgraphs) for op in graph.ops}
        unknown = {op.kind for op in network.ops if not op.known}
        assert unknown <= {"CUSTOM:TFLite_Detection_PostProcess"}, path
    assert len(kinds) >= 30
    assert {kind for kind in kinds if ":" not in kind} <= set(tflite_schema.CODES)


def test_all_weights_are_within_the_range_of_the_stream(models_dir: Path) -> None:
    n_layers = 0
    for path in paths(models_dir):
        for op in npusim.load(path).ops:
            if op.weights is not None and op.weights.data is not None:
                weights = op.weights_ohwi()
                assert weights.size == op.weights.n_elements
                assert weights.ndim == 4
                n_layers += 1
    assert n_layers > 600


def ofm_shapes(network: Network) -> dict[int, np.ndarray]:
    """Inputs of a network that say the shape of a feature map, by tensor index."""
    shapes = {}
    for op in network.ops:
        shape = op.input("ofm_shape") if op.kind == "TRANSPOSE_CONV" else None
        if shape is not None and shape.data is None and op.ofm is not None:
            shapes[shape.index] = np.array(op.ofm.shape, np.int32)
    return shapes


def same_outputs(path: Path) -> int:
    """Run a model and its rewriting on the same random inputs; the number of outputs compared."""
    content = path.read_bytes()
    network = npusim.load(path)
    given = ofm_shapes(network)
    if path.name.startswith("strided_slice"):
        given |= slice_bounds(network)
    resolver = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    outputs = [
        tflite_oracle.run(tflite_oracle.interpreter(model, resolver), 0, given)
        for model in (content, to_bytes(network))
    ]
    for before, after in zip(*outputs, strict=True):
        assert before.dtype == after.dtype
        assert np.array_equal(before, after), path
    return len(outputs[0])


def slice_bounds(network: Network) -> dict[int, np.ndarray]:
    """Begin, end and step of a slice of everything, where they are inputs of the network."""
    (op,) = network.ops
    _, *bounds = op.inputs
    assert op.ifm is not None
    values = ([0] * len(op.ifm.shape), op.ifm.shape, [1] * len(op.ifm.shape))
    return {
        tensor.index: np.array(value, np.int32)
        for tensor, value in zip(bounds, values, strict=True)
        if tensor is not None and tensor.data is None
    }


def test_some_models_compute_the_same_when_rewritten(models_dir: Path) -> None:
    tflite_oracle.require()
    assert sum(same_outputs(path) for path in some(models_dir, SMALL)) >= len(SMALL)


@pytest.mark.slow
def test_all_models_compute_the_same_when_rewritten(models_dir: Path) -> None:
    tflite_oracle.require()
    found = [path for path in paths(models_dir) if path.stem != BAD_AXES]
    assert sum(same_outputs(path) for path in found) >= len(found)


def test_axes_that_litert_refuses_are_repaired(models_dir: Path) -> None:
    """This model gives its biases the axis of its weights, which they do not have."""
    tflite_oracle.require()
    (path,) = some(models_dir, (BAD_AXES,))
    with pytest.raises(ValueError, match=r"quantized_dimension must be in range"):
        tflite_oracle.interpreter(path.read_bytes(), tflite_oracle.RESOLVERS[1])
    rewritten = tflite_oracle.interpreter(to_bytes(npusim.load(path)), tflite_oracle.RESOLVERS[1])
    (output,) = tflite_oracle.run(rewritten, 0)
    assert output.shape == (1, 2)


def compiled(path: Path, folder: Path) -> Network:
    """What Arm's compiler makes of a model."""
    vela = pytest.importorskip("ethosu.vela.vela")
    vela.main(["--accelerator-config", "ethos-u55-128", "--output-dir", str(folder), str(path)])
    return npusim.load(folder / f"{path.stem}_vela.tflite")


@pytest.mark.parametrize("name", ["mlperf_kws_dscnn_int8", "mww_vad_int8"])
def test_what_vela_compiles_is_represented(models_dir: Path, name: str, tmp_path: Path) -> None:
    (path,) = some(models_dir, (name,))
    network = compiled(path, tmp_path)
    npu_ops = [op for op in network.ops if op.kind == "ETHOS_U"]
    assert npu_ops
    for op in npu_ops:
        command_stream, flash = op.input("command_stream"), op.input("flash")
        assert op.known
        assert command_stream is not None
        assert command_stream.data is not None
        assert command_stream.data[:4].tobytes() == b"COP1"
        assert flash is not None
        assert flash.data is not None
        assert flash.data.nbytes == flash.n_bytes > 10_000
        assert op.ifm is op.inputs[4]
    assert [(t.shape, t.dtype) for t in network.inputs] == [
        (t.shape, t.dtype) for t in npusim.load(path).inputs
    ]
    assert load_bytes(to_bytes(network), network.name) == network


def compiles_the_same(path: Path, folder: Path) -> None:
    rewritten = folder / "rewritten" / path.name
    rewritten.parent.mkdir(exist_ok=True)
    rewritten.write_bytes(to_bytes(npusim.load(path)))
    assert compiled(path, folder) == compiled(rewritten, rewritten.parent), path


def test_vela_compiles_a_rewritten_model_to_the_same(models_dir: Path, tmp_path: Path) -> None:
    for path in some(models_dir, ("mlperf_kws_dscnn_int8", "mww_vad_int8")):
        compiles_the_same(path, tmp_path)


@pytest.mark.slow
def test_vela_compiles_all_rewritten_models_to_the_same(models_dir: Path, tmp_path: Path) -> None:
    for path in paths(models_dir):
        if path.parent == models_dir:
            compiles_the_same(path, tmp_path)
