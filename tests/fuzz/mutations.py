"""Ways to damage a frame: blind ones on its bytes, knowing ones on its tensors and its header.

Invariant: a mutation is a function of the random generator handed in; most results are
no frames any more, some are well-formed frames that say something else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz.header_mutations import CHANGES, Object

Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]
"""From a frame, a generator and the other frames to damaged bytes."""


def mutate(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Return `frame` damaged once, sometimes twice or three times."""
    for _ in range(rng.choice((1, 1, 1, 1, 2, 3))):
        frame = rng.choice(MUTATIONS)(frame, rng, others)
    return frame


def _flip_bits(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    data = bytearray(frame)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _set_byte(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    if not frame:
        return frame
    at = rng.randrange(len(frame))
    return frame[:at] + bytes([rng.randrange(256)]) + frame[at + 1 :]


def _cut(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    return frame[: rng.randrange(len(frame) + 1)]


def _extend(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    return frame + rng.randbytes(rng.choice((1, 4, 8, 64)))


def _move_span(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Leave a span out, or write it twice."""
    begin = rng.randrange(len(frame) + 1)
    end = min(len(frame), begin + rng.choice((1, 4, 8, 30)))
    return frame[:begin] + frame[begin:end] * rng.choice((0, 2)) + frame[end:]


def _splice(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return frame[: rng.randrange(len(frame) + 1)] + other[rng.randrange(len(other) + 1) :]


def _swap_payload(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    return frame[: _base(frame)] + other[_base(other) :]


def _header_length(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    size = int.from_bytes(frame[:8], "little")
    length = rng.choice(
        (0, 1, size - 1, size + 1, size + 8, len(frame), 65536, 65537, 1 << 32, (1 << 64) - 1)
    )
    return struct.pack("<Q", max(0, length) % (1 << 64)) + frame[8:]


def _payload(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Put a telling word over one in the tensors: NaN, infinities, extreme ids."""
    base = _base(frame)
    if len(frame) - base < 8:
        return frame
    at = base + rng.randrange((len(frame) - base) // 4) * 4
    word = rng.choice((b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\xff" * 8, bytes(8), b"\x01\0\0\0", b"\0\0\0\x80"))
    return frame[:at] + word[: len(frame) - at] + frame[at + len(word) :]


def _swap_words(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Exchange or repeat two words of eight bytes: ids out of order, or twice."""
    base = _base(frame)
    count = (len(frame) - base) // 8
    if count < 2:
        return frame
    first, second = (base + 8 * place for place in rng.sample(range(count), 2))
    data = bytearray(frame)
    data[first : first + 8] = frame[second : second + 8]
    if rng.random() < 0.5:
        data[second : second + 8] = frame[first : first + 8]
    return bytes(data)


def _on_header(change: Callable[[Object, Random], None]) -> Mutation:
    def mutation(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
        base = _base(frame)
        try:
            header = json.loads(frame[8:base])
        except (ValueError, RecursionError):
            return _flip_bits(frame, rng, others)  # damaged before
        if not isinstance(header, dict) or not header:
            return frame
        tree = Object.of(header)
        change(tree, rng)
        return _with_header(tree.text().encode("utf-8", "surrogatepass"), frame[base:])

    return mutation


def _encoding(frame: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Write the header in another encoding, with a byte that is none, or with more or less white space."""
    base = _base(frame)
    text = frame[8:base]
    draw = rng.random()
    if draw < 0.2:
        text = b"\xef\xbb\xbf" + text
    elif draw < 0.4:
        text = text.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-32", "utf-16-le")))
    elif draw < 0.6:
        at = rng.randrange(len(text) + 1)
        bad = rng.choice((b"\xff", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\x0b", b"\\"))
        text = text[:at] + bad + text[at:]
    elif draw < 0.8:
        text = text.replace(b":", b" :\t").replace(b",", b"\r\n, ")
    else:
        text += b" " * rng.choice((1, 7, 100, 65536, 70000))
    return _with_header(text, frame[base:])


def _with_header(text: bytes, payload: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + payload


def _base(frame: bytes) -> int:
    return min(len(frame), 8 + int.from_bytes(frame[:8], "little"))


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _set_byte,
    _cut,
    _extend,
    _move_span,
    _splice,
    _swap_payload,
    _header_length,
    _payload,
    _payload,
    _swap_words,
    _swap_words,
    _encoding,
    *map(_on_header, CHANGES),
)
