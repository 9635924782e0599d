from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline.graph.packing import EMPTY, distances_of, distinct, grouped, merged, pack, slots_of

FINITE = st.floats(-(2.0**60), 2.0**60, width=32)
ENTRIES = st.lists(st.tuples(FINITE, st.integers(0, 2**31 - 1)), min_size=1, max_size=20)


@given(ENTRIES)
def test_keys_give_back_what_was_packed(entries: list[tuple[float, int]]) -> None:
    distances = np.array([each[0] for each in entries], np.float32) + np.float32(0)
    slots = np.array([each[1] for each in entries], np.int32)
    keys = pack(distances, slots)
    assert np.array_equal(distances_of(keys), distances)
    assert np.array_equal(slots_of(keys), slots)


@given(ENTRIES)
def test_keys_sort_by_distance_then_slot_and_empty_comes_last(entries: list[tuple[float, int]]) -> None:
    distances = np.array([each[0] for each in entries], np.float32) + np.float32(0)
    slots = np.array([each[1] for each in entries], np.int32)
    keys = np.sort(np.append(pack(distances, slots), EMPTY))
    expected = sorted(zip(distances.tolist(), slots.tolist(), strict=True))
    assert list(zip(distances_of(keys[:-1]).tolist(), slots_of(keys[:-1]).tolist(), strict=True)) == expected
    assert keys[-1] == EMPTY
    assert distances_of(keys[-1:])[0] == np.inf
    assert slots_of(keys[-1:])[0] == -1


@given(
    st.lists(st.lists(st.integers(0, 8), min_size=5, max_size=5), min_size=1, max_size=4), st.integers(1, 7)
)
def test_a_merge_keeps_the_least_distinct_keys(rows: list[list[int]], width: int) -> None:
    keys = np.array(rows, np.uint64)
    keys[keys == 8] = EMPTY
    found = merged(keys.copy(), width)
    for given_row, row in zip(keys, found, strict=True):
        expected = sorted({int(key) for key in given_row} - {int(EMPTY)})[:width]
        assert row.tolist() == expected + [int(EMPTY)] * (width - len(expected))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=30), st.integers(1, 4))
def test_grouping_gives_each_row_its_least_keys(pairs: list[tuple[int, int]], width: int) -> None:
    rows = np.array([row for row, _ in pairs], np.int64)
    keys = np.array([key for _, key in pairs], np.uint64)
    lines, table = grouped(rows, keys, width)
    assert lines.tolist() == sorted(set(rows.tolist()))
    for line, entries in zip(lines, table, strict=True):
        expected = sorted({key for row, key in pairs if row == line})[:width]
        assert entries[entries != EMPTY].tolist() == expected


@given(st.lists(st.integers(0, 9)))
def test_distinct_is_sorted_and_without_repeats(values: list[int]) -> None:
    assert distinct(np.array(values, np.int64)).tolist() == sorted(set(values))
