"""The baselines, on cases small enough to work out by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline.demo.baselines import Popularity, Recency
from driftline.demo.tables import Ids


def ids(*values: int) -> Ids:
    return np.array(values, np.uint64)


def test_the_most_frequent_items_are_the_most_popular() -> None:
    popularity = Popularity(k=2, half_life=1e9)
    popularity.learn(ids(1, 1, 1, 1, 1), ids(7, 8, 8, 9, 9))

    assert popularity.score(ids(1, 2, 3), ids(7, 8, 9)).tolist() == [False, True, True]


def test_the_item_seen_first_wins_a_tie() -> None:
    popularity = Popularity(k=2, half_life=1e9)
    popularity.learn(ids(1, 1, 1, 1), ids(9, 3, 7, 5))

    assert popularity.top() == {9, 3}


def test_an_event_counts_half_after_the_half_life() -> None:
    popularity = Popularity(k=1, half_life=4)
    popularity.learn(ids(1, 1, 1), ids(7, 7, 7))
    popularity.learn(ids(1, 1), ids(8, 8))
    assert popularity.top() == {7}  # 3 * 2^(-2/4) = 2.12 against 2

    popularity = Popularity(k=1, half_life=4)
    popularity.learn(ids(1, 1, 1), ids(7, 7, 7))
    popularity.learn(ids(1, 1, 1, 1), ids(8, 8, 1, 2))
    assert popularity.top() == {8}  # 3 * 2^(-4/4) = 1.5 against 2


def test_nothing_is_popular_before_anything_was_seen() -> None:
    assert Popularity(k=20, half_life=10).score(ids(1), ids(7)).tolist() == [False]


def test_popularity_grows_past_its_first_capacity() -> None:
    popularity = Popularity(k=1, half_life=1e9)
    popularity.learn(np.zeros(5_000, np.uint64), np.arange(5_000, dtype=np.uint64))
    popularity.learn(ids(0), ids(4_999))

    assert popularity.top() == {4_999}


def test_recency_ranks_only_the_users_own_items() -> None:
    recency = Recency(k=2)
    recency.learn(ids(1, 2), ids(7, 8))

    assert recency.score(ids(1, 1, 2, 3), ids(7, 8, 8, 7)).tolist() == [True, False, True, False]


def test_recency_keeps_the_latest_distinct_items() -> None:
    recency = Recency(k=2)
    recency.learn(ids(1, 1, 1, 1, 1), ids(7, 8, 7, 7, 9))

    assert recency.top(1) == [9, 7]


def test_touching_an_item_again_makes_it_the_latest() -> None:
    recency = Recency(k=2)
    recency.learn(ids(1, 1, 1, 1), ids(7, 8, 7, 9))

    assert recency.score(ids(1, 1, 1), ids(7, 8, 9)).tolist() == [True, False, True]


def test_a_batch_is_judged_by_what_came_before_it() -> None:
    popularity, recency = Popularity(k=5, half_life=10), Recency(k=5)

    assert not popularity.score(ids(1, 1), ids(7, 7)).any()
    assert not recency.score(ids(1, 1), ids(7, 7)).any()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60), st.integers(1, 5))
def test_recency_equals_a_scan_of_the_users_history(events: list[tuple[int, int]], k: int) -> None:
    recency = Recency(k)
    for n, (user, item) in enumerate(events):
        own = [i for u, i in reversed(events[:n]) if u == user]
        latest = list(dict.fromkeys(own))[:k]
        assert recency.top(user) == latest
        assert recency.score(ids(user), ids(item)).tolist() == [item in latest]
        recency.learn(ids(user), ids(item))
