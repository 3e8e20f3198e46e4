# SPDX-License-Identifier: Apache-2.0
"""The flatbuffer cursor: values come back, and no offset leads out of the file."""

from __future__ import annotations

from struct import pack

import numpy as np
import pytest
from raw_flatbuffer import BOOL, FLOAT32, INT8, INT32, UINT64, flatbuffer

from npusim.errors import FormatError
from npusim.formats import flatbuffer as fb


def test_every_kind_of_field_comes_back() -> None:
    tree = {
        0: INT8(-5),
        1: BOOL(True),
        2: UINT64(2**63),
        3: FLOAT32(0.5),
        4: "text é",
        5: b"bytes",
        6: np.array([1, -2], np.int32),
        7: np.array([0.5, 0.25], np.float32),
        8: {1: INT32(7)},
        9: [{0: INT32(1)}, {0: INT32(2)}, {}],
    }
    table = fb.Buffer(flatbuffer(tree)).root()
    assert table.scalar(0, fb.INT8, 0) == -5
    assert table.scalar(1, fb.BOOL, False) is True
    assert table.scalar(2, fb.UINT64, 0) == 2**63
    assert table.scalar(3, fb.FLOAT32, 0.0) == 0.5
    assert table.string(4) == "text é"
    start, length = table.vector(5, 1)
    assert table.buffer.data[start : start + length] == b"bytes"
    assert table.numbers(6) == (1, -2)
    assert table.numbers(7, "f") == (0.5, 0.25)
    array = table.array(7, np.dtype("<f4"))
    assert array is not None
    assert array.tolist() == [0.5, 0.25]
    assert not array.flags.writeable
    inner = table.table(8)
    assert inner is not None
    assert inner.scalar(1, fb.INT32, 0) == 7
    assert [entry.scalar(0, fb.INT32, -1) for entry in table.tables(9)] == [1, 2, -1]


def test_absent_fields_give_defaults() -> None:
    table = fb.Buffer(flatbuffer({1: INT8(1)})).root()
    for slot in (0, 2, 15):
        assert table.scalar(slot, fb.INT32, 42) == 42
        assert table.string(slot) is None
        assert table.table(slot) is None
        assert table.numbers(slot) is None
        assert table.array(slot, np.dtype("<i4")) is None
        assert table.vector(slot, 1) == (0, 0)
        assert list(table.tables(slot)) == []


def file_of(vtable: tuple[int, ...], table: bytes, tail: bytes = b"") -> bytes:
    """Root offset, identifier, vtable of 16-bit words, table after its offset to the vtable."""
    words = pack(f"<{len(vtable)}H", *vtable)
    root = 8 + len(words)
    return pack("<I4s", root, b"TFL3") + words + pack("<i", len(words)) + table + tail


def test_hand_made_file_is_read() -> None:
    data = file_of((6, 8, 4), pack("<i", 99))
    assert fb.Buffer(data).root().scalar(0, fb.INT32, 0) == 99


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"offset of the root table must lie inside the file of 0 bytes"),
        (pack("<I4s", 0, b"TFL3"), r"offset at byte 0 must be in 1..4, got 0"),
        (pack("<I4s", 5, b"TFL3"), r"offset at byte 0 must be in 1..4, got 5"),
        (pack("<I4s", 2**32 - 1, b"TFL3"), r"must be in 1..4, got 4294967295"),
        (pack("<I4si", 8, b"TFL3", 9), r"vtable must lie inside .* got 4 bytes from byte -1"),
        (pack("<I4si", 8, b"TFL3", -1), r"vtable must lie inside .* got 4 bytes from byte 9"),
        (pack("<I4si", 8, b"TFL3", -(2**31)), r"vtable must lie inside the file of 12 bytes"),
        (file_of((3, 8, 4), b""), r"must have an even length of at least 4 .* got 3 and 8"),
        (file_of((5, 8, 4), b""), r"must have an even length of at least 4 .* got 5 and 8"),
        (file_of((6, 3, 4), b""), r"a table of at least 4 bytes, got 6 and 3"),
        (file_of((60000, 8, 4), b"\0\0\0\0"), r"vtable must lie inside .* got 60000 bytes from"),
        (file_of((6, 9, 4), b"\0\0\0\0"), r"table must lie inside .* got 9 bytes from byte 14"),
    ],
)
def test_broken_structure_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        fb.Buffer(data).root()


@pytest.mark.parametrize("offset", [1, 3, 8, 65535])
def test_field_that_starts_outside_its_table_is_refused(offset: int) -> None:
    data = file_of((6, 8, offset), b"\0\0\0\0")
    with pytest.raises(FormatError, match=rf"byte 8 must be at 4\.\.7, got {offset}"):
        fb.Buffer(data).root()


def test_field_that_ends_outside_its_table_is_refused() -> None:
    table = fb.Buffer(file_of((6, 8, 5), b"\0\0\0\0")).root()
    message = r"field 0 of the table at byte 14 must lie inside its 8 bytes, got offset 5"
    with pytest.raises(FormatError, match=message):
        table.scalar(0, fb.INT32, 0)
    with pytest.raises(FormatError, match=message):
        table.vector(0, 1)
    assert table.scalar(0, fb.INT8, 1) == 0


@pytest.mark.parametrize("length", [3, 2**16, 2**31, 2**32 - 1])
def test_vector_longer_than_the_file_is_refused(length: int) -> None:
    data = file_of((6, 8, 4), pack("<I", 4), pack("<I", length) + b"\0\0")
    table = fb.Buffer(data).root()
    message = rf"vector of {length} elements must lie inside the file of {len(data)} bytes"
    for read in (table.string, table.numbers, lambda slot: list(table.tables(slot))):
        with pytest.raises(FormatError, match=message):
            read(0)
    with pytest.raises(FormatError, match=message):
        table.array(0, np.dtype("<i8"))


def test_string_that_is_not_utf8_is_refused() -> None:
    table = fb.Buffer(flatbuffer({0: b"\xff\xfe"})).root()
    with pytest.raises(FormatError, match=r"string must be UTF-8, got b'\\xff\\xfe'"):
        table.string(0)


def test_reading_one_long_vector_again_and_again_is_refused() -> None:
    table = fb.Buffer(flatbuffer({0: np.zeros(50_000, np.int32)})).root()
    assert len({table.numbers(0) for _ in range(3)}) == 1
    with pytest.raises(FormatError, match=r"must not overlap, got more than 3 times its \d+ bytes"):
        table.numbers(0)
