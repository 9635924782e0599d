"""The oracle's scalar float32 arithmetic is numpy's, bit for bit, over all bit patterns."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.oracle import f32

bits = st.integers(0, 2**32 - 1)
near_subnormal = st.integers(0, 2**24) | st.integers(2**31, 2**31 + 2**24)
any_float = (bits | near_subnormal).map(lambda b: float(struct.unpack("<f", struct.pack("<I", b))[0]))


def same(ours: float, numpys: np.floating) -> bool:
    if np.isnan(numpys):
        return math.isnan(ours)
    return struct.pack("<f", ours) == np.float32(numpys).tobytes()


@pytest.mark.parametrize(
    ("ours", "numpys"),
    [(f32.add, np.add), (f32.sub, np.subtract), (f32.mul, np.multiply), (f32.div, np.divide)],
)
@given(a=any_float, b=any_float)
@example(a=1.0, b=0.0)
@example(a=0.0, b=-0.0)
@example(a=-1.0, b=0.0)
@example(a=float("inf"), b=0.0)
def test_each_operation_rounds_as_numpy_does(
    ours: Callable[[float, float], float], numpys: np.ufunc, a: float, b: float
) -> None:
    with np.errstate(all="ignore"):
        assert same(ours(a, b), numpys(np.float32(a), np.float32(b)))


@given(a=any_float)
def test_the_square_root_rounds_as_numpy_does(a: float) -> None:
    with np.errstate(all="ignore"):
        assert same(f32.sqrt(a), np.sqrt(np.float32(a)))


@given(st.lists(any_float, min_size=1, max_size=40))
def test_the_sum_is_the_halving_tree(values: list[float]) -> None:
    width = 1 << (len(values) - 1).bit_length()
    level = np.zeros(width, np.float32)
    with np.errstate(all="ignore"):
        level[: len(values)] = values
        while width > 1:
            width //= 2
            level = level[:width] + level[width:]
    assert same(f32.tree_sum(values), level[0])


@given(any_float.filter(lambda x: not math.isnan(x)))
def test_hex_bits_round_trip(value: float) -> None:
    assert struct.pack("<f", f32.from_hex_bits(f32.to_hex_bits(value))) == struct.pack("<f", value)


def test_hex_bits_are_written_most_significant_first() -> None:
    assert f32.from_hex_bits("3f800000") == 1.0
