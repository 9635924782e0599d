"""Bugs to plant in the versioner, one function each, to see that the simulation finds them.

Invariant: as in `mutations`: each breaks one rule and nothing else.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from driftline import versions
from driftline.frames.states import Marker, States
from driftline.versions import Draft, Manifest, PartManifest, Repository
from driftline.versions.segments import SegmentRef
from driftline_services.chassis import TopicPartition
from driftline_services.versioner import works
from driftline_services.versioner.backups import Backups
from driftline_services.versioner.core import Versioner
from driftline_services.versioner.shards import Cut, Line, ShardState

Patch = pytest.MonkeyPatch


def drop_what_was_rejected(patch: Patch) -> None:
    """What a rejected version had changed is forgotten instead of folded into the next one."""
    real = ShardState.passed

    def passed(self: ShardState, op: int) -> None:
        if self.open and self.open % 5 == 0:
            self.delta.clear(0)
        real(self, op)

    patch.setattr(ShardState, "passed", passed)


def go_on_behind_the_first_updates(patch: Patch) -> None:
    """A start skips the first updates behind the version."""
    real = ShardState.begin

    def begin(
        table: str,
        shard: int,
        shape: tuple[int, int],
        base: PartManifest | None,
        line: Line,
        memory: int,
        directory: Path | None,
    ) -> ShardState:
        state = real(table, shard, shape, base, line, memory, directory)
        if base is not None:
            state.position += 4
        return state

    patch.setattr(ShardState, "begin", begin)


def commit_under_a_name_of_ones_own(patch: Patch) -> None:
    """A commit is not known again after a crash or a lost reply: its txn is drawn, not derived."""
    numbers = itertools.count()

    def commit(repository: Repository, draft: Draft) -> Manifest:
        return versions.commit(repository, replace(draft, txn=f"{draft.txn}-{next(numbers)}"))

    patch.setattr(works, "commit", commit)
    patch.setattr(works.Works, "decided", lambda self, cut: None)


def take_repeated_markers_for_new(patch: Patch) -> None:
    """A marker that an aggregator repeats is a cut once more."""
    real = ShardState.take

    def take(self: ShardState, update: States | Marker, offset: int) -> Cut | None:
        if isinstance(update, Marker):
            self.last_op = 0
            self.markers = type(self.markers)()
        return real(self, update, offset)

    patch.setattr(ShardState, "take", take)
    patch.setattr(works.Works, "decided", lambda self, cut: None)


def keep_shards_at_an_open_cut(patch: Patch) -> None:
    """A shard that stood at a cut when it was released goes on behind it."""
    real = Versioner.release

    async def release(self: Versioner, partitions: frozenset[TopicPartition]) -> None:
        for state in self.states.values():
            state.open = 0
        await real(self, partitions)

    patch.setattr(Versioner, "release", release)


def clear_before_the_commit(patch: Patch) -> None:
    """The delta is emptied when the cut is met, not when it is decided."""
    real = works.Works.seal

    def seal(self: works.Works, state: ShardState, cut: Cut) -> PartManifest:
        part = real(self, state, cut)
        state.delta.clear(0)
        return part

    patch.setattr(works.Works, "seal", seal)


def begin_backups_too_late(patch: Patch) -> None:
    """A backup leaves out what changed first since the one before."""
    real = ShardState.backed_up

    def backed_up(self: ShardState, cut: Cut) -> None:
        real(self, cut)
        self.backup_from += 1

    patch.setattr(ShardState, "backed_up", backed_up)


def let_older_rows_win_in_merged_backups(patch: Patch) -> None:
    """When a backup is dropped its rows go over those of the next one."""
    real = Backups._merged

    def merged(
        self: Backups, shard: tuple[str, int], op: int, refs: Sequence[SegmentRef]
    ) -> tuple[SegmentRef, ...]:
        return real(self, shard, op, tuple(reversed(refs)))

    patch.setattr(Backups, "_merged", merged)


MUTATIONS: dict[Callable[[Patch], None], frozenset[str]] = {
    drop_what_was_rejected: frozenset({"version-rows", "rest"}),
    go_on_behind_the_first_updates: frozenset({"version-rows", "rest"}),
    commit_under_a_name_of_ones_own: frozenset({"version-twice", "version-order", "rest"}),
    take_repeated_markers_for_new: frozenset({"version-twice", "version-order", "version-cut", "rest"}),
    keep_shards_at_an_open_cut: frozenset({"rest", "version-rows"}),
    clear_before_the_commit: frozenset({"version-rows", "rest"}),
    begin_backups_too_late: frozenset({"version-rows"}),
    let_older_rows_win_in_merged_backups: frozenset({"version-rows"}),
}
