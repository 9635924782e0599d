"""One shard as a deterministic state machine over its log.

Invariant: the same records in the same order give the same rows, states, LSNs,
ordinals and position, bit for bit, however the records were batched, whatever
was cached and whatever crashed in between. Pure: rows that are not in memory are
named by `Plan.missing` and handed in; nothing here waits, reads a clock or logs.

    plan = shard.screen(records)            # judge, up to and including the first op
    shard.apply(plan, fetched_rows)         # change the rows
    if plan.op: shard.apply_op(plan.op)     # once everything before it is durable
    delta = shard.take_delta()              # commit and publish this
    shard.committed()
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson
from numpy.typing import NDArray

from driftline.errors import StateError
from driftline.frames.events import PREPARE, QUARANTINE, RESTORE, RESTORE_ROWS, SPEC
from driftline.frames.headers import Keyring
from driftline.frames.states import GRADIENT_CAUSE, RESTORE_CAUSE, TOMBSTONE, States
from driftline.ids import lsn
from driftline.log.base import Record
from driftline.shard.acceptance import quarantined_producer, spec_body, takes_effect
from driftline.shard.cache import RowBlock, RowCache
from driftline.shard.dictionary import NOT_FOUND
from driftline.shard.numerics import initial_rows
from driftline.shard.optimizers import Optimizer, Sgd
from driftline.shard.plan import Gradients, PendingOp, Plan, Removals, Values
from driftline.shard.position import SCALARS, Position, fingerprint, producer_value
from driftline.shard.restore import VersionRows, preparation_text
from driftline.shard.screen import Screen
from driftline.shard.spec import TableSpec
from driftline.shard.waves import schedule, waves


@dataclass(frozen=True, slots=True)
class Delta:
    """Everything that changed since the last delta, as one transaction writes it."""

    states: States  # live rows and tombstones
    fields: dict[bytes, bytes]  # of `w`, changed
    removed: list[bytes]  # fields of `w`, gone
    next: int


class Shard:
    """The state machine of one shard; `position` says which prefix of the log it stands for."""

    def __init__(self, table: str, shard: int, keyring: Keyring, position: Position | None = None) -> None:
        self.table, self.shard = table, shard
        self.position = position or Position()
        self._keyring = keyring
        self._screen = Screen(table, shard, keyring, self.position)
        self._written = self._scalars()
        self._entered: dict[bytes, bytes] = {}  # members of `w` set by ops
        self._spec: TableSpec | None = None
        self._optimizer: Optimizer = Sgd()  # until the spec names one
        self.cache = RowCache(1, lambda ids: np.zeros((len(ids), 1), np.float32), np.zeros(0, np.float32))
        if self.position.spec:
            self._enter_spec()

    @property
    def spec(self) -> TableSpec | None:
        """The table spec in force; None before the table's first record."""
        return self._spec

    @property
    def dirty(self) -> bool:
        """Whether anything, be it only the position, is not yet in a delta."""
        return self._written.get(b"next") != self.position.scalar("next") or self.cache.dirty_count > 0

    def screen(self, records: Sequence[Record], max_rows: int = sys.maxsize) -> Plan:
        """Judge `records` up to and including the first op, and move the position over them.

        Stops behind the record with which the plan names `max_rows` rows, however few bytes name them.
        An op's own record is not passed yet: `apply_op` does that. Raises StateError when
        this release cannot continue the log.
        """
        plan = self._screen.run(records, max_rows)
        if plan.runs:
            self._name_missing(plan)
        return plan

    def apply(self, plan: Plan, fetched: RowBlock | None) -> None:
        """Apply the plan's changes; `fetched` holds at least the rows of `plan.missing`."""
        if fetched is not None:
            self.cache.enter(fetched)
        for run in plan.runs:
            if isinstance(run, Gradients):
                plan.counts["nonfinite"] += self._apply_gradients(run)
            elif isinstance(run, Values):
                self._apply_values(run)
            else:
                self._apply_removals(run)

    def missing(self, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return those of the distinct `ids` whose rows may exist without being in memory."""
        if self.cache.alive_count == self.position.rows:  # everything alive is here
            return np.empty(0, np.uint64)
        unknown: NDArray[np.uint64] = ids[self.cache.find(ids) == NOT_FOUND]
        return unknown

    def states_of(self, ids: NDArray[np.uint64]) -> States:
        """Return the rows of distinct `ids` as they are now; all must be in memory or known absent.

        Rows that do not exist come as tombstones with LSN 0.
        """
        slots, cache = self.cache.slots(ids), self.cache
        alive = cache.alive[slots]
        return States(
            self.table,
            self.shard,
            ids,
            cache.ordinals[slots],
            np.where(alive, cache.lsn[slots], np.uint64(0)),
            cache.rows[slots],
            cache.state[slots],
            np.where(alive, cache.flags[slots], TOMBSTONE),
        )

    def restores(self, pending: PendingOp) -> bool:
        """Tell whether the op replaces the rows by a version's: then `apply_op` needs that version."""
        return pending.op.kind == RESTORE and takes_effect(pending.op, self.position)

    def apply_op(self, pending: PendingOp, version: VersionRows | None = None) -> None:
        """Apply an accepted op and move the position over its record.

        `version`: what a restore that takes effect swaps in. Rows it does not bring along must be in
        the store by the time that any is asked for.
        """
        op, record, position = pending.op, pending.record, self.position
        at = lsn(position.gen, record.offset)
        self._screen.advance(record)
        if op.kind == SPEC:
            position.spec = orjson.dumps(spec_body(op), option=orjson.OPT_SORT_KEYS).decode()
            self._enter_spec()
        elif op.kind == QUARANTINE:
            producer = quarantined_producer(op)
            position.quarantined[producer] = op.origin.seq
            self._enter(b"q:" + producer, b"%d" % op.origin.seq)
        elif op.kind == PREPARE:
            position.prep = preparation_text(op, position.prep)
        elif self.restores(pending):
            if version is None:
                raise StateError(
                    f"shard {self.table}:{self.shard}: the log restores version {op.body['version']} at "
                    f"offset {record.offset}, and there is no version store to load it from: give its "
                    "`store_url`"
                )
            self._swap_in(version, at)
        elif op.kind == RESTORE_ROWS and op.rows is not None:
            self._apply_values(Values(op.ids, op.rows, op.state, at, RESTORE_CAUSE))
            position.restored.set(op.ids, at, position.time)
            value = b"%d,%d" % (at, position.time)
            for row in op.ids.tolist():
                self._enter(b"r:%d" % row, value)
        position.op = op.origin.seq
        position.next, position.fp = record.offset + 1, fingerprint(record)

    def _swap_in(self, version: VersionRows, at: int) -> None:
        """Replace all rows. They keep the version's LSNs and ordinals, whose counter never goes back.

        Producers, quarantines and restored rows in force live on: what was sent stays sent.
        """
        position = self.position
        self.cache.clear()
        for block in version.blocks:
            self.cache.enter(block)
        position.rows, position.ord = version.rows, max(position.ord, version.ordinals)
        position.epoch, position.floor, position.prep = position.epoch + 1, at, ""

    def take_delta(self) -> Delta:
        """Return all changes since the last delta; they are in flight until `committed`."""
        slots, cache = self.cache.begin_flight(), self.cache
        states = States(
            self.table,
            self.shard,
            cache.ids[slots],
            cache.ordinals[slots],
            cache.lsn[slots],
            cache.rows[slots],
            cache.state[slots],
            cache.flags[slots],
        )
        scalars = self._scalars()
        fields = {name: value for name, value in scalars.items() if self._written.get(name) != value}
        self._written = scalars
        changed, removed = self._screen.take_changes()
        fields |= {b"p:" + name: producer_value(self.position.producers[name]) for name in changed}
        fields |= {name: value for name, value in self._entered.items() if name not in removed}
        self._entered.clear()
        return Delta(states, fields, removed, self.position.next)

    def committed(self) -> None:
        """The delta in flight is durable."""
        self.cache.end_flight()

    def _enter(self, field: bytes, value: bytes) -> None:
        self._screen.remember(field)
        self._entered[field] = value

    def _scalars(self) -> dict[bytes, bytes]:
        return {name.encode(): self.position.scalar(name) for name in SCALARS}

    def _enter_spec(self) -> None:
        spec = self.position.table_spec()
        assert spec is not None, "called with a spec in the position"
        first = self._spec is None
        self._spec, self._optimizer = spec, spec.make_optimizer()
        self.position.mv = spec.machine_version
        self._screen.enter_spec(spec, self._optimizer.lr)
        if first:
            dim, seed, scale = spec.dim, spec.init.seed, spec.scale
            self.cache = RowCache(
                dim, lambda ids: initial_rows(ids, dim, seed, scale), self._optimizer.initial_state(dim)
            )

    def _name_missing(self, plan: Plan) -> None:
        if self.cache.alive_count != self.position.rows:
            ids = plan.runs[0].ids if len(plan.runs) == 1 else np.concatenate([run.ids for run in plan.runs])
            plan.missing = np.unique(ids[self.cache.find(ids) == NOT_FOUND])

    def _apply_gradients(self, run: Gradients) -> int:
        cache = self.cache
        slots = cache.slots(run.ids)
        plan = schedule(slots)
        at = plan.slots
        rows, state = cache.rows[at], cache.state[at]
        with np.errstate(all="ignore"):
            finite = self._optimizer.run(rows, state, run.grads[plan.order], run.lr[plan.order], plan.ends)
        if not finite:
            return self._apply_carefully(run, slots)
        cache.rows[at], cache.state[at] = rows, state
        births = plan.first[~cache.alive[at]]
        if len(births):  # they take ordinals in log order
            self._give_birth(slots[np.sort(births)])
        cache.touch(at, run.lsn[plan.last], GRADIENT_CAUSE)
        return 0

    def _apply_carefully(self, run: Gradients, slots: NDArray[np.int32]) -> int:
        """Apply the run wave by wave, leaving out what would not be finite; return how many rows that was."""
        cache, step = self.cache, self._optimizer.step
        born: list[NDArray[np.intp]] = []
        skipped = 0
        with np.errstate(all="ignore"):
            for places in waves(slots):
                wave, at = places, slots[places]
                rows, state = step(cache.rows[at], cache.state[at], run.grads[wave], run.lr[wave])
                good: NDArray[np.bool_] = np.logical_and(
                    np.isfinite(rows).all(axis=1), np.isfinite(state).all(axis=1)
                )
                if not good.all():
                    skipped += len(good) - int(np.count_nonzero(good))
                    wave, at, rows, state = wave[good], at[good], rows[good], state[good]
                cache.rows[at], cache.state[at] = rows, state
                births = wave[~cache.alive[at]]
                if len(births):
                    cache.alive[slots[births]] = True
                    born.append(births)
                cache.touch(at, run.lsn[wave], GRADIENT_CAUSE)
        if born:
            order = np.sort(np.concatenate(born))  # births take ordinals in log order
            self._give_birth(slots[order])
        return skipped

    def _apply_values(self, run: Values) -> None:
        cache = self.cache
        slots = cache.slots(run.ids)
        cache.rows[slots] = run.rows
        cache.state[slots] = (
            self._optimizer.initial_state(run.rows.shape[1]) if run.state is None else run.state
        )
        self._give_birth(slots[~cache.alive[slots]])
        cache.touch(slots, np.full(len(slots), run.lsn, np.uint64), run.cause)

    def _apply_removals(self, run: Removals) -> None:
        slots = self.cache.slots(run.ids)
        slots = slots[self.cache.alive[slots]]
        self.cache.reset(slots)
        self.position.rows -= len(slots)
        self.cache.touch(slots, np.full(len(slots), run.lsn, np.uint64), TOMBSTONE)

    def _give_birth(self, slots: NDArray[np.int32]) -> None:
        self.cache.give_birth(slots, self.position.ord)
        self.position.ord += len(slots)
        self.position.rows += len(slots)
