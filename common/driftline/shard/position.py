"""The position of a shard: everything about its past, apart from the rows, that decides its future.

Invariant: every field here follows from the log alone, so a replay of the same
prefix gives the same position. In Redis it is the hash `dl:{T:p}:w`, written in
the same transaction as the rows; on barrier frames it is JSON and tensors.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.errors import PositionError
from driftline.ids import lsn
from driftline.log.base import Record
from driftline.shard.spec import TableSpec

FIRST_GENERATION = 1  # so that no LSN is 0 and floor 0 means "never restored"
SCALARS = ("next", "gen", "fp", "mv", "op", "ord", "rows", "epoch", "floor", "prep", "time", "spec")


@dataclass(slots=True)
class Producer:
    """What a shard remembers of a producer."""

    epoch: int
    seq: int
    time: int  # log time of its last frame, ms


@dataclass(slots=True)
class Position:
    """Mutable position; `next` is the offset of the next record to apply."""

    next: int = 0
    gen: int = FIRST_GENERATION
    fp: str = ""  # fingerprint of record next - 1
    mv: int = 0  # machine version, 0 before the table's spec
    op: int = 0  # last op seen
    ord: int = 0  # next ordinal
    rows: int = 0  # live rows
    epoch: int = 0  # restores so far
    floor: int = 0  # LSN of the last restore
    prep: str = ""  # version being prepared, as JSON
    time: int = 0  # log time, ms
    spec: str = ""  # the table spec in force, as JSON
    producers: OrderedDict[bytes, Producer] = field(default_factory=OrderedDict)  # oldest first
    quarantined: dict[bytes, int] = field(default_factory=dict)  # producer -> op
    restored: OrderedDict[int, tuple[int, int]] = field(default_factory=OrderedDict)  # id -> LSN, time

    @property
    def lsn(self) -> int:
        """LSN of the next record."""
        return lsn(self.gen, self.next)

    def table_spec(self) -> TableSpec | None:
        """Return the spec in force, None before the first one."""
        return TableSpec.from_json(orjson.loads(self.spec)) if self.spec else None

    def fields(self) -> dict[bytes, bytes]:
        """Return the whole position as the fields of `w`."""
        named = {name.encode(): self.scalar(name) for name in SCALARS}
        return named | dict(self._members())

    def scalar(self, name: str) -> bytes:
        """Return a fixed field as it stands in `w`."""
        value = getattr(self, name)
        return (value if isinstance(value, str) else str(value)).encode()

    def _members(self) -> Iterator[tuple[bytes, bytes]]:
        for producer, seen in self.producers.items():
            yield b"p:" + producer, producer_value(seen)
        for producer, op in self.quarantined.items():
            yield b"q:" + producer, b"%d" % op
        for row, (at, time) in self.restored.items():
            yield b"r:%d" % row, b"%d,%d" % (at, time)

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Position:
        """Return the position in the fields of `w`; raises PositionError naming what is damaged."""
        position = cls()
        try:
            for name in SCALARS:
                text = fields[name.encode()].decode()
                setattr(position, name, text if isinstance(getattr(position, name), str) else int(text))
            known = [
                (key[2:], Producer(*map(int, value.split(b","))))
                for key, value in fields.items()
                if key[:2] == b"p:"
            ]
            known.sort(key=lambda item: item[1].time)
            position.producers.update(known)
            rows = [(int(key[2:]), _numbers(value)) for key, value in fields.items() if key.startswith(b"r:")]
            for row, (at, time) in sorted(rows, key=lambda item: item[1][1]):
                position.restored[row] = (at, time)
            for key, value in fields.items():
                if key.startswith(b"q:"):
                    position.quarantined[key[2:]] = int(value)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise PositionError(f"the stored position is damaged: {error!r}") from None
        return position

    def snapshot(self) -> tuple[dict[str, object], dict[str, NDArray[np.generic]]]:
        """Return the position as a barrier frame carries it: fixed fields, and members as tensors."""
        scalars: dict[str, object] = {name: getattr(self, name) for name in SCALARS}
        scalars["quarantined"] = {key.hex(): op for key, op in self.quarantined.items()}
        seen, rows = list(self.producers.values()), list(self.restored.items())
        names = np.frombuffer(b"".join(self.producers), np.uint8).reshape(-1, 16)
        tensors: dict[str, NDArray[np.generic]] = {
            "pname": names,
            "pepoch": np.array([item.epoch for item in seen], np.uint32),
            "pseq": np.array([item.seq for item in seen], np.uint64),
            "ptime": np.array([item.time for item in seen], np.uint64),
            "rid": np.array([row for row, _ in rows], np.uint64),
            "rlsn": np.array([at for _, (at, _) in rows], np.uint64),
            "rtime": np.array([time for _, (_, time) in rows], np.uint64),
        }
        return scalars, tensors


def producer_value(seen: Producer) -> bytes:
    """Return the value of a `p:` field of `w`."""
    return b"%d,%d,%d" % (seen.epoch, seen.seq, seen.time)


def fingerprint(record: Record) -> str:
    """Return what identifies a record of this log: a digest of its offset, time and bytes."""
    digest = hashlib.blake2b(record.value, digest_size=8)
    digest.update(b"%d,%d" % (record.offset, record.timestamp))
    return digest.hexdigest()


def _numbers(value: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in value.split(b","))
