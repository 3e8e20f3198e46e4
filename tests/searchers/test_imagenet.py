# SPDX-License-Identifier: Apache-2.0
"""ImageNet from a small tree of generated JPEGs in its layouts: pixels, crops, training, errors."""

from __future__ import annotations

import copy
import json
import re
import threading
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch to train")
Image = pytest.importorskip("PIL.Image", reason="needs Pillow for image files")

from npusim.cli import main  # noqa: E402
from npusim.errors import ConfigError, FormatError  # noqa: E402
from searchers import data  # noqa: E402
from searchers.data import DataSet, folders  # noqa: E402
from searchers.data.image_files import N_TRIES, N_UNIFORMS, ImageFiles, crop_box  # noqa: E402
from searchers.training.ahead import Ahead  # noqa: E402
from searchers.training.group import Group  # noqa: E402
from searchers.training.loop import Training  # noqa: E402
from searchers.training.recipes import Recipe, get  # noqa: E402
from searchers.training.tasks import Classification, load_for  # noqa: E402
from spaces.builder import SpaceBuilder  # noqa: E402
from spaces.imagenet import imagenet, tiny_imagenet  # noqa: E402
from spaces.nets import build  # noqa: E402

CLASSES = ("n01440764", "n02102040", "n03445777")
RECIPE = Recipe(1, 4, "sgd", 0.1, flip=True, crop_area=0.3)


def ramp(height, width, level):
    """Red grows along rows and green along columns, blue says which image it is."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack((255 * x / width, 255 * y / height, np.full_like(x, level)), axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def write(folder, n_train=10, n_val=2):
    """Like the challenge's: images of any size in a folder for each class, a grey one, a PNG."""
    for part, n in (("train", n_train), ("val", n_val)):
        for number, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for i in range(n):
                image = ramp(60 + 5 * i, 90 - 5 * i, 80 * number + 20 + i)
                if i == 1:
                    image = image.convert("L")
                kind = "PNG" if i == 2 else "JPEG"
                path = folder / part / name / f"{name}_{i}.JPEG"
                image.save(path, kind, **({"quality": 95} if kind == "JPEG" else {}))


def flatten(folder, devkit=True):
    """Test images side by side, their classes in the development kit, by numbers of its own."""
    savemat = pytest.importorskip("scipy.io", reason="writes meta.mat").savemat
    paths = sorted((folder / "val").rglob("*.JPEG"))
    order = np.random.default_rng(0).permutation(len(paths))
    number = {name: 7 - i for i, name in enumerate(CLASSES)}
    lines = []
    for i, which in enumerate(order):
        path = paths[which]
        lines.append(str(number[path.parent.name]))
        path.rename(folder / "val" / f"ILSVRC2012_val_{i + 1:08}.JPEG")
    for name in CLASSES:
        (folder / "val" / name).rmdir()
    if devkit:
        kit = folder / folders.DEVKIT / "data"
        kit.mkdir(parents=True)
        (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(lines) + "\n")
        kind = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
        rows = [(number[name], name) for name in CLASSES]
        savemat(kit / "meta.mat", {"synsets": np.array(rows, dtype=kind)})
    return [CLASSES.index(paths[which].parent.name) for which in order]


@pytest.fixture
def tree(tmp_path):
    write(tmp_path / "imagenet")
    data._load.cache_clear()
    return tmp_path


