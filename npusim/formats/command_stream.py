# SPDX-License-Identifier: Apache-2.0
"""The commands inside a network compiled for an Ethos-U55 or U65, as a driver gets them.

A driver payload is "COP1" and a row of 32-bit little-endian words::

    action 8 | high 8 | low 16      1: configuration and id follow, one word each
                                    2: commands follow, as many words as ``high << 16 | low`` says
                                    5: nothing

and a command is one word, or two when it carries an address or a length::

    opcode 10 | zeros 4 | carries 2 | parameter 16      carries 0: no second word, 1: one

Addresses have 40 bits: the parameter holds what does not fit the second word.

Source: [VELA] register interface of Ethos-U55 and U65, driver actions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from npusim.errors import FormatError

MAGIC: Final = b"COP1"
ACTION_CONFIG: Final = 1
ACTION_COMMANDS: Final = 2
ACTION_NOP: Final = 5
PRODUCTS: Final = ("ethos-u55", "ethos-u65")
"""NPU families by the product number of the configuration word; others have other commands."""

# Operations, without a second word
OP_STOP: Final = 0x000
OP_CONV: Final = 0x002
OP_DEPTHWISE: Final = 0x003
OP_POOL: Final = 0x005
OP_ELEMENTWISE: Final = 0x006
OP_DMA_START: Final = 0x010

# Registers, without a second word; _M1: the value less one
IFM_DEPTH_M1: Final = 0x104
IFM_PRECISION: Final = 0x105
OFM_DEPTH_M1: Final = 0x113
OFM_BLK_DEPTH_M1: Final = 0x117
KERNEL_WIDTH_M1: Final = 0x120
KERNEL_HEIGHT_M1: Final = 0x121
KERNEL_STRIDE: Final = 0x122
WEIGHT_REGION: Final = 0x128
SCALE_REGION: Final = 0x129
DMA0_SRC_REGION: Final = 0x130
DMA0_DST_REGION: Final = 0x131

# Registers with a second word: their opcodes overlap those above, so they count from `WIDE`
WIDE: Final = 1 << 10
WEIGHT_BASE: Final = WIDE + 0x020
WEIGHT_LENGTH: Final = WIDE + 0x021
SCALE_BASE: Final = WIDE + 0x022
SCALE_LENGTH: Final = WIDE + 0x023
DMA0_SRC: Final = WIDE + 0x030
DMA0_DST: Final = WIDE + 0x031
DMA0_LEN: Final = WIDE + 0x032
WEIGHT1_BASE: Final = WIDE + 0x090
WEIGHT1_LENGTH: Final = WIDE + 0x091
SCALE1_BASE: Final = WIDE + 0x092
SCALE1_LENGTH: Final = WIDE + 0x093

# Bits of KERNEL_STRIDE
PART_KERNEL_BIT: Final = 2
DILATION_X_BIT: Final = 3
DILATION_Y_BIT: Final = 4

_WORD_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        opcode: one of the constants of this module, or another of the register interface.
        value: parameter; with a second word ``parameter << 32 | second word``.
    """

    opcode: int
    value: int


def read_commands(payload: bytes) -> tuple[str, list[Command]]:
    """NPU family and commands of a driver payload, up to the stop command.

    Raises:
        FormatError: the payload is not one for an Ethos-U55 or U65, or is damaged.
    """
    if payload[:4] != MAGIC or len(payload) % _WORD_BYTES:
        raise FormatError(
            f"a driver payload must start with {MAGIC.decode()!r} and be whole words, got "
            f"{len(payload)} bytes that start with {payload[:4]!r}"
        )
    words = struct.unpack(f"<{len(payload) // _WORD_BYTES}I", payload)
    family = ""
    at = 1
    while at < len(words):
        action = words[at] & 0xFF
        if action == ACTION_CONFIG:
            family = _family(words, at)
            at += 3
        elif action == ACTION_COMMANDS:
            n_words = (words[at] >> 8 & 0xFF) << 16 | words[at] >> 16
            if not family:
                raise FormatError("a driver payload must say its NPU before its commands, got none")
            return family, list(_commands(words, at + 1, at + 1 + n_words))
        elif action == ACTION_NOP:
            at += 1
        else:
            raise FormatError(
                f"driver action must be 1, 2 or 5, got {action} (at byte {at * _WORD_BYTES})"
            )
    raise FormatError("a driver payload must have commands, got none")


def _family(words: tuple[int, ...], at: int) -> str:
    if at + 2 >= len(words):
        raise FormatError("a configuration must have 2 words, got the payload's end")
    product = words[at + 1] >> 28
    if product >= len(PRODUCTS):
        raise FormatError(f"NPU must be one of {', '.join(PRODUCTS)}, got product number {product}")
    return PRODUCTS[product]


def _commands(words: tuple[int, ...], at: int, end: int) -> Iterator[Command]:
    if end > len(words):
        raise FormatError(f"commands must end at word {len(words)} at most, got word {end}")
    while at < end:
        word = words[at]
        carries = word >> 14 & 3
        if word >> 10 & 15 or carries > 1:
            raise FormatError(
                f"bits 10 to 13 and 15 of a command must be 0, got {word:#010x} "
                f"(at byte {at * _WORD_BYTES})"
            )
        opcode, value = word & 0x3FF, word >> 16
        at += 1
        if carries:
            if at >= end:
                raise FormatError("a command must have its second word, got the commands' end")
            opcode, value = opcode + WIDE, value << 32 | words[at]
            at += 1
        elif opcode == OP_STOP:
            return
        yield Command(opcode, value)
