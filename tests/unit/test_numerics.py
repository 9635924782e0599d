"""Float32 arithmetic whose bits are part of the format: halving trees, initial rows, the machine check."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from driftline.errors import ConfigError
from driftline.shard import numerics
from driftline.shard.numerics import initial_rows, root, tree_sum
from tests.oracle import f32 as oracle
from tests.oracle.hashing import initial_row
from tests.support.samples import u64

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
MATRICES = hnp.arrays("<f4", st.tuples(st.integers(0, 4), st.integers(1, 40)), elements=FINITE)


@given(MATRICES)
def test_a_tree_sum_is_the_scalar_halving_tree_bit_for_bit(values: NDArray[np.float32]) -> None:
    with np.errstate(all="ignore"):
        found = tree_sum(values)
    expected = [oracle.tree_sum(row) for row in values.tolist()]
    assert [struct.pack("<f", x) for x in found] == [struct.pack("<f", x) for x in expected] or (
        np.isnan(found).tolist() == [x != x for x in expected]
    )


def test_a_tree_sum_adds_halves_and_not_neighbours() -> None:
    big, one = np.float32(2**24), np.float32(1)
    assert tree_sum(np.array([[big, one, -big, one]], np.float32)).tolist() == [2.0]
    assert tree_sum(np.array([[big, -big, one, one]], np.float32)).tolist() == [1.0]  # 2^24 + 1 is 2^24


def test_padding_turns_a_sum_of_minus_zeros_into_plus_zero() -> None:
    minus = np.float32(-0.0)
    assert np.signbit(tree_sum(np.full((1, 4), minus))).tolist() == [True]
    assert np.signbit(tree_sum(np.full((1, 3), minus))).tolist() == [False]


@given(st.floats(0, width=32))
def test_a_root_is_correctly_rounded_float32(value: float) -> None:
    found = root(np.array([value], np.float32))
    assert found.dtype == np.float32
    assert found.tobytes() == struct.pack("<f", oracle.sqrt(oracle.f32(value)))


@pytest.mark.parametrize(
    ("row", "dim", "seed", "scale", "bits"),
    [
        (0, 4, 0, 0.01, "82c6ecbb546c9ebb8f30c43a47e4ce3b"),
        (17, 3, 42, 0.5, "1c22183e404cd93d7430663e"),
        (2**64 - 1, 2, 2**64 - 1, 1.0, "6294623fd88f6c3e"),
    ],
)
def test_initial_rows_have_the_bits_they_always_had(
    row: int, dim: int, seed: int, scale: float, bits: str
) -> None:
    assert initial_rows(u64([row]), dim, seed, np.float32(scale)).astype("<f4").tobytes().hex() == bits


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=4),
    st.integers(1, 9),
    st.integers(0, 2**64 - 1),
    st.floats(0, 8, width=32),
)
def test_initial_rows_are_those_of_a_scalar_loop(rows: list[int], dim: int, seed: int, scale: float) -> None:
    found = initial_rows(u64(rows), dim, seed, np.float32(scale))
    assert found.shape == (len(rows), dim)
    assert found.dtype == np.float32
    assert found.tobytes() == b"".join(oracle.to_bytes(initial_row(seed, scale, row, dim)) for row in rows)


def test_initial_rows_are_uniform_within_the_scale() -> None:
    rows = initial_rows(np.arange(10_000, dtype=np.uint64), 8, 3, np.float32(0.5))
    assert rows.min() >= -0.5
    assert rows.max() < 0.5
    assert abs(float(rows.astype(np.float64).mean())) < 0.005


def test_this_machine_computes_as_the_format_demands() -> None:
    numerics.check_machine()
    assert numerics.golden_digest() == numerics.GOLDEN == "18d4f7a80ae169f4"


def test_a_machine_with_other_bits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "golden_digest", lambda: "0" * 16)
    with pytest.raises(ConfigError, match="golden digest"):
        numerics.check_machine()
