"""The vectorised dictionary against a dict."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.ids import splitmix64
from driftline.shard.dictionary import NOT_FOUND, Dictionary
from tests.support.samples import u64

IDS = st.integers(0, 2**64 - 1) | st.integers(0, 50)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(IDS, unique=True, max_size=400), max_size=6), st.lists(IDS, max_size=50))
def test_it_finds_what_a_dict_finds(batches: list[list[int]], asked: list[int]) -> None:
    dictionary, known, keys = Dictionary(), dict[int, int](), np.zeros(4096, np.uint64)
    for batch in batches:
        fresh = [row for row in batch if row not in known]
        slots = np.arange(len(known), len(known) + len(fresh), dtype=np.int32)
        keys[slots] = u64(fresh)
        known.update(zip(fresh, slots.tolist(), strict=True))
        dictionary.insert(slots, keys, len(known))
    wanted = [*asked, *known, *asked]  # duplicates are allowed
    assert dictionary.find(u64(wanted), keys).tolist() == [known.get(row, NOT_FOUND) for row in wanted]


def test_ids_that_fall_on_one_place_are_told_apart() -> None:
    candidates = np.arange(200_000, dtype=np.uint64)
    crowd = candidates[splitmix64(candidates) >> np.uint64(54) == np.uint64(1023)]  # the last place of 1024
    assert len(crowd) > 150
    dictionary, half = Dictionary(), crowd[:100]
    dictionary.insert(np.arange(100, dtype=np.int32), half, 100)
    assert dictionary.find(crowd, half)[:100].tolist() == list(range(100))
    assert set(dictionary.find(crowd, half)[100:].tolist()) == {NOT_FOUND}


def test_it_is_never_more_than_half_full() -> None:
    dictionary, keys = Dictionary(), np.arange(5000, dtype=np.uint64)
    for used in range(500, 5001, 500):
        dictionary.insert(np.arange(used - 500, used, dtype=np.int32), keys, used)
        assert dictionary.nbytes >= 4 * 2 * used
    assert dictionary.find(keys, keys).tolist() == keys.tolist()


def test_a_rebuild_forgets_everything_else() -> None:
    dictionary, keys = Dictionary(), u64([7, 8, 9])
    dictionary.insert(np.arange(3, dtype=np.int32), keys, 3)
    dictionary.rebuild(np.array([2], np.int32), keys)
    assert dictionary.find(keys, keys).tolist() == [NOT_FOUND, NOT_FOUND, 2]
    dictionary.rebuild(np.empty(0, np.int32), keys)
    assert dictionary.find(keys, keys).tolist() == [NOT_FOUND] * 3


def test_finding_nothing_gives_nothing() -> None:
    assert Dictionary().find(u64([]), u64([])).tolist() == []
    assert Dictionary().find(u64([1]), np.zeros(1, np.uint64)).tolist() == [NOT_FOUND]
