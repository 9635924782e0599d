"""Knowing ways to damage a frame's header: names twice, other values, shapes and offsets that do not fit.

Invariant: a change is a function of the random generator handed in, and what it leaves is written
out as JSON text by `Object`, repeats and nonsense included, never by a JSON library.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

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


CHANGES: tuple[Callable[[Object, Random], None], ...] = (
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
)
