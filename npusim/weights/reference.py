# SPDX-License-Identifier: Apache-2.0
"""The weight stream in plain Python integers: slow, obvious, the definition of correct.

`decode` follows the format bit by bit; `emit` writes a stream from sections whose slices somebody
chose (`reference_encoders` chooses like Arm's encoders do). The kernels are held against these.

Source: [VELA] bitstream of mlw_codec and regor.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from npusim.weights import format as f


def fold(weight: int) -> int:
    """Folded value of a weight: 0, +1, -1, +2, -2 ... become 0, 2, 3, 4, 5 ..."""
    return 2 * abs(weight) + (weight < 0)


def unfold(folded: int) -> int:
    """Weight of a folded value; 1, minus zero, is 0."""
    return -(folded >> 1) if folded & 1 else folded >> 1


# --- decoding ---------------------------------------------------------------------------------


class BadStream(Exception):
    """What is wrong (one of `npusim.weights.status`) and at which bit."""

    def __init__(self, status: str, bit: int):
        super().__init__(status, bit)
        self.status = status
        self.bit = bit


class BitReader:
    """Fields of a stream, least significant bit first."""

    def __init__(self, stream: bytes):
        self.stream = stream
        self.end = 8 * len(stream)
        self.at = 0

    def take(self, n: int) -> int:
        """The next `n` bits as a number; BadStream where the stream ends before."""
        if self.at + n > self.end:
            raise BadStream("truncated", self.at)
        start, self.at = self.at, self.at + n
        around = int.from_bytes(self.stream[start >> 3 : (self.at + 7) >> 3], "little")
        return (around >> (start & 7)) & ((1 << n) - 1)


@dataclass
class SliceHeader:
    """One slice header with the palette in force."""

    bit: int
    zdiv: int
    n_weights: int
    wdiv: int
    wtrunc: int
    new_palette: int
    direct_offset: int = 0
    palette_bits: int = 2
    entries: list[int] = field(default_factory=list)

    @property
    def zero_runs(self) -> bool:
        """Whether runs of zeros are coded apart from the weights."""
        return self.zdiv != f.ZDIV_OFF

    @property
    def raw(self) -> bool:
        """Whether weight indices are plain numbers, without a unary part."""
        return self.wdiv == f.WDIV_RAW

    @property
    def index_bits(self) -> int:
        """Remainder bits of a weight index; all its bits in raw mode."""
        if not self.raw:
            return self.wdiv
        if self.entries:
            return (len(self.entries) - 1).bit_length()
        return self.palette_bits

    @property
    def chunk_weights(self) -> int:
        """Weight positions of a chunk; in raw mode, weights."""
        if self.raw and self.index_bits > f.RAW_NARROW_BITS:
            return f.CHUNK_WEIGHTS_RAW_WIDE
        return f.CHUNK_WEIGHTS

    @property
    def chunk_run_bits(self) -> int:
        """Bits of unary code in a chunk of zero runs."""
        return f.CHUNK_RUN_BITS_ZDIV3 if self.zdiv == f.ZDIV_MAX else f.CHUNK_RUN_BITS


def read_header(reader: BitReader, previous: SliceHeader | None) -> SliceHeader | None:
    """Next slice header, or None at an end marker; `previous` is None where none is in force."""
    start = reader.at
    zdiv = reader.take(f.ZDIV_FIELD_BITS)
    if zdiv == f.ZDIV_END:
        reader.at = -(-reader.at // 8) * 8
        return None
    if f.ZDIV_MAX < zdiv < f.ZDIV_OFF:
        raise BadStream("reserved_zdiv", start)
    n_weights = reader.take(f.SLICE_LEN_FIELD_BITS) + 1
    wdiv_at = reader.at
    wdiv = reader.take(f.WDIV_FIELD_BITS)
    if f.WDIV_MAX < wdiv < f.WDIV_RAW:
        raise BadStream("reserved_wdiv", wdiv_at)
    wtrunc = reader.take(1)
    header = SliceHeader(start, zdiv, n_weights, wdiv, wtrunc, reader.take(1))
    if header.new_palette:
        header.direct_offset = reader.take(f.DIRECT_OFFSET_FIELD_BITS)
        size = reader.take(f.PALETTE_SIZE_FIELD_BITS)
        header.palette_bits = reader.take(f.PALETTE_BITS_FIELD_BITS) + f.PALETTE_BITS_MIN
        if size:
            header.entries = [reader.take(header.palette_bits) for _ in range(size + 1)]
        return header
    if previous is None:
        raise BadStream("no_palette", start)
    if previous.zero_runs != header.zero_runs:
        raise BadStream("mode_change", start)
    header.direct_offset = previous.direct_offset
    header.palette_bits = previous.palette_bits
    header.entries = previous.entries
    return header


def read_slice(reader: BitReader, header: SliceHeader) -> tuple[list[int], list[int]]:
    """Weight indices and zero runs of the slice whose header was just read."""
    n_runs = header.n_weights + header.new_palette if header.zero_runs else 0
    quotients: list[int] = []  # of completed weight symbols
    indices: list[int] = []
    run_quotients: list[int] = []
    runs: list[int] = []
    quotient = run_quotient = 0
    while True:
        balance = len(quotients) - len(run_quotients) if header.zero_runs else 0
        weights_on = balance < f.BALANCE_MAX and len(quotients) < header.n_weights
        runs_on = header.zero_runs and balance >= 0 and len(run_quotients) < n_runs
        w_before, z_before = len(quotients), len(run_quotients)
        unary0_at = reader.at
        unary0 = reader.take(f.CHUNK_WEIGHTS) if weights_on and not header.raw else 0
        z_unary_at = reader.at
        z_unary = reader.take(header.chunk_run_bits) if runs_on else 0
        if weights_on and header.raw:
            new = min(header.chunk_weights, header.n_weights - len(quotients))
            quotients += [0] * new
        elif weights_on:
            for position in range(f.CHUNK_WEIGHTS):
                step = (unary0 >> position) & 1
                if step:
                    step += reader.take(1)
                if len(quotients) == header.n_weights:
                    if step:
                        raise BadStream("weight_padding", unary0_at)
                    continue
                quotient += step
                if quotient > f.QUOTIENT_MAX:
                    raise BadStream("quotient", unary0_at)
                if step < 2 or header.wtrunc:
                    quotients.append(quotient)
                    quotient = 0
        if runs_on:
            for position in range(header.chunk_run_bits):
                one = (z_unary >> position) & 1
                if len(run_quotients) == n_runs:
                    if one:
                        raise BadStream("run_padding", z_unary_at)
                elif one:
                    run_quotient += 1
                else:
                    run_quotients.append(run_quotient)
                    run_quotient = 0
        k = header.index_bits
        for i in range(len(indices), w_before):
            indices.append((quotients[i] << k) + reader.take(k))
        for i in range(len(runs), z_before):
            runs.append((run_quotients[i] << header.zdiv) + reader.take(header.zdiv))
        if not weights_on and not runs_on:
            return indices, runs


def index_weight(header: SliceHeader, index: int, bit: int) -> int:
    """Weight of a weight index under the palette in force."""
    size = len(header.entries)
    if index < size:
        return unfold(header.entries[index])
    folded = index - size + header.direct_offset
    if folded > f.FOLDED_MAX:
        raise BadStream("out_of_range", bit)
    return unfold(folded)


def decode(stream: bytes, max_weights: int) -> list[int]:
    """Weights of one or more concatenated streams.

    Raises:
        BadStream: the stream breaks the format, or holds more than `max_weights` weights.
    """
    reader = BitReader(stream)
    weights: list[int] = []
    header: SliceHeader | None = None
    while True:
        header = read_header(reader, header)
        if header is None:
            if reader.at == reader.end:
                return weights
            continue
        indices, runs = read_slice(reader, header)
        values = [index_weight(header, x, header.bit) for x in indices]
        if len(weights) + len(values) + sum(runs) > max_weights:
            raise BadStream("too_many", header.bit)
        if header.new_palette and header.zero_runs:
            weights += [0] * runs.pop(0)
        for i, value in enumerate(values):
            weights.append(value)
            if header.zero_runs:
                weights += [0] * runs[i]


# --- emitting ---------------------------------------------------------------------------------


@dataclass
class Palette:
    """How one section's weights become indices.

    `zero_index` is the index of a weight 0 that is coded directly: both of Arm's encoders send
    it as minus zero.
    """

    zero_runs: bool
    direct_offset: int
    palette_bits: int
    entries: list[int]
    only_palette: bool = True

    def index(self, weight: int) -> int:
        """Place in the palette, or what codes the weight directly."""
        folded = fold(weight)
        if folded in self.entries:
            return self.entries.index(folded)
        direct = folded if folded else f.MINUS_ZERO
        return direct + len(self.entries) - self.direct_offset

    @property
    def raw_bits(self) -> int | None:
        """Width of raw indices; None where raw is not allowed (palette and direct mixed)."""
        if not self.entries:
            return self.palette_bits
        return (len(self.entries) - 1).bit_length() if self.only_palette else None


@dataclass
class Slice:
    """A run of weights with one configuration: `wdiv` 0..5 or 7, `wtrunc`, `zdiv` 0..3."""

    n_weights: int
    wdiv: int
    wtrunc: int
    zdiv: int


@dataclass
class Section:
    """Weights under one palette: `indices` in order, `runs` [len(indices) + 1] of zeros."""

    palette: Palette
    indices: list[int]
    runs: list[int]
    slices: list[Slice]


def split_runs(values: list[int]) -> tuple[list[int], list[int]]:
    """Non-zero weights and the zeros before, between and after them.

    An all-zero section codes its first zero as a weight: a slice cannot be empty.
    """
    if not any(values):
        return [0], [0, len(values) - 1]
    weights: list[int] = []
    runs = [0]
    for value in values:
        if value:
            weights.append(value)
            runs.append(0)
        else:
            runs[-1] += 1
    return weights, runs


class BitWriter:
    """Fields of a stream, least significant bit first."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def put(self, n: int, value: int) -> None:
        """Write `value` in `n` bits."""
        assert 0 <= value < 1 << n, (n, value)
        self.bits += [(value >> i) & 1 for i in range(n)]


