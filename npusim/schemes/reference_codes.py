# SPDX-License-Identifier: Apache-2.0
"""The kernels of entropy codes and bit planes in plain Python integers (more in `reference`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from npusim.schemes.reference import put_fields, take_fields

# --- Huffman codes ----------------------------------------------------------------------------


def code_lengths(counts: Sequence[int], length_max: int) -> list[int]:
    """Lengths of the best code words of at most `length_max` bits, by package-merge.

    Counts rise; where a symbol and a package weigh the same, the symbol comes first.
    """
    symbols = [(count, [number]) for number, count in enumerate(counts)]
    row = symbols
    for _ in range(length_max - 1):
        pairs = [
            (row[i][0] + row[i + 1][0], row[i][1] + row[i + 1][1])
            for i in range(0, len(row) - 1, 2)
        ]
        row = sorted(symbols + pairs, key=lambda item: item[0])
    lengths = [0] * len(counts)
    for _, members in row[: 2 * len(counts) - 2]:
        for member in members:
            lengths[member] += 1
    return lengths


def canonical_words(lengths: Sequence[int]) -> list[str]:
    """Code words of the symbols that have a length, by length and then by symbol."""
    words = [""] * len(lengths)
    word = before = 0
    for length, symbol in sorted((n, s) for s, n in enumerate(lengths) if n):
        word <<= length - before
        words[symbol], before = f"{word:0{length}b}", length
        word += 1
    return words


def take_codes(bits: str, at: int, words: Sequence[str], n: int) -> tuple[list[int], int]:
    """`n` symbols whose code words follow one another from bit `at` on, and the bit after them."""
    symbols = []
    for _ in range(n):
        symbol = next(s for s, word in enumerate(words) if word and bits.startswith(word, at))
        symbols.append(symbol)
        at += len(words[symbol])
    return symbols, at


# --- asymmetric numeral systems ---------------------------------------------------------------


def put_symbols(
    symbols: Sequence[int], counts: Sequence[int], precision: int, lanes: int
) -> tuple[list[int], list[int]]:
    """States at the beginning of decoding, and the words in the order they are read."""
    starts = [sum(counts[:symbol]) for symbol in range(len(counts))]
    states, words = [1 << 16] * lanes, []
    for i in reversed(range(len(symbols))):
        count, x = counts[symbols[i]], states[i % lanes]
        if x >= count << 32 - precision:
            words.append(x & 0xFFFF)
            x >>= 16
        quotient, rest = divmod(x, count)
        states[i % lanes] = (quotient << precision) + rest + starts[symbols[i]]
    return states, words[::-1]


def take_symbols(
    states: Sequence[int], words: Sequence[int], counts: Sequence[int], precision: int, n: int
) -> tuple[list[int], list[int]]:
    """`n` symbols, and the states after them."""
    starts = [sum(counts[:symbol]) for symbol in range(len(counts))]
    states, left, symbols = list(states), list(words), []
    for i in range(n):
        x = states[i % len(states)]
        slot = x % (1 << precision)
        symbol = max(s for s, start in enumerate(starts) if counts[s] and start <= slot)
        symbols.append(symbol)
        x = counts[symbol] * (x >> precision) + slot - starts[symbol]
        states[i % len(states)] = x if x >= 1 << 16 else x << 16 | left.pop(0)
    return symbols, states


# --- binary arithmetic coding -----------------------------------------------------------------

_LEAST_SPAN = 1 << 40


class IntervalEncoder:
    """The coder with its whole interval in one integer: nothing is ever carried."""

    def __init__(self) -> None:
        self.low, self.span, self.n_bytes = 0, 1 << 48, 0

    def put(self, bin_: int, probability: int) -> None:
        """Narrow the interval to its lower part for a one, to the upper one for a zero."""
        bound = (self.span >> 16) * probability
        self.low, self.span = (self.low, bound) if bin_ else (self.low + bound, self.span - bound)
        while self.span < _LEAST_SPAN:
            self.low, self.span, self.n_bytes = self.low << 8, self.span << 8, self.n_bytes + 1

    def to_bytes(self) -> bytes:
        """Bytes that lie in the interval whatever follows them."""
        return (-(-self.low // (1 << 32))).to_bytes(self.n_bytes + 2, "big")


class IntervalDecoder:
    """Reads what `IntervalEncoder` wrote: the stream less the interval's beginning."""

    def __init__(self, data: bytes):
        self.data = data + bytes(4)
        self.code = int.from_bytes(self.data[:6].ljust(6, b"\0"), "big")
        self.span, self.used = 1 << 48, 6

    def take(self, probability: int) -> int:
        """The next bin."""
        bound = (self.span >> 16) * probability
        bin_ = int(self.code < bound)
        self.code, self.span = (
            (self.code, bound) if bin_ else (self.code - bound, self.span - bound)
        )
        while self.span < _LEAST_SPAN:
            byte = self.data[self.used] if self.used < len(self.data) else 0
            self.code, self.span = self.code << 8 | byte, self.span << 8
            self.used += 1
        return bin_


def put_mask(values: Sequence[int], probability: int) -> bytes:
    """The mask of the non-zeros, each of this probability."""
    encoder = IntervalEncoder()
    for value in values:
        encoder.put(int(value != 0), probability)
    return encoder.to_bytes()


def take_mask(data: bytes, probability: int, n: int) -> tuple[list[int], int]:
    """`n` places of a mask, and the bytes that are its own."""
    decoder = IntervalDecoder(data)
    return [decoder.take(probability) for _ in range(n)], decoder.used - 4


