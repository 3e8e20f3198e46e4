# SPDX-License-Identifier: Apache-2.0
"""The search step by step: repeatable, resumable, the same in several processes; every switch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import spaces
from npusim.errors import ConfigError, UnknownNameError
from searchers.data import Split
from searchers.data.super_resolution import Pairs
from searchers.training import recipes
from searchers.training.tasks import Classification, SuperResolution
from searchers.udc.batches import Batches
from searchers.udc.config import OTHER_ROWS, PRESETS, ROWS, UdcConfig, config
from searchers.udc.search import Search, Step
from spaces.digits import digits
from spaces.limits import Limit
from spaces.npu_limits import NpuLimit

SPACE = digits()
LIMIT = Limit.size("1.5KB")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stripes(n: int = 256, seed: int = 0) -> Split:
    """Images of which the brightest row is the class, 0..7: learned in no time."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(8, size=n)
    images = rng.random((n, 8, 8, 1), dtype=np.float32)
    images[np.arange(n), labels] += 1
    return Split(images, labels)


def task(n: int = 256) -> Classification:
    return Classification(stripes(n), recipes.get("digits"), torch.device("cpu"))


def search(seed: int = 0, limits=(LIMIT,), space=SPACE, on=None, **changes) -> Search:
    settings = {"epochs": 8, "n_mc": 4, "n_together": 4, **changes}
    return Search(space, limits, on or task(), config("cpu", **settings), seed)


def run(found: Search, n_steps: int | None = None) -> list[Step]:
    return [found.step() for _ in range(found.n_steps if n_steps is None else n_steps)]


def state(found: Search) -> list[torch.Tensor]:
    return [found.logits.detach(), *found.net.state_dict().values()]


def assert_same(first: Search, second: Search) -> None:
    assert all(torch.equal(a, b) for a, b in zip(state(first), state(second), strict=True))


