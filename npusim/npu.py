# SPDX-License-Identifier: Apache-2.0
"""The NPU a network runs on: one record of hardware facts, and the presets by name."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Final

from npusim._arguments import integer
from npusim.errors import ConfigError, UnknownNameError

N_CORES_MAX: Final = 2
_FIELD_MAX: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class NpuConfig:
    """What the simulator must know of one Ethos-U configuration.

    The *ublock* (micro-block) is the smallest piece of a feature map that one core computes or
    reads at a time, in elements. Each of `n_cores` cores has ublocks of its own and takes every
    `n_cores`-th output channel.

    Attributes:
        name: the preset's name, or one's own.
        macs_per_cycle: multiply-accumulates of 8 bit by 8 bit a clock cycle, all cores together.
        n_cores: cores that share the output channels, 1 or 2.
        ofm_ublock_height: rows of an output ublock.
        ofm_ublock_width: columns of an output ublock.
        ofm_ublock_depth: channels of an output ublock.
        ifm_ublock_depth: channels of an input ublock.
        shram_banks: banks of 1024 bytes of the memory that blocks are kept in.
        ifm8_granule_banks: banks come in multiples of this for an 8-bit ifm.
        ifm16_granule_banks: the same for a 16-bit ifm.
        acc32_granule_banks: the same for accumulators of 32 bits.
        acc40_granule_banks: the same for accumulators of 40 bits.

    Raises:
        ConfigError: the name is empty, or a number is not an integer in its range.

    Source: [VELA] accelerator tables of 5.2.0.
    """

    name: str
    macs_per_cycle: int
    n_cores: int
    ofm_ublock_height: int
    ofm_ublock_width: int
    ofm_ublock_depth: int
    ifm_ublock_depth: int
    shram_banks: int
    ifm8_granule_banks: int
    ifm16_granule_banks: int
    acc32_granule_banks: int
    acc40_granule_banks: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"npu name must be text, got {self.name!r}")
        for field in fields(self)[1:]:
            high = N_CORES_MAX if field.name == "n_cores" else _FIELD_MAX
            integer(f"{field.name} of npu {self.name!r}", getattr(self, field.name), 1, high)


@cache
def _presets() -> dict[str, NpuConfig]:
    text = resources.files("npusim").joinpath("npu_presets.json").read_text(encoding="utf-8")
    return {name: NpuConfig(name=name, **record) for name, record in json.loads(text).items()}


def names() -> list[str]:
    """Sorted names of the presets.

    >>> names()[:2]
    ['ethos-u55-128', 'ethos-u55-256']
    """
    return sorted(_presets())


def get(npu: str | NpuConfig) -> NpuConfig:
    """The preset called `npu`; a record is handed back as it is.

    Raises:
        UnknownNameError: no preset has that name; lists them and guesses.

    >>> get("ethos-u55-128").macs_per_cycle
    128
    """
    if isinstance(npu, NpuConfig):
        return npu
    if not isinstance(npu, str) or npu not in _presets():
        raise UnknownNameError("npu", npu, _presets())
    return _presets()[npu]
