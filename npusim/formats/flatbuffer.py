# SPDX-License-Identifier: Apache-2.0
"""Reading flatbuffers with every offset and length checked, and bounded work.

Offsets in a damaged or hostile file may point anywhere, and many may point to one long vector.
So each access is checked against the file, and all reading together draws on one budget that
grows with the file: a file whose parts do not overlap stays within it.

Source: [FLATBUFFERS] internals: tables, vtables, vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct, unpack_from
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from npusim.errors import FormatError

BOOL: Final = Struct("<?")
INT8: Final = Struct("<b")
UINT8: Final = Struct("<B")
INT32: Final = Struct("<i")
UINT32: Final = Struct("<I")
INT64: Final = Struct("<q")
UINT64: Final = Struct("<Q")
FLOAT32: Final = Struct("<f")
_TWO_UINT16: Final = Struct("<HH")
_ITEM_BYTES: Final = {"i": 4, "f": 4, "B": 1}

_SLOTS_MAX: Final = 16
"""No table of the formats read here has more fields."""
TABLE_COST: Final = 64
"""Bytes a table is counted as: most take less in a file, but all take more to make."""
_BUDGET_PER_BYTE: Final = 3
"""Real models need up to 1.5; operations and tensors alone, without any data, need 2.2."""
_BUDGET_FLOOR: Final = 1 << 16


class Buffer:
    """The bytes of a flatbuffer and what may still be read of them.

    Attributes:
        data: the whole file.
        size: its length in bytes.
        budget: bytes that may still be turned into objects; see `spend`.
    """

    __slots__ = ("_vtables", "budget", "data", "size")

    def __init__(self, data: bytes):
        self.data = data
        self.size = len(data)
        self.budget = _BUDGET_PER_BYTE * self.size + _BUDGET_FLOOR
        self._vtables: dict[int, tuple[tuple[int, ...], int]] = {}

    def spend(self, n_bytes: int) -> None:
        """Count `n_bytes` as read.

        Raises:
            FormatError: more was read than a file of this size holds.
        """
        self.budget -= n_bytes
        if self.budget < 0:
            raise FormatError(
                f"parts of the file must not overlap, got more than {_BUDGET_PER_BYTE} times "
                f"its {self.size} bytes by following its offsets"
            )

    def root(self) -> Table:
        """The outermost table."""
        self.check(0, 4, "offset of the root table")
        return Table(self, self.follow(0))

    def check(self, start: int, n_bytes: int, what: str) -> None:
        """Raise FormatError unless `n_bytes` from `start` lie inside the file."""
        if start < 0 or start + n_bytes > self.size:
            raise FormatError(
                f"{what} must lie inside the file of {self.size} bytes, "
                f"got {n_bytes} bytes from byte {start}"
            )

    def follow(self, position: int) -> int:
        """Where the offset at `position`, inside the file, points to; 4 bytes there are inside."""
        offset: int = UINT32.unpack_from(self.data, position)[0]
        target = position + offset
        if offset == 0 or target + 4 > self.size:
            raise FormatError(
                f"offset at byte {position} must be in 1..{self.size - position - 4}, got {offset}"
            )
        return target

    def vtable(self, position: int) -> tuple[tuple[int, ...], int]:
        """Offsets of the fields of a table, 0 if absent, and its length in bytes."""
        known = self._vtables.get(position)
        if known is not None:
            return known
        self.check(position, 4, "vtable")
        n_bytes, table_bytes = _TWO_UINT16.unpack_from(self.data, position)
        if n_bytes < 4 or n_bytes % 2 or table_bytes < 4:
            raise FormatError(
                f"vtable at byte {position} must have an even length of at least 4 and a table "
                f"of at least 4 bytes, got {n_bytes} and {table_bytes}"
            )
        self.check(position, n_bytes, "vtable")
        n_slots = min((n_bytes - 4) // 2, _SLOTS_MAX)
        offsets = unpack_from(f"<{n_slots}H", self.data, position + 4)
        for offset in offsets:
            if offset and not 4 <= offset < table_bytes:
                raise FormatError(
                    f"fields of the vtable at byte {position} must be at 4..{table_bytes - 1}, "
                    f"got {offset}"
                )
        entry = (offsets + (0,) * (_SLOTS_MAX - n_slots), table_bytes)
        self._vtables[position] = entry
        return entry


class Table:
    """One table; fields are named by their slot, absent ones give the default or None."""

    __slots__ = ("_length", "_offsets", "buffer", "position")

    def __init__(self, buffer: Buffer, position: int, cost: int = TABLE_COST):
        buffer.spend(cost)
        vtable = position - INT32.unpack_from(buffer.data, position)[0]
        self.buffer = buffer
        self.position = position
        self._offsets, self._length = buffer.vtable(vtable)
        if position + self._length > buffer.size:
            buffer.check(position, self._length, "table")

    def scalar(self, slot: int, kind: Struct, default: Any) -> Any:
        """The number or truth value in `slot`."""
        offset = self._offsets[slot]
        if not offset:
            return default
        if offset + kind.size > self._length:
            self._refuse(slot)
        return kind.unpack_from(self.buffer.data, self.position + offset)[0]

    def table(self, slot: int) -> Table | None:
        """The table that `slot` points to."""
        target = self._target(slot)
        return Table(self.buffer, target) if target else None

    def tables(self, slot: int, cost: int = TABLE_COST) -> Iterator[Table]:
        """The tables of a vector of tables, each made and counted when it is its turn."""
        start, length = self.vector(slot, 4)
        for position in range(start, start + 4 * length, 4):
            yield Table(self.buffer, self.buffer.follow(position), cost)

    def array(self, slot: int, dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
        """A vector of numbers as a read-only view, shape [n]; None if absent or empty."""
        start, length = self.vector(slot, dtype.itemsize)
        if not length:
            return None
        self.buffer.spend(length * dtype.itemsize)
        return np.frombuffer(self.buffer.data, dtype, length, start)

    def numbers(self, slot: int, code: str = "i") -> tuple[Any, ...] | None:
        """A vector of int32 ("i"), float32 ("f") or bytes ("B") as a tuple."""
        n_bytes = _ITEM_BYTES[code]
        start, length = self.vector(slot, n_bytes)
        if not start:
            return None
        self.buffer.spend(length * n_bytes)
        return unpack_from(f"<{length}{code}", self.buffer.data, start)

    def string(self, slot: int) -> str | None:
        """A string, which must be UTF-8."""
        start, length = self.vector(slot, 1)
        if not start:
            return None
        self.buffer.spend(length)
        content = self.buffer.data[start : start + length]
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise FormatError(f"string must be UTF-8, got {content[:32]!r}") from None

    def vector(self, slot: int, item_bytes: int) -> tuple[int, int]:
        """First byte and number of elements of the vector in `slot`, not counted as read.

        Returns:
            (0, 0) if it is absent.
        """
        start = self._target(slot)
        if not start:
            return 0, 0
        buffer = self.buffer
        length: int = UINT32.unpack_from(buffer.data, start)[0]
        if start + 4 + length * item_bytes > buffer.size:
            buffer.check(start + 4, length * item_bytes, f"vector of {length} elements")
        return start + 4, length

    def _target(self, slot: int) -> int:
        """Where the offset in `slot` points to; 0 if it is absent."""
        offset = self._offsets[slot]
        if not offset:
            return 0
        if offset + 4 > self._length:
            self._refuse(slot)
        return self.buffer.follow(self.position + offset)

    def _refuse(self, slot: int) -> NoReturn:
        raise FormatError(
            f"field {slot} of the table at byte {self.position} must lie inside its "
            f"{self._length} bytes, got offset {self._offsets[slot]}"
        )
