"""Waves: the k-th change of a row is in wave k."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline.shard.waves import schedule, waves


def scalar_waves(slots: list[int]) -> list[set[int]]:
    """Put each position into the wave of its occurrence, one by one."""
    seen: dict[int, int] = defaultdict(int)
    cut: list[set[int]] = []
    for place, slot in enumerate(slots):
        if seen[slot] == len(cut):
            cut.append(set())
        cut[seen[slot]].add(place)
        seen[slot] += 1
    return cut


@given(st.lists(st.integers(0, 8) | st.integers(0, 2**31 - 1), max_size=80))
def test_the_kth_occurrence_is_in_wave_k(slots: list[int]) -> None:
    found = [wave.tolist() for wave in waves(np.array(slots, np.int32))]
    assert [set(wave) for wave in found] == scalar_waves(slots)
    assert sorted(place for wave in found for place in wave) == list(range(len(slots)))


def test_nothing_makes_no_wave() -> None:
    assert list(waves(np.empty(0, np.int32))) == []


def test_distinct_slots_make_one_wave_in_log_order() -> None:
    assert [wave.tolist() for wave in waves(np.array([5, 3, 9], np.int32))] == [[0, 1, 2]]


def test_one_slot_changed_more_often_than_16_bits_count_keeps_its_order() -> None:
    n = (1 << 16) + 3
    assert [int(wave[0]) for wave in waves(np.zeros(n, np.int32))] == list(range(n))


@given(st.lists(st.integers(0, 8) | st.integers(0, 2**31 - 1), min_size=1, max_size=80))
def test_a_schedule_has_the_same_waves_as_slices_of_compact_rows(slots: list[int]) -> None:
    plan = schedule(np.array(slots, np.int32))
    begins = [0, *plan.ends[:-1]]
    found = [plan.order[begin:end].tolist() for begin, end in zip(begins, plan.ends, strict=True)]
    assert [set(wave) for wave in found] == scalar_waves(slots)
    for wave in found:
        assert [slots[place] for place in wave] == plan.slots[: len(wave)].tolist()


@given(st.lists(st.integers(0, 8), min_size=1, max_size=40))
def test_a_schedule_knows_the_first_and_the_last_change_of_each_row(slots: list[int]) -> None:
    plan = schedule(np.array(slots, np.int32))
    backwards = slots[::-1]
    assert plan.first.tolist() == [slots.index(slot) for slot in plan.slots]
    assert plan.last.tolist() == [len(slots) - 1 - backwards.index(slot) for slot in plan.slots]
