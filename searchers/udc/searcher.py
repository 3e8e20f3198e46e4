# SPDX-License-Identifier: Apache-2.0
"""UDC as a searcher."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, Unpack

import numpy as np

from npusim._arguments import integer
from searchers.base import SearchContext
from searchers.udc.config import UdcConfig, UdcOptions, WeightsConfig, config
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
        draws: candidates drawn from the probabilities within the limit; the best by the shared
            weights on validation data, of these and of the decoded one, is proposed. 0 for what
            is decoded, whatever its score.
        changes: of the settings, see `searchers.udc.config.UdcOptions` and `UdcConfig`.

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
        draws: int = 0,
        **changes: Unpack[UdcOptions],
    ):
        self.draws = integer("draws", draws, 0, 10_000)
        settings = partial(config, preset, row)
        super().__init__(space, limit, rng, context, also, within, npu, settings, changes)

    def _make(self, config: WeightsConfig) -> Search:
        from searchers.udc.search import Search

        assert isinstance(config, UdcConfig)
        device, images = self.context.device, self.context.images
        return Search(self.space, self._limits, self.task, config, self._seed, device, images)
