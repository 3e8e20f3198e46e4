# SPDX-License-Identifier: Apache-2.0
"""The `ethos-u-mlw` scheme hands everything on to `npusim.weights`."""

from __future__ import annotations

import numpy as np
import pytest

from npusim import weights
from npusim.errors import ConfigError, StreamError, UnknownNameError
from npusim.schemes.ethos_u_mlw import EthosUMlw


def test_the_encoder_decides_about_the_bytes():
    rng = np.random.default_rng(3)
    sparse = np.where(rng.random(6000) < np.resize([0.3, 0.97], 6000), 0, 9)
    values = np.concatenate([sparse, rng.integers(-40, 40, 4000)]).astype(np.int16)
    streams = {encoder: weights.encode(values, encoder=encoder) for encoder in ("regor", "legacy")}
    assert streams["regor"] != streams["legacy"]
    for encoder, stream in streams.items():
        assert EthosUMlw(encoder).encode(values) == stream
    assert EthosUMlw().encode(values) == streams["regor"]


def test_no_weights_are_an_end_marker():
    assert EthosUMlw().encode([]) == b"\xff" * 16


def test_fewer_weights_than_asked_for():
    stream = EthosUMlw().encode([5, 0, 0])
    with pytest.raises(StreamError, match=r"stream must hold 4 weights, got 3 \(at bit 128\)"):
        EthosUMlw().decode(stream, 4)


def test_unknown_encoder():
    with pytest.raises(UnknownNameError, match=r"encoder must be one of .*did you mean 'legacy'"):
        EthosUMlw("legasy")


def test_options_of_tight_have_an_effect_and_go_with_it_only():
    values = np.rint(np.random.default_rng(0).laplace(0, 4, 20_000)).astype(int)
    plain = EthosUMlw(encoder="tight")
    assert EthosUMlw(encoder="tight", direct_offset="free").size(values) < plain.size(values)
    assert EthosUMlw(encoder="tight", effort=9).size(values) <= plain.size(values)
    with pytest.raises(ConfigError, match=r"^options must go with encoder 'tight', got effort"):
        EthosUMlw(effort=1)
    with pytest.raises(ConfigError, match=r"^effort must be in 0..9, got 10$"):
        EthosUMlw(encoder="tight", effort=10)
