# SPDX-License-Identifier: Apache-2.0
"""What every registered searcher that trains shared weights must do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from planted import Planted

import searchers
from npusim.errors import InfeasibleError
from searchers.base import Budget, History, SearchContext, Trial, is_one_shot, run
from searchers.options import declared
from spaces.digits import digits
from spaces.feasible import feasible_set
from spaces.limits import Limit

torch = pytest.importorskip("torch", reason="needs torch")

from test_udc_search import stripes  # noqa: E402

SPACE = digits(widths=(0.3, 0.6, 1.0), bitwidths=(1, 4), sparsities=(0.2, 0.5, 1.0))
LIMIT = Limit.size("600B")
SEARCHERS = [name for name in searchers.names() if is_one_shot(searchers.get(name))]
OPTIONS = {
    **{name: {"epochs": 3, "n_mc": 4} for name in SEARCHERS},
    "single-path": {"epochs": 3, "n_mc": 4, "candidates": 8},
}
"""So that three steps are all."""
N_STEPS, N_IMAGES = 3, 3 * 4 * 32


class WithData(Planted):
    def search_data(self):
        return stripes(128), stripes(32, 1)


def history(name: str, seed: int = 0, trials: int = 3, **changes) -> History:
    settings = {"space": SPACE, "limit": LIMIT, "directory": None, "images": None, **changes}
    progress = settings.pop("progress", lambda *figures: None)
    data = WithData(settings["space"])
    context = SearchContext(data.search_data, settings.pop("directory"), progress=progress)
    budget = Budget(trials=trials, images=settings.pop("images"))
    space, limit = settings.pop("space"), settings.pop("limit")
    make, options = searchers.get(name), {**OPTIONS[name], **settings}
    return run(make, space, limit, data, budget, seed=seed, options=options, context=context)


def outcomes(found: History) -> list[tuple]:
    return [trial.outcome for trial in found]


@pytest.mark.parametrize("name", SEARCHERS)
class TestEveryOneShotSearcher:
    def test_proposes_distinct_candidates_within_the_limit(self, name):
        found = history(name, trials=14)
        assert len({trial.candidate for trial in found}) == 14
        assert all(LIMIT.allows(SPACE, trial.candidate) for trial in found)

    def test_says_what_it_spent_and_found(self, name):
        first, second = history(name, trials=2)
        assert (first.search_images, second.search_images) == (N_IMAGES, 0)
        figures = first.search_metrics
        assert figures["ratio"] == first.costs["size_bits"] / LIMIT.most
        assert {"gamma_ratio", "search_loss", "stream_bytes", "flash_bytes"} <= set(figures)
        if name != "single-path":  # which takes what scores best
            assert figures["ratio"] >= 0.97

    def test_same_seed_same_history_other_seed_another(self, name):
        first, again, other = (history(name, seed) for seed in (1, 1, 2))
        assert outcomes(first) == outcomes(again)
        assert [t.candidate for t in first] != [t.candidate for t in other]

    def test_resumes_bit_for_bit_wherever_it_was_interrupted(self, name, tmp_path):
        expected = outcomes(history(name))
        n_heard = N_STEPS + (8 if name == "single-path" else 0)
        for at in range(1, n_heard + 1, 2):
            heard: list[int] = []

            def interrupt(done, total, figures, heard=heard, at=at):
                heard.append(done)
                if len(heard) == at:
                    raise KeyboardInterrupt

            directory = tmp_path / str(at)
            with (
                mock.patch("searchers.udc.one_shot.CHECKPOINT_S", -1.0),
                pytest.raises(KeyboardInterrupt),
            ):
                history(name, directory=directory, progress=interrupt)
            left: list[int] = []
            found = history(
                name, directory=directory, progress=lambda done, *_, left=left: left.append(done)
            )
            assert outcomes(found) == expected
            # what was heard before it was kept is done again, and no more
            assert len(left) <= n_heard - at + 1 + (at > N_STEPS) * at

    def test_takes_up_what_it_finished(self, name, tmp_path):
        first = history(name, directory=tmp_path)
        with mock.patch("searchers.udc.weights.SharedWeights.update", side_effect=AssertionError):
            again = history(name, directory=tmp_path)
        assert outcomes(again) == outcomes(first)
        kept = json.loads((tmp_path / "searcher" / "result.json").read_text())
        assert kept["candidate"] == SPACE.options_of(first[0].candidate)

    def test_spends_no_more_than_it_may(self, name):
        assert history(name, trials=1, images=300)[0].search_images == 256

    @pytest.mark.parametrize("within", ["stream", "flash"])
    def test_counts_what_is_asked_for(self, name, within):
        limit = Limit.size("2.5KB")
        found: Trial = history(name, trials=1, limit=limit, within=within)[0]
        assert 8 * found.search_metrics[f"{within}_bytes"] <= limit.most

    def test_keeps_further_limits(self, name):
        found = history(name, also="20k macs, 3k n_parameters")
        assert all(trial.costs["macs"] <= 20_000 for trial in found)
        assert all(trial.costs["n_parameters"] <= 3000 for trial in found)

    def test_refuses_what_nobody_meets(self, name):
        with pytest.raises(InfeasibleError, match="must be at least 1841"):
            history(name, limit=Limit("size_bits", 1840))
        with pytest.raises(InfeasibleError, match="limit on the flash must be at least"):
            history(name, limit=Limit.size("240B"), within="flash")

    def test_ends_when_all_feasible_candidates_were_tried(self, name):
        space = digits(widths=(0.5, 1.0), bitwidths=(4,), sparsities=(0.3,))
        limit = Limit("size_bits", 24_000)
        n_feasible = feasible_set(space, limit).count()
        assert 1 < n_feasible < space.count()
        found = history(name, trials=99, space=space, limit=limit)
        assert len(found) == len({trial.candidate for trial in found}) == n_feasible

    def test_has_the_presets(self, name):
        kind, default = declared(name, searchers.get(name))["preset"]
        assert default == "cpu"
        assert set(kind.__args__) == {"cpu", "paper"}


def test_same_histories_in_a_fresh_process():
    code = (
        "import json, torch, test_every_one_shot as t\n"
        "torch.set_num_threads(1)\n"
        "for name in t.SEARCHERS:\n"
        "    print(json.dumps([[x.candidate.choices, x.score] for x in t.history(name)]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    expected = [[[list(t.candidate.choices), t.score] for t in history(n)] for n in SEARCHERS]
    assert [json.loads(line) for line in found.stdout.splitlines()] == expected
