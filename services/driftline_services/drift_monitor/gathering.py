"""One shard as the monitor follows it: what has changed since the last tick, and where it stands.

Invariant: what is gathered is a function of the updates between two barriers. States older than the
last barrier or restore are left out, since both are full stops; of the others the newest of each id
counts. So states that come twice, late or out of order change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from driftline.errors import FrameError
from driftline.frames.events import BARRIER, RESTORE
from driftline.frames.markers import Markers
from driftline.frames.reasons import Reason
from driftline.frames.states import GRADIENT_CAUSE, RELOG, TOMBSTONE, Marker, States, read_update
from driftline.ids import lsn
from driftline.log import Record
from driftline.shard.screen import MAX_FRAME

TICK, RESTORED, RELOGGED = "tick", "restored", "relogged"
_COMPACT = 1 << 16  # gathered states beyond which those that were overtaken are dropped
_CAUSES = np.uint8(~TOMBSTONE)


@dataclass(frozen=True, slots=True)
class Cut:
    """A barrier or a restore at which a shard stands still until its table has been judged there.

    RELOGGED is one shard's own affair: it was put back to a version over a log that lost records.
    """

    kind: str
    op: int
    time: int  # log time, ms
    offset: int  # next of the updates
    floor: int  # LSN: states below it are of the past
    version: str  # that a restore put in; "": none, the shard is empty
    producers: Mapping[str, object]
    since: int  # LSN from which the producers' figures were counted


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Each id once, as its newest state has it."""

    ids: NDArray[np.uint64]  # (n,) ascending
    vectors: NDArray[np.float32]  # (n, d)
    dead: NDArray[np.bool_]
    by_gradient: NDArray[np.bool_]  # moved by gradients and by nothing else


@dataclass(slots=True)
class ShardFollow:
    """Everything known of one shard between two ticks. One task at a time uses it."""

    table: str
    shard: int
    dims: int
    position: int = 0  # next offset of the updates
    floor: int = 0
    last_op: int = 0  # ticks up to it are behind us
    markers: Markers = field(default_factory=Markers)
    pending: list[States] = field(default_factory=list)
    waiting: int = 0  # states in `pending`
    open: Cut | None = None
    late: int = 0  # states left out

    def read(self, record: Record) -> States | Marker:
        """Return the update in a record. Raises FrameError for one of another shard, too."""
        update = read_update(record.value, limit=MAX_FRAME)
        if (update.table, update.shard) != (self.table, self.shard):
            raise FrameError(Reason.WRONG_SHARD, f"it is of {update.table}:{update.shard}")
        if isinstance(update, States) and update.rows.shape[1] != self.dims and len(update):
            raise FrameError(Reason.WRONG_DIM, f"rows of {update.rows.shape[1]} in a table of {self.dims}")
        return update

    def take(self, update: States | Marker, offset: int) -> Cut | None:
        """Take in the update at `offset`; return the cut at which the shard stands now, if it is one."""
        self.position = offset + 1
        if isinstance(update, States):
            self._gather(update)
            return None
        if update.kind == RELOG:  # no op, and its number may be an old one
            self.open = self._relogged(update)
            return self.open
        again = update.op <= self.last_op
        floor = _number(update.position, "floor")
        took_effect = update.kind == RESTORE and floor == _own(update.position)
        if again and not (took_effect and floor > self.floor):
            return None  # repeated by an aggregator that started again
        marker = self.markers.take(update)
        if marker is None or (marker.kind == RESTORE and not took_effect):
            return None
        if marker.kind not in (BARRIER, RESTORE):
            return None
        self.open = self._cut(TICK if marker.kind == BARRIER else RESTORED, marker)
        return self.open

    def passed(self) -> None:
        """The table has been judged at the cut where the shard stands."""
        cut = self.open
        assert cut is not None, "it stands at a cut"
        self.last_op, self.floor, self.open = max(self.last_op, cut.op), max(self.floor, cut.floor), None
        self.pending, self.waiting = [], 0

    def _gather(self, states: States) -> None:
        new = states.lsn >= np.uint64(self.floor)
        self.late += len(states) - int(np.count_nonzero(new))
        if not new.any():
            return
        keep = states if new.all() else _some(states, new)
        self.pending.append(keep)
        self.waiting += len(keep)
        if self.waiting > _COMPACT:
            self.pending = [_newest(self.pending)]
            self.waiting = len(self.pending[0])

    def _cut(self, kind: str, marker: Marker) -> Cut:
        position, said = marker.position, marker.body.get("gradients")
        told = said if isinstance(said, dict) else {}
        producers = told.get("producers")
        since = told.get("since")
        return Cut(
            kind,
            marker.op,
            _number(position, "time"),
            self.position,
            max(_number(position, "floor"), lsn(_number(position, "gen"), _number(position, "next"))),
            str(marker.body.get("version", "")),
            producers if isinstance(producers, dict) else {},
            since if isinstance(since, int) else -1,
        )

    def _relogged(self, marker: Marker) -> Cut:
        self.markers = Markers()
        floor = lsn(_number(marker.body, "generation"), _number(marker.body, "next"))
        self.floor = min(self.floor, floor)  # the new past may have lower numbers
        version = str(marker.body.get("version") or "")
        time = _number(marker.position, "time")
        return Cut(RELOGGED, marker.op, time, self.position, floor, version, {}, -1)


