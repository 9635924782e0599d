"""The restore-rows in force, against a plain dict of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.shard.restored import Restored

IDS = st.sampled_from([0, 1, 5, 7, 2**63, 2**64 - 1])
STEPS = st.lists(
    st.tuples(st.sets(IDS), st.integers(0, 3), st.none() | st.integers(0, 4)),
    max_size=8,
)


def u64(rows: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(rows, np.uint64)


@settings(deadline=None)
@given(STEPS, st.sets(IDS), st.integers(0, 9))
def test_what_was_put_back_stays_until_its_time_has_come(
    steps: list[tuple[set[int], int, int | None]], asked: set[int], read_pos: int
) -> None:
    known: dict[int, tuple[int, int]] = {}
    restored, time = Restored(), 0
    for at, (ids, later, back) in enumerate(steps):
        time += later
        restored.set(u64(sorted(ids)), at, time)
        known |= dict.fromkeys(ids, (at, time))
        if back is not None:
            ended = {row for row, (_, put) in known.items() if put < time - back}
            assert restored.end(time - back) == sorted(ended)
            known = {row: seen for row, seen in known.items() if row not in ended}
        assert dict(restored) == known
        assert list(restored) == sorted(known)
    frame = sorted(asked)
    expected = [row in known and known[row][0] >= read_pos for row in frame]
    assert restored.superseded(u64(frame), read_pos).tolist() == expected


@settings(deadline=None)
@given(st.dictionaries(IDS, st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**48))))
def test_columns_in_any_order_read_back(rows: dict[int, tuple[int, int]]) -> None:
    lsns, times = (u64([seen[n] for seen in rows.values()]) for n in (0, 1))
    assert dict(Restored(u64(list(rows)), lsns, times)) == rows


def test_ids_that_were_put_back_are_found_beyond_a_signed_number() -> None:
    restored = Restored()
    restored.set(u64([2**64 - 1]), 2**64 - 1, 0)
    assert restored.superseded(u64([0, 2**64 - 1]), 2**64 - 1).tolist() == [False, True]
