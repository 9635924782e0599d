"""Reads at one epoch, and reads of a deployed version: what is asked, and which answers count."""

from __future__ import annotations

import pytest

from driftline.client.asking import Answer
from driftline.client.consistent import ConsistentQuery, check_reading
from driftline.client.landing import Landing, Values
from driftline.client.pinned import PinnedQuery
from driftline.client.reading import Query
from driftline.errors import InputError, NotDeployedError, StoreUnavailableError
from driftline.rows.connection import Reply
from driftline.rows.layout import RowLayout
from tests.support.samples import FOREIGN, MINE, TABLE, u64

LENGTH = RowLayout.of(TABLE).value_bytes
QUERY = Query.of(u64([MINE[0], FOREIGN]), TABLE.shards)
CONSISTENT, PINNED = ConsistentQuery(QUERY, TABLE), PinnedQuery(QUERY, TABLE, "v1")
ROW = b"\1" * LENGTH


def position(epoch: bytes) -> list[Reply]:
    return [b"107", b"1", epoch, None]


def at_epochs(*epochs: bytes) -> list[Reply]:
    """Reply as shards would whose epochs were these before and behind their rows."""
    replies: list[Reply] = []
    for before, behind in zip(epochs[::2], epochs[1::2], strict=True):
        replies += [position(before), [ROW], position(behind)]
    return replies


def test_a_consistent_read_asks_for_the_position_on_both_sides_of_the_rows() -> None:
    for request in CONSISTENT.requests():
        text, stem = b"".join(request.packed), b"{items:%d}" % request.shard
        assert text.index(stem + b":w") < text.index(stem + b":v") < text.rindex(stem + b":w")
        assert (request.replies, request.rows) == (3, 1)


def test_rows_of_one_epoch_are_returned() -> None:
    rows = CONSISTENT.decode(at_epochs(b"3", b"3", b"3", b"3"), "raise")
    assert rows is not None
    assert (rows.found.tolist(), rows.epoch) == ([True, True], {0: 3, 1: 3})


@pytest.mark.parametrize("epochs", [(b"3", b"4", b"4", b"4"), (b"3", b"3", b"4", b"4")])
def test_rows_of_several_epochs_are_not(epochs: tuple[bytes, ...]) -> None:
    assert CONSISTENT.decode(at_epochs(*epochs), "raise") is None


def test_a_shard_without_a_position_mixes_nothing() -> None:
    none: list[Reply] = [None, None, None, None]
    rows = CONSISTENT.decode([none, [None], none, *at_epochs(b"3", b"3")], "zero")
    assert rows is not None
    assert rows.epoch == {1: 3}


def test_a_position_that_redis_refuses_behind_the_rows_is_an_unavailable_store() -> None:
    with pytest.raises(StoreUnavailableError, match="LOADING"):
        CONSISTENT.decode([*at_epochs(b"3", b"3", b"3", b"3")[:-1], ValueError("LOADING")], "zero")


def deployed(entry: bytes | None, rows: int, after: bytes | None) -> list[Reply]:
    return [[b"107", None], entry, [ROW], rows, after]


def test_rows_of_a_whole_copy_are_returned() -> None:
    rows = PINNED.decode([*deployed(b"2,t", 2, b"2,t"), *deployed(b"1,t", 1, b"1,t")], "raise")
    assert (rows.found.tolist(), rows.read, rows.epoch) == ([True, True], {}, {})


@pytest.mark.parametrize(
    "replies", [deployed(None, 0, None), deployed(b"2,t", 1, b"2,t"), deployed(b"2,t", 2, b"2,u")]
)
def test_rows_of_a_copy_that_was_not_whole_all_the_time_are_not(replies: list[Reply]) -> None:
    with pytest.raises(NotDeployedError, match="v1 is not readable in shard items:1"):
        PINNED.decode([*deployed(b"1,t", 1, b"1,t"), *replies], "zero")


def test_a_pinned_read_that_redis_refuses_is_an_unavailable_store() -> None:
    refused = [*deployed(b"1,t", 1, b"1,t")[:2], ValueError("LOADING"), 1, b"1,t"]
    with pytest.raises(StoreUnavailableError, match="LOADING"):
        PINNED.decode([*refused, *deployed(b"1,t", 1, b"1,t")], "zero")


def test_values_may_lie_where_they_landed() -> None:
    landing = Landing(LENGTH)
    landed: list[Answer] = []
    for at, reply in enumerate([*deployed(b"1,t", 1, b"1,t"), *deployed(b"1,t", 1, b"1,t")]):
        landed.append(landing.put([ROW]) if at % 5 == 2 else reply)
    assert isinstance(landed[2], Values)
    assert PINNED.decode(landed, "raise", landing.data).found.all()


def test_a_deployed_version_is_not_read_consistently() -> None:
    check_reading("init", "epoch", None)
    with pytest.raises(InputError, match="'epoch' or None"):
        check_reading("init", "shard", None)
    with pytest.raises(InputError, match="never changes"):
        check_reading("init", "epoch", "v1")
