"""What the versioner makes of a shard that a relog put back: its past is the version's, nothing else."""

from __future__ import annotations

import numpy as np

from driftline.frames.events import BARRIER, RESTORE
from driftline.frames.states import RELOG, Marker, States, read_update, write_marker
from driftline.ids import lsn
from driftline.shard.screen import MAX_FRAME
from driftline.versions import Manifest, PartManifest, Place, TableManifest
from driftline_services.versioner.restoring import put_back
from driftline_services.versioner.shards import CHECKOUT, VERSION, Cut, Line, ShardState, is_relog

BASE = PartManifest(Place({"next": 40, "gen": 1, "floor": 0, "op": 3, "rows": 2}), 2, 0)
OLD = PartManifest(Place({"next": 20, "gen": 1, "floor": 0, "op": 2, "rows": 1}), 1, 0)


class Stored:
    """As much of a repository as putting back needs."""

    def version(self, name: str) -> Manifest:
        table = TableManifest(2, 0, "schema", (OLD,))
        return Manifest(name, "op-2", "main", 0, 0.0, {"t": table})


def shard() -> ShardState:
    return ShardState.begin("t", 0, (2, 0), BASE, Line("main", "N", "N2"), 1 << 20, None)


def states(row: int, at: int) -> States:
    one = np.ones(1, np.uint64)
    return States(
        "t", 0, one * row, one.astype(np.uint32), one * at, np.ones((1, 2), np.float32),
        np.zeros((1, 0), np.float32), np.zeros(1, np.uint8),
    )  # fmt: skip


def relog_marker() -> Marker:
    body = {"table": "t", "shard": 0, "version": "N1", "generation": 2, "next": 50}
    return Marker(RELOG, "t", 0, 5, body, {"gen": 2, "next": 50, "floor": 0, "op": 5}, {})


def relogged(state: ShardState) -> Cut:
    cut = state.take(relog_marker(), 8)
    assert cut is not None
    put_back(Stored(), state, cut)  # type: ignore[arg-type]
    state.passed(cut.op)
    return cut


def marker(name: str, op: int, following: int, *, floor: int = 0, **body: object) -> Marker:
    return Marker(name, "t", 0, op, body, {"gen": 2, "next": following, "floor": floor, "op": op}, {})


def test_a_relog_marker_travels_as_it_is() -> None:
    assert read_update(write_marker(relog_marker()), limit=MAX_FRAME) == relog_marker()


def test_what_was_published_before_it_is_forgotten_and_the_version_is_the_base() -> None:
    state = shard()
    state.take(states(1, lsn(1, 45)), 7)
    cut = relogged(state)
    assert (cut.kind, is_relog(cut)) == (CHECKOUT, True)
    state.take(states(2, lsn(1, 46)), 9)  # of an owner of before
    state.take(states(3, lsn(2, 50)), 10)
    assert (state.base, state.delta.index().ids.tolist()) == (OLD, [3])
    assert (state.line, state.open) == (Line("main", "N", "N2"), 0)


def test_its_part_of_the_next_version_says_which_version_it_was_laid_on() -> None:
    state = shard()
    relogged(state)
    assert state.relogged_to == "N1"
    state.committed(6, OLD, Line("main", "N", "N3"))
    assert state.relogged_to == "", "and those behind lie on that one"


def test_the_next_barrier_is_a_cut_and_an_old_one_is_not() -> None:
    state = shard()
    relogged(state)
    assert state.take(marker(BARRIER, 4, 51, kind="version"), 9) is None
    cut = state.take(marker(BARRIER, 6, 52, kind="version"), 10)
    assert cut is not None
    assert cut.kind == VERSION


def test_a_restore_that_the_log_behind_a_relog_repeats_puts_the_shard_back_once_more() -> None:
    state = shard()
    relogged(state)
    effective = marker(RESTORE, 4, 54, floor=lsn(2, 53), version="N1", mode="rollback", restored=True)
    cut = state.take(effective, 9)
    assert cut is not None
    assert (cut.kind, is_relog(cut)) == (CHECKOUT, False)
    state.restored(cut, OLD, state.line)
    state.passed(cut.op)
    assert state.last_op >= 4
    assert state.take(effective, 10) is None, "repeated by an aggregator that started again"
