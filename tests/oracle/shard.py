"""A per-id scalar oracle of a shard: records in, the one right table out.

Invariant: written from architecture.md and formats.md alone, sharing no code with
the shard it judges. After any prefix of the log `table()` and `position()` are
what that prefix determines: "same prefix in, same bits out". Each rule stands
beside the sentence it comes from; where the pages are silent, "Choice:" says what
was chosen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.oracle import optimizers, spec, wire
from tests.oracle.f32 import all_finite
from tests.oracle.hashing import initial_row
from tests.oracle.model import (
    Expected,
    Living,
    Named,
    Outcome,
    Position,
    Record,
    Sent,
    VersionRows,
    no_versions,
)
from tests.oracle.rules import Rejected, check, stale_for


class Shard:
    """The expected state of one shard of one table."""

    def __init__(
        self,
        shard: int,
        *,
        keys: Mapping[str, bytes],
        generation: int = 1,
        versions: VersionRows = no_versions,
    ) -> None:
        self._shard = shard
        self._keys = keys
        self._generation = generation
        self._versions = versions
        self._spec: spec.Spec | None = None
        self._rows: dict[int, Living] = {}
        self._next = self._op = self._ord = self._epoch = self._floor = self._prep = self._time = 0
        self._producers: dict[bytes, Sent] = {}
        self._restored: dict[int, Named] = {}
        self._quarantined: dict[bytes, int] = {}

    def apply(self, record: Record) -> Outcome:
        """Judge the next record and do what it says; offsets must come without a gap.

        architecture.md: "Mismatch, gap […]: the shard stops and says so".
        """
        if record.offset != self._next:
            raise ValueError(f"record {record.offset} where {self._next} is next: the log has a gap")
        # "Log time = running maximum of LogAppendTime": it moves whatever becomes of the record.
        self._time = max(self._time, record.timestamp)
        self._prune()
        outcome = self._judge(record)
        self._next += 1
        return outcome

    def table(self) -> dict[int, Expected]:
        return {row_id: living.expected() for row_id, living in self._rows.items()}

    def position(self) -> Position:
        return Position(
            next=self._next,
            gen=self._generation,
            mv=self._spec.machine_version if self._spec else 0,
            op=self._op,
            ord=self._ord,
            rows=len(self._rows),
            epoch=self._epoch,
            floor=self._floor,
            prep=self._prep,
            time=self._time,
            producers=dict(self._producers),
            restored=dict(self._restored),
            quarantined=dict(self._quarantined),
        )

    @property
    def _lsn(self) -> int:
        """formats.md: "LSN = generation(16 bits) << 48 | offset" of the record being judged."""
        return self._generation << 48 | self._next

    def _prune(self) -> None:
        """architecture.md: "Silent producers are pruned after `producer_ttl` of log time";
        formats.md: a restore-rows entry "stays in force for `producer_ttl`".

        Choice: gone once strictly more than the ttl has passed, by the rules before this record.
        """
        if self._spec is None:
            return
        oldest = self._time - self._spec.producer_ttl_ms
        for name in [n for n, sent in self._producers.items() if sent.time < oldest]:
            # "producers of ingest partitions are never forgotten: they count as heard of instead"
            if name in wire.INGEST_PRODUCERS:
                self._producers[name] = self._producers[name]._replace(time=self._time)
            else:
                del self._producers[name]
        for row_id in [i for i, named in self._restored.items() if named.time < oldest]:
            del self._restored[row_id]

    def _judge(self, record: Record) -> Outcome:
        # "Router frames carry headers […] checked first: a forged or undecodable frame uses up no seq".
        vouched = wire.signed(record.value, record.headers, self._keys)
        # Choice: a mac that is there and wrong condemns any frame, a client's gradient too.
        if vouched is False:
            return Outcome("dead letter", "forged")
        try:
            wire.check_readable(record.headers)
            frame = wire.decode(record.value)
        except wire.UndecodableError:
            return Outcome("dead letter", "undecodable")
        # "Ops carry an HMAC by the deployment key; an op from elsewhere goes to the DLQ."
        if (frame.kind in wire.OPS or frame.producer == wire.OPS_PRODUCER) and not vouched:
            return Outcome("dead letter", "forged")
        # Choice: ops come under this one name and nothing else does, whoever signed it.
        elsewhere = (frame.kind in wire.OPS) != (frame.producer == wire.OPS_PRODUCER)
        if elsewhere or (vouched and not self._same_group(frame)):
            return Outcome("dead letter", "forged")
        try:
            return self._op_frame(frame) if frame.kind in wire.OPS else self._event(frame, record)
        except Rejected as rejected:
            return Outcome("dead letter", str(rejected))

    def _same_group(self, frame: wire.Frame) -> bool:
        """ "A signed frame carries the group it was signed for; a frame of another group is forged."

        Choice: before the first spec a table belongs to the group that this spec names.
        """
        if self._spec is not None:
            return frame.group == self._spec.group
        if frame.kind == "spec":
            return bool(frame.group) and frame.group == (frame.body or {}).get("group", "default")
        return bool(frame.group)

    def _event(self, frame: wire.Frame, record: Record) -> Outcome:
        # "per shard the last (producer epoch, seq) is in the transaction; seq ≤ last is a counted no-op".
        last = self._producers.get(frame.producer)
        if last is not None and (frame.epoch, frame.seq) <= (last.epoch, last.seq):
            # Choice: "Silent producers are pruned", and who re-sends is not silent. Were it pruned
            # while it catches up from a checkpoint, the rest of its re-sends would apply twice.
            self._producers[frame.producer] = last._replace(time=self._time)
            return Outcome("no-op", "duplicate")
        # "a well-formed frame that is rejected uses up its seq": hence before all that follows.
        self._producers[frame.producer] = Sent(frame.epoch, frame.seq, self._time)
        if frame.producer in self._quarantined:
            raise Rejected("quarantined")  # "a producer is shut out"
        table = check(frame, self._spec, self._shard)
        # frames.md: "a delete weighs as if it carried its rows"
        rows = 4 * table.dim * len(frame.ids) if frame.kind == "delete" else 0
        if len(record.value) + rows > table.max_frame:
            raise Rejected("too_large")
        if frame.kind == "gradient":
            return self._gradient(frame, table)
        if frame.kind == "upsert":
            return self._upsert(frame, table)
        return self._delete(frame)

    def _gradient(self, frame: wire.Frame, table: spec.Spec) -> Outcome:
        # "Older than the last restore […]: dropped and counted"; formats.md: "Stale: read_pos ≤ floor".
        if stale_for(frame, table, self._floor):
            return Outcome("no-op", "stale", stale=len(frame.ids))
        applied = stale = nonfinite = 0
        for row_id, gradient in zip(frame.ids, frame.values, strict=True):
            named = self._restored.get(row_id)
            # "or, for an id, than a restore-rows naming it"
            if named is not None and stale_for(frame, table, named.lsn):
                stale += 1
            elif self._step(row_id, gradient, frame, table):
                applied += 1
            else:
                nonfinite += 1
        return Outcome("applied", applied=applied, stale=stale, nonfinite=nonfinite)

    def _step(self, row_id: int, gradient: optimizers.Row, frame: wire.Frame, table: spec.Spec) -> bool:
        """Apply one id's gradient, or nothing if it is not finite or the result would not be.

        "A non-finite result for an id: the id is skipped and counted"; formats.md: "A skipped id
        changes nothing, not even a birth".
        """
        if not all_finite(gradient):
            return False
        old = self._rows.get(row_id)
        row = old.row if old else initial_row(table.seed, table.scale, row_id, table.dim)
        state = old.state if old else table.newborn_state
        lr = table.constants.lr if frame.lr is None else frame.lr
        row, state = optimizers.STEPS[table.optimizer](row, state, gradient, lr, table.constants)
        if not (all_finite(row) and all_finite(state)):
            return False
        self._put(row_id, row, state)
        return True

    def _put(self, row_id: int, row: optimizers.Row, state: optimizers.State) -> None:
        """Write a row under the LSN at hand: "the last event that changed THIS row".

        "every birth takes the next [ordinal], in log order; […] the counter never goes back".
        """
        old = self._rows.get(row_id)
        if old is None:
            self._rows[row_id] = Living(row, state, self._lsn, self._ord)
            self._ord += 1
        else:
            self._rows[row_id] = Living(row, state, self._lsn, old.ordinal)

    def _upsert(self, frame: wire.Frame, table: spec.Spec) -> Outcome:
        """architecture.md: "rows (state resets unless given)"; non-finite values reject the frame."""
        if not all(map(all_finite, frame.values)) or not all(map(all_finite, frame.state or ())):
            raise Rejected("non_finite")
        for n, row_id in enumerate(frame.ids):
            state = table.newborn_state if frame.state is None else frame.state[n]
            self._put(row_id, frame.values[n], state)
        return Outcome("applied", applied=len(frame.ids))

    def _delete(self, frame: wire.Frame) -> Outcome:
        """ "HDEL; a later gradient gives birth anew"; an id that is not there changes nothing."""
        gone = sum(self._rows.pop(row_id, None) is not None for row_id in frame.ids)
        return Outcome("applied", applied=gone, unknown=len(frame.ids) - gone)

    def _op_frame(self, frame: wire.Frame) -> Outcome:
        """ "shards deduplicate by (producer `ops`, seq n)": by `op` alone, which never expires.

        A rejected op, too, uses up its seq: `snapshot()` and its like wait for "op ≥ n".
        """
        if frame.seq <= self._op:
            return Outcome("no-op", "duplicate")
        self._op = frame.seq
        body = frame.body or {}
        if frame.kind == "spec":
            return self._spec_op(frame, body)
        if frame.kind == "restore-rows":
            return self._restore_rows(frame)
        check(frame, self._spec, self._shard)
        if frame.kind == "quarantine":
            return self._quarantine(body)
        if frame.kind == "prepare":
            # Choice: `prep` names the op whose version is being loaded, until a restore applies. The
            # empty name gives the preparation up that it names, or any.
            if body.get("version"):
                self._prep = frame.seq
            elif body.get("prepare", self._prep) == self._prep:
                self._prep = 0
        if frame.kind == "restore":
            return self._restore(body)
        return Outcome("applied")  # a barrier changes nothing but next and op

    def _spec_op(self, frame: wire.Frame, body: Mapping[str, object]) -> Outcome:
        """ "the table is born, or its rules change".

        Choice: rules are anything but name, group, dim, shards, initial rows and the optimizer's kind.
        """
        try:
            fresh = spec.parse(body)
        except ValueError as error:
            raise Rejected("spec") from error
        if fresh.name != frame.table or frame.shard != self._shard:
            raise Rejected("shard" if fresh.name == frame.table else "table")
        if self._spec is not None and fresh.shape() != self._spec.shape():
            raise Rejected("spec")
        self._spec = fresh
        return Outcome("applied")

    def _quarantine(self, body: Mapping[str, object]) -> Outcome:
        name = body.get("producer")
        try:
            producer = bytes.fromhex(name) if isinstance(name, str) else b""
        except ValueError as error:
            raise Rejected("body") from error
        if len(producer) != 16:
            raise Rejected("body")
        self._quarantined[producer] = self._op
        return Outcome("applied")

    def _restore_rows(self, frame: wire.Frame) -> Outcome:
        """ "node rollback: explicit values, hence replayable"; the LSN is this op's, ordinals are kept."""
        check(frame, self._spec, self._shard)
        assert frame.state is not None, "decode demands it"
        if not all(map(all_finite, frame.values)) or not all(map(all_finite, frame.state)):
            raise Rejected("non_finite")
        for row_id, row, own in zip(frame.ids, frame.values, frame.state, strict=True):
            self._put(row_id, row, own)
            self._restored[row_id] = Named(self._lsn, self._time)
        return Outcome("applied", applied=len(frame.ids))

    def _restore(self, body: Mapping[str, object]) -> Outcome:
        """ "swap it in, if `from_epoch` is the shard's epoch (else a counted no-op); epoch+1";
        "floor = LSN of the last restore"; "Restored rows keep V's LSNs".

        Choice: producers, restore-rows in force and quarantines live on, as does the ordinal counter.
        """
        if body.get("absent"):  # "a table that the version does not have is left untouched"
            return Outcome("no-op", "absent")
        if not isinstance(body.get("from_epoch"), int):
            raise Rejected("body")
        if body.get("from_epoch") != self._epoch:
            return Outcome("no-op", "epoch")
        rows = self._versions(body)
        self._rows = {row_id: Living.of(row) for row_id, row in rows.items()}
        self._epoch += 1
        self._floor = self._lsn
        self._prep = 0
        return Outcome("applied", applied=len(rows))


def replay(
    records: Iterable[Record],
    shard: int,
    *,
    keys: Mapping[str, bytes],
    generation: int = 1,
    versions: VersionRows = no_versions,
) -> Shard:
    """Return the shard as it must stand after all of `records`."""
    oracle = Shard(shard, keys=keys, generation=generation, versions=versions)
    for record in records:
        oracle.apply(record)
    return oracle
