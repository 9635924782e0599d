"""Reads: grouped by shard, decoded in the order asked for."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.client.asking import Answer
from driftline.client.landing import Landing
from driftline.client.reading import PositionQuery, Query, Rows, check_on_missing
from driftline.errors import InputError, StoreUnavailableError
from driftline.ids import lsn, shard_of
from driftline.rows.connection import Reply
from driftline.rows.layout import RowLayout
from driftline.shard.numerics import initial_rows
from tests.support.samples import FOREIGN, MINE, TABLE, f32, u64

A, B, C = MINE[:3]
LAYOUT = RowLayout(TABLE.dim, TABLE.state_size)


def answer(query: Query, stored: dict[int, float]) -> list[Reply]:
    """Reply as Redis would that holds `stored`, each row with its id as LSN."""
    replies: list[Reply] = []
    grouped = query.ids[query.order].tolist()
    for shard, count in query.counts.items():
        replies.append([b"%d" % (100 + shard), b"1", b"3", None])
        values: list[Reply] = []
        for row in grouped[:count]:
            packed = LAYOUT.pack(
                f32([[stored.get(row, 0)] * 2]),
                u64([row]),
                np.zeros(1, np.uint32),
                np.zeros((1, 0), np.float32),
            )
            values.append(bytes(packed[0]) if row in stored else None)
        grouped = grouped[count:]
        replies.append(values)
    return replies


def read(ids: list[int], stored: dict[int, float], on_missing: str = "init") -> Rows:
    query = Query.of(u64(ids), TABLE.shards)
    answers = answer(query, stored)
    assert len(answers) == sum(request.replies for request in query.requests("items"))
    return query.decode(answers, TABLE, on_missing)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30), max_size=20), st.dictionaries(st.integers(0, 30), st.floats(-9, 9, width=32))
)
def test_rows_come_in_the_order_asked_for(ids: list[int], stored: dict[int, float]) -> None:
    rows = read(ids, stored)
    assert len(rows) == len(ids)
    assert rows.found.tolist() == [row in stored for row in ids]
    assert rows.lsn.tolist() == [row if row in stored else 0 for row in ids]
    born = initial_rows(u64(ids), 2, TABLE.init.seed, TABLE.scale)
    expected = [[stored[row]] * 2 if row in stored else born[at].tolist() for at, row in enumerate(ids)]
    assert rows.vectors.tolist() == expected
    shards = set(shard_of(u64(ids), 2).tolist())
    assert rows.read == {shard: lsn(1, 100 + shard) for shard in shards}
    assert rows.epoch == dict.fromkeys(shards, 3)


def test_a_pipeline_asks_for_the_position_before_the_rows() -> None:
    requests = Query.of(u64([A, FOREIGN]), 2).requests("items")
    assert [request.shard for request in requests] == [0, 1]
    for request in requests:
        text, stem = b"".join(request.packed), b"{items:%d}" % request.shard
        assert text.index(stem + b":w") < text.index(stem + b":v")
        assert request.replies == 2


def test_what_stands_for_a_missing_row_is_chosen_by_the_reader() -> None:
    assert read([A], {}, "zero").vectors.tolist() == [[0, 0]]
    assert np.isnan(read([A], {}, "mask").vectors).all()
    with pytest.raises(InputError, match=f"2 of 3 ids have no row, the first is {C}"):
        read([C, A, B], {A: 1.0}, "raise")
    assert read([A], {A: 1.0}, "raise").vectors.tolist() == [[1, 1]]


def test_a_shard_without_a_position_has_none_in_the_answer() -> None:
    query = Query.of(u64([A]), 2)
    rows = query.decode([[None, None, None, None], [None]], TABLE, "zero")
    assert (rows.read, rows.epoch, rows.found.tolist()) == ({}, {}, [False])


def test_a_refused_read_is_an_unavailable_store() -> None:
    with pytest.raises(StoreUnavailableError, match="LOADING"):
        Query.of(u64([A]), 2).decode([ValueError("LOADING"), []], TABLE, "zero")


def test_an_unknown_choice_for_missing_rows_is_refused() -> None:
    for known in ("init", "zero", "raise", "mask"):
        check_on_missing(known)
    with pytest.raises(InputError, match="init, zero, raise, mask"):
        check_on_missing("none")


def test_shards_have_come_as_far_when_every_next_has() -> None:
    query = PositionQuery.of("items", {0: 5, 2: 7})
    assert [request.shard for request in query.requests] == [0, 2]
    assert b"{items:2}:w" in b"".join(query.requests[1].packed)
    assert query.settled([[b"5", None], [b"8", None]])
    assert not query.settled([[b"5", None], [b"6", None]])
    assert not query.settled([[None, None], [b"7", None]])
    assert not query.settled([ValueError("LOADING"), [b"7", None]])


def test_an_id_given_several_times_is_asked_for_once() -> None:
    query = Query.of(u64([A, B, A, A, B, FOREIGN, A]), 2)
    assert sorted(query.ids[query.order].tolist()) == sorted([A, B, FOREIGN])
    assert query.ids[query.order][query.spread].tolist() == query.ids.tolist()
    assert sum(request.rows for request in query.requests("items")) == 3


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 20), max_size=300), st.integers(1, 9))
def test_ids_are_asked_for_by_shard_and_given_back_in_order(ids: list[int], shards: int) -> None:
    query = Query.of(u64(ids), shards)
    asked = query.ids[query.order]
    assert asked[query.spread].tolist() == ids
    assert shard_of(asked, shards).tolist() == [
        shard for shard, count in query.counts.items() for _ in range(count)
    ]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.sets(st.integers(0, 30)))
def test_rows_are_the_same_whether_replies_were_parsed_or_lie_where_they_landed(
    ids: list[int], stored: set[int]
) -> None:
    query = Query.of(u64(ids), TABLE.shards)
    replies = answer(query, {row: float(row) for row in stored})
    landing = Landing(LAYOUT.value_bytes)
    landed: list[Answer] = [
        landing.put(cast("list[bytes | None]", reply)) if at % 2 else reply
        for at, reply in enumerate(replies)
    ]
    one, other = query.decode(replies, TABLE, "init"), query.decode(landed, TABLE, "init", landing.data)
    assert one.vectors.tobytes() == other.vectors.tobytes()
    assert one.found.tolist() == other.found.tolist()
    assert one.lsn.tolist() == other.lsn.tolist()
