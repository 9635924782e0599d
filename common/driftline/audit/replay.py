"""Replays a shard's log through the core and compares a scan with it, bit for bit.

Method (`X1`, `X2`: positions before and after the scan): replay to X1; the
position and all rows with an LSN below X1 must match. Then record by record to
X2: each other row must match where its LSN falls. A row alive at X1 that the scan
did not see must have been deleted in between.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from driftline.audit.scan import Fields, ShardScan
from driftline.audit.starting import Start
from driftline.audit.verdict import SHOWN, Difference, ShardAudit
from driftline.frames.headers import Keyring
from driftline.frames.states import TOMBSTONE, States
from driftline.ids import OFFSET_MASK
from driftline.log import Record
from driftline.shard.cache import RowBlock
from driftline.shard.machine import Shard
from driftline.shard.position import Position
from driftline.shard.restore import LoadVersion


class Replay:
    """The table as the log says, and what the scan says otherwise."""

    def __init__(
        self,
        table: str,
        shard: int,
        keyring: Keyring,
        scan: ShardScan,
        versions: LoadVersion | None = None,
        start: Start | None = None,
    ) -> None:
        begin = start or Start(Position())
        self._shard, self._versions = Shard(table, shard, keyring, begin.position), versions
        for block in begin.blocks():
            self._shard.cache.enter(block)
        self._start = begin.words
        self._scan = scan
        self._index = shard
        self._differences: list[Difference] = []
        self._found = 0
        self._records = 0
        self._first, self._last = scan.begin, scan.end
        self._pending = np.argsort(scan.rows.lsn, kind="stable")
        self._unseen = np.empty(0, np.uint64)
        self._compared_begin = False

    @property
    def next(self) -> int:
        """Offset of the next record to feed."""
        return self._shard.position.next

    @property
    def end(self) -> int:
        """Offset behind the last record needed."""
        return self._last.next

    def feed(self, records: Sequence[Record]) -> None:
        """Replay `records`, which follow those fed before; compares at X1 and behind it."""
        bulk = [record for record in records if record.offset < self._first.next]
        if bulk:
            self._advance(bulk)
        if self.next == self._first.next and len(bulk) < len(records):
            self.reach_begin()
        for record in records[len(bulk) :]:
            if record.offset >= self.end:
                break
            self._advance([record])
            self._compare_due()
            self._forget_deleted()

    def reach_begin(self) -> None:
        """Compare position and rows at X1; feeding calls it, an empty window needs it called."""
        if self._compared_begin:
            return
        self._compared_begin = True
        self._compare_position(self._scan.before)
        self._compare_due()
        alive = self._shard.cache.alive[: self._shard.cache.used]
        live = self._shard.cache.ids[: self._shard.cache.used][alive]
        self._unseen = live[~np.isin(live, self._scan.rows.ids)]

    def verdict(self) -> ShardAudit:
        """Return the audit once everything up to `end` was fed."""
        self.reach_begin()
        self._compare_position(self._scan.after)
        for row in self._unseen.tolist():
            self._note(f"row {row}", "absent", "alive")
        for at in self._pending.tolist():
            self._note(f"row {self._scan.rows.ids[at]}", f"lsn {self._scan.rows.lsn[at]}", "a past event")
        compared = len(self._scan.rows.ids)
        return ShardAudit(
            self._index, self._records, compared, tuple(self._differences), self._found, start=self._start
        )

    def _advance(self, records: Sequence[Record]) -> None:
        shard, rest = self._shard, records
        while rest:
            plan = shard.screen(rest)
            shard.apply(plan, None)
            if plan.op is not None:
                version = None
                if self._versions is not None and shard.restores(plan.op):
                    version = self._versions(plan.op.op.body, shard.table, shard.shard)
                shard.apply_op(plan.op, version)
            rest = rest[plan.consumed :]
        self._records += len(records)

    def _compare_due(self) -> None:
        """Compare the scanned rows whose last event has been replayed."""
        rows, limit = self._scan.rows, self._shard.position.lsn
        due = int(np.searchsorted(rows.lsn[self._pending], np.uint64(limit)))
        if due:
            at, self._pending = self._pending[:due], self._pending[due:]
            self._compare_rows(rows, at)

    def _compare_rows(self, rows: RowBlock, at: NDArray[np.intp]) -> None:
        expected = self._shard.states_of(rows.ids[at])
        same = (
            (expected.lsn == rows.lsn[at])
            & (expected.ordinals == rows.ordinals[at])
            & ((expected.flags & TOMBSTONE) == 0)
            & _same_bits(expected.rows, rows.rows[at])
            & _same_bits(expected.state, rows.state[at])
        )
        for place in np.flatnonzero(~same).tolist():
            self._note_row(rows, int(at[place]), expected, place)

    def _note_row(self, rows: RowBlock, at: int, expected: States, place: int) -> None:
        stored = f"lsn {_offset(rows.lsn[at])} ordinal {rows.ordinals[at]} {rows.rows[at][:4]}"
        if expected.flags[place] & TOMBSTONE:
            wanted = "absent"
        else:
            at_lsn, ordinal = _offset(expected.lsn[place]), expected.ordinals[place]
            wanted = f"lsn {at_lsn} ordinal {ordinal} {expected.rows[place][:4]}"
        self._note(f"row {rows.ids[at]}", stored, wanted)

    def _forget_deleted(self) -> None:
        if len(self._unseen):
            gone = (self._shard.states_of(self._unseen).flags & TOMBSTONE) != 0
            self._unseen = self._unseen[~gone]

    def _compare_position(self, stored: Fields) -> None:
        expected = self._shard.position.fields()
        for name in sorted(stored.keys() | expected.keys()):
            if stored.get(name) != expected.get(name):
                self._note(f"w.{_readable(name)}", _shown(stored.get(name)), _shown(expected.get(name)))

    def _note(self, what: str, stored: str, expected: str) -> None:
        self._found += 1
        if len(self._differences) < SHOWN:
            self._differences.append(Difference(what, stored, expected))


def _same_bits(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = (a.view(np.uint32) == b.view(np.uint32)).all(axis=1)
    return same


def _offset(lsn: np.uint64) -> int:
    return int(lsn) & OFFSET_MASK


def _readable(name: bytes) -> str:
    return (
        f"{name[:2].decode()}{name[2:].hex()}"
        if name[:2] in (b"p:", b"q:")
        else name.decode(errors="replace")
    )


def _shown(value: bytes | None) -> str:
    return "absent" if value is None else value.decode(errors="replace")
