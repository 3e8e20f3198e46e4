# SPDX-License-Identifier: Apache-2.0
"""UDC as a searcher."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from npusim._arguments import integer
from searchers.base import SearchContext
from searchers.udc.config import UdcConfig, WeightsConfig, config
from searchers.udc.one_shot import OneShotSearch, Within
from spaces.base import Space
from spaces.limits import Limit

if TYPE_CHECKING:
    from searchers.udc.search import Search

Row = Literal[
    "vanilla",
    "samples",
    "samples+rejection",
    "projection",
    "samples+projection",
    "full",
    "fbnet-v2",
]


class UdcSearch(OneShotSearch):
    """Differentiable search for compressible networks, [UDC].

    Args:
        space, limit, rng, context, also, within, npu: see `searchers.udc.one_shot.OneShotSearch`.
        preset: "cpu" or "paper", see `searchers.udc.config.PRESETS`.
        row: the algorithm, a row of [UDC] Table 3, or FBNetV2: see `searchers.udc.config.ROWS` and
            `OTHER_ROWS`.
        epochs, batch_size, n_mc, n_together, temperature, theta, kappa, rejection, xi, xi_free,
        penalty_weight, learning_rate, pi_travel, precision, rematerialize: see
            `searchers.udc.config.UdcConfig`; None for what the preset and the row have.
        draws: candidates drawn from the probabilities within the limit; the best by the shared
            weights on validation data, of these and of the decoded one, is proposed. 0 for what
            is decoded, whatever its score.

    Raises:
        InfeasibleError: no candidate is within a limit; names the least there is.
        ConfigError: an option is out of range.
        MissingExtraError: torch is not installed.

    Source: [UDC] Algorithms 1 and 2.
    """

    def __init__(
        self,
        space: Space,
        limit: Limit,
        rng: np.random.Generator,
        context: SearchContext,
        preset: Literal["cpu", "paper"] = "cpu",
        row: Row = "full",
        also: str | None = None,
        within: Within = "size",
        npu: str = "ethos-u55-128",
        epochs: int | None = None,
        batch_size: int | None = None,
        n_mc: int | None = None,
        n_together: int | None = None,
        temperature: float | None = None,
        theta: float | None = None,
        kappa: float | None = None,
        rejection: bool | None = None,
        xi: str | None = None,
        xi_free: float | None = None,
        penalty_weight: float | None = None,
        learning_rate: float | None = None,
        pi_travel: float | None = None,
        precision: str | None = None,
        rematerialize: bool | None = None,
        draws: int = 0,
    ):
        changes = {
            "epochs": epochs,
            "batch_size": batch_size,
            "n_mc": n_mc,
            "n_together": n_together,
            "temperature": temperature,
            "theta": theta,
            "kappa": kappa,
            "rejection": rejection,
            "xi": xi,
            "xi_free": xi_free,
            "penalty_weight": penalty_weight,
            "learning_rate": learning_rate,
            "pi_travel": pi_travel,
            "precision": precision,
            "rematerialize": rematerialize,
        }
        self.draws = integer("draws", draws, 0, 10_000)
        settings = partial(config, preset, row)
        super().__init__(space, limit, rng, context, also, within, npu, settings, changes)

    def _make(self, config: WeightsConfig) -> Search:
        from searchers.udc.search import Search

        assert isinstance(config, UdcConfig)
        device, images = self.context.device, self.context.images
        return Search(self.space, self._limits, self.task, config, self._seed, device, images)
