"""The position of a shard: everything about its past, apart from the rows, that decides its future.

Invariant: every field here follows from the log alone, so a replay of the same
prefix gives the same position. In Redis it is the hash `dl:{T:p}:w`, written in
the same transaction as the rows; on barrier frames it is JSON and tensors. Members
(producers, quarantines, restored rows) are read and written by the column: there may
be hundreds of thousands, and a takeover waits for them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.errors import PositionError
from driftline.ids import lsn
from driftline.log.base import Record
from driftline.shard.decimals import parse
from driftline.shard.producers import NAME_BYTES, Columns, Producer, Producers
from driftline.shard.restored import Restored
from driftline.shard.spec import TableSpec

FIRST_GENERATION = 1  # so that no LSN is 0 and floor 0 means "never restored"
SCALARS = ("next", "gen", "fp", "mv", "op", "ord", "rows", "epoch", "floor", "prep", "time", "spec")


_PRODUCER, _QUARANTINE, _RESTORED = b"p:", b"q:", b"r:"


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
    producers: Producers = field(default_factory=Producers)
    quarantined: dict[bytes, int] = field(default_factory=dict)  # producer -> op
    restored: Restored = field(default_factory=Restored)

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
            yield _PRODUCER + producer, producer_value(seen)
        for producer, op in self.quarantined.items():
            yield _QUARANTINE + producer, b"%d" % op
        for row, (at, time) in self.restored.items():
            yield _RESTORED + b"%d" % row, b"%d,%d" % (at, time)

    @classmethod
    def from_fields(cls, fields: Mapping[bytes, bytes]) -> Position:
        """Return the position in the fields of `w`; raises PositionError naming what is damaged."""
        return cls.from_stored(StoredFields.of(list(fields), list(fields.values())))

    @classmethod
    def from_stored(cls, stored: StoredFields) -> Position:
        """Return the position in the fields of `w`; raises PositionError naming what is damaged."""
        position = cls()
        try:
            for name in SCALARS:
                text = stored.fixed[name.encode()].decode()
                setattr(position, name, text if isinstance(getattr(position, name), str) else int(text))
            names, values = stored.members(_PRODUCER)
            epochs, seqs, times = parse(values, 3)
            position.producers = Producers(Columns(_names(names), epochs, seqs, times))
            names, values = stored.members(_QUARANTINE)
            (ops,) = parse(values, 1)
            position.quarantined = dict(zip(map(bytes, _names(names)), ops.tolist(), strict=True))
            names, values = stored.members(_RESTORED)
            (ids,) = parse([name.removeprefix(_RESTORED) for name in names], 1)
            position.restored = Restored(ids, *parse(values, 2))
        except (KeyError, ValueError) as error:
            raise PositionError(f"the stored position is damaged: {error!r}") from None
        return position

    def snapshot(self) -> tuple[dict[str, object], dict[str, NDArray[np.generic]]]:
        """Return the position as a barrier frame carries it: fixed fields, and members as tensors.

        Members are in the order of names and ids: whoever makes the snapshot, it is the same to the bit.
        """
        scalars: dict[str, object] = {name: getattr(self, name) for name in SCALARS}
        producers, shut_out = self.producers.columns(), sorted(self.quarantined.items())
        tensors: dict[str, NDArray[np.generic]] = {
            "pname": producers.names,
            "pepoch": producers.epochs.astype(np.uint32),
            "pseq": producers.seqs,
            "ptime": producers.times,
            "qname": np.frombuffer(b"".join(name for name, _ in shut_out), np.uint8).reshape(-1, NAME_BYTES),
            "qop": np.array([op for _, op in shut_out], np.uint64),
            "rid": self.restored.ids,
            "rlsn": self.restored.lsns,
            "rtime": self.restored.times,
        }
        return scalars, tensors

    @classmethod
    def fixed(cls, scalars: Mapping[str, object]) -> Position:
        """Return the position of a snapshot without its members. Raises PositionError naming what lacks."""
        try:
            return cls(**{name: scalars[name] for name in SCALARS})  # type: ignore[arg-type]
        except KeyError as error:
            raise PositionError(f"the position in a version is damaged: {error!r}") from None

    @classmethod
    def from_snapshot(
        cls, scalars: Mapping[str, object], tensors: Mapping[str, NDArray[np.generic]]
    ) -> Position:
        """Return the position that `snapshot` gave. Raises PositionError naming what is damaged."""
        t, position = tensors, cls.fixed(scalars)
        try:
            epochs, seqs, times = (t[name].astype(np.uint64) for name in ("pepoch", "pseq", "ptime"))
            position.producers = Producers(Columns(t["pname"].astype(np.uint8), epochs, seqs, times))
            shut_out = zip(map(bytes, t["qname"].astype(np.uint8)), t["qop"].tolist(), strict=True)
            position.quarantined = dict(shut_out)
            ids, lsns, since = (t[name].astype(np.uint64) for name in ("rid", "rlsn", "rtime"))
            position.restored = Restored(ids, lsns, since)
        except (KeyError, ValueError) as error:
            raise PositionError(f"the position in a version is damaged: {error!r}") from None
        return position


@dataclass(frozen=True, slots=True)
class StoredFields:
    """The fields of `w` as they are read: those with fixed names, and members, which may be very many."""

    fixed: Mapping[bytes, bytes]
    names: Sequence[bytes]
    values: Sequence[bytes]
    kinds: NDArray[np.uint8]  # per name: its first letter where a colon follows, else 0

    @classmethod
    def of(cls, names: Sequence[bytes], values: Sequence[bytes]) -> StoredFields:
        """Return the fields `names`, which have `values`."""
        lengths = np.fromiter(map(len, names), np.intp, len(names))
        text = np.frombuffer(b"".join(names) + b"\0\0", np.uint8)
        begins = np.cumsum(lengths) - lengths
        kinds = np.where((lengths > 1) & (text[begins + 1] == ord(":")), text[begins], np.uint8(0))
        at = np.flatnonzero(kinds == 0).tolist()
        return cls({names[n]: values[n] for n in at}, names, values, kinds)

    def members(self, prefix: bytes) -> tuple[list[bytes], list[bytes]]:
        """Return the names and values of the fields with a prefix of a letter and a colon."""
        chosen = (self.kinds == prefix[0]).tolist()
        return list(compress(self.names, chosen)), list(compress(self.values, chosen))


def _names(names: Sequence[bytes]) -> NDArray[np.uint8]:
    """Return the names of producers in fields as (n, 16) bytes. Raises ValueError."""
    whole = 2 + NAME_BYTES
    if other := set(map(len, names)) - {whole}:
        raise ValueError(f"the name of a producer has {min(other) - 2} bytes, not {NAME_BYTES}")
    return np.ascontiguousarray(np.frombuffer(b"".join(names), np.uint8).reshape(-1, whole)[:, 2:])


def producer_value(seen: Producer) -> bytes:
    """Return the value of a `p:` field of `w`."""
    return b"%d,%d,%d" % (seen.epoch, seen.seq, seen.time)


def fingerprint(record: Record) -> str:
    """Return what identifies a record of this log: a digest of its offset, time and bytes."""
    digest = hashlib.blake2b(record.value, digest_size=8)
    digest.update(b"%d,%d" % (record.offset, record.timestamp))
    return digest.hexdigest()