def quotient_steps(quotient: int, wtrunc: int) -> list[int]:
    """Unary positions (0, 1 or 2 each) of a weight symbol's quotient."""
    if wtrunc:
        assert quotient <= f.QUOTIENT_TRUNC_MAX
        return [quotient]
    assert quotient <= f.QUOTIENT_MAX
    return [2] * (quotient >> 1) + [quotient & 1]


def emit_slice(
    out: BitWriter, palette: Palette, part: Slice, indices: list[int], runs: list[int], new: bool
) -> None:
    """Write one slice: header, palette header if `new`, chunks."""
    zdiv = part.zdiv if palette.zero_runs else f.ZDIV_OFF
    out.put(f.ZDIV_FIELD_BITS, zdiv)
    out.put(f.SLICE_LEN_FIELD_BITS, part.n_weights - 1)
    out.put(f.WDIV_FIELD_BITS, part.wdiv)
    out.put(1, part.wtrunc)
    out.put(1, int(new))
    if new:
        out.put(f.DIRECT_OFFSET_FIELD_BITS, palette.direct_offset)
        out.put(f.PALETTE_SIZE_FIELD_BITS, max(len(palette.entries) - 1, 0))
        out.put(f.PALETTE_BITS_FIELD_BITS, palette.palette_bits - f.PALETTE_BITS_MIN)
        for entry in palette.entries:
            out.put(palette.palette_bits, entry)
    header = SliceHeader(0, zdiv, part.n_weights, part.wdiv, part.wtrunc, int(new))
    header.palette_bits, header.entries = palette.palette_bits, palette.entries
    k = header.index_bits
    steps: list[tuple[int, bool]] = []  # unary position, is the symbol's last
    for x in indices:
        symbol = [0] if header.raw else quotient_steps(x >> k, part.wtrunc)
        steps += [(step, i == len(symbol) - 1) for i, step in enumerate(symbol)]
    ones: list[int] = []  # unary bits of the runs
    for run in runs:
        ones += [1] * (run >> zdiv) + [0]
    at = z_at = 0  # unary positions and bits that are written
    w_done = z_done = 0
    w_sent = z_sent = 0  # symbols whose remainders are written
    while True:
        balance = w_done - z_done if palette.zero_runs else 0
        weights_on = balance < f.BALANCE_MAX and w_done < len(indices)
        runs_on = palette.zero_runs and balance >= 0 and z_done < len(runs)
        chunk = steps[at : at + header.chunk_weights] if weights_on else []
        z_chunk = ones[z_at : z_at + header.chunk_run_bits] if runs_on else []
        at, z_at = at + len(chunk), z_at + len(z_chunk)
        if weights_on and not header.raw:
            out.bits += [int(step > 0) for step, _ in chunk] + [0] * (f.CHUNK_WEIGHTS - len(chunk))
        if runs_on:
            out.bits += z_chunk + [0] * (header.chunk_run_bits - len(z_chunk))
        out.bits += [step - 1 for step, _ in chunk if step and not header.raw]
        for x in indices[w_sent:w_done]:
            out.put(k, x & ((1 << k) - 1))
        for run in runs[z_sent:z_done]:
            out.put(zdiv, run & ((1 << zdiv) - 1))
        w_sent, z_sent = w_done, z_done
        w_done += sum(last for _, last in chunk)
        z_done += sum(one == 0 for one in z_chunk)
        if not weights_on and not runs_on:
            return


def emit(sections: list[Section]) -> bytes:
    """Stream of the sections, with its end marker."""
    out = BitWriter()
    for section in sections:
        at = 0
        for part in section.slices:
            new = at == 0
            end = at + part.n_weights
            runs = section.runs[at + (not new) : end + 1] if section.palette.zero_runs else []
            emit_slice(out, section.palette, part, section.indices[at:end], runs, new)
            at = end
        assert at == len(section.indices)
    out.put(f.ZDIV_FIELD_BITS, f.ZDIV_END)
    unit = 8 * f.STREAM_ALIGN_BYTES
    out.bits += [1] * (-len(out.bits) % unit)
    value = int("".join(map(str, reversed(out.bits))), base=2)
    return value.to_bytes(len(out.bits) // 8, "little")
