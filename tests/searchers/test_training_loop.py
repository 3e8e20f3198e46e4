# SPDX-License-Identifier: Apache-2.0
"""The training loop: resumed bit for bit, alike in several processes, each setting of effect."""

from __future__ import annotations

import copy
import dataclasses
from unittest import mock

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch to train")

from npusim.errors import ConfigError  # noqa: E402
from searchers.data import Pairs, Split  # noqa: E402
from searchers.training.group import Group, run_in_processes  # noqa: E402
from searchers.training.loop import Training  # noqa: E402
from searchers.training.recipes import Recipe  # noqa: E402
from searchers.training.tasks import (  # noqa: E402
    Classification,
    SuperResolution,
    classification_score,
    super_resolution_score,
)
from spaces.builder import SpaceBuilder  # noqa: E402
from spaces.nets import CompressedWeight, build  # noqa: E402
from spaces.super_resolution import super_resolution  # noqa: E402

RECIPE = Recipe(
    epochs=3,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.05,
    ema=0.5,
    mask_interval=2,
    weight_decay=1e-3,
    crop=1,
    flip=True,
    int8_activations=True,
)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_space(norm=True):
    net = SpaceBuilder(
        "small", "digits", (6, 6, 2), widths=(1.0,), bitwidths=(4,), sparsities=(0.5,)
    )
    x = net.conv(net.input(), 8, stride=2, norm=norm)
    net.dense(net.global_pool(net.conv(x, 8, norm=norm)), 3)
    return net.build()


def make_split(n=45):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    images = rng.integers(0, 100, (n, 6, 6, 2)) + 50 * labels[:, None, None, None]
    return Split(images.astype(np.uint8), labels, mean=(100.0, 110.0), std=(60.0, 50.0))


def make_training(recipe=RECIPE, seed=3, quantized=True, norm=True):
    space = make_space(norm)
    offset = recipe.number_format == "q-hat"
    net = build(space, space.largest(), torch.Generator().manual_seed(seed), offset)
    return Training(net, Classification(make_split(), recipe, CPU), recipe, seed, quantized)


class Stop(Exception):
    pass


def trained(**arguments):
    training = make_training(**arguments)
    training.run()
    return training.net.state_dict()


def equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stopped_at", [1, 5, 7, 12, 14])
@pytest.mark.parametrize("learned", [False, True])
def test_goes_on_bit_for_bit_where_it_was_interrupted(stopped_at, learned):
    recipe = RECIPE.but(learn_activation_ranges=learned)
    whole = trained(recipe=recipe)
    states = []

    def stop(progress):
        if progress.step == stopped_at:
            states.append(copy.deepcopy(first.state()))
            raise Stop

    first = make_training(recipe=recipe)
    with pytest.raises(Stop):
        first.run(stop)
    second = make_training(recipe=recipe)
    second.load(states[0])
    second.run()
    assert second.progress.step == second.plan.n_steps == 15
    assert [row["epoch"] for row in second.progress.epochs] == [1, 2, 3]
    assert equal(second.net.state_dict(), whole)


def test_same_seed_same_weights_other_seed_others():
    assert equal(trained(), trained())
    assert not equal(trained(), trained(seed=4))


CHANGES = {
    "epochs": 2,
    "batch_size": 9,
    "optimizer": "adamw",
    "learning_rate": 0.1,
    "warm_up": 0.5,
    "weight_decay": 0.1,
    "range_learning_rate": 1.0,
    "clip_norm": 0.1,
    "label_smoothing": 0.1,
    "ema": 0.0,
    "bfloat16": True,
    "crop": 0,
    "flip": False,
    "quantize_stage": 0.1,
    "prune_stage": 0.6,
    "quantized_fraction": 1.0,
    "fit_ranges": False,
    "mask_interval": 3,
    "regrow": False,
    "number_format": "q",
    "int8_activations": False,
    "learn_activation_ranges": True,
}


def test_each_setting_changes_the_training():
    names = {field.name for field in dataclasses.fields(Recipe)}
    assert names - set(CHANGES) == {"channels_last", "crop_area", "patch", "patches"}
    before = trained()["blocks.conv1.weight.theta"]
    for name, value in CHANGES.items():
        after = trained(recipe=RECIPE.but(**{name: value}))["blocks.conv1.weight.theta"]
        assert not torch.equal(before, after), name


def test_channels_last_is_another_order_in_memory_and_the_same_training():
    training = make_training(RECIPE.but(channels_last=True))
    maps = []
    training.net.block("conv1").register_forward_hook(lambda *call: maps.append(call[2]))
    training.run()
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in maps)
    plain = trained()
    for name, value in training.net.state_dict().items():
        # float32 sums in another order, and codes that lie between two
        torch.testing.assert_close(value.float(), plain[name].float(), rtol=0.05, atol=0.05)


def test_ends_quantized_pruned_and_calibrated():
    training = make_training()
    training.run()
    for weight in training.net.weights().values():
        assert int(weight.mask.sum()) == weight.n_nonzero
        levels = weight().detach().unique()
        assert len(levels[levels != 0]) <= 16
        assert weight.beta > 0
    inputs = torch.cat(list(training.task.inputs(45)))
    assert inputs.shape == (45, 2, 6, 6)
    conv = training.net.block("conv1")
    on_grid = training.net.input_quantizer(inputs)
    seen = []
    conv.norm.register_forward_hook(lambda *call: seen.append(call[1][0]))
    conv(on_grid)
    means = seen[0].mean((0, 2, 3))
    torch.testing.assert_close(conv.norm.running_mean, means)


