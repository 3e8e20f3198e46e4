# SPDX-License-Identifier: Apache-2.0
"""Data sets from the files their authors give away; what is missing or corrupted is named."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from npusim.errors import ConfigError, FormatError, UnknownNameError
from searchers import data
from searchers.data import cifar
from searchers.data.quality import psnr, ssim
from searchers.data.resize import bicubic, luminance


@pytest.fixture
def image():
    return pytest.importorskip("PIL.Image", reason="needs Pillow for image files")


def write_cifar(folder, monkeypatch, n=1000):
    monkeypatch.setattr(cifar, "N_IMAGES", {"train": n, "test": n})
    (folder / "cifar-100-python").mkdir()
    rng = np.random.default_rng(0)
    content = {
        "data": rng.integers(0, 256, (n, 3072)).astype(np.uint8),
        "fine_labels": [i % 100 for i in range(n)],
        "coarse_labels": [0] * n,
    }
    for part in ("train", "test"):
        (folder / "cifar-100-python" / part).write_bytes(pickle.dumps(content, protocol=2))
    return content


class TestCifar100:
    def test_pixels_and_classes_are_those_of_the_files(self, tmp_path, monkeypatch):
        content = write_cifar(tmp_path, monkeypatch)
        found = data.load("cifar100", tmp_path)
        counts = [len(split.labels) for split in (found.train, found.validation, found.test)]
        assert counts == [900, 100, 1000]
        assert sorted(found.validation.labels) == list(range(100))
        assert found.test.images.shape == (1000, 32, 32, 3)
        assert found.test.images[3, 5, 7, 2] == content["data"][3, 2 * 1024 + 5 * 32 + 7]
        inputs = found.test.inputs()
        assert inputs.dtype == np.float32
        assert inputs[0, 0, 0, 1] == pytest.approx(
            (float(found.test.images[0, 0, 0, 1]) - 124.07) / 65.39, abs=1e-5
        )

    def test_what_is_missing_is_said_with_what_to_do(self, tmp_path):
        with pytest.raises(
            ConfigError, match=r"must have .*cifar-100-python.train.* download https"
        ):
            data.load("cifar100", tmp_path)

    def test_damaged_files_are_refused(self, tmp_path, monkeypatch):
        write_cifar(tmp_path, monkeypatch)
        path = tmp_path / "cifar-100-python" / "train"
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(FormatError, match=r"train must be a file of CIFAR-100, got"):
            data.load("cifar100", tmp_path)

    def test_pickles_that_call_functions_are_refused(self, tmp_path, monkeypatch):
        write_cifar(tmp_path, monkeypatch)

        class Trap:
            def __reduce__(self):
                return (print, ("called",))

        path = tmp_path / "cifar-100-python" / "train"
        path.write_bytes(pickle.dumps({"data": Trap()}))
        with pytest.raises(FormatError, match=r"got UnpicklingError: a builtins.print"):
            data.load("cifar100", tmp_path)


class TestTinyImagenet:
    def write(self, image, folder, classes=("n1", "n2"), n=5, side=64):
        for part in ("train", "val"):
            for number, name in enumerate(classes):
                (folder / part / name).mkdir(parents=True)
                for i in range(n):
                    pixels = np.full((side, side, 3), 100 * number + i, np.uint8)
                    image.fromarray(pixels).save(folder / part / name / f"{i}.png")

    def test_folders_are_classes(self, image, tmp_path):
        self.write(image, tmp_path / "tiny-imagenet")
        found = data.load("tiny_imagenet", tmp_path)
        assert [len(s.labels) for s in (found.train, found.validation, found.test)] == [8, 2, 10]
        for split in (found.train, found.validation, found.test):
            assert (split.images[:, 0, 0, 0] // 100).tolist() == split.labels.tolist()

    def test_the_layout_of_the_download_is_read_too(self, image, tmp_path):
        folder = tmp_path / "tiny-imagenet-200"
        self.write(image, folder)
        (folder / "val" / "images").mkdir()
        lines = []
        for name in ("n1", "n2"):
            for path in sorted((folder / "val" / name).iterdir()):
                moved = folder / "val" / "images" / f"{name}_{path.name}"
                path.rename(moved)
                lines.append(f"{moved.name}\t{name}\t0\t0\t63\t63")
            (folder / "val" / name).rmdir()
        (folder / "val" / "val_annotations.txt").write_text("\n".join(lines))
        found = data.load("tiny_imagenet", tmp_path)
        assert found.test.labels.tolist() == [0] * 5 + [1] * 5

    def test_what_is_wrong_is_named(self, image, tmp_path):
        with pytest.raises(ConfigError, match=r"must have .*tiny-imagenet-200, got nothing there"):
            data.load("tiny_imagenet", tmp_path)
        folder = tmp_path / "tiny-imagenet"
        self.write(image, folder, side=32)
        with pytest.raises(FormatError, match=r"0.png must be 64x64, got 32x32"):
            data.load("tiny_imagenet", tmp_path)
        (folder / "train" / "n1" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nnot")
        with pytest.raises(FormatError, match=r"0.png must be an image, got"):
            data.load("tiny_imagenet", tmp_path)


class TestSuperResolution:
    def test_pairs_are_what_bicubic_filtering_makes(self, image, tmp_path):
        rng = np.random.default_rng(0)
        for name in ("BSDS200", *data.super_resolution.TESTS):
            folder = tmp_path / "sr" / name
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (17, 22, 3)).astype(np.uint8)
                image.fromarray(pixels).save(folder / f"{i}.png")
        found = data.load("bsds200", tmp_path)
        pairs = found.pairs("Set5", 4)
        assert [high.shape for high in pairs.high] == [(16, 20)] * 2
        assert [low.shape for low in pairs.low] == [(4, 5)] * 2
        pixels = np.asarray(image.open(tmp_path / "sr" / "Set5" / "1.png"))[:16, :20]
        np.testing.assert_allclose(pairs.high[1], luminance(pixels), atol=1e-4)
        np.testing.assert_allclose(pairs.low[1], luminance(bicubic(pixels, 0.25)), atol=1e-4)
        guess = luminance(bicubic(bicubic(pixels, 0.25), 4))
        ratios = [found.bicubic_psnr("Set5", 4)]
        pixels_0 = np.asarray(image.open(tmp_path / "sr" / "Set5" / "0.png"))[:16, :20]
        guess_0 = luminance(bicubic(bicubic(pixels_0, 0.25), 4))
        by_hand = [psnr(guess_0, luminance(pixels_0), 4), psnr(guess, luminance(pixels), 4)]
        assert ratios[0] == pytest.approx(np.mean(by_hand))
        with pytest.raises(
            UnknownNameError, match=r"part of the data must be one of .* got 'set5'"
        ):
            found.pairs("set5", 4)
        with pytest.raises(ConfigError, match="scale must be one of"):
            found.pairs("Set5", 5)

    def test_what_is_missing_is_said_with_what_to_do(self, tmp_path):
        with pytest.raises(ConfigError, match=r"must have .*DIV2K_train_HR.* download DIV2K from"):
            data.load("div2k", tmp_path)
        with pytest.raises(ConfigError, match=r"must have .*BSDS200.* put the 200 training images"):
            data.load("bsds200", tmp_path)

    def test_bicubic_psnr_is_that_of_the_literature(self, real_sr):
        found = data.load("bsds200", real_sr)
        assert found.bicubic_psnr("Set5", 4) == pytest.approx(28.42, abs=0.01)
        assert found.bicubic_psnr("BSD100", 4) == pytest.approx(25.96, abs=0.01)


@pytest.fixture
def real_sr(models_dir):
    directory = models_dir.parent
    if not (directory / "sr" / "BSDS200").is_dir():
        pytest.skip("no unpacked images at NPUSIM_DATA: sr is not a folder")
    return directory


class TestResize:
    def test_constants_and_the_middle_of_ramps_are_kept(self):
        assert np.all(bicubic(np.full((8, 12, 3), 77, np.uint8), 0.25) == 77)
        assert np.all(bicubic(np.full((3, 2), 9, np.uint8), 4) == 9)
        ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (16, 1))
        small = bicubic(ramp, 0.25)
        # pixel i covers columns 4 i to 4 i + 3; away from the borders
        assert small[1, 4:12].tolist() == [(4 * i + 1.5) * 4 for i in range(4, 12)]

    def test_taps_are_the_cubic_s(self):
        spot = np.zeros((1, 9), np.uint8)
        spot[0, 4] = 160
        # twice as large: outputs lie 1/4 and 3/4 of a pixel off the inputs
        found = bicubic(spot, 2)[0, 5:13]
        kernel = [-0.0234375, -0.0703125, 0.2265625, 0.8671875]
        taps = [*kernel, *kernel[::-1]]
        assert found.tolist() == [max(0, math.floor(160 * tap + 0.5)) for tap in taps]


class TestQuality:
    def test_psnr_of_known_errors(self):
        truth = np.full((20, 20), 100.0)
        assert psnr(truth + 1, truth, 0) == pytest.approx(20 * math.log10(255))
        noisy = truth.copy()
        noisy[:4] = 0  # in the border
        assert psnr(noisy, truth, 4) == math.inf
        assert psnr(noisy, truth, 0) < 30

    def test_ssim_of_known_images(self):
        rng = np.random.default_rng(0)
        truth = rng.integers(0, 256, (32, 40)).astype(float)
        assert ssim(truth, truth, 2) == pytest.approx(1.0)
        assert ssim(rng.permutation(truth.ravel()).reshape(truth.shape), truth, 2) < 0.2
        # constant images: only means differ
        c1 = (0.01 * 255) ** 2
        by_hand = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
        constant = ssim(np.full((20, 20), 100.0), np.full((20, 20), 120.0), 0)
        assert constant == pytest.approx(by_hand)


def test_data_without_a_directory_is_refused(monkeypatch):
    monkeypatch.delenv("NPUSIM_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"'cifar100' must be read from a directory \(--data or"):
        data.load("cifar100")