def gathered(pending: Iterable[States], dims: int) -> Gathered:
    """Return what states of any shards of a table come to."""
    some = list(pending)
    if not some:
        none = np.empty(0, np.uint64)
        nothing = np.empty(0, np.bool_)
        return Gathered(none, np.empty((0, dims), np.float32), nothing, nothing)
    newest = _newest(some)
    dead = (newest.flags & TOMBSTONE) != 0
    by_gradient = ~dead & ((newest.flags & _CAUSES) == GRADIENT_CAUSE)
    return Gathered(newest.ids, newest.rows, dead, by_gradient)


def _newest(pending: list[States]) -> States:
    """Return each id's newest state; its flags tell the kinds of all its changes."""
    ids = np.concatenate([each.ids for each in pending])
    order = np.lexsort((np.concatenate([each.lsn for each in pending]), ids))
    ordered = ids[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    last = order[np.concatenate([first[1:], [len(order)]]) - 1]
    flags = np.concatenate([each.flags for each in pending])
    causes = np.bitwise_or.reduceat(flags[order] & _CAUSES, first) | (flags[last] & TOMBSTONE)
    places = np.concatenate([np.full(len(each), n, np.int32) for n, each in enumerate(pending)])
    starts = np.cumsum([0, *(len(each) for each in pending)])[:-1]
    rows = np.empty((len(last), pending[0].rows.shape[1]), np.float32)
    for n, each in enumerate(pending):  # the rows are large: each is copied once
        here = places[last] == n
        rows[here] = each.rows[last[here] - starts[n]]
    lsns = np.concatenate([each.lsn for each in pending])[last]
    nothing = np.empty((len(last), 0), np.float32)
    ordinals = np.zeros(len(last), np.uint32)
    first_one = pending[0]
    return States(
        first_one.table, first_one.shard, ids[last], ordinals, lsns, rows, nothing, causes.astype(np.uint8)
    )


def _some(states: States, which: NDArray[np.bool_]) -> States:
    return States(
        states.table,
        states.shard,
        states.ids[which],
        states.ordinals[which],
        states.lsn[which],
        states.rows[which],
        states.state[which],
        states.flags[which],
    )


def _own(position: Mapping[str, object]) -> int:
    """Return the LSN of the op whose marker has this position."""
    return lsn(_number(position, "gen"), max(1, _number(position, "next")) - 1)


def _number(values: Mapping[str, object], name: str) -> int:
    value = values.get(name, 0)
    assert isinstance(value, int), name
    return value
