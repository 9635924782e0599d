"""The demo's planted stream: fixed by its seed, drifting, and with a ceiling."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.demo import sources
from driftline.errors import InputError

# --- synthetic


def test_a_seed_fixes_every_event() -> None:
    one, two, other = (sources.synthetic(2_000, seed) for seed in (1, 1, 2))

    assert np.array_equal(one.events.users, two.events.users)
    assert np.array_equal(one.events.items, two.events.items)
    assert np.array_equal(one.events.timestamps, two.events.timestamps)
    assert not np.array_equal(one.events.items, other.events.items)


def test_every_event_counts_in_a_stream_of_any_length() -> None:
    for n in (1, 2, 65, 777):
        assert len(sources.synthetic(n, 0).events) == n


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        sources.synthetic(0, 0)


def test_users_change_clusters_and_items_come_and_go() -> None:
    stream = sources.synthetic(12_000, 3)
    first, last = stream.events[:2_000], stream.events[-2_000:]

    fresh = ~np.isin(last.items, stream.events[:-2_000].items)
    gone = ~np.isin(first.items, stream.events[2_000:].items)
    assert fresh.any()
    assert gone.any()
    users = stream.events.users
    assert any(len(np.unique(stream.clusters[users == user])) > 1 for user in np.unique(users)[:50])


def test_activity_and_attraction_are_skewed() -> None:
    events = sources.synthetic(12_000, 3).events
    for column in (events.users, events.items):
        counts = np.sort(np.unique(column, return_counts=True)[1])[::-1]
        assert counts[: len(counts) // 5].sum() > 0.35 * len(events)


def test_ranking_by_the_truth_is_a_ceiling_between_chance_and_certainty() -> None:
    stream = sources.synthetic(12_000, 3)

    assert 0.5 < stream.ceiling(0.1) < 0.9