class TestSteps:
    def test_learn_and_make_up_their_mind(self):
        found = search(epochs=16)
        steps = run(found)
        assert [step.t for step in steps] == list(range(1, found.n_steps + 1))
        assert steps[-1].loss < 0.5 * steps[0].loss
        assert steps[-1].entropy_bits < 0.6 * steps[0].entropy_bits
        assert abs(steps[-1].cost - 1) < 0.5 * abs(steps[0].cost - 1)
        assert found.n_images == found.n_steps * 4 * 32

    def test_are_divided_by_the_number_of_samples(self):
        assert search(n_mc=1, n_together=1).n_steps == 64
        assert search(n_mc=8).n_steps == 8
        assert search(epochs=1, n_mc=32).n_steps == 1

    def test_same_seed_same_search(self):
        first, second, other = search(1), search(1), search(2)
        for found in (first, second, other):
            run(found, 3)
        assert_same(first, second)
        assert not torch.equal(first.logits, other.logits)
        assert not torch.equal(first.net.theta, other.net.theta)

    @pytest.mark.parametrize("at", [0, 1, 5, 17])
    @pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
    def test_resume_bit_for_bit(self, at, optimizer, tmp_path):
        whole, before, after = (search(optimizer=optimizer, epochs=12) for _ in range(3))
        expected = run(whole, 20)
        run(before, at)
        torch.save(before.state_dict(), tmp_path / "checkpoint")
        after.load_state_dict(torch.load(tmp_path / "checkpoint", weights_only=True))
        assert after.t == at
        assert run(after, 20 - at) == expected[at:]
        assert_same(whole, after)

    def test_samples_side_by_side_change_rounding_alone(self):
        together, apart = search(n_together=4), search(n_together=1)
        first, second = run(together, 1)[0], run(apart, 1)[0]
        assert first.loss == pytest.approx(second.loss, rel=1e-4)
        assert first.cost == second.cost
        grads = [found.net.theta.grad for found in (together, apart)]
        assert (grads[0] - grads[1]).abs().max() < 1e-3 * grads[0].abs().max()

    @pytest.mark.parametrize(
        "changes",
        [
            {"temperature": 2.0},
            {"temperature_end": 0.1},
            {"theta": 0.0},
            {"theta": 1.0},
            {"rejection": True},
            {"kappa": 1.0},
            {"xi": "none"},
            {"xi": "cosine"},
            {"xi": "constant", "xi_level": 0.1},
            {"xi_free": 1.0},
            {"penalty": "expected"},
            {"penalty": "product"},
            {"penalty_weight": 0.0},
            {"units": "MB"},
            {"aim": 0.5},
            {"count_input_width": False},
            {"bound": "as_printed"},
            {"offset": False},
            {"mask_interval": 1},
            {"optimizer": "sgd"},
            {"learning_rate": 0.001},
            {"weight_decay": 0.5},
            {"range_rate": 1.0},
            {"pi_travel": 1.0},
            {"pi_start": 0.5},
            {"precision": "bfloat16"},
            {"batch_size": 16},
        ],
        ids=str,
    )
    def test_every_switch_has_an_effect(self, changes):
        n_steps, epochs = (25, 40) if {*changes} & {"xi", "xi_free"} else (3, 8)
        whole, changed = search(epochs=epochs), search(epochs=epochs, **changes)
        run(whole, n_steps)
        run(changed, n_steps)
        same = all(torch.equal(a, b) for a, b in zip(state(whole), state(changed), strict=True))
        assert not same

    @pytest.mark.parametrize("row", [*ROWS, *OTHER_ROWS])
    def test_rows_of_table_3_and_others_run(self, row):
        found = Search(SPACE, (LIMIT,), task(), config("cpu", row, epochs=2), 0)
        assert all(np.isfinite([step.loss, step.penalty]).all() for step in run(found, 3))
        assert (found.config.n_mc == 1) == (row in ("vanilla", "projection", "fbnet-v2"))

    def test_the_product_of_fbnet_has_the_gradient_of_one(self):
        """``d(CE log(E)^b) = log(E)^b (dCE + CE b dE / (E log E))``, here of the second term."""
        found = search(penalty="product")
        z = found.decisions.valid / found.decisions.n_options[:, None].double()
        z = z[None].requires_grad_()
        penalty = found._penalty(z, z[0], 0.7)[1]
        (gradient,) = torch.autograd.grad(penalty, z)
        cost = found.costs[0](z)
        (slope,) = torch.autograd.grad(cost.sum(), z)
        torch.testing.assert_close(gradient, 0.7 * slope / (cost * cost.log()))

    def test_the_product_of_fbnet_makes_networks_smaller_the_more_it_weighs(self):
        costs = []
        for weight in (0.1, 30.0):
            found = search(penalty="product", penalty_weight=weight, epochs=24, xi="none")
            costs.append(run(found)[-1].cost)
        assert costs[1] < 0.6 * costs[0]

    def test_bounds_how_sure_decisions_are(self):
        found = search(xi="constant", xi_level=0.05, pi_travel=100.0)
        run(found, 10)
        most = 1 / found.decisions.n_options + 0.05
        assert (found.log_pi().exp().max(1).values <= most + 1e-6).all()

    def test_other_tasks_and_measures(self):
        space = spaces.get("super_resolution", patch=8, features=8, shrunk=4, layers=2, scale=2)
        rng = np.random.default_rng(0)
        low = [rng.random((12, 12), np.float32) * 255 for _ in range(8)]
        high = [np.kron(each, np.ones((2, 2), np.float32)) for each in low]
        recipe = recipes.get("super_resolution").but(patch=8, patches=8)
        pairs = Pairs(tuple(high), tuple(low))
        on = SuperResolution(pairs, 2, recipe, torch.device("cpu"))
        limit = Limit("macs", 60_000)
        found = search(space=space, limits=(limit,), on=on, n_together=2, epochs=30)
        steps = run(found)
        assert steps[-1].loss < steps[0].loss
        assert abs(steps[-1].cost - 1) < abs(steps[0].cost - 1)

    def test_further_limits_are_kept_not_aimed_at(self):
        both = (LIMIT, Limit("macs", 15_000))
        alone, limited = search(epochs=16), search(epochs=16, limits=both)
        run(alone), run(limited)
        pi = [found.log_pi().exp()[None] for found in (alone, limited)]
        assert limited.costs[1](pi[1]) < 0.8 * limited.costs[1](pi[0])

    def test_costs_on_an_npu_resume_too(self):
        limits = (LIMIT, NpuLimit("total_cycles", 2000))
        whole, before, after = (search(limits=limits, mask_interval=4) for _ in range(3))
        expected = run(whole, 8)
        run(before, 6)
        after.load_state_dict(before.state_dict())
        assert run(after, 2) == expected[6:]
        assert whole.costs[1].correction == after.costs[1].correction != 1.0
        assert_same(whole, after)


