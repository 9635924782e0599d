"""Backups in memory [EM5]: what changed between one cut and the next, in the format of segments.

Invariant: a backup that is listed can be read, whole, whatever was dropped before it; their
objects take at most `limit` bytes after `trim`. What a dropped backup alone knew, and a later one
builds on, moves into that one.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from driftline.control import HeldBackup
from driftline.versions import DeltaBuffer, PartManifest, PartSpec, Place, Repository, seal_part
from driftline.versions.manifest import part_objects
from driftline.versions.segments import Segment, SegmentData, SegmentRef, write_segment
from driftline_services.versioner.shards import ShardState

HOUR = 3_600_000  # ms
_NO_OWNER_MAPS = 1 << 15  # a map would name segments that are to be merged
Shard = tuple[str, int]


@dataclass(slots=True)
class Backup:
    """A barrier of kind backup: the shards that this instance has of it."""

    op: int
    time: int  # log time, ms
    parts: dict[Shard, PartManifest] = field(default_factory=dict)
    own: dict[Shard, tuple[SegmentRef, ...]] = field(default_factory=dict)  # segments it added itself


class Backups:
    """The backups that an instance holds.

    Parameters
    ----------
    kept: how many of the newest are kept.
    hourly: how many older ones besides, the newest of each hour.
    limit: bytes of all of them.
    """

    def __init__(self, repository: Repository, kept: int, hourly: int, limit: int) -> None:
        self._repository, self._kept, self._hourly, self._limit = repository, kept, hourly, limit
        self._held: dict[int, Backup] = {}
        self._keys: set[str] = set()  # of objects that entered parts need
        self.taken = 0

    def __iter__(self) -> Iterator[Backup]:
        """Yield those held, oldest first."""
        return iter(sorted(self._held.values(), key=lambda each: each.op))

    def find(self, op: int) -> Backup | None:
        """Return a backup, None if it is not held."""
        return self._held.get(op)

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self._repository.cache.held_bytes

    def base(self, state: ShardState) -> PartManifest | None:
        """Return the shard of the version that a backup is laid on, as it is stored now. Blocking."""
        if state.base is None:
            return None
        stood = state.relogged_to or state.line.base
        return self._repository.current(stood, state.table, state.shard, state.base)

    def seal(
        self,
        shard: Shard,
        op: int,
        shape: tuple[int, int],
        base: PartManifest | None,
        delta: DeltaBuffer,
        place: Place,
    ) -> PartManifest:
        """Return the shard as it is at `place`, what changed since `base` held in memory. Blocking."""
        spec = PartSpec(*shard, *shape, f"backup-{op}", owner_every=_NO_OWNER_MAPS)
        repository = self._repository
        return seal_part(spec, base, delta if len(delta) else None, place, repository.cache, repository.hold)

    def add(self, shard: Shard, op: int, time: int, base: PartManifest | None, part: PartManifest) -> None:
        """Enter a shard's part of a backup."""
        known = {each.ref.key for each in base.segments} if base is not None else set()
        backup = self._held.setdefault(op, Backup(op, time))
        backup.time = max(backup.time, time)
        self._keys |= {ref.key for ref in part_objects(part)}
        backup.parts[shard] = part
        backup.own[shard] = tuple(each for each in part.segments if each.ref.key not in known)

    def trim(self) -> list[Backup]:
        """Drop what is too much; return what was dropped."""
        dropped = [self._drop(each) for each in superfluous(list(self), self._kept, self._hourly)]
        while self._held and self.nbytes > self._limit:
            dropped.append(self._drop(next(iter(self))))
        return dropped

    def give_up(self, ops: Iterable[int]) -> None:
        """Drop backups by name."""
        for op in ops:
            if (backup := self._held.get(op)) is not None:
                self._drop(backup)

    def keep_shards(self, shards: frozenset[Shard]) -> None:
        """Drop the parts of shards that are others' now."""
        for backup in list(self):
            for shard in backup.parts.keys() - shards:
                del backup.parts[shard], backup.own[shard]
            if not backup.parts:
                del self._held[backup.op]
        self._release()

    def drop_shard(self, shard: Shard) -> None:
        """Drop the parts of one shard: it is followed anew."""
        self.keep_shards(frozenset(each for backup in self for each in backup.parts) - {shard})

    def current(self, shard: Shard, op: int) -> PartManifest | None:
        """Return a shard's part of a backup as it is now: merging replaces it."""
        backup = self._held.get(op)
        return backup.parts.get(shard) if backup is not None else None

    def facts(self) -> tuple[HeldBackup, ...]:
        """Return what is told of those held."""
        return tuple(
            HeldBackup(
                each.op,
                each.time,
                sum(ref.ref.size for own in each.own.values() for ref in own),
                sum(ref.rows for own in each.own.values() for ref in own),
            )
            for each in self
        )

    def _drop(self, backup: Backup) -> Backup:
        del self._held[backup.op]
        for shard, own in backup.own.items():
            keys = {each.ref.key for each in own}
            later = [
                each
                for each in self
                if each.op > backup.op
                and shard in each.parts
                and keys & {ref.ref.key for ref in each.parts[shard].segments}
            ]
            if later:
                self._merge(shard, own, later)
        self._release()
        return backup

    def _merge(self, shard: Shard, own: Sequence[SegmentRef], later: Sequence[Backup]) -> None:
        """Move the rows of `own` that the first of `later` still shows into it."""
        first = later[0]
        refs = (*own, *first.own[shard])
        replaced = {each.ref.key for each in refs}
        merged = self._merged(shard, first.op, refs)
        for backup in later:
            part = backup.parts[shard]
            kept = [each for each in part.segments if each.ref.key not in replaced]
            # they stood next to each other, behind what came before and in front of what came later
            at = next(n for n, each in enumerate(part.segments) if each.ref.key in replaced)
            segments = (*kept[:at], *merged, *kept[at:])
            backup.parts[shard] = replace(part, segments=segments)
        first.own[shard] = merged

    def _merged(self, shard: Shard, op: int, refs: Sequence[SegmentRef]) -> tuple[SegmentRef, ...]:
        cache = self._repository.cache
        opened = [Segment(cache, each) for each in refs]
        ordinals = np.concatenate([each.ordinals for each in opened])
        dead = np.concatenate([each.dead for each in opened])
        dead_lsn = np.concatenate([each.dead_lsn for each in opened])
        order = np.argsort(ordinals, kind="stable")  # of equal ordinals the newest comes last
        last = np.ones(len(order), np.bool_)
        last[:-1] = ordinals[order][1:] != ordinals[order][:-1]
        keep = order[last]
        keep = keep[~np.isin(ordinals[keep], dead)]
        rows = np.concatenate([each.rows(np.arange(len(each.ordinals))) for each in opened])
        state = np.concatenate([each.state(np.arange(len(each.ordinals))) for each in opened])
        lsn = np.concatenate([each.lsns(np.arange(len(each.ordinals))) for each in opened])
        by_ordinal = np.argsort(dead, kind="stable")
        if not len(keep) and not len(dead):
            return ()
        data = SegmentData(
            ordinals[keep], lsn[keep], rows[keep], state[keep], dead[by_ordinal], dead_lsn[by_ordinal]
        )
        table, number = shard
        key = f"tables/{table}/seg/{number}/backup-{op}-{uuid.uuid4().hex[:16]}"
        entry, sealed = write_segment(key, table, number, f"backup-{op}", data)
        self._repository.hold(sealed)
        self._keys.add(key)
        return (entry,)

    def _release(self) -> None:
        parts = [part for backup in self._held.values() for part in backup.parts.values()]
        needed = {ref.key for part in parts for ref in part_objects(part)}
        for key in self._keys - needed:
            self._repository.cache.release(key)
        self._keys &= needed


def superfluous(backups: Sequence[Backup], kept: int, hourly: int) -> list[Backup]:
    """Return those to be dropped, oldest first: all but the newest `kept` and the hours' newest before."""
    newest = backups[len(backups) - kept :] if kept else []
    older = backups[: len(backups) - len(newest)]
    of_hours = {each.time // HOUR: each for each in older}  # the newest of an hour comes last
    hours = list(of_hours.values())[-hourly:] if hourly else []
    return [each for each in older if not any(each is one for one in hours)]
