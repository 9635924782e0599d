"""What a tick gathers does not depend on how often, how late or in what order states come."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline.frames.states import GRADIENT_CAUSE, TOMBSTONE, UPSERT_CAUSE, Marker, States
from driftline_services.drift_monitor.gathering import RESTORED, TICK, ShardFollow, gathered

DIM = 2


def states(*entries: tuple[int, int, int]) -> States:
    """Return states of (id, lsn, flags); a row's bits follow from its id and LSN."""
    ids, lsns, flags = (np.array(column) for column in zip(*entries, strict=True))
    rows = np.stack([ids + 0.0, lsns + 0.0], axis=1).astype(np.float32)
    nothing = np.empty((len(ids), 0), np.float32)
    return States(
        "t", 0, ids.astype(np.uint64), np.zeros(len(ids), np.uint32), lsns.astype(np.uint64), rows, nothing,
        flags.astype(np.uint8),
    )  # fmt: skip


def marker(what: str, op: int, following: int, floor: int = 0, **body: object) -> Marker:
    return Marker(what, "t", 0, op, body, {"gen": 0, "next": following, "floor": floor, "time": 5}, {})


entry = st.tuples(
    st.integers(1, 5), st.integers(1, 9), st.sampled_from([int(GRADIENT_CAUSE), int(UPSERT_CAUSE)])
)


@given(st.lists(entry, min_size=1, max_size=12, unique_by=lambda each: (each[0], each[1])), st.data())
def test_states_that_come_late_twice_or_out_of_order_change_nothing(
    entries: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    once = gathered([states(*entries)], DIM)
    again = data.draw(st.permutations(entries + data.draw(st.lists(st.sampled_from(entries), max_size=6))))
    other = gathered([states(each) for each in again], DIM)
    for name in ("ids", "vectors", "dead", "by_gradient"):
        assert np.array_equal(getattr(once, name), getattr(other, name)), name


def test_a_row_that_was_put_and_then_moved_did_not_come_so_far_by_gradients() -> None:
    found = gathered([states((1, 3, 4), (2, 3, 2)), states((1, 5, 2))], DIM)
    assert found.ids.tolist() == [1, 2]
    assert found.by_gradient.tolist() == [False, True]


def test_a_deleted_row_is_dead_unless_it_is_born_again() -> None:
    found = gathered([states((1, 3, int(TOMBSTONE)), (2, 3, int(TOMBSTONE))), states((2, 4, 2))], DIM)
    assert found.dead.tolist() == [True, False]


def test_what_is_older_than_the_last_barrier_is_left_out() -> None:
    shard = ShardFollow("t", 0, DIM)
    shard.take(states((1, 4, 2)), 0)
    cut = shard.take(marker("barrier", 3, 9, kind="backup"), 1)
    assert cut is not None
    assert (cut.kind, cut.op, cut.offset) == (TICK, 3, 2)
    shard.passed()
    shard.take(states((1, 8, 2), (2, 9, 2)), 2)
    assert gathered(shard.pending, DIM).ids.tolist() == [2]
    assert shard.late == 1


def test_a_barrier_that_is_told_twice_is_one_tick() -> None:
    shard = ShardFollow("t", 0, DIM)
    assert shard.take(marker("barrier", 3, 9), 0) is not None
    shard.passed()
    assert shard.take(marker("barrier", 3, 9), 1) is None


def test_a_restore_is_a_cut_only_where_it_took_effect() -> None:
    shard = ShardFollow("t", 0, DIM)
    assert shard.take(marker("restore", 3, 9, floor=2, version="V-R-1.0"), 0) is None
    cut = shard.take(marker("restore", 4, 10, floor=9, version="V-R-1.0"), 1)
    assert cut is not None
    assert (cut.kind, cut.version) == (RESTORED, "V-R-1.0")
