"""Identifiers are part of the format: the same value on every machine, in every release."""

from __future__ import annotations

import uuid

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from driftline import ids
from tests.oracle import hashing
from tests.support.samples import u64

U64 = st.integers(0, 2**64 - 1)
GENERATION, OFFSET = st.integers(0, 2**16 - 1), st.integers(0, 2**48 - 1)


def test_splitmix64_of_0_is_the_published_value() -> None:
    assert ids.splitmix64(u64([0])).tolist() == [0xE220A8397B1DCDAF]


@given(st.lists(U64), st.integers(1, 4096))
def test_hash_and_shard_of_arrays_are_those_of_plain_integers(rows: list[int], shards: int) -> None:
    assert ids.splitmix64(u64(rows)).tolist() == [hashing.splitmix64(row) for row in rows]
    assert ids.shard_of(u64(rows), shards).tolist() == [hashing.shard_of(row, shards) for row in rows]


def test_hashing_keeps_the_shape_and_leaves_its_argument_alone() -> None:
    rows = np.arange(6, dtype=np.uint64).reshape(2, 3)
    assert ids.splitmix64(rows).shape == (2, 3)
    assert rows.tolist() == [[0, 1, 2], [3, 4, 5]]


@given(GENERATION, OFFSET)
def test_an_lsn_holds_generation_and_offset(generation: int, offset: int) -> None:
    value = ids.lsn(generation, offset)
    assert (ids.lsn_generation(value), ids.lsn_offset(value)) == (generation, offset)
    assert 0 <= value < 2**64


@given(GENERATION, OFFSET, GENERATION, OFFSET)
def test_lsns_sort_by_generation_then_offset(g1: int, o1: int, g2: int, o2: int) -> None:
    assert (ids.lsn(g1, o1) < ids.lsn(g2, o2)) == ((g1, o1) < (g2, o2))


def test_a_named_producer_has_the_same_16_bytes_for_ever() -> None:
    assert ids.producer_id("trainer-1").hex() == "4093cd088595564681acbd6e422357a1"
    assert ids.OPS_PRODUCER.hex() == "e72853feec7d524ca180a88923a4b668"


def test_a_producer_without_a_name_is_a_fresh_one() -> None:
    one, other = ids.producer_id(), ids.producer_id()
    assert one != other
    assert uuid.UUID(bytes=one).version == 4
