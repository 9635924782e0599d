"""Commands as bytes: hiredis, which parses what Redis sends, must read back what was meant."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import cast

import hiredis
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from driftline.rows import resp
from driftline.rows.resp import Bytes

IDS = hnp.arrays("<u8", st.integers(1, 20))


def parsed(packed: Sequence[Bytes]) -> list[bytes]:
    """Return the arguments of the one command in `packed`."""
    reader = hiredis.Reader()
    reader.feed(b"".join(packed))
    found = reader.gets()
    assert reader.gets() is False
    return cast("list[bytes]", found)


def named(ids: NDArray[np.uint64]) -> list[bytes]:
    return [struct.pack("<Q", row) for row in ids.tolist()]


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_a_command_has_the_arguments_given(arguments: list[bytes]) -> None:
    assert parsed([resp.command(*arguments)]) == arguments


@given(st.binary(max_size=10), IDS, st.integers(0, 120), st.data())
def test_hset_names_each_id_with_its_value(
    key: bytes, ids: NDArray[np.uint64], length: int, data: st.DataObject
) -> None:
    values = data.draw(hnp.arrays("u1", (len(ids), length)))
    expected = [part for pair in zip(named(ids), map(bytes, values), strict=True) for part in pair]
    assert parsed(resp.hset(key, ids, values)) == [b"HSET", key, *expected]


@given(st.sampled_from([b"HMGET", b"HDEL"]), st.binary(max_size=10), IDS)
def test_a_command_on_ids_names_them_in_order(name: bytes, key: bytes, ids: NDArray[np.uint64]) -> None:
    assert parsed(resp.on_ids(name, key, ids)) == [name, key, *named(ids)]


def test_arrays_need_not_be_contiguous() -> None:
    ids, values = np.arange(10, dtype=np.uint64)[::2], np.arange(40, dtype=np.uint8).reshape(10, 4)[::2, 1:]
    found = parsed(resp.hset(b"k", ids, values))
    assert found[2:6] == [named(ids)[0], bytes([1, 2, 3]), named(ids)[1], bytes([9, 10, 11])]


def test_ids_are_8_bytes_little_endian() -> None:
    big = np.array([1, 256], ">u8")
    assert resp.id_bytes(cast("NDArray[np.uint64]", big)).tolist() == [[1, *[0] * 7], [0, 1, *[0] * 6]]
