# SPDX-License-Identifier: Apache-2.0
"""Settings of a UDC search: every element of the algorithm is a switch.

`ROWS` has the rows of the paper's Table 3, vanilla differentiable search among them, as changes of
the whole algorithm; `PRESETS` the settings for GPUs and for two CPU cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypedDict, TypeVar

from npusim._arguments import choice, integer, real
from npusim.errors import ConfigError

XI: Final = ("linear", "cosine", "constant", "none")
"""Schedules of how sure a decision may be, see `searchers.udc.projection.xi`."""

PENALTIES: Final[Mapping[str, str]] = {
    "samples": "[UDC] eq. (7), distance of each sample's cost from the target",
    "expected": "[UDC] eq. (6), distance of the expected cost from the target",
    "product": "FBNet's, loss times a power of the log of each sample's cost; there is no target",
}
"""What is added to the loss, or multiplied with it, for the cost."""

PI_RATE_MAX: Final = 0.2
SMALL_IMAGES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsConfig:
    """How shared weights are trained, whatever the search.

    Args:
        epochs: passes over the training data, whatever the number of samples.
        batch_size: images of one sample; of its own each.
        n_mc: samples a step; the number of steps is divided by it.
        n_together: samples that go through the network side by side, for tiny networks.
        offset: number format Q-hat in the search, else Q.
        mask_interval: steps between refreshes of the masks.
        optimizer: of the weights, "sgd" (Nesterov's momentum 0.9) or "adamw".
        learning_rate: of the weights; falls to 0 along a cosine.
        weight_decay: of theta.
        range_rate: learning rate of the ranges, as a part of that of the weights.
        precision: "float32", or "bfloat16" for what torch's autocast chooses.
        rematerialize: see `searchers.udc.supernet.Supernet`.
        fill: a decoded candidate below this part of the limit is filled up.

    Raises:
        ConfigError: a value is out of range.
        UnknownNameError: a choice is not one of those named.
    """

    epochs: int = 40
    batch_size: int = 32
    n_mc: int = 8
    n_together: int = 1
    offset: bool = True
    mask_interval: int = 16
    optimizer: str = "adamw"
    learning_rate: float = 0.01
    weight_decay: float = 1e-3
    range_rate: float = 0.1
    precision: str = "float32"
    rematerialize: bool = False
    fill: float = 0.97

    def __post_init__(self) -> None:
        for what in ("epochs", "batch_size", "n_mc", "n_together", "mask_interval"):
            integer(what, getattr(self, what), 1, 1 << 30)
        if self.n_mc % self.n_together:
            raise ConfigError(
                f"n_mc must be a multiple of n_together, got {self.n_mc} and {self.n_together}"
            )
        real("learning_rate", self.learning_rate, 1e-6, 1e6)
        for what in ("weight_decay", "range_rate"):
            real(what, getattr(self, what), 0, 1e6)
        real("fill", self.fill, 0, 1)
        choice("optimizer", self.optimizer, ("sgd", "adamw"))
        choice("precision", self.precision, ("float32", "bfloat16"))


class WeightsOptions(TypedDict, total=False):
    """Fields of `WeightsConfig` that are options of every search on shared weights.

    None, the default of each, is for what the preset has.
    """

    epochs: int | None
    batch_size: int | None
    n_mc: int | None
    n_together: int | None
    learning_rate: float | None
    precision: str | None
    rematerialize: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UdcConfig(WeightsConfig):
    """How to search.

    Args:
        temperature: tau of the relaxed samples.
        temperature_end: tau at the end, reached exponentially; None keeps it.
        theta: probability that a decision takes an accepted sample, section 4.2.
        rejection: accept by rejection to the letter of Algorithm 1, not by conditional noise.
        kappa: samples are moved from relaxed to one-hot by it, see `sampling.straighten`.
        xi: schedule of how sure decisions may be, eq. (8); "none" never projects.
        xi_free: part of the search after which "linear" and "cosine" let them be.
        xi_level: what "constant" has.
        penalty: of costs, see `PENALTIES`.
        penalty_weight: lambda.
        units: of the penalty: "relative" to the target, or "MB".
        aim: target of the penalty as a part of the limit.
        count_input_width, bound: see `cost.RelaxedCost`.
        pi_travel: how far a logit may get in the whole search: Adam's rate times the steps; the
            rate is at most `PI_RATE_MAX`.
        pi_start: part of the search before which the logits stay.

    Raises:
        ConfigError: a value is out of range.
        UnknownNameError: a choice is not one of those named.

    Source: [UDC] sections 3 and 4; Table 2 for tau.
    Differs: what is in the paper's unpublished appendices is ours: lambda, theta, xi, kappa, rates.
    """

    temperature: float = 0.66
    temperature_end: float | None = None
    theta: float = 0.5
    rejection: bool = False
    kappa: float = 0.0
    xi: str = "linear"
    xi_free: float = 0.6
    xi_level: float = 0.5
    penalty: str = "samples"
    penalty_weight: float = 3.0
    units: str = "relative"
    aim: float = 1.0
    count_input_width: bool = True
    bound: str = "mask_aware"
    pi_travel: float = 33.0
    pi_start: float = 0.05

    def __post_init__(self) -> None:
        WeightsConfig.__post_init__(self)
        for what in ("theta", "kappa", "xi_level", "pi_start"):
            real(what, getattr(self, what), 0, 1)
        for what in ("temperature", "xi_free", "aim", "pi_travel"):
            real(what, getattr(self, what), 1e-6, 1e6)
        real("penalty_weight", self.penalty_weight, 0, 1e6)
        if self.temperature_end is not None:
            real("temperature_end", self.temperature_end, 1e-6, 1e6)
        choice("xi schedule", self.xi, XI)
        choice("penalty", self.penalty, tuple(PENALTIES))
        choice("units", self.units, ("relative", "MB"))


class UdcOptions(WeightsOptions, total=False):
    """Fields of `UdcConfig` that are options; None is for what the preset and the row have."""

    temperature: float | None
    theta: float | None
    kappa: float | None
    rejection: bool | None
    xi: str | None
    xi_free: float | None
    penalty_weight: float | None
    pi_travel: float | None


_NO_REJECTION: Final = {"theta": 0.0}
_NO_PROJECTION: Final = {"xi": "none"}
_ONE_SAMPLE: Final = {"n_mc": 1}

ROWS: Final[Mapping[str, Mapping[str, Any]]] = {
    "vanilla": {
        **_NO_REJECTION,
        **_NO_PROJECTION,
        **_ONE_SAMPLE,
        "penalty": "expected",
        "temperature": 10.0,
        "temperature_end": 0.1,
    },
    "samples": {**_NO_REJECTION, **_NO_PROJECTION},
    "samples+rejection": _NO_PROJECTION,
    "projection": {**_NO_REJECTION, **_ONE_SAMPLE},
    "samples+projection": _NO_REJECTION,
    "full": {},
}
"""Rows of [UDC] Table 3 by what they have; those that tune lambda differ in that alone."""
OTHER_ROWS: Final[Mapping[str, Mapping[str, Any]]] = {
    "fbnet-v2": {
        **ROWS["vanilla"],
        "penalty": "product",
        "temperature": 5.0,
    },
}
"""Further searches that are settings of this one.

Source: Wan et al., 2020, "FBNetV2: differentiable neural architecture search for spatial and
channel dimensions": Gumbel-softmax masks over nested widths, which the supernet has anyway, the
cost of the mean widths, and FBNet's loss. Differs: logits learn from the same images as weights.
"""

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "cpu": {},
    "paper": {
        "epochs": 100,
        "batch_size": 128,
        "n_mc": 32,
        "xi_free": 0.75,
        "penalty_weight": 1.0,
        "precision": "bfloat16",
    },
}
"""Settings by name."""
_LARGE: Final = {
    "epochs": 10,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "precision": "bfloat16",
}
"""What both presets start from where there are more than `SMALL_IMAGES` images to train on."""
_PICTURES: Final = {
    "batch_size": 16,
    "learning_rate": 2e-3,
    "weight_decay": 0.0,
    "precision": "bfloat16",
}
"""What both presets change for networks whose outputs are images, as their recipe has it."""


def config(
    preset: str,
    row: str = "full",
    n_images: int = 0,
    pictures: bool = False,
    **changes: Any,
) -> UdcConfig:
    """A preset's settings, changed to a row, then by `changes`; None changes nothing.

    Args:
        preset: of `PRESETS`.
        row: of `ROWS` or `OTHER_ROWS`.
        n_images: to train on.
        pictures: whether the networks' outputs are images.
        changes: fields of `UdcConfig`.

    >>> config("cpu", "vanilla", epochs=3).xi
    'none'
    """
    rows = {**ROWS, **OTHER_ROWS}
    chosen = rows[choice("row", row, tuple(rows))]
    own = {name: value for name, value in changes.items() if value is not None}
    return settings(UdcConfig, preset, n_images, pictures, **{**chosen, **own})


Config = TypeVar("Config", bound=WeightsConfig)


def settings(
    kind: type[Config],
    preset: str,
    n_images: int = 0,
    pictures: bool = False,
    **changes: Any,
) -> Config:
    """A preset's settings of a strategy, changed by `changes`; None changes nothing.

    Args:
        kind: of which settings; what a preset has beyond its fields does not matter.
        preset, n_images, pictures: as of `config`.
        changes: fields of `kind`.
    """
    found = dict(_LARGE) if n_images > SMALL_IMAGES and not pictures else {}
    found |= PRESETS[choice("preset", preset, tuple(PRESETS))]
    found |= _PICTURES if pictures else {}
    known = {each.name for each in fields(kind)}
    found = {name: value for name, value in found.items() if name in known}
    return kind(**found | {name: value for name, value in changes.items() if value is not None})