class TestProcesses:
    CODE = """
import sys, torch
from torch import distributed
import test_udc_search as t
torch.set_num_threads(1)
distributed.init_process_group(
    "gloo", init_method="file://" + sys.argv[1], rank=int(sys.argv[2]), world_size=2
)
found = t.search(n_mc=4, n_together=1)
t.run(found, 6)
torch.save(t.state(found), sys.argv[1] + ".result" + sys.argv[2])
distributed.destroy_process_group()
"""

    def test_two_make_the_same_search_as_one(self, tmp_path):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", self.CODE, str(tmp_path / "meeting"), rank],
                cwd=__file__.rpartition("/")[0],
            )
            for rank in "01"
        ]
        alone = search(n_mc=4, n_together=1)
        run(alone, 6)
        assert [process.wait(120) for process in started] == [0, 0]
        for rank in "01":
            found = torch.load(tmp_path / f"meeting.result{rank}", weights_only=True)
            assert all(torch.equal(a, b) for a, b in zip(state(alone), found, strict=True))

    def test_samples_that_go_together_are_not_torn_apart(self):
        from searchers.udc.processes import Processes

        assert Processes(1, 2).own(8, 2) == range(4, 8)
        with pytest.raises(ConfigError, match="n_mc must be a multiple of processes times"):
            Processes(1, 2).own(4, 4)


class TestBatches:
    def test_are_each_image_once_an_epoch_in_an_order_of_its_own(self):
        on = task(96)
        batches = Batches(on, 32, seed=3)
        epochs = [torch.cat([batches[i][0] for i in range(e * 3, e * 3 + 3)]) for e in range(2)]
        every = torch.cat(list(on.inputs(96))).sum((1, 2, 3)).sort().values
        for images in epochs:
            assert torch.equal(images.sum((1, 2, 3)).sort().values, every)
        assert not torch.equal(*epochs)
        assert torch.equal(Batches(on, 32, seed=3)[4][0], batches[4][0])

    def test_are_augmented_as_the_recipe_says_the_same_way_again(self):
        recipe = recipes.get("digits").but(crop=2, flip=True)
        on = Classification(stripes(96), recipe, torch.device("cpu"))
        plain, first, second = (Batches(each, 32, 3)[5][0] for each in (task(96), on, on))
        assert not torch.equal(plain, first)
        assert torch.equal(first, second)

    def test_are_no_larger_than_the_data(self):
        with pytest.raises(ConfigError, match="batch_size must be at most the 20 images"):
            Batches(task(20), 32, 0)


class TestConfig:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"epochs": 0}, "epochs must be in 1"),
            ({"theta": 1.5}, "theta must be in 0..1, got 1.5"),
            ({"temperature": 0.0}, "temperature must be in"),
            ({"temperature_end": -1.0}, "temperature_end must be in"),
            ({"n_mc": 6, "n_together": 4}, "n_mc must be a multiple of n_together, got 6 and 4"),
        ],
    )
    def test_refuses_what_is_out_of_range(self, changes, message):
        with pytest.raises(ConfigError, match=message):
            config("cpu", **changes)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"preset": "gpu"}, "preset must be one of cpu, paper"),
            ({"row": "half"}, "row must be one of fbnet-v2, full"),
            ({"xi": "up"}, "xi schedule must be one of"),
            ({"penalty": "hope"}, "penalty must be one of"),
            ({"units": "KB"}, "units must be one of"),
            ({"optimizer": "lion"}, "optimizer must be one of"),
            ({"precision": "float16"}, "precision must be one of"),
        ],
    )
    def test_refuses_unknown_names(self, changes, message):
        with pytest.raises(UnknownNameError, match=message):
            config(**{"preset": "cpu", **changes})

    def test_presets_and_the_number_of_images(self):
        assert config("paper").n_mc == 32
        assert config("cpu", n_images=50_000).optimizer == "sgd"
        assert config("paper", n_images=50_000).epochs == 100
        pictures = config("cpu", n_images=50_000, pictures=True)
        assert (pictures.optimizer, pictures.batch_size) == ("adamw", 16)
        assert config("cpu", "vanilla") == UdcConfig(
            n_mc=1, theta=0.0, xi="none", penalty="expected", temperature=10.0, temperature_end=0.1
        )
        assert set(PRESETS) == {"cpu", "paper"}
