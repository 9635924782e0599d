"""A shard as the versioner follows it: what it takes in behind a version, and what it has already."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.errors import FrameError
from driftline.frames.reasons import Reason
from driftline.frames.states import States, write_states
from driftline.ids import lsn
from driftline.log import Record
from driftline.versions import PartManifest, Place
from driftline_services.versioner.shards import Line, ShardState


def part(following: int, floor: int = 0) -> PartManifest:
    """Return a part of a version whose barrier stands right before offset `following`."""
    position: dict[str, object] = {"next": following, "gen": 1, "op": 5, "rows": 1, "floor": floor}
    return PartManifest(Place(position, {}, 40), rows=1, begin=0)


def states(row: int, at: int, table: str = "t") -> States:
    return States(
        table,
        0,
        np.array([row], np.uint64),
        np.zeros(1, np.uint32),
        np.array([at], np.uint64),
        np.ones((1, 2), np.float32),
        np.zeros((1, 1), np.float32),
        np.full(1, 2, np.uint8),
    )


def begun(base: PartManifest | None) -> ShardState:
    return ShardState.begin("t", 0, (2, 1), base, Line(), 1 << 20, None)


def test_a_state_of_before_the_barrier_that_comes_late_does_not_go_over_the_version() -> None:
    state = begun(None)
    state.take(states(4, lsn(1, 27)), 6)
    state.committed(5, part(30), Line())
    state.take(states(4, lsn(1, 22)), 10)  # an append that its owner had given up on
    assert len(state.delta) == 0
    state.take(states(4, lsn(1, 30)), 11)
    assert state.delta.index().lsn.tolist() == [lsn(1, 30)]


def test_a_start_from_a_version_passes_over_what_it_holds() -> None:
    state = begun(part(30))
    state.take(states(4, lsn(1, 29)), 40)
    state.take(states(5, lsn(1, 30)), 41)
    assert state.delta.index().ids.tolist() == [5]


def test_behind_a_restore_nothing_older_than_the_restore_is_taken_in() -> None:
    state = begun(part(30, floor=lsn(1, 80)))
    state.take(states(4, lsn(1, 79)), 40)
    state.take(states(5, lsn(1, 80)), 41)
    assert state.delta.index().ids.tolist() == [5]


def test_an_update_of_another_shard_is_refused() -> None:
    frame = write_states(states(4, lsn(1, 1), "other"))
    with pytest.raises(FrameError, match="other:0") as caught:
        begun(None).read(Record(0, 0, None, frame))
    assert caught.value.reason == Reason.WRONG_SHARD
