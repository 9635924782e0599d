"""The oracle's hashing, initial rows and optimizers against numpy float32 arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from driftline import ids
from tests.oracle import hashing, optimizers

F = NDArray[np.float32]
one = np.float32(1.0)
modest = st.floats(-8.0, 8.0, width=32)
Numpys = Callable[[F, F, F, np.float32, optimizers.Constants], tuple[F, F]]


def test_splitmix64_of_0_is_the_published_value() -> None:
    assert hashing.splitmix64(0) == 0xE220A8397B1DCDAF


@given(st.integers(0, 2**64 - 1), st.integers(1, 1000))
def test_hash_and_shard_are_those_of_the_format(row_id: int, shards: int) -> None:
    array = np.array([row_id], np.uint64)
    assert hashing.splitmix64(row_id) == int(ids.splitmix64(array)[0])
    assert hashing.shard_of(row_id, shards) == int(ids.shard_of(array, shards)[0])


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), modest, st.integers(1, 9))
def test_an_initial_row_follows_the_formula(seed: int, row_id: int, scale: float, dim: int) -> None:
    key = ids.splitmix64(np.array([seed], np.uint64) ^ ids.splitmix64(np.array([row_id], np.uint64)))
    counters = np.asarray(key + np.arange(dim, dtype=np.uint64), np.uint64)
    x = ids.splitmix64(counters) >> np.uint64(40)
    expected = (x.astype(np.float32) * np.float32(2.0**-23) - one) * np.float32(scale)
    assert np.array(hashing.initial_row(seed, scale, row_id, dim), np.float32).tobytes() == expected.tobytes()


def numpy_sgd(w: F, s: F, g: F, lr: np.float32, c: optimizers.Constants) -> tuple[F, F]:
    return w - lr * g, s


def numpy_rowwise(w: F, s: F, g: F, lr: np.float32, c: optimizers.Constants) -> tuple[F, F]:
    squares = np.zeros(1 << (len(g) - 1).bit_length(), np.float32)
    squares[: len(g)] = g * g
    while len(squares) > 1:
        squares = squares[: len(squares) // 2] + squares[len(squares) // 2 :]
    acc: F = np.asarray(s + squares / np.float32(len(g)), np.float32)
    return np.asarray(w - (lr / (np.sqrt(acc) + np.float32(c.eps))) * g, np.float32), acc


def numpy_adagrad(w: F, s: F, g: F, lr: np.float32, c: optimizers.Constants) -> tuple[F, F]:
    acc: F = np.asarray(s + g * g, np.float32)
    return np.asarray(w - (lr * g) / (np.sqrt(acc) + np.float32(c.eps)), np.float32), acc


def numpy_adam(w: F, s: F, g: F, lr: np.float32, c: optimizers.Constants) -> tuple[F, F]:
    d, b1, b2 = len(w), np.float32(c.beta1), np.float32(c.beta2)
    p1, p2 = s[2 * d] * b1, s[2 * d + 1] * b2
    m = b1 * s[:d] + (one - b1) * g
    v = b2 * s[d : 2 * d] + ((one - b2) * g) * g
    row = w - (lr * (m / (one - p1))) / (np.sqrt(v / (one - p2)) + np.float32(c.eps))
    return row, np.concatenate([m, v, np.array([p1, p2], np.float32)])


def numpy_ftrl(w: F, s: F, g: F, lr: np.float32, c: optimizers.Constants) -> tuple[F, F]:
    d, l1 = len(w), np.float32(c.l1)
    n2 = s[d:] + g * g
    z = (s[:d] + g) - ((np.sqrt(n2) - np.sqrt(s[d:])) / lr) * w
    top = np.where(z > 0, l1 - z, -l1 - z)
    row = top / ((np.float32(c.beta) + np.sqrt(n2)) / lr + np.float32(c.l2))
    return np.where(np.abs(z) <= l1, np.float32(0.0), row), np.concatenate([z, n2])


NUMPYS: dict[str, Numpys] = {
    "sgd": numpy_sgd,
    "rowwise_adagrad": numpy_rowwise,
    "adagrad": numpy_adagrad,
    "adam": numpy_adam,
    "ftrl": numpy_ftrl,
}


@pytest.mark.parametrize("kind", NUMPYS)
@given(data=st.data(), dim=st.integers(1, 6))
def test_ten_steps_of_an_optimizer_equal_numpys(kind: str, data: st.DataObject, dim: int) -> None:
    more = {"l1": data.draw(st.sampled_from([0.0, 0.5])), "l2": 0.1} if kind == "ftrl" else {}
    constants = optimizers.constants({"kind": kind, "lr": 0.05, **more})
    row, state = tuple(data.draw(modest) for _ in range(dim)), optimizers.initial_state(kind, dim)
    w, s = np.array(row, np.float32), np.array(state, np.float32)
    with np.errstate(all="ignore"):
        for _ in range(10):
            gradient = tuple(data.draw(modest) for _ in range(dim))
            row, state = optimizers.STEPS[kind](row, state, gradient, constants.lr, constants)
            w, s = NUMPYS[kind](w, s, np.array(gradient, np.float32), np.float32(constants.lr), constants)
            assert w.dtype == s.dtype == np.dtype(np.float32)
            assert np.array(row, np.float32).tobytes() == w.tobytes()
            assert np.array(state, np.float32).tobytes() == s.tobytes()
