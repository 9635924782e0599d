"""What a shard must be after each prefix of its log, by the oracle.

Invariant: moment n depends on the first n records alone. Records are judged once
and every moment is kept, so that a store that went back is judged as cheaply as
one that went on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from driftline.log.base import Record
from tests import oracle
from tests.oracle import Expected, Outcome, redis_image, wire
from tests.oracle.hashing import shard_of

_OFFSET = (1 << 48) - 1


def version_of(barrier: int) -> str:
    """Return the name of the version that is cut at a barrier op."""
    return f"V-S-1.{barrier}"


@dataclass(frozen=True, slots=True)
class Moment:
    """A shard after a prefix of its log."""

    table: Mapping[int, Expected]
    fields: Mapping[bytes, bytes]  # of `w`
    newest: Mapping[int, int]  # id -> LSN of its last change, deletes included
    image: tuple[Mapping[bytes, bytes], Mapping[bytes, bytes]]  # the hashes `v` and `s`


@dataclass(frozen=True, slots=True)
class Judged:
    """One record of the log and what became of it."""

    outcome: Outcome
    frame: wire.Frame | None  # None: undecodable, or nobody's

    @property
    def marker(self) -> bool:
        """Whether the record is an op that has to show on the updates topic."""
        frame = self.frame
        return (
            frame is not None
            and frame.kind in wire.OPS
            and frame.kind != "restore-rows"
            and (self.outcome.verdict == "applied" or self.outcome.reason in ("epoch", "absent"))
        )

    @property
    def restored(self) -> bool:
        """Whether the record put a version in the place of all rows."""
        return self.frame is not None and self.frame.kind == "restore" and self.outcome.verdict == "applied"


class Timeline:
    """The moments of one shard; `records` is the log itself and grows."""

    def __init__(self, shard: int, shards: int, records: Sequence[Record], keys: Mapping[str, bytes]) -> None:
        self._shard, self._shards = shard, shards
        self._oracle = oracle.Shard(shard, keys=keys, versions=self.restored_from)
        self._records = records
        self.judged: list[Judged] = []
        self._moments = [self._moment({}, {})]
        self._versions: dict[tuple[int, int], Expected] = {}

    def at(self, prefix: int) -> Moment:
        """Return the shard after `prefix` records."""
        assert prefix <= len(self._records), f"prefix {prefix} of a log of {len(self._records)} records"
        while len(self._moments) <= prefix:
            self._step()
        return self._moments[prefix]

    def stored(self, version: str) -> Moment | None:
        """Return the shard at the barrier that `version` was cut at; None: there is no such barrier yet."""
        while len(self.judged) < len(self._records):
            self._step()
        return self._cut(version)

    def _cut(self, version: str) -> Moment | None:
        for offset, judged in enumerate(self.judged):
            frame = judged.frame
            if frame and judged.marker and frame.kind == "barrier" and version_of(frame.seq) == version:
                return self._moments[offset + 1]
        return None

    def restored_from(self, body: Mapping[str, object]) -> Mapping[int, Expected]:
        """Return the rows that a restore puts in the place of all: those at the barrier of its version."""
        cut = self._cut(str(body["version"]))
        assert cut is not None, f"{body['version']} is cut before it is restored"
        return cut.table

    def version(self, row_id: int, at: int) -> Expected | None:
        """Return the one right row of `row_id` that was written at LSN `at`; None: there is none."""
        self.at((at & _OFFSET) + 1)
        return self._versions.get((row_id, at))

    def absent(self, row_id: int, at: int) -> bool:
        """Tell whether `row_id` is this shard's and is not there after the record at LSN `at`."""
        return (
            shard_of(row_id, self._shards) == self._shard and row_id not in self.at((at & _OFFSET) + 1).table
        )

    def _step(self) -> None:
        record, before = self._records[len(self.judged)], self._moments[-1]
        outcome = self._oracle.apply(record)
        try:
            frame = wire.decode(record.value)
        except wire.UndecodableError:
            frame = None
        self.judged.append(Judged(outcome, frame))
        table = self._oracle.table() if outcome.verdict == "applied" else before.table
        newest = before.newest
        if table is not before.table:
            at = 1 << 48 | record.offset
            if self.judged[-1].restored:
                newest = {row_id: row.lsn for row_id, row in table.items()}
            else:
                changed = {row_id: row for row_id, row in table.items() if row.lsn == at}
                self._versions.update({(row_id, at): row for row_id, row in changed.items()})
                gone = before.table.keys() - table.keys()
                newest = {**newest, **dict.fromkeys([*changed, *gone], at)}
        self._moments.append(self._moment(table, newest))

    def _moment(self, table: Mapping[int, Expected], newest: Mapping[int, int]) -> Moment:
        return Moment(table, self._oracle.position().fields(), newest, redis_image(table))