class _Contexts:
    """Probabilities by name of context."""

    def __init__(self, memory: int):
        self.memory = memory
        self.probabilities: dict[object, int] = {}
        self.seen: dict[object, int] = {}

    def probability(self, context: object) -> int:
        return self.probabilities.get(context, 32768)

    def learn(self, context: object, bin_: int) -> None:
        first = 6 if isinstance(context, tuple) and context[0] == "bit" else 0
        seen = self.seen.get(context, min(first, self.memory - 1))
        share = int(65536 / (seen + 1.5))
        before = self.probability(context)
        after = before + ((bin_ << 16) - before) * share // 65536
        self.probabilities[context] = min(max(after, 32), 65536 - 32)
        self.seen[context] = min(seen + 1, self.memory - 1)


def _walk(
    bin_of: Callable[[object, int], int], value: int, before: int, earlier: int
) -> Iterator[int]:
    """Goes through the bins of a weight: of each, `bin_of` is asked with context and true bin.

    Yields the weight that the answers make; `value` only serves to know the true bins.
    """
    magnitude = abs(value)
    if not bin_of(("zero", (before > 0) + (earlier > 0)), int(value != 0)):
        yield 0
        return
    negative = bin_of("sign", int(value < 0))
    size = min(2, (before + earlier) // 4)
    length = 1
    while length < 8 and bin_of(("length", size, length), int(magnitude.bit_length() > length)):
        length += 1
    found = 1
    for bit in reversed(range(length - 1)):
        found = found << 1 | bin_of(("bit", length, found), magnitude >> bit & 1)
    yield -found if negative else found


def put_values(values: Sequence[int], memory: int) -> bytes:
    """Weights as bins with contexts."""
    encoder, contexts = IntervalEncoder(), _Contexts(memory)

    def put(context: object, bin_: int) -> int:
        encoder.put(bin_, contexts.probability(context))
        contexts.learn(context, bin_)
        return bin_

    before = earlier = 0
    for value in values:
        assert next(_walk(put, value, before, earlier)) == value
        before, earlier = abs(value).bit_length(), before
    return encoder.to_bytes()


def take_values(data: bytes, memory: int, n: int) -> tuple[list[int], int]:
    """`n` weights, and the bytes that are theirs."""
    decoder, contexts = IntervalDecoder(data), _Contexts(memory)

    def take(context: object, _: int) -> int:
        bin_ = decoder.take(contexts.probability(context))
        contexts.learn(context, bin_)
        return bin_

    values: list[int] = []
    before = earlier = 0
    for _ in range(n):
        values.append(next(_walk(take, 0, before, earlier)))
        before, earlier = abs(values[-1]).bit_length(), before
    return values, decoder.used - 4


# --- bit planes -------------------------------------------------------------------------------


def put_block(words: Sequence[int], bits: int, run_bits: int) -> str:
    """Eight words: the first as it is, then its planes of differences."""
    differences = [after - word for word, after in pairwise(words)]
    planes = [
        "".join(str(difference >> plane & 1) for difference in differences)
        for plane in reversed(range(bits + 1))
    ]
    out = put_fields([words[0] % (1 << bits)], [bits])
    above, zeros = "0" * 7, 0
    for plane in [*planes, None]:
        if plane == above:
            zeros += 1
            continue
        if zeros:
            out += "001" if zeros == 1 else "01" + put_fields([zeros - 2], [run_bits])
            zeros = 0
        if plane is not None:
            out += _plane_code(plane, above)
            above = plane
    return out


def _plane_code(plane: str, above: str) -> str:
    changed = "".join(str(int(a != b)) for a, b in zip(plane, above, strict=True))
    place = changed.index("1")
    if changed == "1" * 7:
        return "00000"
    if plane == "0" * 7:
        return "00001"
    if changed.count("1") == 2 and changed[place + 1] == "1":
        return "00010" + put_fields([place], [3])
    if changed.count("1") == 1:
        return "00011" + put_fields([place], [3])
    return "1" + changed


def take_block(text: str, at: int, bits: int, run_bits: int) -> tuple[list[int], int]:
    """Eight words from bit `at` on, and the bit after them."""
    first = take_fields(text, at, bits, 1)[0]
    at += bits
    planes: list[str] = []
    above = "0" * 7
    while len(planes) < bits + 1:
        if text[at] == "1":
            changed, at = text[at + 1 : at + 8], at + 8
        elif text[at + 1] == "1":
            planes += [above] * (take_fields(text, at + 2, run_bits, 1)[0] + 2)
            at += 2 + run_bits
            continue
        elif text[at + 2] == "1":
            planes.append(above)
            at += 3
            continue
        else:
            kind = text[at + 3 : at + 5]
            place = take_fields(text, at + 5, 3, 1)[0]
            changed = {
                "00": "1" * 7,
                "01": above,
                "10": "".join(str(int(i in (place, place + 1))) for i in range(7)),
                "11": "".join(str(int(i == place)) for i in range(7)),
            }[kind]
            at += 5 if kind[0] == "0" else 8
        above = "".join(str(int(a != b)) for a, b in zip(changed, above, strict=True))
        planes.append(above)
    words = [first - (first >> (bits - 1) << bits)]
    for i in range(7):
        difference = int("".join(plane[i] for plane in planes), 2)
        words.append(words[-1] + difference - (difference >> bits << bits + 1))
    return words, at


def put_zeros(values: Sequence[int], run_bits: int) -> str:
    """A one for each non-zero, a zero and a number for up to ``1 << run_bits`` zeros."""
    out, run = "", 0
    for value in [*values, None]:
        if value == 0 and run < 1 << run_bits:
            run += 1
            continue
        if run:
            out += "0" + put_fields([run - 1], [run_bits])
        run = 1 if value == 0 else 0
        out += "1" if value else ""
    return out