def test_stages_are_logged():
    training = make_training(RECIPE.but(quantize_stage=0.34, prune_stage=0.34))
    training.run()
    rows = training.progress.epochs
    assert [row["stage"] for row in rows] == [1, 2, 3]
    kept = [row["kept_fraction"] for row in rows]
    assert kept[0] == 1.0 > kept[1] > kept[2]
    assert all(row["loss"] > 0 and row["wall_s"] > 0 for row in rows)


def test_ranges_are_fitted_to_what_is_left_when_stage_3_begins():
    training = make_training(RECIPE.but(quantize_stage=0.34, prune_stage=0.34))
    steps, fitted = [], CompressedWeight.fit_range

    def fit_range(weight):
        steps.append(training.progress.step)
        assert int(weight.mask.sum()) == weight.n_nonzero
        fitted(weight)

    with mock.patch.object(CompressedWeight, "fit_range", fit_range):
        training.run()
    assert steps == [training.plan.pruned_from] * len(training.net.weights())


def test_floating_point_training_neither_quantizes_nor_prunes():
    training = make_training(RECIPE.but(epochs=20, ema=0.0), quantized=False)
    training.run()
    for weight in training.net.weights().values():
        assert torch.equal(weight(), weight.theta)
    score = classification_score(training.net, make_split())
    assert score["accuracy"] > 0.9
    assert {row["stage"] for row in training.progress.epochs} == {0}


def test_pixels_are_scaled_and_crops_are_of_what_was_there():
    recipe = RECIPE.but(crop=2)
    task = Classification(make_split(), recipe, CPU)
    split = make_split()
    rows = torch.arange(20)
    inputs, labels = task.batch(rows, torch.Generator().manual_seed(0), Group())
    assert labels.tolist() == split.labels[:20].tolist()
    padded = np.pad(split.images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    padded = (padded - np.float32(split.mean)) / np.float32(split.std)
    found = set()
    for row, image in enumerate(inputs.permute(0, 2, 3, 1).numpy()):
        for y in range(5):
            for x in range(5):
                for step in (1, -1):
                    crop = padded[row, y : y + 6, x : x + 6][:, ::step]
                    if np.allclose(crop, image, atol=1e-5):
                        found.add((row, y, x, step))
    assert {row for row, *_ in found} == set(range(20))
    assert len({each[1:] for each in found}) > 10


def ramps(n, scale):
    """Images whose pixels say where they are, in both resolutions."""
    y, x = np.mgrid[: 12 * scale, : 16 * scale].astype(np.float32)
    high = tuple(y // scale * 20 + x // scale + number for number in range(n))
    return Pairs(high, tuple(image[::scale, ::scale] for image in high))


def test_patches_are_of_the_same_place_in_both_resolutions():
    recipe = RECIPE.but(patch=5, patches=4)
    task = SuperResolution(ramps(3, 4), 4, recipe, CPU)
    assert task.n_samples == 12
    low, high = task.batch(torch.arange(12), torch.Generator().manual_seed(0), Group())
    assert low.shape == (12, 1, 5, 5)
    assert high.shape == (12, 1, 20, 20)
    assert torch.equal(high[:, :, 1::4, 2::4], low)
    steps = (low[:, 0, 0, 1] - low[:, 0, 0, 0]) * 255
    assert len(steps.round().unique()) == 4  # right, left, up, down


def test_super_resolution_learns_to_repeat_pixels():
    space = super_resolution(
        features=8, shrunk=4, layers=1, widths=(1.0,), kernels=(3,), last_kernels=(3,)
    )
    recipe = Recipe(
        epochs=15,
        batch_size=4,
        optimizer="adamw",
        learning_rate=0.01,
        patch=6,
        patches=4,
        flip=True,
    )
    net = build(space, space.largest(), torch.Generator().manual_seed(0))
    pairs = ramps(4, 4)
    before = super_resolution_score(net, pairs, 4)
    training = Training(net, SuperResolution(pairs, 4, recipe, CPU), recipe, 0, quantized=False)
    training.run()
    after = super_resolution_score(net, pairs, 4)
    assert after["psnr"] > before["psnr"] + 10
    assert after["ssim"] > before["ssim"]


ALIKE = RECIPE.but(epochs=1, int8_activations=False)  # ranges are those of each process's maps


def in_process(path, device):
    """An epoch of one process of a group; the first saves the weights."""
    training = make_training(ALIKE, norm=False)
    training.run()
    if Group().rank == 0:
        torch.save(training.net.state_dict(), path)


def test_two_processes_train_as_one_does(tmp_path):
    path = tmp_path / "weights.pt"
    run_in_processes(2, in_process, str(path), device="cpu")
    together = torch.load(path)
    training = make_training(ALIKE, norm=False)
    training.run()
    for name, alone in training.net.state_dict().items():
        # means over halves of a batch, in float32
        torch.testing.assert_close(together[name], alone, rtol=1e-4, atol=1e-5)


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="batch_size must be at most the 45 samples, got 46"):
        make_training(RECIPE.but(batch_size=46))
    group = Group()
    group.size = 3
    with pytest.raises(ConfigError, match="must be a multiple of the 3 processes, got 8"):
        group.require_parts(8)
