# SPDX-License-Identifier: Apache-2.0
"""Trained candidates exported and deployed by command, from the files that training leaves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from test_deploy_command import run

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent.parent / "spaces"))

from drawn_nets import drawn_net  # noqa: E402

import npusim  # noqa: E402
import spaces  # noqa: E402
from npusim.errors import ConfigError  # noqa: E402
from searchers.data import DataSet, Pairs, load  # noqa: E402
from searchers.deployment import trained  # noqa: E402
from spaces.concrete import concrete_layers  # noqa: E402
from spaces.costs import cost  # noqa: E402
from spaces.export import export  # noqa: E402
from spaces.nets import build  # noqa: E402
from spaces.nets.files import save_net  # noqa: E402


@pytest.fixture
def directory(tmp_path):
    """As a training of the digits leaves it; the network is not trained."""
    net, _ = drawn_net(spaces.get("digits"), bitwidth=4)
    save_net(tmp_path / "net.pt", net)
    return tmp_path


class TestDeploy:
    def test_runs_test_data_in_torch_integers_and_litert(self, capsys, directory):
        pytest.importorskip("ai_edge_litert")
        pytest.importorskip("ethosu.regor", reason="ethos-u-vela is the oracle")
        code, out, _ = run(capsys, directory, "--samples", 4, "--json")
        assert code == 0
        found = json.loads(out)
        space = spaces.get("digits")
        full = space.from_options(
            {
                d.name: {"bitwidth": 4, "sparsity": 0.5}.get(d.kind, d.options[-1])
                for d in space.decisions
            }
        )
        assert found["eq4_bytes"] == -(-cost(space, full, "size_bits") // 8)
        assert found["eq4_bytes"] == pytest.approx(found["vela_stream_bytes"], rel=0.12)
        assert found["stream_bytes"] == found["vela_stream_bytes"]
        in_torch, *others = found["runtimes"]
        assert in_torch["runtime"] == "torch, int8 maps"
        assert len(others) == 6
        for each in others:
            assert 0 <= each["accuracy"] <= 1
            assert each["torch"]["codes"] == 40
            assert each["torch"]["largest_difference"] <= 4
            assert each["integers"] in (
                None,
                {"codes": 40, "equal": 40, "largest_difference": 0},
            )

    def test_takes_the_network_s_file_too(self, capsys, directory):
        texts = [run(capsys, path, "--samples", 1)[1] for path in (directory, directory / "net.pt")]
        assert texts[0] == texts[1] != ""

    def test_without_grids_takes_them_from_training_data(self, capsys, tmp_path):
        space = spaces.get("digits")
        net = build(space, space.largest(), torch.Generator().manual_seed(0)).eval()
        save_net(tmp_path / "net.pt", net)
        code, out, _ = run(capsys, tmp_path, "--samples", 1)
        assert code == 0
        assert "torch, int8 maps" in out
        (line,) = (line for line in out.splitlines() if "eq. (4), ≤ 8 bits" in line)
        assert "19,056 " in line  # a byte for each weight, not the four of training


class TestExport:
    def test_writes_the_model_that_is_deployed(self, capsys, directory):
        out = directory / "digits.tflite"
        code, text, _ = run(capsys, directory, "--out", out, command="export")
        assert code == 0
        assert text.startswith("digits: 5 ops, 19,056 weights, 131,808 MACs")
        network = npusim.load(out)
        assert [op.kind for op in network.ops][-2:] == ["MEAN", "FULLY_CONNECTED"]
        weights = [op.weights.data for op in network.ops if op.weights is not None]
        assert max(np.abs(each).max() for each in weights) == 7
        assert sum(np.count_nonzero(each) for each in weights) <= 9528

    def test_takes_options(self, capsys, directory):
        out = directory / "digits.tflite"
        flags = ("--fine-bias", "--average-pool")
        assert run(capsys, directory, "--out", out, *flags, command="export")[0] == 0
        network = npusim.load(out)
        assert [op.kind for op in network.ops][-2] == "AVERAGE_POOL_2D"
        assert np.abs(network.ops[0].weights.data).max() == 7 * 16


class TestRefusals:
    def refused(self, capsys, *args, command="deploy"):
        code, out, err = run(capsys, *args, command=command)
        assert (code, out) == (2, "")
        return err

    def test_of_directories_without_a_network(self, capsys, tmp_path):
        err = self.refused(capsys, tmp_path)
        assert "RUN must be the directory of a finished training, got no" in err

    def test_of_what_is_not_there(self, capsys, tmp_path):
        assert "npusim.net must be readable" in self.refused(capsys, tmp_path / "none")

    def test_of_corrupted_files(self, capsys, directory):
        path = directory / "net.pt"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert "it is corrupted" in self.refused(capsys, directory)

    def test_of_another_space(self, capsys, directory):
        err = self.refused(capsys, directory, "-o", "bitwidths=[8]")
        assert "must be of space 'digits'" in err

    def test_of_names_of_models(self, capsys, directory):
        err = self.refused(capsys, directory, "--out", "model.onnx", command="export")
        assert "--out must end with .tflite, got 'model.onnx'" in err

    def test_of_folders_that_are_not_there(self, capsys, directory):
        out = directory / "no" / "a.tflite"
        err = self.refused(capsys, directory, "--out", out, command="export")
        assert "--out must be" in err


class Pictures:
    """Super-resolution data of one test folder."""

    tests = ("some",)

    def __init__(self, sides):
        rng = np.random.default_rng(0)
        self.low = tuple(rng.uniform(0, 255, (side, side + 2)) for side in sides)
        self.high = tuple(np.kron(low, np.ones((2, 2))) for low in self.low)

    def pairs(self, part, scale):
        return Pairs(high=self.high, low=self.low)


class TestPatches:
    @pytest.fixture
    def net(self):
        space = spaces.get("super_resolution", scale=2, patch=8, features=8, shrunk=4, layers=1)
        return drawn_net(space)[0]

    def test_are_the_middles_of_images_that_are_large_enough(self, net, monkeypatch):
        data = Pictures([9, 7, 8])
        monkeypatch.setattr(trained, "load_for", lambda space, name, directory: data)
        samples = trained.read_samples(net, trained.Data(), 5)
        assert samples.inputs.shape == (2, 8, 8, 1)
        assert samples.high.shape == (2, 16, 16)
        np.testing.assert_allclose(samples.inputs[0, ..., 0] * 255, data.low[0][:8, 1:9], rtol=1e-6)
        perfect = samples.high[..., None] / 255
        assert samples.score(perfect)["psnr"] > 100
        assert samples.score(perfect + 0.1)["psnr"] == pytest.approx(20, abs=1)

    def test_are_run_as_others_are(self, net, monkeypatch):
        monkeypatch.setattr(trained, "load_for", lambda space, name, directory: Pictures([9]))
        samples = trained.read_samples(net, trained.Data(), 5)
        (codes,) = trained.input_codes(net, samples)
        assert codes[0].shape == (1, 8, 8, 1)
        outputs = trained.torch_outputs(net, samples)
        assert outputs[0][0].shape == (1, 16, 16, 1)
        expected = net(torch.from_numpy(samples.inputs).permute(0, 3, 1, 2)).detach().numpy()
        found = trained.real_outputs(net, outputs)[0, ..., 0]
        np.testing.assert_allclose(found, expected[0, 0], atol=1e-5)

    def test_must_be_in_one_image_at_least(self, net, monkeypatch):
        monkeypatch.setattr(trained, "load_for", lambda space, name, directory: Pictures([7]))
        with pytest.raises(ConfigError, match=r"images must be at least 8x8 in low resolution"):
            trained.read_samples(net, trained.Data(), 5)
        with pytest.raises(ConfigError, match=r"images must be at least 8x8"):
            trained.calibration_images(net, trained.Data())


def test_networks_are_resized_with_weights_and_grids():
    space = spaces.get("super_resolution", scale=2, patch=8, features=8, shrunk=4, layers=1)
    net = drawn_net(space)[0]
    net.quantize_activations("on", learned=True)
    larger = trained.resized(net, 40, 42)
    image = torch.rand(1, 1, 40, 42, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, part = larger(image), net.eval()(image[:, :, :8, :8])
    assert whole.shape == (1, 1, 80, 84)
    n = 8 - sum(each.kernel // 2 for each in concrete_layers(space, net.candidate))
    assert n > 0
    assert torch.equal(whole[:, :, : 2 * n, : 2 * n], part[:, :, : 2 * n, : 2 * n])
    network = export(larger)
    assert network.inputs[0].shape == (1, 40, 42, 1)
    assert [op.weights.data.size for op in network.ops if op.weights is not None] == [
        op.weights.data.size for op in export(net).ops if op.weights is not None
    ]


class TestData:
    def test_is_that_of_the_training(self, tmp_path):
        (tmp_path / "training.json").write_text('{"data_set": "bsds200"}', "utf-8")
        assert trained.Data().of(tmp_path) == trained.Data("bsds200")
        assert trained.Data("div2k").of(tmp_path) == trained.Data("div2k")
        assert trained.Data().of(tmp_path / "net.pt") == trained.Data()

    def test_must_be_known(self, capsys, directory):
        code, _, err = run(capsys, directory, "--data-set", "letters")
        assert code == 2
        assert "data set must be one of bsds200, cifar100, digits" in err


def test_scores_of_classes_are_those_of_the_first_among_equals():
    samples = trained.Classes(np.zeros((2, 1, 1, 1), np.float32), np.array([1, 0]))
    assert samples.score(np.array([[0.0, 2.0, 2.0], [0.0, 1.0, 0.0]])) == {"accuracy": 0.5}


def test_calibration_images_are_of_the_training_data():
    net, _ = drawn_net(spaces.get("digits"), bitwidth=4)
    images = trained.calibration_images(net, trained.Data())
    assert images.shape == (trained.N_OBSERVED, 1, 8, 8)
    data = load("digits")
    assert isinstance(data, DataSet)
    known = {each.tobytes() for each in data.train.inputs()}
    assert {
        np.ascontiguousarray(each).tobytes() for each in images.permute(0, 2, 3, 1).numpy()
    } <= known
