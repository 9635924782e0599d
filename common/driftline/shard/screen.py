"""Reads a stretch of log and judges it: the first half of the state machine.

Invariant: the position moves over exactly the records judged, one by one in log
order; checks of contents are gathered over many frames, because they do not
influence the judgement of a later frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from driftline.errors import FrameError, StateError
from driftline.frames.events import GROUP, SPEC, Delete, Event, Gradient, Op, Upsert, event_of
from driftline.frames.headers import KEY_ID, MAC, Keyring
from driftline.frames.reasons import Reason
from driftline.frames.states import UPSERT_CAUSE
from driftline.frames.tensors import decode
from driftline.frames.unreadable import check_readable
from driftline.ids import OPS_PRODUCER, lsn, shard_of
from driftline.log.base import Record
from driftline.shard import acceptance
from driftline.shard.plan import Gradients, PendingOp, Plan, Rejected, Removals, Values
from driftline.shard.position import Position, fingerprint
from driftline.shard.spec import TableSpec
from driftline.topics import DEFAULT_GROUP

MAX_FRAME = 8 << 20
"""Hard limit before a table has a policy, and for ops."""


class Screen:
    """Judges records against a position, which it moves."""

    def __init__(self, table: str, shard: int, keyring: Keyring, position: Position) -> None:
        self._table, self._shard, self._keyring = table, shard, keyring
        self._position = position
        self._spec: TableSpec | None = None
        self._lr = np.float32(0)
        self._changed: set[bytes] = set()
        self._forgotten: set[bytes] = set()  # fields of `w`

    def enter_spec(self, spec: TableSpec, lr: np.float32) -> None:
        """Judge by `spec` from the next record on."""
        self._spec, self._lr = spec, lr

    def remember(self, field: bytes) -> None:
        """Note that a field of `w` is set again."""
        self._forgotten.discard(field)

    def take_changes(self) -> tuple[set[bytes], list[bytes]]:
        """Return the producers seen, and the fields of `w` gone, since the last call."""
        changed, forgotten = self._changed, self._forgotten
        self._changed, self._forgotten = set(), set()
        return changed, sorted(forgotten)

    def run(self, records: Sequence[Record], max_rows: int) -> Plan:
        """Judge `records` up to and including the first accepted op, or the one that reaches `max_rows` rows.

        Raises StateError, with the position untouched, at a first record that cannot be judged here.
        """
        plan, frames, rows = Plan(), list[tuple[Record, Gradient]](), 0
        last: Record | None = None
        for record in records:
            plan.consumed += 1
            try:
                event = self._read(record)
                if isinstance(event, Op) and self._is_due(event):
                    plan.op = PendingOp(event, record)
                    break
                self.advance(record)
                if isinstance(event, Op) or not self._take_seq(event):
                    plan.counts["duplicate"] += 1
                else:
                    rows += len(event.ids)
                    self._accept(event, record, plan, frames)
            except FrameError as error:
                self.advance(record)
                plan.rejected.append(Rejected(record, error.reason, str(error)))
            except StateError:
                if last is None:
                    raise
                plan.consumed -= 1  # what came before stands; the next call starts here and raises
                break
            last = record
            if rows >= max_rows:
                break
        if last is not None:
            self._position.next, self._position.fp = last.offset + 1, fingerprint(last)
        self._close(frames, plan)
        return plan

    def advance(self, record: Record) -> None:
        """Move log time over `record` and forget who has been silent too long."""
        if self._spec is None:
            self._position.time = max(self._position.time, record.timestamp)
            return
        ttl = self._spec.policy.producer_ttl_ms
        aged = acceptance.advance_time(self._position, record.timestamp, ttl)
        if aged.forgotten or aged.kept:
            self._changed.difference_update(aged.forgotten)
            self._changed.update(aged.kept)
            self._forgotten.update(b"p:" + name for name in aged.forgotten)
        self._forgotten.update(b"r:%d" % row for row in aged.rows)

    def _read(self, record: Record) -> Event:
        check_readable(record.headers)
        signed = any(name in (KEY_ID, MAC) for name, _ in record.headers)
        if signed and not self._keyring.verifies(record.value, record.headers):
            raise FrameError(Reason.FORGED, "the signature is not one of this deployment")
        frame = decode(record.value, limit=MAX_FRAME)
        event = event_of(frame)
        if isinstance(event, Op) != (event.origin.producer == OPS_PRODUCER) or (
            isinstance(event, Op) and not signed
        ):
            raise FrameError(Reason.FORGED, "ops come from the router, signed, and nothing else does")
        if signed:
            self._check_group(frame.metadata.get(GROUP), event)
        return event

    def _check_group(self, group: str | None, event: Event) -> None:
        """Refuse what was signed for another group, whose router may hold the same key and use this name."""
        own: object = group
        if self._spec is not None:
            own = self._spec.group
        elif isinstance(event, Op) and event.kind == SPEC:  # the table's first: it belongs to who makes it
            own = event.body.get("group", DEFAULT_GROUP)
        if not group or group != own:
            raise FrameError(Reason.FORGED, f"signed for group {group!r}, this table belongs to {own!r}")

    def _is_due(self, op: Op) -> bool:
        """Tell whether the op is new here; raises FrameError if it is and makes no sense."""
        if op.origin.seq <= self._position.op:
            return False
        try:
            acceptance.check_addressed(op, self._table, self._shard)
            acceptance.check_op(op, self._position)
        except FrameError:
            self._position.op = op.origin.seq  # well-formed: its number is used up
            raise
        return True

    def _take_seq(self, event: Gradient | Upsert | Delete) -> bool:
        self._changed.add(event.origin.producer)
        self._forgotten.discard(b"p:" + event.origin.producer)
        return acceptance.take_seq(self._position, event)

    def _accept(
        self,
        event: Gradient | Upsert | Delete,
        record: Record,
        plan: Plan,
        frames: list[tuple[Record, Gradient]],
    ) -> None:
        acceptance.check_addressed(event, self._table, self._shard)
        if self._spec is None:
            raise FrameError(Reason.NO_SPEC, f"table {self._table} has no spec yet")
        acceptance.check_allowed(event, len(record.value), self._position, self._spec)
        if isinstance(event, Gradient):
            fresh = self._without_stale(event, self._spec)
            plan.counts["stale"] += len(event.ids) - len(fresh.ids)
            if len(fresh.ids):
                frames.append((record, fresh))
            return
        self._close(frames, plan)
        at = lsn(self._position.gen, record.offset)
        if isinstance(event, Upsert):
            plan.runs.append(Values(event.ids, event.rows, event.state, at, UPSERT_CAUSE))
        else:
            plan.runs.append(Removals(event.ids, at))
        plan.counts["rows"] += len(event.ids)

    def _close(self, frames: list[tuple[Record, Gradient]], plan: Plan) -> None:
        """Turn the gradient frames gathered so far into one run, leaving out those with bad ids."""
        assert not frames or self._spec is not None, "gradients are gathered under a spec only"
        if not frames or self._spec is None:
            return
        good = self._check_ids(list(frames), plan)
        frames.clear()
        if not good:
            return
        for _, event in good:
            plan.tally.add(event.origin.producer, event.grads)
        sizes = [len(event.ids) for _, event in good]
        gen = self._position.gen
        run = Gradients(
            np.concatenate([event.ids for _, event in good]),
            np.concatenate([event.grads for _, event in good]),
            np.repeat(np.array([self._lr if e.lr is None else e.lr for _, e in good], np.float32), sizes),
            np.repeat(np.array([lsn(gen, record.offset) for record, _ in good], np.uint64), sizes),
        )
        plan.counts["rows"] += len(run.ids)
        plan.runs.append(run)

    def _check_ids(self, frames: list[tuple[Record, Gradient]], plan: Plan) -> list[tuple[Record, Gradient]]:
        assert self._spec is not None, "gradients are gathered under a spec only"
        ids = np.concatenate([event.ids for _, event in frames])
        starts = np.cumsum([0, *(len(event.ids) for _, event in frames)])[:-1]
        unsorted = np.zeros(len(ids), bool)
        unsorted[1:] = ids[1:] <= ids[:-1]
        unsorted[starts] = False
        foreign = shard_of(ids, self._spec.shards) != self._shard
        if not unsorted.any() and not foreign.any():
            return frames
        good: list[tuple[Record, Gradient]] = []
        for record, event in frames:
            try:
                acceptance.check_ids(event.ids, self._shard, self._spec.shards)
                good.append((record, event))
            except FrameError as error:
                plan.rejected.append(Rejected(record, error.reason, str(error)))
        return good

    def _without_stale(self, event: Gradient, spec: TableSpec) -> Gradient:
        """Leave out rows that were put back after they were read.

        Judged frame by frame: log time may forget a restore between two frames of a batch.
        """
        read_pos = acceptance.effective_read_pos(event, spec)
        if acceptance.is_stale(read_pos, self._position):
            acceptance.check_ids(event.ids, self._shard, spec.shards)  # stale or not: a bad frame is refused
            return replace(event, ids=event.ids[:0], grads=event.grads[:0])
        if not self._position.restored or read_pos is None:
            return event
        acceptance.check_ids(event.ids, self._shard, spec.shards)  # before part of it is gone
        keep = ~acceptance.superseded(event.ids, read_pos, self._position)
        return replace(event, ids=event.ids[keep], grads=event.grads[keep])
