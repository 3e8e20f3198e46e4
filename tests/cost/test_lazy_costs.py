# SPDX-License-Identifier: Apache-2.0
"""Totals are told without the operations, which are the same whenever they are asked for."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from deep_networks import FAMILIES, DeepNetwork

import npusim
from npusim.cost import op_costs
from npusim.cost.lowering import program
from npusim.cost.result import Lazy, OpCost
from npusim.hardware import machine


def test_a_lazy_tuple_is_made_once_and_is_like_a_tuple() -> None:
    made = []

    def letters() -> Iterator[str]:
        made.append("all")
        yield from "abc"

    lazy = Lazy(3, letters)
    assert len(lazy) == 3
    assert made == []
    assert lazy[0] == "a"
    assert lazy[-2:] == ("b", "c")
    assert list(lazy) == list(reversed(lazy))[::-1] == ["a", "b", "c"]
    assert lazy == ("a", "b", "c") == lazy
    assert lazy == Lazy(3, lambda: "abc")
    assert lazy != ("a", "b")
    assert lazy != ["a", "b", "c"]
    assert hash(lazy) == hash(("a", "b", "c"))
    assert repr(lazy) == "('a', 'b', 'c')"
    assert pickle.loads(pickle.dumps(lazy)) == copy.deepcopy(lazy) == lazy
    assert made == ["all"]


def test_operations_are_explained_when_asked_for(monkeypatch) -> None:
    network = DeepNetwork(np.random.default_rng(3), next(iter(FAMILIES))).build()
    explained = []
    monkeypatch.setattr(
        *(op_costs, "OpCost"), lambda **told: explained.append(told["name"]) or OpCost(**told)
    )
    cost = npusim.estimate(network)
    assert cost.total_cycles > 0
    assert explained == []
    assert cost.total_cycles == sum(op.cycles for op in cost.ops)
    assert cost.npu_cycles == sum(op.npu_cycles for op in cost.ops)
    assert cost.macs == sum(op.macs for op in cost.ops)
    assert explained == [op.name for op in cost.ops]
    assert max(stretch.address + stretch.n_bytes for stretch in cost.arena) == cost.sram_peak_bytes


def test_what_is_kept_of_a_network_changes_nothing() -> None:
    network = DeepNetwork(np.random.default_rng(4), next(iter(FAMILIES))).build()
    for npu in ("ethos-u55-128", "ethos-u55-32", "ethos-u65-512", "ethos-u55-128"):
        target = machine(npu)
        anew = npusim.estimate(replace(program(network)), target)
        assert npusim.estimate(network, target) == anew
    assert program(network) is program(network)
    assert program(network) is not program(copy.copy(network))
