"""Membership of the embedded log: who reads which partition, and takeover by file locks."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import InputError, StateError
from driftline.log.local import Membership, TopicPartition
from driftline.log.local.members import plan

if TYPE_CHECKING:
    from tests.conformance.conftest import Spawn

WAIT = 20.0
Join = Callable[..., Membership]


@pytest.fixture
def join(tmp_path: Path) -> Iterator[Join]:
    """Make members of one group in this process; all leave at the end."""
    joined: list[Membership] = []

    def make(topics: dict[str, int] | None = None) -> Membership:
        member = Membership(tmp_path, "g", topics or {"t": 6})
        member.join()
        joined.append(member)
        return member

    yield make
    for member in joined:
        member.leave()


def settle(member: Membership, partitions: set[int]) -> None:
    """Poll, and give up what is to be given up, until exactly `partitions` are held."""
    deadline = time.monotonic() + WAIT
    while {held.partition for held in member.held} != partitions:
        assert time.monotonic() < deadline, f"still holds {sorted(member.held)}"
        for given_up in member.poll().give_up:
            member.release(given_up)


@given(st.sets(st.text(min_size=1), min_size=1, max_size=9), st.dictionaries(st.text(), st.integers(1, 64)))
def test_the_plan_gives_every_partition_to_exactly_one_member(
    members: set[str], topics: dict[str, int]
) -> None:
    shares = [plan(members, member, topics) for member in members]
    everything = [TopicPartition(topic, p) for topic, count in topics.items() for p in range(count)]
    assert sorted(tp for share in shares for tp in share) == sorted(everything)


def test_rank_r_of_n_takes_the_partitions_with_p_mod_n_equal_r() -> None:
    assert {p for _, p in plan(["c", "a", "b"], "b", {"t": 8})} == {1, 4, 7}


def test_nothing_falls_to_one_who_is_not_a_member() -> None:
    assert plan(["a"], "b", {"t": 8}) == frozenset()


def test_a_single_member_takes_everything_once(join: Join) -> None:
    member = join()
    assert {p for _, p in member.poll().take} == set(range(6))
    assert not member.poll()


def test_a_partition_is_not_taken_before_its_owner_releases_it(join: Join) -> None:
    first = join()
    first.poll()
    second = join()
    assert second.poll().take == frozenset()
    give_up = first.poll().give_up
    assert len(give_up) == 3
    assert first.poll().give_up == give_up  # until it is done
    released = min(give_up)
    first.release(released)
    assert second.poll().take == {released}


def test_a_member_that_leaves_is_succeeded(join: Join) -> None:
    first, second = join(), join()
    for _ in range(2):
        for member in (first, second):
            for given_up in member.poll().give_up:
                member.release(given_up)
    assert len(first.held) == len(second.held) == 3
    first.leave()
    settle(second, set(range(6)))


def test_partitions_of_killed_processes_are_taken_over(join: Join, tmp_path: Path, spawn: Spawn) -> None:
    children = [spawn("member", tmp_path, "g", "t", 6) for _ in range(2)]
    me = join()
    deadline = time.monotonic() + WAIT
    while len(me.members()) < 3:
        assert time.monotonic() < deadline
    rank = me.members().index(me.name)
    settle(me, {rank, rank + 3})
    children[0].kill()
    children[0].wait()
    rank = me.members().index(me.name)
    settle(me, {rank, rank + 2, rank + 4})
    children[1].kill()
    children[1].wait()
    settle(me, set(range(6)))
    assert me.members() == [me.name]


def test_a_child_made_by_fork_does_not_keep_the_locks_of_a_killed_member(
    join: Join, tmp_path: Path, spawn: Spawn
) -> None:
    parent = spawn("member-fork", tmp_path, "g", "t", 6)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    try:
        parent.wait()
        settle(join(), set(range(6)))
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_several_topics_are_shared_out(join: Join) -> None:
    member = join({"t": 2, "ops": 1})
    assert member.poll().take == {TopicPartition("t", 0), TopicPartition("t", 1), TopicPartition("ops", 0)}


def test_groups_do_not_see_each_other(join: Join, tmp_path: Path) -> None:
    join().poll()
    other = Membership(tmp_path, "other", {"t": 6})
    other.join()
    assert len(other.poll().take) == 6
    other.leave()


def test_one_who_has_not_joined_cannot_poll(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="join first"):
        Membership(tmp_path, "g", {"t": 1}).poll()


def test_group_names_outside_the_alphabet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="consumer group"):
        Membership(tmp_path, "../g", {"t": 1})
