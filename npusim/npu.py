# SPDX-License-Identifier: Apache-2.0
"""The NPU a network runs on: one record of hardware facts, and the presets by name."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import resources
from typing import Any, Final

from npusim._arguments import integer, positive, real
from npusim.errors import ConfigError, UnknownNameError

N_CORES_MAX: Final = 2
N_OUTPUT_RATES: Final = 8
N_ACTIVATION_RATES: Final = 3
_INTEGER_MAX: Final = 1 << 16
_RATE_MAX: Final = float(1 << 16)
_RATES: Final = {
    "output_cycles_per_element": N_OUTPUT_RATES,
    "activation_cycles_per_element": N_ACTIVATION_RATES,
}
_MAY_BE_ZERO: Final = frozenset(
    {"stall_acc32_cycles", "stall_acc40_cycles", "line_stall_acc40_cycles"}
)


@dataclass(frozen=True, slots=True)
class NpuConfig:
    """What the simulator must know of one Ethos-U configuration.

    The *ublock* (micro-block) is the smallest piece of a feature map that one core computes or
    reads at a time, in elements. Each of `n_cores` cores has ublocks of its own and takes every
    `n_cores`-th output channel. SHRAM is the NPU's internal memory, where the blocks of ifm and
    accumulators are kept, each in whole *granules* of banks.

    Any NPU can be described, not only those Arm sells: ``get("ethos-u55-128").replace(...)``.

    Attributes:
        name: the preset's name, or one's own.
        macs_per_cycle: multiply-accumulates of 8 bit by 8 bit a clock cycle, all cores together.
        n_cores: cores that share the output channels, 1 or 2.
        ofm_ublock_height: rows of an output ublock.
        ofm_ublock_width: columns of an output ublock.
        ofm_ublock_depth: channels of an output ublock.
        ifm_ublock_depth: channels of an input ublock.
        ofm_block_height_max: most rows of an ofm block.
        ofm_block_width_max: most columns of an ofm block.
        ofm_block_depth_max: most channels of an ofm block.
        sub_kernel_max: most rows, and most columns, of a kernel that are computed in one pass;
            larger kernels are cut into sub-kernels.
        shram_banks: banks of SHRAM.
        shram_bank_bytes: bytes of a bank.
        ifm8_granule_banks: banks come in multiples of this for an 8-bit ifm.
        ifm16_granule_banks: the same for a 16-bit ifm.
        elementwise_ifm8_granule_banks: the same for an 8-bit ifm of an elementwise operation.
        elementwise_ifm16_granule_banks: the same for a 16-bit ifm of an elementwise operation.
        ifm32_granule_banks: the same for a 32-bit ifm.
        acc16_granule_banks: the same for accumulators of 16 bits.
        acc32_granule_banks: the same for accumulators of 32 bits.
        acc40_granule_banks: the same for accumulators of 40 bits.
        output_cycles_per_element: cycles the output stage takes for an ofm element, all cores
            together, by operation: (0) elementwise with one 32-bit ifm, (1) elementwise with two
            32-bit ifms, (2) multiplication into 32 bits, (3) other multiplications, and operations
            with 40-bit accumulators, (4) plain addition and subtraction, which Arm's compiler
            never assumes, (5) addition and subtraction, (6) maximum pooling, (7) all else.
        activation_cycles_per_element: the same for the activation function that follows: (0) table
            look-up, (1) clipping such as ReLU, (2) none. The slower of both stages counts.
        pool8_cycles_per_kernel_element: cycles of an ofm ublock for each kernel element of a
            pooling with an 8-bit ifm, a kernel counting as 4 elements at least.
        pool16_cycles_per_kernel_element: the same for a 16-bit ifm.
        stall_acc32_cycles: cycles lost in a kernel step of a block of one ublock in height and
            width, with 32-bit accumulators.
        stall_acc40_cycles: the same with 40-bit accumulators.
        line_stall_acc40_cycles: cycles lost per ublock in depth, with 40-bit accumulators, in a
            block of one ublock in height or width and several in depth.
        weight_decoder_weights_per_cycle: weights the decoder can emit in a cycle.
        axi_width_bytes: bytes one AXI port moves in an NPU cycle at most.
        n_axi_ports: AXI ports that memories can be attached to, 1 or 2.

    Raises:
        ConfigError: the name is empty, or a number is not in its range.

    Source: [VELA] accelerator tables of 5.2.0.
    """

    name: str
    macs_per_cycle: int
    n_cores: int
    ofm_ublock_height: int
    ofm_ublock_width: int
    ofm_ublock_depth: int
    ifm_ublock_depth: int
    ofm_block_height_max: int
    ofm_block_width_max: int
    ofm_block_depth_max: int
    sub_kernel_max: int
    shram_banks: int
    shram_bank_bytes: int
    ifm8_granule_banks: int
    ifm16_granule_banks: int
    elementwise_ifm8_granule_banks: int
    elementwise_ifm16_granule_banks: int
    ifm32_granule_banks: int
    acc16_granule_banks: int
    acc32_granule_banks: int
    acc40_granule_banks: int
    output_cycles_per_element: tuple[float, ...]
    activation_cycles_per_element: tuple[float, ...]
    pool8_cycles_per_kernel_element: int
    pool16_cycles_per_kernel_element: int
    stall_acc32_cycles: int
    stall_acc40_cycles: int
    line_stall_acc40_cycles: int
    weight_decoder_weights_per_cycle: int
    axi_width_bytes: int
    n_axi_ports: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigError(f"npu name must be text, got {self.name!r}")
        for field in fields(self)[1:]:
            what, value = f"{field.name} of npu {self.name!r}", getattr(self, field.name)
            if field.name in _RATES:
                checked: Any = _rates(what, value, _RATES[field.name])
            else:
                high = N_CORES_MAX if field.name in ("n_cores", "n_axi_ports") else _INTEGER_MAX
                checked = integer(what, value, int(field.name not in _MAY_BE_ZERO), high)
            object.__setattr__(self, field.name, checked)  # a plain int or float, not numpy's

    def replace(self, **values: Any) -> NpuConfig:
        """This NPU with other values of the fields named.

        Raises:
            ConfigError: a value is not in its field's range.
            UnknownNameError: no such field; lists them and guesses.

        >>> get("ethos-u55-128").replace(name="mine", shram_banks=48).shram_banks
        48
        """
        known = [field.name for field in fields(self)]
        for name in values:
            if name not in known:
                raise UnknownNameError("field of an npu", name, known)
        return replace(self, **values)

    def to_json(self) -> dict[str, Any]:
        """JSON values by attribute; rates are lists."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}


def _rates(what: str, values: Any, n_rates: int) -> tuple[float, ...]:
    if not isinstance(values, (tuple, list)) or len(values) != n_rates:
        raise ConfigError(f"{what} must be {n_rates} numbers, got {values!r}")
    # only the absence of an activation function takes no time
    *rates, last = values
    return (
        *(positive(what, rate) for rate in rates),
        real(what, last, 0.0, _RATE_MAX) if n_rates == N_ACTIVATION_RATES else positive(what, last),
    )


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
