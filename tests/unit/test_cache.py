"""The cache of rows: what is dirty or in flight is never dropped, what is dead equals its birth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from numpy.typing import NDArray

from driftline.frames.states import GRADIENT_CAUSE
from driftline.shard.cache import RowBlock, RowCache
from driftline.shard.dictionary import NOT_FOUND
from tests.support.samples import f32, u64

IDS = st.integers(0, 600)


def initial(ids: NDArray[np.uint64]) -> NDArray[np.float32]:
    return np.stack([ids, ids + np.uint64(1)], axis=1).astype(np.float32)


def empty_cache() -> RowCache:
    return RowCache(2, initial, np.array([7], np.float32))


def block(rows: dict[int, float], absent: tuple[int, ...] = ()) -> RowBlock:
    ids = [*rows, *absent]
    return RowBlock(
        u64(ids),
        np.array([row in rows for row in ids], bool),
        f32([[rows.get(row, 0)] * 2 for row in ids]),
        f32([rows.get(row, 0) for row in ids], 1),
        u64([1] * len(ids)),
        np.arange(len(ids), dtype=np.uint32),
    )


def test_an_unknown_id_is_not_found_and_enters_as_what_it_is_born_with() -> None:
    cache = empty_cache()
    assert cache.find(u64([5])).tolist() == [NOT_FOUND]
    (slot,) = cache.slots(u64([5]))
    assert cache.rows[slot].tolist() == [5, 6]
    assert cache.state[slot].tolist() == [7]
    assert not cache.alive[slot]


def test_duplicates_of_an_unknown_id_share_a_slot() -> None:
    cache = empty_cache()
    assert len(set(cache.slots(u64([5, 5, 5])).tolist())) == 1
    assert cache.used == 1


def test_what_redis_holds_enters_alive_and_what_it_lacks_as_a_birth() -> None:
    cache = empty_cache()
    cache.enter(block({1: 10.0}, absent=(2,)))
    one, two = cache.find(u64([1, 2]))
    assert (cache.alive[one], cache.rows[one].tolist(), cache.state[one].tolist()) == (True, [10, 10], [10])
    assert (cache.alive[two], cache.rows[two].tolist()) == (False, [2, 3])
    assert cache.alive_count == 1


def test_a_fetched_row_never_overwrites_one_that_is_known_by_now() -> None:
    cache = empty_cache()
    cache.enter(block({1: 10.0}))
    cache.enter(block({1: 99.0, 3: 30.0}))
    assert cache.rows[cache.find(u64([1, 3]))].tolist() == [[10, 10], [30, 30]]
    assert cache.alive_count == 2


def test_births_take_ordinals_in_the_order_given() -> None:
    cache = empty_cache()
    cache.give_birth(cache.slots(u64([9, 4])), 100)
    assert cache.ordinals[cache.find(u64([4, 9]))].tolist() == [101, 100]
    assert cache.alive_count == 2


def test_a_reset_row_is_what_it_would_be_born_with() -> None:
    cache = empty_cache()
    cache.enter(block({1: 10.0}))
    cache.reset(cache.slots(u64([1])))
    assert cache.rows[cache.find(u64([1]))].tolist() == [[1, 2]]
    assert cache.alive_count == 0


def test_what_changes_in_flight_is_dirty_again_afterwards() -> None:
    cache = empty_cache()
    slots = cache.slots(u64([1, 2]))
    cache.touch(slots, u64([5, 5]), GRADIENT_CAUSE)
    assert cache.begin_flight().tolist() == slots.tolist()
    assert cache.dirty_count == 0
    cache.touch(slots[:1], u64([6]), GRADIENT_CAUSE)
    cache.end_flight()
    assert cache.dirty_count == 1
    assert cache.begin_flight().tolist() == slots[:1].tolist()


def test_only_one_flight_at_a_time() -> None:
    cache = empty_cache()
    cache.begin_flight()
    with pytest.raises(AssertionError, match="already under way"):
        cache.begin_flight()
    cache.end_flight()
    with pytest.raises(AssertionError, match="no flight"):
        cache.end_flight()


def test_trimming_drops_the_rows_unused_longest_first() -> None:
    cache = empty_cache()
    cache.enter(block(dict.fromkeys(range(2000), 1.0)))
    recent = u64(range(500, 510))
    cache.slots(recent)
    budget = cache.nbytes // 2
    dropped = cache.trim(budget)
    assert dropped > 0
    assert cache.used == 2000 - dropped == cache.alive_count
    assert (cache.find(recent) != NOT_FOUND).all()
    assert cache.nbytes <= budget


def test_trimming_within_the_budget_drops_nothing() -> None:
    cache = empty_cache()
    cache.enter(block(dict.fromkeys(range(50), 1.0)))
    assert cache.trim(cache.nbytes * 8 // 7 + 8) == 0
    assert cache.trim(0) == 50
    assert (cache.used, cache.alive_count) == (0, 0)
    cache.enter(block({1: 10.0}))  # works on
    assert cache.find(u64([1])).tolist() == [0]


def test_trimming_in_flight_keeps_what_flies_and_what_changed_since() -> None:
    cache = empty_cache()
    cache.enter(block(dict.fromkeys(range(50), 1.0)))
    cache.touch(cache.slots(u64([10, 20])), u64([5, 5]), GRADIENT_CAUSE)
    cache.begin_flight()
    cache.touch(cache.slots(u64([20])), u64([6]), GRADIENT_CAUSE)
    assert cache.trim(0) == 48
    cache.end_flight()
    assert cache.ids[cache.begin_flight()].tolist() == [20]
    cache.end_flight()
    assert cache.trim(0) == 2


@pytest.mark.parametrize("batch", [10, 200, 1000])
def test_a_cache_that_is_trimmed_after_each_batch_stays_within_its_budget(batch: int) -> None:
    cache, budget = empty_cache(), 500_000
    for start in range(0, 60_000, batch):
        cache.slots(np.arange(start, start + batch, dtype=np.uint64))
        assert cache.nbytes <= budget
        cache.trim(budget)


def test_a_growing_cache_holds_little_that_it_does_not_use() -> None:
    dim = 64
    cache = RowCache(dim, lambda ids: np.zeros((len(ids), dim), np.float32), np.zeros(1, np.float32))
    for start in range(0, 40_000, 500):
        cache.slots(np.arange(start, start + 500, dtype=np.uint64))
        assert cache.used < 5_000 or cache.nbytes <= 1.3 * cache.used * (4 * dim + 4 + 24)


def test_a_view_of_a_column_outlives_its_growth() -> None:
    cache = empty_cache()
    cache.slots(u64([5]))
    view = cache.rows[:1]
    cache.slots(np.arange(100, 10_000, dtype=np.uint64))
    assert view.tolist() == [[5, 6]]
    assert cache.rows[0].tolist() == [5, 6]


class AgainstRedis(RuleBasedStateMachine):
    """A cache over a dict that plays Redis, against a dict that knows everything."""

    @initialize()
    def start(self) -> None:
        self.cache = empty_cache()
        self.truth: dict[int, tuple[float, int]] = {}  # id -> value, LSN
        self.stored: dict[int, tuple[float, int]] = {}
        self.flying: dict[int, tuple[float, int] | None] | None = None
        self.dirty: set[int] = set()
        self.lsn = 0

    def load(self, ids: list[int]) -> None:
        missing = [row for row in ids if self.cache.find(u64([row]))[0] == NOT_FOUND]
        here = {row: self.stored[row] for row in missing if row in self.stored}
        found = block(
            {row: value for row, (value, _) in here.items()}, tuple(row for row in missing if row not in here)
        )
        lsn = u64([self.stored.get(int(row), (0, 0))[1] for row in found.ids])
        self.cache.enter(RowBlock(found.ids, found.present, found.rows, found.state, lsn, found.ordinals))

    @rule(ids=st.lists(IDS, unique=True, min_size=1, max_size=80), value=st.integers(1, 1000))
    def write(self, ids: list[int], value: int) -> None:
        self.load(ids)
        self.lsn += 1
        slots = self.cache.slots(u64(ids))
        self.cache.rows[slots] = np.float32(value)
        self.cache.give_birth(slots[~self.cache.alive[slots]], 0)
        self.cache.touch(slots, np.full(len(ids), self.lsn, np.uint64), GRADIENT_CAUSE)
        self.truth.update(dict.fromkeys(ids, (float(value), self.lsn)))
        self.dirty.update(ids)

    @rule(ids=st.lists(IDS, unique=True, min_size=1, max_size=40))
    def remove(self, ids: list[int]) -> None:
        self.load(ids)
        self.lsn += 1
        slots = self.cache.slots(u64(ids))
        slots = slots[self.cache.alive[slots]]
        self.dirty.update(self.cache.ids[slots].tolist())
        self.cache.reset(slots)
        self.cache.touch(slots, np.full(len(slots), self.lsn, np.uint64), GRADIENT_CAUSE)
        for row in ids:
            self.truth.pop(row, None)

    @precondition(lambda self: self.flying is None)
    @rule()
    def take_off(self) -> None:
        slots = self.cache.begin_flight()
        assert set(self.cache.ids[slots].tolist()) == self.dirty
        assert len(slots) == len(self.dirty)
        self.flying = {row: self.truth.get(row) for row in self.dirty}
        self.dirty = set()

    @precondition(lambda self: self.flying is not None)
    @rule()
    def land(self) -> None:
        assert self.flying is not None
        for row, value in self.flying.items():
            if value is None:
                self.stored.pop(row, None)
            else:
                self.stored[row] = value
        self.cache.end_flight()
        self.flying = None

    @rule(budget=st.integers(0, 40_000))
    def trim(self, budget: int) -> None:
        self.cache.trim(budget)

    @invariant()
    def nothing_is_lost(self) -> None:
        cache, rows = self.cache, sorted(self.truth)
        assert cache.dirty_count == len(self.dirty)
        assert cache.alive_count == int(np.count_nonzero(cache.alive[: cache.used]))
        for row, slot in zip(rows, cache.find(u64(rows)).tolist(), strict=True):
            if slot == NOT_FOUND:
                assert self.stored[row] == self.truth[row]
                assert row not in self.dirty
            else:
                assert (float(cache.rows[slot, 0]), int(cache.lsn[slot])) == self.truth[row]
        dead = np.flatnonzero(~cache.alive[: cache.used])
        assert cache.rows[dead].tolist() == initial(cache.ids[dead]).tolist()


AgainstRedis.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAgainstRedis = AgainstRedis.TestCase
