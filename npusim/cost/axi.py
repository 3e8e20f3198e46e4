# SPDX-License-Identifier: Apache-2.0
"""Beats that a network moves over the NPU's AXI ports, as its performance counters count them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from npusim._arguments import choice, integer
from npusim.cost.result import Cost

BEAT_BYTES: Final = 8
"""Width of an AXI port of the Ethos-U55; that of the U65 is 16."""
PORTS: Final = ("axi0", "axi1")
PORT_OF: Final[Mapping[str, str]] = {
    "sram": "axi0",
    "flash": "axi1",
    "on_chip_flash": "axi1",
    "off_chip_flash": "axi1",
    "dram": "axi1",
}
"""The port a memory is attached to in Arm's system configurations, by its role."""


@dataclass(frozen=True, slots=True)
class Beats:
    """Transfers of one width of a port.

    Attributes:
        read: from memory.
        written: to memory.
    """

    read: int
    written: int


def axi_beats(
    cost: Cost, beat_bytes: int = BEAT_BYTES, ports: Mapping[str, str] | None = None
) -> dict[str, Beats]:
    """Beats of one inference, by port.

    Bytes of an operation are rounded up to whole beats, for each memory and direction.

    Args:
        cost: of the network.
        beat_bytes: width of the ports, 1..64.
        ports: port of a memory where it is not that of `PORT_OF`, by its role.

    Raises:
        ConfigError: `beat_bytes` is not an integer in its range.
        UnknownNameError: no such role of a memory, or no such port.
    """
    width = integer("beat_bytes", beat_bytes, 1, 64)
    port_of = dict(PORT_OF)
    for role, port in (ports or {}).items():
        choice("role of a memory", role, PORT_OF)
        port_of[role] = choice("port", port, PORTS)
    read, written = dict.fromkeys(PORTS, 0), dict.fromkeys(PORTS, 0)
    for op in cost.ops:
        for role, moved in op.traffic.items():
            port = port_of[choice("role of a memory", role, PORT_OF)]
            read[port] += -(-sum(moved.read_bytes.values()) // width)
            written[port] += -(-sum(moved.written_bytes.values()) // width)
    return {port: Beats(read[port], written[port]) for port in PORTS}
