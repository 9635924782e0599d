"""One shard as the versioner follows it: what has changed since the version its rows stand on.

Invariant: the state is a function of the version it began from and of the updates behind it.
`base` and the delta together are the shard at `position`; a cut is met once, whatever is
repeated, and nothing behind it is taken in before it is settled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from driftline.errors import FrameError
from driftline.frames.events import BARRIER, RESTORE
from driftline.frames.markers import Markers
from driftline.frames.reasons import Reason
from driftline.frames.states import RELOG, Marker, States, read_update
from driftline.ids import lsn
from driftline.log import Record
from driftline.shard.screen import MAX_FRAME
from driftline.versions import DeltaBuffer, PartManifest, Place
from driftline.versions.manifest import MAIN

VERSION, BACKUP, ROLLBACK, CHECKOUT = "version", "backup", "rollback", "checkout"


@dataclass(frozen=True, slots=True)
class Line:
    """Which line of versions the live tables continue."""

    branch: str = MAIN
    scenario: str = ""  # "": none yet, see the setting
    base: str = ""  # the version whose rows the shards stand on


@dataclass(frozen=True, slots=True)
class Cut:
    """An op at which a shard stands still until it is known what becomes of it."""

    kind: str  # VERSION, BACKUP, ROLLBACK or CHECKOUT
    op: int
    body: Mapping[str, object]
    place: Place
    line: Line  # before it


@dataclass(slots=True)
class ShardState:
    """Everything known of one shard. Mutable; one task at a time uses it."""

    table: str
    shard: int
    dim: int
    state_size: int
    position: int  # next offset of the updates
    base: PartManifest | None
    line: Line
    last_op: int  # cuts up to it are settled
    delta: DeltaBuffer
    markers: Markers = field(default_factory=Markers)
    relogged_to: str = ""  # the version whose rows `base` is, where a relog made it another than the line's
    backup_op: int = 0  # the last backup since the base; 0: none
    backup_from: int = 0  # LSN from which states are newer than that backup
    open: int = 0  # op of the cut that is being settled; 0: none
    changed_since_backup: bool = False
    records: int = 0
    rows: int = 0

    @classmethod
    def begin(
        cls,
        table: str,
        shard: int,
        shape: tuple[int, int],
        base: PartManifest | None,
        line: Line,
        memory: int,
        directory: Path | None,
    ) -> ShardState:
        """Return the shard as version `line.base` has it; None: an empty one."""
        position = base.place.updates if base is not None else 0
        last = base.place.number("op") if base is not None else 0
        delta = DeltaBuffer(*shape, memory=memory, directory=directory)
        if base is not None:
            delta.clear(_behind(base.place))
        return cls(table, shard, *shape, position, base, line, last, delta)

    def read(self, record: Record) -> States | Marker:
        """Return the update in a record. Raises FrameError for one of another shard, too."""
        update = read_update(record.value, limit=MAX_FRAME)
        if (update.table, update.shard) != (self.table, self.shard):
            raise FrameError(Reason.WRONG_SHARD, f"it is of {update.table}:{update.shard}")
        return update

    def take(self, update: States | Marker, offset: int) -> Cut | None:
        """Take in the update at `offset`; return the cut to be settled before the next one, if it is one."""
        if isinstance(update, States):
            self.delta.add(update)  # a full disk is an error here: then nothing has been taken in
            self.rows += len(update)
            self.changed_since_backup = True
        self.position = offset + 1
        self.records += 1
        if isinstance(update, States):
            return None
        if update.kind == RELOG:  # no op, and its number may be an old one
            return self._meet(CHECKOUT, update, offset)
        again = update.op <= self.last_op
        if again and not self._put_back_anew(update):
            return None  # repeated by an aggregator that started again
        marker = self.markers.take(update)
        kind = kind_of(marker) if marker is not None else None
        if marker is None or kind is None:
            return None
        return self._meet(CHECKOUT if again else kind, marker, offset)

    def _put_back_anew(self, marker: Marker) -> bool:
        """Tell whether an old restore has taken effect once more, as it does in what a relog replays."""
        floor = _number(marker.position, "floor")
        return marker.kind == RESTORE and floor == _own(marker.position) and floor > self.delta.floor

    def _meet(self, kind: str, marker: Marker, offset: int) -> Cut:
        self.open = marker.op
        place = Place.of(marker.position, marker.tensors, offset + 1)
        return Cut(kind, marker.op, marker.body, place, self.line)

    def committed(self, op: int, part: PartManifest, line: Line) -> None:
        """The cut became a version, with this part."""
        self.last_op, self.base, self.line, self.open = op, part, line, 0
        self.relogged_to = ""
        self._stand_anew(_behind(part.place))

    def passed(self, op: int) -> None:
        """The cut became no version, or was a backup: the delta goes on."""
        self.last_op, self.open = max(self.last_op, op), 0

    def restored(self, cut: Cut, base: PartManifest, line: Line) -> None:
        """The shard was put back to version `line.base`: what had changed since is dropped."""
        self.base, self.line, self.relogged_to = base, line, ""
        self._stand_anew(_number(cut.place.position, "floor"))

    def relogged(self, cut: Cut, base: PartManifest | None, version: str) -> None:
        """The shard was put back to a version over a log that lost records: what it published is void."""
        self.base, self.markers = base, Markers()
        self.relogged_to = version if version != self.line.base else ""
        self._stand_anew(lsn(_number(cut.body, "generation"), _number(cut.body, "next")))

    def changes_since_backup(self) -> DeltaBuffer:
        """Return a copy of the states that are newer than the last backup."""
        index = self.delta.index()
        newer = np.flatnonzero(index.lsn >= np.uint64(self.backup_from))
        some = DeltaBuffer(self.dim, self.state_size)
        for start in range(0, len(newer), _AT_ONCE):
            places = newer[start : start + _AT_ONCE]
            rows, state = self.delta.take(places)
            flags = index.dead[places].astype(np.uint8)  # TOMBSTONE is 1
            ids, ordinals = index.ids[places], index.ordinals[places]
            some.add(States(self.table, self.shard, ids, ordinals, index.lsn[places], rows, state, flags))
        return some

    def backed_up(self, cut: Cut) -> None:
        """A backup of the shard is held: the next one begins behind it."""
        position = cut.place.position
        self.backup_op, self.changed_since_backup = cut.op, False
        self.backup_from = lsn(_number(position, "gen"), _number(position, "next"))

    def forget_backup(self) -> None:
        """The last backup is not held any more: the next one begins at the version again."""
        self.backup_op, self.backup_from = 0, 0

    def _stand_anew(self, floor: int) -> None:
        self.delta.clear(floor)
        self.forget_backup()
        self.changed_since_backup = False


def kind_of(marker: Marker) -> str | None:
    """Return what a marker is to a versioner; None: nothing.

    A restore that did not take effect, or not in this table, moves no floor there.
    """
    if marker.kind == BARRIER:
        kind = marker.body.get("kind", VERSION)
        return str(kind) if kind in (VERSION, BACKUP) else None
    if marker.kind != RESTORE or not isinstance(marker.body.get("version"), str):
        return None
    return CHECKOUT if marker.body.get("mode") == CHECKOUT else ROLLBACK


def _behind(place: Place) -> int:
    """Return the least LSN of a state that rows at `place` do not hold yet.

    What was published before the barrier may come once more behind it, from an append whose owner
    has given up on it: taken in, it would put older rows over those of the version.
    """
    return max(place.number("floor"), lsn(place.number("gen"), place.number("next")))


def took_effect(cut: Cut) -> bool:
    """Tell whether a restore put this shard back: only then is its own LSN the floor behind it."""
    position = cut.place.position
    return _number(position, "floor") == _own(position)


def is_relog(cut: Cut) -> bool:
    """Tell whether a cut is no op, but a shard put back to a version by a relog."""
    return cut.kind == CHECKOUT and "mode" not in cut.body  # which every restore has


def _own(position: Mapping[str, object]) -> int:
    """Return the LSN of the op whose marker has this position."""
    return lsn(_number(position, "gen"), max(1, _number(position, "next")) - 1)


def _number(position: Mapping[str, object], name: str) -> int:
    value = position.get(name, 0)
    assert isinstance(value, int), name
    return value


_AT_ONCE = 65_536
