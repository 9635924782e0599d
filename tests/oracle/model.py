"""What the oracle says: rows, positions and what became of a record.

Invariant: these are values; every bit that driftline must reproduce is in them,
floats as their little-endian float32 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self

from tests.oracle.f32 import F32, from_bytes, to_bytes

Verdict = Literal["applied", "no-op", "dead letter"]


class Record(Protocol):
    """What the oracle needs of a log record; `driftline.log.base.Record` has it."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def value(self) -> bytes: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Expected(NamedTuple):
    """One row as it must stand, bit by bit."""

    row: bytes
    state: bytes
    lsn: int
    ordinal: int


VersionRows = Callable[[Mapping[str, object]], Mapping[int, Expected]]
"""From the body of a matching `restore` to the rows of its version, on this shard."""


def no_versions(body: Mapping[str, object]) -> Mapping[int, Expected]:
    raise LookupError(f"a restore was applied, but this oracle was given no versions: {body}")


@dataclass(frozen=True, slots=True)
class Living:
    """One row while the oracle works on it; replaced as a whole, never in part."""

    row: tuple[F32, ...]
    state: tuple[F32, ...]
    lsn: int
    ordinal: int

    @classmethod
    def of(cls, expected: Expected) -> Self:
        return cls(from_bytes(expected.row), from_bytes(expected.state), expected.lsn, expected.ordinal)

    def expected(self) -> Expected:
        return Expected(to_bytes(self.row), to_bytes(self.state), self.lsn, self.ordinal)


class Sent(NamedTuple):
    """The last frame of a producer that used up a seq, and the log time of it."""

    epoch: int
    seq: int
    time: int


class Named(NamedTuple):
    """The restore-rows in force for an id, and the log time of that op."""

    lsn: int
    time: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record; ids are counted where only some of a frame were dropped."""

    verdict: Verdict
    reason: str = ""
    applied: int = 0
    stale: int = 0
    nonfinite: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """The from-the-log part of `w` (formats.md), except `fp`, whose function is no business of ours."""

    next: int
    gen: int
    mv: int
    op: int
    ord: int
    rows: int
    epoch: int
    floor: int
    prep: int
    time: int
    producers: Mapping[bytes, Sent]
    restored: Mapping[int, Named]
    quarantined: Mapping[bytes, int]

    def fields(self) -> dict[bytes, bytes]:
        """Return the fields of `w`, but for `fp`, `prep` and `spec`, whose text formats.md leaves open.

        Beyond formats.md, which forgets that both must outlive a restart: `r:<id>` = "lsn,time",
        because the entry ends with the ttl, and `q:<16 bytes>` = op, a producer shut out.
        """
        names = ("next", "gen", "mv", "op", "ord", "rows", "epoch", "floor", "time")
        found = {name.encode(): b"%d" % getattr(self, name) for name in names}
        for producer, sent in self.producers.items():
            found[b"p:" + producer] = b"%d,%d,%d" % sent
        for row_id, named in self.restored.items():
            found[b"r:%d" % row_id] = b"%d,%d" % named
        for producer, op in self.quarantined.items():
            found[b"q:" + producer] = b"%d" % op
        return found


INLINE_STATE = 16
"""architecture.md: the state is in the row's value "if <= 16 bytes", otherwise in a hash of its own."""


def redis_image(table: Mapping[int, Expected]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """Return the hashes `v` and `s` as Redis must hold them.

    architecture.md: "id (8 bytes LE) -> row (d x dtype) | lsn u64 | ordinal u32 | optimizer state
    if <= 16 bytes" and "id -> optimizer state, only where it is larger".
    """
    values: dict[bytes, bytes] = {}
    states: dict[bytes, bytes] = {}
    for row_id, (row, state, lsn, ordinal) in table.items():
        key = struct.pack("<Q", row_id)
        inline = len(state) <= INLINE_STATE
        values[key] = row + struct.pack("<QI", lsn, ordinal) + (state if inline else b"")
        if not inline:
            states[key] = state
    return values, states


def differences(expected: Mapping[int, Expected], actual: Mapping[int, Expected]) -> list[str]:
    """Name every id on which two tables differ, and by what; an empty list means equal to the bit."""
    found = []
    for row_id in sorted({*expected, *actual}):
        want, have = expected.get(row_id), actual.get(row_id)
        if want is None or have is None:
            found.append(f"id {row_id}: {'missing' if have is None else 'should not be there'}")
        elif want != have:
            parts = [n for n, a, b in zip(want._fields, want, have, strict=True) if a != b]
            found.append(f"id {row_id}: {', '.join(parts)} differ: {want} expected, {have} found")
    return found
