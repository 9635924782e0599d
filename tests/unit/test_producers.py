"""The producers that a shard knows, against a plain dict of them."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from driftline.shard.producers import Columns, Producer, Producers

NAMES = [bytes([first]) * 8 + bytes(7) + bytes([last]) for first in (0, 1, 255) for last in range(3)]
"""Several begin alike, and two halves are zero: nothing may depend on names being random."""


def stored(producers: Producers) -> Columns:
    """Return the columns in another order, as they come from the store."""
    columns = producers.columns()
    return columns.at(np.arange(len(columns.names))[::-1])


class AgainstADict(RuleBasedStateMachine):
    """What is heard, forgotten and read back, with log time that never goes back."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0
        self.known: OrderedDict[bytes, tuple[int, int, int]] = OrderedDict()
        self.producers = Producers()

    @rule(name=st.sampled_from(NAMES), later=st.integers(0, 3), seq=st.integers(0, 2**64 - 1))
    def hear(self, name: bytes, later: int, seq: int) -> None:
        self.time += later
        self.producers.set(name, 1, seq, self.time)
        self.known[name] = (1, seq, self.time)
        self.known.move_to_end(name)

    @rule(back=st.integers(-1, 8))
    def forget(self, back: int) -> None:
        oldest = self.time - back
        silent = {name: Producer(*seen) for name, seen in self.known.items() if seen[2] < oldest}
        gone = self.producers.forget_silent(oldest)
        assert gone == silent
        assert [seen.time for seen in gone.values()] == sorted(seen.time for seen in gone.values())
        for name in silent:
            del self.known[name]

    @rule()
    def start_again(self) -> None:
        self.producers = Producers(stored(self.producers))

    @invariant()
    def knows_the_same(self) -> None:
        assert len(self.producers) == len(self.known)
        assert dict(self.producers) == {name: Producer(*seen) for name, seen in self.known.items()}
        for name in NAMES:
            assert (name in self.producers) == (name in self.known)

    @invariant()
    def iterates_from_the_oldest(self) -> None:
        times = [seen.time for seen in self.producers.values()]
        assert times == sorted(times)

    @invariant()
    def columns_are_in_the_order_of_names(self) -> None:
        columns = self.producers.columns()
        rows = zip(columns.epochs.tolist(), columns.seqs.tolist(), columns.times.tolist(), strict=True)
        assert dict(zip(map(bytes, columns.names), rows, strict=True)) == dict(self.known)
        assert list(map(bytes, columns.names)) == sorted(self.known)


AgainstADict.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestProducers = AgainstADict.TestCase


def test_a_producer_got_from_the_table_is_a_copy() -> None:
    producers = Producers()
    producers.set(NAMES[0], 0, 1, 2)
    producers[NAMES[0]].seq = 9
    assert producers[NAMES[0]] == Producer(0, 1, 2)
