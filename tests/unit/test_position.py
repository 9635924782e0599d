"""The position of a shard: hash fields, frames, damage, fingerprints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import PositionError
from driftline.log.base import Record
from driftline.shard.position import Position, fingerprint, producer_value
from driftline.shard.producers import Producer, Producers
from driftline.shard.restored import Restored
from tests.support.samples import TABLE, born

COUNT = st.integers(0, 2**48)
U64 = st.integers(0, 2**64 - 1)
NAMES = st.binary(min_size=16, max_size=16)
SEEN = st.builds(Producer, st.integers(0, 2**32 - 1), U64, COUNT)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    producers = draw(st.dictionaries(NAMES, SEEN, max_size=5))
    restored = draw(st.dictionaries(U64, st.tuples(U64, COUNT), max_size=5))
    return Position(
        next=draw(COUNT),
        gen=draw(st.integers(1, 65535)),
        fp=draw(st.text("0123456789abcdef", max_size=16)),
        op=draw(COUNT),
        rows=draw(COUNT),
        floor=draw(U64),
        prep=draw(st.text(max_size=5)),
        time=draw(COUNT),
        producers=known(producers),
        quarantined=draw(st.dictionaries(NAMES, COUNT, max_size=3)),
        restored=put_back(restored),
    )


def known(producers: Mapping[bytes, Producer]) -> Producers:
    table = Producers()
    for name, seen in sorted(producers.items(), key=lambda item: item[1].time):
        table.set(name, seen.epoch, seen.seq, seen.time)
    return table


def put_back(rows: Mapping[int, tuple[int, int]]) -> Restored:
    table = Restored()
    for row, (at, time) in rows.items():
        table.set(np.array([row], np.uint64), at, time)
    return table


@given(positions())
def test_the_fields_of_w_read_back_to_the_same_position(position: Position) -> None:
    again = Position.from_fields(position.fields())
    assert again.fields() == position.fields()
    assert [seen.time for seen in again.producers.values()] == [
        seen.time for seen in position.producers.values()
    ]
    assert again == position


@given(positions())
def test_a_snapshot_holds_every_member(position: Position) -> None:
    scalars, tensors = position.snapshot()
    names = [bytes(name) for name in tensors["pname"]]
    seen = zip(tensors["pepoch"].tolist(), tensors["pseq"].tolist(), tensors["ptime"].tolist(), strict=True)
    assert dict(zip(names, seen, strict=True)) == {
        name: (p.epoch, p.seq, p.time) for name, p in position.producers.items()
    }
    rows = zip(tensors["rlsn"].tolist(), tensors["rtime"].tolist(), strict=True)
    assert dict(zip(tensors["rid"].tolist(), rows, strict=True)) == dict(position.restored)
    shut_out = zip(map(bytes, tensors["qname"]), tensors["qop"].tolist(), strict=True)
    assert dict(shut_out) == position.quarantined
    assert scalars["next"] == position.next
    assert [str(tensors[name].dtype) for name in ("pname", "pepoch", "pseq")] == ["uint8", "uint32", "uint64"]


@given(positions())
def test_a_snapshot_is_the_same_to_the_bit_whoever_makes_it(position: Position) -> None:
    scalars, tensors = position.snapshot()
    fields = dict(reversed(position.fields().items()))  # as Redis may give them
    others = Position.from_fields(fields).snapshot()
    assert scalars == others[0]
    assert {name: (a.shape, a.tobytes()) for name, a in tensors.items()} == {
        name: (a.shape, a.tobytes()) for name, a in others[1].items()
    }


def test_producers_are_read_back_oldest_first_whatever_order_redis_gives() -> None:
    fields = Position().fields() | {b"p:" + b"n" * 16: b"0,1,30", b"p:" + b"o" * 16: b"0,1,10"}
    assert list(Position.from_fields(fields).producers) == [b"o" * 16, b"n" * 16]


@pytest.mark.parametrize(
    "damage",
    [
        {b"next": b""},
        {b"next": b"x"},
        {b"p:" + b"p" * 16: b"1,2"},
        {b"p:" + b"p" * 16: b""},
        {b"p:" + b"p" * 16: b"1,2,-3"},
        {b"p:" + b"p" * 16: b"1,2,18446744073709551616"},
        {b"p:" + b"p" * 15: b"1,2,3"},
        {b"r:x": b"1,2"},
        {b"r:7": b"1"},
        {b"q:" + b"q" * 16: b"?"},
    ],
)
def test_a_damaged_field_is_named_and_never_guessed(damage: dict[bytes, bytes]) -> None:
    with pytest.raises(PositionError, match="damaged"):
        Position.from_fields(Position().fields() | damage)


@pytest.mark.parametrize("field", [b"next", b"gen", b"fp", b"spec"])
def test_a_missing_field_is_damage_too(field: bytes) -> None:
    fields = Position().fields()
    del fields[field]
    with pytest.raises(PositionError, match=field.decode()):
        Position.from_fields(fields)


def test_fields_that_the_store_alone_keeps_are_passed_over() -> None:
    fields = Position().fields() | {b"owner": b"me", b"published": b"3"}
    assert Position.from_fields(fields) == Position()


def test_the_lsn_of_the_next_record_carries_the_generation() -> None:
    assert Position(next=5, gen=2).lsn == 2 << 48 | 5


def test_the_table_spec_is_the_one_in_force() -> None:
    assert Position().table_spec() is None
    assert born().position.table_spec() == TABLE


def test_a_producer_is_written_as_epoch_seq_and_time() -> None:
    assert producer_value(Producer(1, 2, 3)) == b"1,2,3"


def test_a_fingerprint_tells_offset_time_and_bytes() -> None:
    record = Record(7, 1000, None, b"value")
    assert fingerprint(record) == hashlib.blake2b(b"value7,1000", digest_size=8).hexdigest()
    others = [replace(record, offset=8), replace(record, timestamp=1001), replace(record, value=b"other")]
    assert len({fingerprint(record), *map(fingerprint, others)}) == 4
    assert fingerprint(replace(record, key=b"k", headers=(("a", b"b"),))) == fingerprint(record)
