# SPDX-License-Identifier: Apache-2.0
"""Hard limits on what a candidate may cost, and sizes as people write them.

KB and MB are the paper's: 1 KB = 1000 B, 1 MB = 1000 KB. KiB and MiB are powers of 1024.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from npusim.errors import ConfigError, UnknownNameError
from spaces.base import Candidate, Space
from spaces.costs import MEASURES, cost

MULTIPLES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
UNIT_BYTES = {"B": 1, "KB": 1000, "KiB": 1024, "MB": 1000**2, "MiB": 1024**2}


def parse_size(text: str) -> int:
    """A size such as ``1.5KB`` in whole bits, rounded down.

    Raises:
        ConfigError: not a positive number followed by one of B, KB, KiB, MB, MiB.

    >>> parse_size("1.5KB"), parse_size("1 KiB")
    (12000, 8192)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text, re.ASCII)
    if match is None or match[2] not in UNIT_BYTES or Fraction(match[1]) == 0:
        raise ConfigError(
            f"size must be a positive number and one of {', '.join(UNIT_BYTES)}, such as 1.5KB "
            f"(1 KB = 1000 B), got {text!r}"
        )
    return int(Fraction(match[1]) * UNIT_BYTES[match[2]] * 8)


def parse_count(what: str, text: str) -> int:
    """A number such as ``50M`` or ``1.5k``, rounded down.

    Args:
        what: it is of, for messages.
        text: as people write it.

    Raises:
        ConfigError: not a positive number, followed by k, M, G or nothing.

    >>> parse_count("macs", "1.5M")
    1500000
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)([kMG]?)\s*", text, re.ASCII)
    if match is None or Fraction(match[1]) == 0:
        raise ConfigError(
            f"{what} must be a positive number such as 1500, 1.5k or 50M, got {text!r}"
        )
    return int(Fraction(match[1]) * MULTIPLES[match[2]])


def format_size(bits: float) -> str:
    """A size of that many bits in B, KB or MB (powers of 1000).

    >>> format_size(12000), format_size(800)
    ('1.50 KB', '100.0 B')
    """
    size_bytes = bits / 8
    for unit in ("MB", "KB"):
        if size_bytes >= UNIT_BYTES[unit]:
            return f"{size_bytes / UNIT_BYTES[unit]:.2f} {unit}"
    return f"{size_bytes:.1f} B"


@dataclass(frozen=True, slots=True)
class Limit:
    """The most a candidate may cost by one measure.

    Searchers pass a limit on to the space and ask it `allows`; they do not look inside.

    Args:
        measure: a name in `spaces.costs.MEASURES`; the unit is in the name.
        most: largest cost that is still allowed.

    Raises:
        UnknownNameError: no such measure.
        ConfigError: `most` is less than 1.
    """

    measure: str
    most: int

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise UnknownNameError("measure", self.measure, MEASURES)
        if self.most < 1:
            raise ConfigError(f"limit on {self.measure} must be at least 1, got {self.most}")

    @classmethod
    def parse(cls, text: str) -> Limit:
        """A limit as people write it: a size such as ``1.5KB``, or a number such as ``50M macs``.

        Raises:
            ConfigError: neither.
            UnknownNameError: no such measure.

        >>> Limit.parse("50M macs"), Limit.parse("0.5 KB")
        (Limit(measure='macs', most=50000000), Limit(measure='size_bits', most=4000))
        """
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)([kMG]?)\s+([a-z_]+)\s*", text, re.ASCII)
        if match is None:
            return cls.size(text)
        return cls(match[3], int(Fraction(match[1]) * MULTIPLES[match[2]]))

    @classmethod
    def size(cls, text: str) -> Limit:
        """A limit on the compressed size, written such as ``1.5KB``; see `parse_size`."""
        return cls("size_bits", parse_size(text))

    def allows(self, space: Space, candidate: Candidate) -> bool:
        """Whether the candidate costs at most `most`."""
        return cost(space, candidate, self.measure) <= self.most

    def __str__(self) -> str:
        if self.measure == "size_bits":
            return format_size(self.most)
        return f"{self.most} {self.measure}"
