# SPDX-License-Identifier: Apache-2.0
"""Settings of searches on shared weights beside UDC."""

from __future__ import annotations

from dataclasses import dataclass

from npusim._arguments import integer, real
from npusim.errors import ConfigError
from searchers.udc.config import WeightsConfig, WeightsOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforceConfig(WeightsConfig):
    """How a policy learns beside the weights.

    Args:
        beta: weight of the cost in the reward, at most 0; TabNAS has none.
        warm_up: part of the search before which the policy stays uniform; until then, operators
            and filters are warmed up, ever less often, see `Reinforce.warmed_up`.
        pi_travel: how far a logit may get in the whole search: the sum of Adam's rates.
        pi_growth: how many times larger the last rate is than the first; it grows exponentially.
        baseline_decay: of the mean reward, which goes off every reward.
        score_images: validation images of one reward.

    Raises:
        ConfigError: a value is out of range.

    Source: Bender et al., 2020, "Can weight sharing outperform random architecture search?" (TuNAS)
    and its appendix E.2: warm-up over a quarter of the search, rates that grow tenfold.
    Differs: rates are by `pi_travel`, since there are hundreds of steps, not hundreds of thousands.
    """

    beta: float = -0.5
    warm_up: float = 0.25
    pi_travel: float = 33.0
    pi_growth: float = 10.0
    baseline_decay: float = 0.95
    score_images: int = 64

    def __post_init__(self) -> None:
        WeightsConfig.__post_init__(self)
        real("warm_up", self.warm_up, 0, 0.99)
        real("pi_travel", self.pi_travel, 1e-6, 1e6)
        real("pi_growth", self.pi_growth, 1e-6, 1e6)
        real("beta", self.beta, -1e6, 0)
        if not 0 <= self.baseline_decay < 1:
            raise ConfigError(
                f"baseline_decay must be in 0..1, less than 1, got {self.baseline_decay}"
            )
        integer("score_images", self.score_images, 1, 1 << 30)


class TabnasOptions(WeightsOptions, total=False):
    """Fields of `ReinforceConfig` that are options; None is for what the preset has."""

    warm_up: float | None
    pi_travel: float | None
    score_images: int | None


class TunasOptions(TabnasOptions, total=False):
    """As `TabnasOptions`, and what a policy that may leave the limit has beside them."""

    beta: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrankWolfeConfig(WeightsConfig):
    """How the point moves.

    Args:
        warm_up: part of the search in which the weights are trained on candidates drawn uniformly
            within the limit, and the point stays where it starts.
        temperature: tau of the relaxed samples.
        first_steps: as many as if had been done before the first one: its length is
            ``2 / (first_steps + 2)``.

    Raises:
        ConfigError: a value is out of range.
    """

    warm_up: float = 0.4
    temperature: float = 0.66
    first_steps: int = 8

    def __post_init__(self) -> None:
        WeightsConfig.__post_init__(self)
        real("warm_up", self.warm_up, 0, 0.99)
        real("temperature", self.temperature, 1e-6, 1e6)
        integer("first_steps", self.first_steps, 0, 1 << 30)


class FrankWolfeOptions(WeightsOptions, total=False):
    """Fields of `FrankWolfeConfig` that are options; None is for what the preset has."""

    warm_up: float | None
    temperature: float | None
    first_steps: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SinglePathConfig(WeightsConfig):
    """How candidates are found once the weights are trained.

    Args:
        candidates: that evolution scores with the weights.

    Raises:
        ConfigError: a value is out of range.
    """

    candidates: int = 300

    def __post_init__(self) -> None:
        WeightsConfig.__post_init__(self)
        integer("candidates", self.candidates, 1, 1 << 30)


class SinglePathOptions(WeightsOptions, total=False):
    """Fields of `SinglePathConfig` that are options; None is for what the preset has."""

    candidates: int | None
