"""Ways to damage a frame: blind ones on its bytes, knowing ones on its header and its tensors.

Invariant: a mutation is a function of the random generator handed in; most results are
no frames any more, some are well-formed frames that say something else.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

Mutation = Callable[[bytes, Random, Sequence[bytes]], bytes]
"""From a frame, a generator and the other frames to damaged bytes."""

_VALUES = (
    "0", "-0", "1", "-1", "1.0", "1e0", "1e999", "-1e999", "007", "+1", "0x10", ".5", "5.",
    "4294967295", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "18446744073709551616", "9" * 400, "9" * 5000, "NaN", "Infinity", "-Infinity", "true", "false", "null",
    '""', '"x"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\u0000"',
    '"\x01"', '"\\x"', '"\u00e9"',
    "[]", "[[]]", "{}", '{"a":1,"a":2}', "[1,]", "[0,0]", "[0]", "[1]", "[2]", "[2,2]", "[0,4294967295]",
    "[4294967296,4294967296]", "[4294967295,4294967295]", "[9223372036854775808,2]", "[0,0,0]", "[1,1,1,1]",
    "[true,false]", "[-1,-1]", "[1.0,2]", "[null]", "[0,8]", "[8,0]", "[0,18446744073709551616]",
    "[" * 500 + "]" * 500, "[" * 1020 + "]" * 1020, "[" * 20000, '{"a":' * 3000, "/* */ 1", "'x'",
)  # fmt: skip
_METADATA = {
    "type": ("gradient", "upsert", "delete", "spec", "barrier", "restore-rows", "state", "Gradient", "", "x"),
    "schema": ("1", "2", "01", "", "1.0", "9"),
    "table": ("t", "u", "", "t\\u0000", "\\u0074"),
    "shard": ("0", "1", "2", "-1", "4294967295", "4294967296", "01", "1e0", "1.0", " 1", "\u0661"),
    "producer": ("00" * 16, "AB" * 16, "00" * 15, "00" * 17, "0 " * 16, "zz" * 16, "", "00 " * 10 + "00"),
    "producer_epoch": ("0", "1", "4294967295", "4294967296", "-1", ""),
    "seq": ("0", "1", "18446744073709551615", "18446744073709551616", "9" * 30, "1_0", "+1", "\u00b2", ""),
    "read_pos": ("0", "281474976710656", "18446744073709551615", "18446744073709551616", "x", ""),
    "lr": (
        "3f800000",
        "00000000",
        "80000000",
        "7f800000",
        "7fc00000",
        "ff800000",
        "3f 80 00",
        "3F800000",
        "",
    ),
    "op": ("0", "1", "2", "18446744073709551616", "x"),
    "body": (
        "{}",
        "[]",
        "",
        "{",
        '{\\"a\\":NaN}',
        '{\\"a\\":1,\\"a\\":2}',
        '{\\"from_epoch\\":7}',
        "[" * 30000,
    ),
    "position": ("{}", "[]", "null", "1"),
}
_KEYS = ('"ids"', '"grads"', '"rows"', '"state"', '"__metadata__"', '"\\u0069ds"', '"dtype"', '"x"', '""')
_DTYPES = ('"U8"', '"U32"', '"U64"', '"F16"', '"BF16"', '"F32"', '"F64"', '"I64"', '"f32"', '"BOOL"', "null")


@dataclass(slots=True)
class Object:
    """A JSON object as written: names and values in order, repeats and all; leaves are JSON text."""

    pairs: list[tuple[str, Object | str]] = field(default_factory=list)

    @classmethod
    def of(cls, value: dict[str, object]) -> Object:
        return cls([(json.dumps(name), _tree(item)) for name, item in value.items()])

    def text(self) -> str:
        parts = (f"{name}:{item if isinstance(item, str) else item.text()}" for name, item in self.pairs)
        return "{" + ",".join(parts) + "}"

    def objects(self) -> list[Object]:
        """Return this object and all inside it."""
        inner = [item.objects() for _, item in self.pairs if isinstance(item, Object)]
        return [self, *(each for group in inner for each in group)]


def _tree(value: object) -> Object | str:
    return Object.of(value) if isinstance(value, dict) else json.dumps(value)


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


def _repeat_name(header: Object, rng: Random) -> None:
    target = rng.choice([each for each in header.objects() if each.pairs])
    name, value = rng.choice(target.pairs)
    second = value if rng.random() < 0.5 else rng.choice(_VALUES)
    if rng.random() < 0.3:  # the same name in other letters
        name = f'"\\u{ord(name[1]):04x}{name[2:]}' if len(name) > 2 and name[1] != "\\" else name
    target.pairs.insert(rng.randrange(len(target.pairs) + 1), (name, second))


def _drop_name(header: Object, rng: Random) -> None:
    target = rng.choice([each for each in header.objects() if each.pairs])
    del target.pairs[rng.randrange(len(target.pairs))]


def _other_name(header: Object, rng: Random) -> None:
    target = rng.choice([each for each in header.objects() if each.pairs])
    place = rng.randrange(len(target.pairs))
    target.pairs[place] = (rng.choice(_KEYS), target.pairs[place][1])


def _other_value(header: Object, rng: Random) -> None:
    target = rng.choice([each for each in header.objects() if each.pairs])
    place = rng.randrange(len(target.pairs))
    target.pairs[place] = (target.pairs[place][0], rng.choice(_VALUES))


def _more_names(header: Object, rng: Random) -> None:
    for number in range(rng.choice((1, 13, 14, 20, 2000))):
        kind = rng.choice(_DTYPES)
        end = '"shape":[0],"data_offsets":[0,0]'
        header.pairs.append((f'"more{number}"', f'{{"dtype":{kind},{end}}}'))


def _metadata_value(header: Object, rng: Random) -> None:
    for name, value in header.pairs:
        if name == '"__metadata__"' and isinstance(value, Object):
            key = rng.choice(list(_METADATA))
            text = f'"{rng.choice(_METADATA[key])}"'
            places = [place for place, pair in enumerate(value.pairs) if pair[0] == f'"{key}"']
            if places:
                value.pairs[places[0]] = (f'"{key}"', text)
            else:
                value.pairs.append((f'"{key}"', text))


def _tensor_entry(header: Object, rng: Random) -> None:
    """Shift, stretch, overlap or relabel a tensor, now and then so that the sums still come out."""
    entries = [
        value for name, value in header.pairs if name != '"__metadata__"' and isinstance(value, Object)
    ]
    if not entries:
        return
    entry = rng.choice(entries)
    for place, (name, value) in enumerate(entry.pairs):
        if name == '"dtype"' and rng.random() < 0.4:
            entry.pairs[place] = (name, rng.choice(_DTYPES))
        elif (name == '"shape"' and rng.random() < 0.4 and isinstance(value, str)) or (
            name == '"data_offsets"' and rng.random() < 0.4 and isinstance(value, str)
        ):
            entry.pairs[place] = (name, _other_numbers(value, rng))


def _other_numbers(text: str, rng: Random) -> str:
    try:
        numbers = json.loads(text)
    except (ValueError, RecursionError):  # damaged before
        return text
    if not isinstance(numbers, list) or not numbers or not all(type(number) is int for number in numbers):
        return text
    draw, place = rng.random(), rng.randrange(len(numbers))
    if draw < 0.3:
        numbers[place] += rng.choice((-8, -4, -1, 1, 4, 8, 1 << 32, 1 << 63))
    elif draw < 0.5:
        numbers.reverse()
    elif draw < 0.6:
        numbers.append(rng.choice((0, 1, 2)))
    elif draw < 0.7:
        numbers.pop()
    elif draw < 0.85:
        numbers = [number + rng.choice((8, -8, 4)) for number in numbers]
    else:
        numbers[place] = rng.choice((0, (1 << 32) - 1, 1 << 32, 1 << 64, -1))
    return json.dumps(numbers)


def _order(header: Object, rng: Random) -> None:
    rng.shuffle(rng.choice(header.objects()).pairs)


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
    *map(
        _on_header,
        (
            _repeat_name,
            _drop_name,
            _other_name,
            _other_value,
            _more_names,
            _metadata_value,
            _metadata_value,
            _tensor_entry,
            _tensor_entry,
            _order,
        ),
    ),
)