class TestLayouts:
    def test_folders_are_classes(self, tree):
        found = data.load("imagenet", tree)
        assert isinstance(found, DataSet)
        assert [len(s.labels) for s in (found.train, found.validation, found.test)] == [29, 1, 6]
        both = found.train + found.validation
        levels = np.asarray(both.images)[:, :, :, 2].mean(axis=(1, 2))
        names = [CLASSES.index(path.parent.name) for path in both.images.paths]
        assert both.labels.tolist() == names
        coloured = [not path.name.endswith("_1.JPEG") for path in both.images.paths]
        assert np.abs(levels // 80 - both.labels)[coloured].max() == 0

    def test_images_side_by_side_have_the_classes_of_the_development_kit(self, tree):
        wanted = flatten(tree / "imagenet")
        assert data.load("imagenet", tree).test.labels.tolist() == wanted

    def test_what_is_missing_is_said_with_what_to_do(self, tree, tmp_path):
        with pytest.raises(
            ConfigError, match=r"must have .*none.imagenet.train, .* download ILSVRC2012_img_train"
        ):
            data.load("imagenet", tmp_path / "none")
        flatten(tree / "imagenet", devkit=False)
        with pytest.raises(ConfigError, match=r"must have .*ILSVRC2012_devkit_t12, got nothing"):
            data.load("imagenet", tree)

    def test_folders_without_images_are_refused(self, tmp_path):
        for part in ("train", "val"):
            (tmp_path / "imagenet" / part / "n1").mkdir(parents=True)
        kit = tmp_path / "imagenet" / folders.DEVKIT / "data"
        kit.mkdir(parents=True)
        with pytest.raises(FormatError, match=r"data must have meta.mat and .* got FileNotFound"):
            data.load("imagenet", tmp_path)
        ramp(50, 50, 0).save(tmp_path / "imagenet" / "val" / "n1" / "0.JPEG")
        with pytest.raises(ConfigError, match=r"must have images in .*train, got none"):
            data.load("imagenet", tmp_path)

    def test_development_kits_that_do_not_fit_are_refused(self, tree):
        flatten(tree / "imagenet")
        kit = tree / "imagenet" / folders.DEVKIT / "data"
        truth = kit / "ILSVRC2012_validation_ground_truth.txt"
        truth.write_text("7\n6\n")
        with pytest.raises(FormatError, match=r"ground_truth.txt must be of the 6 images, got 2"):
            data.load("imagenet", tree)
        truth.write_text("7\n" * 5 + "1\n")
        with pytest.raises(FormatError, match=r"data must have meta.mat and .*, got KeyError: 1"):
            data.load("imagenet", tree)
        (kit / "meta.mat").write_bytes(b"no")
        with pytest.raises(FormatError, match=r"data must have meta.mat and"):
            data.load("imagenet", tree)

    def test_classes_without_training_images_are_refused(self, tree):
        path = tree / "imagenet" / "val" / "n9"
        path.mkdir()
        ramp(50, 50, 0).save(path / "0.JPEG")
        with pytest.raises(FormatError, match=r"0.JPEG must be one of the training data, got 'n9'"):
            data.load("imagenet", tree)

    def test_images_that_cannot_be_read_are_named(self, tree):
        found = data.load("imagenet", tree)
        path = found.train.images.paths[0]
        path.write_bytes(path.read_bytes()[:500])
        with pytest.raises(FormatError, match=rf"{path.name} must be an image, got"):
            np.asarray(found.train[:3].images)


class TestPixels:
    def test_the_middle_is_seven_eighths_of_the_shorter_side(self, tmp_path):
        ramp(200, 300, 9).save(tmp_path / "0.png")
        image = np.asarray(ImageFiles([tmp_path / "0.png"], 112))[0]  # of 128 rows, 192 columns
        assert image.shape == (112, 112, 3)
        ends = image[0, 0, :2] / 255, image[-1, -1, :2] / 255
        np.testing.assert_allclose(ends[0], (40.5 / 192, 8.5 / 128), atol=0.01)
        np.testing.assert_allclose(ends[1], (151.5 / 192, 119.5 / 128), atol=0.01)
        assert set(image[:, :, 2].ravel()) == {9}

    def test_crops_are_what_their_boxes_say(self, tmp_path):
        ramp(300, 200, 9).save(tmp_path / "0.png")
        rng = np.random.default_rng(0)
        uniforms = rng.random((5, N_TRIES, N_UNIFORMS), dtype=np.float32)
        images = ImageFiles([tmp_path / "0.png"] * 5, 64).crops(uniforms, 0.1)
        for image, drawn in zip(images, uniforms, strict=True):
            left, top, right, bottom = crop_box(300, 200, drawn, 0.1)
            middle = image[31:33, 31:33, :2].mean(axis=(0, 1)) / 255
            wanted = (left + right) / 2 / 200, (top + bottom) / 2 / 300
            np.testing.assert_allclose(middle, wanted, atol=0.01)

    def test_boxes_have_areas_and_ratios_in_range(self):
        rng = np.random.default_rng(1)
        boxes = [crop_box(375, 500, rng.random((N_TRIES, N_UNIFORMS)), 0.08) for _ in range(2000)]
        left, top, right, bottom = np.array(boxes).T
        assert min(left.min(), top.min()) == 0
        assert right.max() == 500
        assert bottom.max() == 375
        areas = (right - left) * (bottom - top) / (375 * 500)
        assert 0.079 < areas.min() < 0.09
        assert areas.max() > 0.9
        ratios = (right - left) / (bottom - top)
        assert 0.74 < ratios.min() < 0.77
        assert 1.30 < ratios.max() < 1.35

    def test_where_no_try_fits_it_is_the_largest_middle(self):
        whole = np.ones((N_TRIES, N_UNIFORMS)) * [1.0, 0.5, 0.0, 0.0]
        assert crop_box(90, 300, whole, 0.08) == (90, 0, 210, 90)
        assert crop_box(300, 90, whole, 0.08) == (0, 90, 90, 210)


class TestTask:
    def test_batches_are_random_crops_of_their_rows(self, tree):
        split = data.load("imagenet", tree).train
        task = Classification(split, RECIPE, torch.device("cpu"))
        rows = torch.tensor([5, 0, 7])
        inputs, labels = task.batch(rows, torch.Generator().manual_seed(0), Group())
        assert inputs.shape == (3, 3, 224, 224)
        assert labels.tolist() == split.labels[[5, 0, 7]].tolist()
        again, _ = task.batch(rows, torch.Generator().manual_seed(0), Group())
        assert torch.equal(inputs, again)
        other, _ = task.batch(rows, torch.Generator().manual_seed(1), Group())
        assert not torch.equal(inputs, other)
        (whole,) = task.inputs(3)
        order = torch.randperm(29, generator=torch.Generator().manual_seed(0))[:3]
        wanted = split[order.numpy()].inputs().transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(whole.numpy(), wanted)

    def test_processes_share_a_batch(self, tree):
        task = Classification(data.load("imagenet", tree).train, RECIPE, torch.device("cpu"))
        rows, parts = torch.arange(4), []
        for rank in range(2):
            group = Group()
            group.rank, group.size = rank, 2
            parts.append(task.batch(rows, torch.Generator().manual_seed(0), group)[0])
        whole, _ = task.batch(rows, torch.Generator().manual_seed(0), Group())
        assert torch.equal(torch.cat(parts), whole)

    def test_arrays_have_no_random_areas(self):
        found = data.load("digits").train
        with pytest.raises(ConfigError, match=r"crop_area must be 1 for images that .* got 0.3"):
            Classification(found, RECIPE, torch.device("cpu"))

    def test_images_are_of_the_size_of_the_space(self, tree):
        found = load_for(imagenet(image=64, widen=0.1), "imagenet", tree)
        assert found.train.images.shape == (29, 64, 64, 3)
        assert np.asarray(found.test.images[:2]).shape == (2, 64, 64, 3)

    def test_more_classes_than_the_space_has_are_refused(self, tree):
        space = tiny_imagenet(image=32, classes=2, widen=0.1)
        with pytest.raises(
            ConfigError, match=r"'imagenet' must have at most the 2 classes of space 'tiny_.* got 3"
        ):
            load_for(space, "imagenet", tree)


class TestAhead:
    def test_what_is_asked_for_has_been_made_in_order(self):
        made = []
        with Ahead(lambda i: made.append(i) or (i, threading.get_ident()), 6, 2) as ahead:
            assert ahead[3][0] == 3
            deadline = time.monotonic() + 10
            while made != [3, 4, 5] and time.monotonic() < deadline:
                time.sleep(0.001)
            assert made == [3, 4, 5]
            number, thread = ahead[4]
            assert number == 4
            assert thread != threading.get_ident()
            assert ahead[5][0] == 5
        assert made == [3, 4, 5]

    def test_errors_are_raised_where_they_are_asked_for(self):
        with Ahead(lambda i: 1 / (2 - i), 9, 2) as ahead:
            assert ahead[0] == 0.5
            assert ahead[1] == 1
            with pytest.raises(ZeroDivisionError):
                ahead[2]

    def test_nothing_ahead_is_made_in_the_same_thread(self):
        with Ahead(lambda i: threading.get_ident(), 3, 0) as ahead:
            assert ahead[1] == threading.get_ident()


def test_trainings_on_files_go_on_bit_for_bit(tree):
    """Batches are read ahead; what is read when a training stops changes nothing."""
    net = SpaceBuilder(
        "small", "imagenet", (16, 16, 3), widths=(1.0,), bitwidths=(4,), sparsities=(0.5,)
    )
    net.dense(net.global_pool(net.conv(net.input(), 8, stride=2)), 3)
    space = net.build()
    split = load_for(space, "imagenet", tree).train
    recipe = RECIPE.but(epochs=2, batch_size=8)

    def make():
        built = build(space, space.largest(), torch.Generator().manual_seed(0), offset=True)
        return Training(built, Classification(split, recipe, torch.device("cpu")), recipe, 5)

    states = {}
    whole = make()
    whole.run(lambda progress: states.setdefault(progress.step, copy.deepcopy(whole.state())))
    assert sorted(states) == [1, 2, 3, 4, 5, 6]  # of 29 images
    second = make()
    second.load(states[2])
    second.run()
    before, after = whole.net.state_dict(), second.net.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_command_line_trains_on_it(tree, capsys):
    out = tree / "run"
    arguments = ["train", "--space", "imagenet", "--data-set", "imagenet", "--data", str(tree)]
    arguments += ["-o", "image=32", "-o", "widen=0.05", "--full", "--float", "--epochs", "1"]
    arguments += ["--set", "batch_size=8", "--threads", "1", "--json", "--out", str(out)]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert not stop.value.code
    results = json.loads(capsys.readouterr().out)
    assert results["n_steps"] == 3  # of 30 images
    assert results["recipe"]["crop_area"] == get("imagenet").crop_area == 0.08
    assert 0 <= results["scores"]["float_maps"]["accuracy"] <= 1


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("digits", r"images of data set 'imagenet' must be 8x8x1 as in space 'digits', got 224x"),
        ("super_resolution", "must be of images, got 'imagenet'"),
    ],
)
def test_spaces_of_other_images_are_refused(space, message, tree, capsys):
    arguments = ["train", "--space", space, "--data-set", "imagenet", "--data", str(tree)]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--full", "--out", str(tree / "run")])
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))
