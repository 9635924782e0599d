"""Very many short decimal fields read at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftline.shard.decimals import parse

U64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 9, 10, 10**19 - 1, 10**19, 2**64 - 1])


@settings(deadline=None)
@given(st.lists(st.tuples(U64, U64, U64), max_size=8))
def test_numbers_read_back_by_the_column(rows: list[tuple[int, int, int]]) -> None:
    columns = parse([b"%d,%d,%d" % row for row in rows], 3)
    assert [tuple(row) for row in zip(*(column.tolist() for column in columns), strict=True)] == rows
    assert all(column.dtype == np.uint64 for column in columns)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"1",
        b",",
        b"1,",
        b",1",
        b"1,2,3",
        b"1;2",
        b"-1,2",
        b"+1,2",
        b" 1,2",
        b"1,2\n",
        b"1,2\n3,4",
        b"1,x",
        b"1,18446744073709551616",
        b"1,36893488147419103232",
        b"1,99999999999999999999",
        b"1,000000000000000000001",
    ],
)
def test_anything_else_is_named(bad: bytes) -> None:
    with pytest.raises(ValueError, match="is not 2 numbers") as caught:
        parse([b"1,2", bad, b"3,4"], 2)
    assert repr(bad) in str(caught.value)


def test_values_that_make_up_for_each_other_are_damage_all_the_same() -> None:
    with pytest.raises(ValueError, match="b'1'"):
        parse([b"1", b"2,3,4"], 2)
