"""A request to put rows back becomes the same ops, whoever carries which part of it out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline.ids import shard_of
from driftline_services.versioner.node_rollback import FRAME_BYTES, Stretch, stretches

SHARDS = 5
Ids = np.ndarray[tuple[int], np.dtype[np.uint64]]


def cut(ids: Ids, dim: int = 4, request: str = "r") -> list[Stretch]:
    return stretches(request, ids, SHARDS, dim, 1)


def of_shards(ids: Ids, shards: set[int]) -> Ids:
    return np.asarray(ids[np.isin(shard_of(ids, SHARDS), sorted(shards))])


def named(found: list[Stretch]) -> dict[bytes, tuple[int, ...]]:
    return {each.asked: tuple(each.ids.tolist()) for each in found}


@given(
    st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=40),
    st.lists(st.integers(0, 2), min_size=SHARDS, max_size=SHARDS),
    st.sampled_from([4, FRAME_BYTES // 8]),  # the wider ones go one or two at a time
)
def test_instances_ask_for_the_same_ops_however_they_share_the_shards(
    some: set[int], owners: list[int], dim: int
) -> None:
    ids = np.array(sorted(some), np.uint64)
    shared: dict[bytes, tuple[int, ...]] = {}
    for instance in range(3):
        mine = of_shards(ids, {shard for shard, owner in enumerate(owners) if owner == instance})
        shared |= named(cut(mine, dim))
    assert shared == named(cut(ids, dim))
    assert sorted(row for each in shared.values() for row in each) == ids.tolist()


def test_another_request_is_other_ops() -> None:
    ids = np.arange(20, dtype=np.uint64)
    assert not named(cut(ids)).keys() & named(cut(ids, request="s")).keys()


def test_an_op_holds_no_more_than_a_log_takes_as_one_record() -> None:
    ids, dim = np.arange(4000, dtype=np.uint64), 63
    found = cut(ids, dim)
    assert max(len(each.ids) for each in found) * (8 + 4 * (dim + 1)) <= FRAME_BYTES
    assert len(found) <= SHARDS * (len(ids) * (8 + 4 * (dim + 1)) // FRAME_BYTES + 1)
