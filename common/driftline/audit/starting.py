"""Where the replay of a shard begins: at its birth, or where its rows and position are known.

Invariant: a start is a prefix of the very history that Redis holds: of the same log generation, not
behind the position in Redis, and the log has every record behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from driftline import topics
from driftline.errors import FrameError
from driftline.frames.states import RELOG, Marker, read_update
from driftline.log import Bounds, Log
from driftline.rows.source import VersionPlace
from driftline.shard.cache import RowBlock
from driftline.shard.position import FIRST_GENERATION, SCALARS, Position
from driftline.shard.restore import LoadVersion
from driftline.shard.screen import MAX_FRAME

_WAIT = 10.0


class StoredShard(Protocol):
    """One shard of a version."""

    @property
    def position(self) -> Position:
        """The whole position at the barrier."""
        ...

    def blocks(self) -> Iterator[RowBlock]:
        """Yield all rows."""
        ...


class AuditVersions(LoadVersion, Protocol):
    """The versions that an audit may begin at, and that restores in the log name."""

    def places(self, table: str, shard: int) -> Iterator[VersionPlace]:
        """Yield where a shard stood at the newest version and those it continues, newest first."""
        ...

    def replayed(self, version: str, table: str, shard: int) -> StoredShard:
        """Return a shard to replay from."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """What a replay begins with."""

    position: Position
    blocks: Callable[[], Iterable[RowBlock]] = tuple[RowBlock, ...]
    words: str | None = None  # which; None: the shard's birth


async def find_start(
    log: Log, table: str, shard: int, bounds: Bounds, stored: Position, versions: AuditVersions | None
) -> Start | None:
    """Return where the replay up to `stored` begins, as early as the log allows; None: nowhere.

    Behind lost records that is the oldest version of this log generation that the log reaches back to,
    or, before there is one, where `relog --from` put the shard back to a version.
    """
    if bounds.begin == 0 and stored.gen == FIRST_GENERATION:
        return Start(Position())
    if versions is None:
        return None
    oldest, seen = None, 0
    for place in versions.places(table, shard):
        if not seen:
            seen = place.updates
        if place.position.gen != stored.gen or not bounds.begin <= place.position.next <= stored.next:
            break
        oldest = place
    if oldest is not None:
        known = versions.replayed(oldest.version, table, shard)
        return Start(known.position, known.blocks, _words(oldest.version, known.position))
    marker = await _last_relog(log, table, shard, seen)
    if marker is None:
        return None
    position = Position.fixed(marker.position)
    if position.gen != stored.gen or not bounds.begin <= position.next <= stored.next:
        return None
    version = str(marker.body["version"])
    known = versions.replayed(version, table, shard)  # its producers, quarantines and restored rows lived on
    position = replace(known.position, **{name: getattr(position, name) for name in SCALARS})
    return Start(position, known.blocks, f"{_words(version, position)}, where a relog put it")


async def _last_relog(log: Log, table: str, shard: int, since: int) -> Marker | None:
    """Return the last relog that the updates of a shard tell of, from offset `since` on."""
    topic, found = topics.updates(table), None
    bounds = await log.bounds(topic, shard)
    reader = log.reader(topic, shard, min(max(since, bounds.begin), bounds.end))
    try:
        while reader.position < bounds.end:
            for record in await reader.read(wait=_WAIT):
                try:
                    update = read_update(record.value, limit=MAX_FRAME)
                except FrameError:  # nobody's
                    continue
                if isinstance(update, Marker) and update.kind == RELOG:
                    found = update
    finally:
        await reader.close()
    return found


def _words(version: str, position: Position) -> str:
    return f"version {version}, offset {position.next} of generation {position.gen}"
