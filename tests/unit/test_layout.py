"""The bytes of a row in Redis, and where they live."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from driftline.errors import PositionError
from driftline.rows.layout import RowLayout, ShardKeys, as_bytes, join, table_key
from tests.support.samples import f32, u64

LAYOUTS = st.builds(RowLayout, st.integers(1, 9), st.integers(0, 9))


@given(LAYOUTS, st.data())
def test_what_is_packed_unpacks_to_the_same_bits(layout: RowLayout, data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 5))
    rows = data.draw(hnp.arrays("<f4", (n, layout.dim)))
    lsn, ordinals = data.draw(hnp.arrays("<u8", n)), data.draw(hnp.arrays("<u4", n))
    state = data.draw(hnp.arrays("<f4", (n, layout.state_size)))
    values = [bytes(value) for value in layout.pack(rows, lsn, ordinals, state)]
    states = [bytes(value) for value in as_bytes(state)] if layout.separate_state else None
    block = layout.unpack(np.arange(n, dtype=np.uint64), values, states)
    assert block.present.all()
    assert block.rows.tobytes() == rows.tobytes()
    assert block.lsn.tolist() == lsn.tolist()
    assert block.ordinals.tolist() == ordinals.tolist()
    assert block.state.tobytes() == state.tobytes()


def test_a_value_is_row_lsn_ordinal_and_a_small_state() -> None:
    layout = RowLayout(2, 1)
    (value,) = layout.pack(f32([[1, -2]]), u64([3]), np.array([4], np.uint32), f32([5], 1))
    assert bytes(value) == struct.pack("<ffQIf", 1, -2, 3, 4, 5)
    assert layout.value_bytes == 24
    assert struct.unpack_from("<ff", bytes(value)) == (1, -2)  # any client reads the row by its first bytes


@pytest.mark.parametrize(("size", "inline"), [(0, True), (4, True), (5, False)])
def test_state_over_16_bytes_has_a_hash_of_its_own(size: int, inline: bool) -> None:
    layout = RowLayout(8, size)
    assert (layout.inline, layout.separate_state) == (inline, not inline)
    assert layout.value_bytes == 32 + 8 + 4 + (4 * size if inline else 0)


def test_a_row_that_does_not_exist_is_not_present() -> None:
    layout = RowLayout(2, 1)
    (value,) = layout.pack(f32([[1, 2]]), u64([3]), np.array([4], np.uint32), f32([5], 1))
    block = layout.unpack(u64([8, 9]), [None, bytes(value)], None)
    assert block.present.tolist() == [False, True]
    assert (block.ids.tolist(), block.rows[1].tolist()) == ([8, 9], [1, 2])


def test_a_value_of_another_length_is_damage() -> None:
    with pytest.raises(PositionError, match="25 bytes for 1 rows of 24"):
        RowLayout(2, 1).unpack(u64([1]), [bytes(25)], None)


def test_a_row_without_its_state_is_damage_and_not_a_state_of_zeros() -> None:
    layout = RowLayout(1, 5)
    with pytest.raises(PositionError, match="row 9 is stored without"):
        layout.unpack(u64([8, 9]), [None, bytes(layout.value_bytes)], [None, None])
    absent = layout.unpack(u64([8]), [None], [None])
    assert absent.present.tolist() == [False]


def test_joining_fills_what_is_missing_with_zeros() -> None:
    present, joined = join([b"ab", None, b"cd"], 2)
    assert present is not None
    assert present.tolist() == [True, False, True]
    assert joined == b"ab\0\0cd"


def test_joining_says_when_nothing_is_missing() -> None:
    assert join([b"ab", b"cd"], 2) == (None, b"abcd")
    assert join([], 2) == (None, b"")


def test_the_keys_of_a_shard_share_a_hash_tag() -> None:
    keys = ShardKeys.of("items", 3)
    assert (keys.values, keys.state, keys.position) == (
        b"dl:{items:3}:v",
        b"dl:{items:3}:s",
        b"dl:{items:3}:w",
    )
    assert table_key("items") == b"dl:items"
