"""Each optimizer against a scalar float32 loop, bit for bit, and its settings."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from driftline.errors import ConfigError
from driftline.shard.optimizers import KINDS, make_optimizer
from tests.oracle import optimizers as oracle
from tests.oracle.f32 import to_bytes

MODEST = st.floats(-8, 8, width=32)
RATES = st.floats(2**-10, 2, width=32)
FloatRows = NDArray[np.float32]

SETTINGS: dict[str, dict[str, object]] = {
    "adagrad": {"kind": "adagrad", "lr": 0.1, "eps": 1e-6},
    "adam": {"kind": "adam", "lr": 0.01, "beta1": 0.8, "beta2": 0.99, "eps": 1e-6},
    "ftrl": {"kind": "ftrl", "lr": 0.2, "beta": 0.5, "l1": 0.1, "l2": 0.01},
    "rowwise_adagrad": {"kind": "rowwise_adagrad", "lr": 0.1, "eps": 1e-6},
    "sgd": {"kind": "sgd", "lr": 0.1},
}


@st.composite
def pushes(draw: st.DrawFn) -> tuple[FloatRows, list[FloatRows], list[FloatRows]]:
    """Return rows, and per step gradients and learning rates."""
    n, dim, steps = draw(st.integers(1, 4)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    matrix = hnp.arrays("<f4", (n, dim), elements=MODEST)
    rates = hnp.arrays("<f4", n, elements=RATES)
    return draw(matrix), [draw(matrix) for _ in range(steps)], [draw(rates) for _ in range(steps)]


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(pushes())
def test_steps_are_those_of_a_scalar_loop(
    kind: str, push: tuple[FloatRows, list[FloatRows], list[FloatRows]]
) -> None:
    rows, grads, rates = push
    n, dim = rows.shape
    optimizer = make_optimizer(KINDS, SETTINGS[kind])
    constants = oracle.constants(SETTINGS[kind])
    expected = [(tuple(row), oracle.initial_state(kind, dim)) for row in rows.tolist()]
    state = np.tile(optimizer.initial_state(dim), (n, 1))
    for g, lr in zip(grads, rates, strict=True):
        rows, state = optimizer.step(rows, state, g, lr)
        expected = [
            oracle.STEPS[kind](w, s, tuple(gs), float(rate), constants)
            for (w, s), gs, rate in zip(expected, g.tolist(), lr, strict=True)
        ]
    assert rows.dtype == state.dtype == np.float32
    assert rows.tobytes() == b"".join(to_bytes(w) for w, _ in expected)
    assert state.tobytes() == b"".join(to_bytes(s) for _, s in expected)


@pytest.mark.parametrize("kind", sorted(KINDS))
@given(hnp.arrays("<f4", (5, 3), elements=MODEST), hnp.arrays("<f4", (5, 3), elements=MODEST))
def test_a_batch_gives_the_bits_of_row_by_row_application(
    kind: str, rows: FloatRows, grads: FloatRows
) -> None:
    optimizer = make_optimizer(KINDS, {"kind": kind})
    state = np.tile(optimizer.initial_state(3), (5, 1))
    lr = np.full(5, optimizer.lr)
    together = optimizer.step(rows, state, grads, lr)
    for at in range(5):
        one = slice(at, at + 1)
        alone = optimizer.step(rows[one], state[one], grads[one], lr[one])
        assert [a.tobytes() for a in alone] == [a[one].tobytes() for a in together]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_step_leaves_its_arguments_alone(kind: str) -> None:
    optimizer = make_optimizer(KINDS, {"kind": kind})
    rows, grads = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    state = np.tile(optimizer.initial_state(3), (2, 1))
    before = rows.tobytes(), state.tobytes(), grads.tobytes()
    optimizer.step(rows, state, grads, np.full(2, optimizer.lr))
    assert (rows.tobytes(), state.tobytes(), grads.tobytes()) == before


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("dim", [1, 7])
def test_the_state_at_birth_has_the_size_announced(kind: str, dim: int) -> None:
    optimizer = make_optimizer(KINDS, {"kind": kind})
    state = optimizer.initial_state(dim)
    assert state.shape == (optimizer.state_size(dim),)
    assert state.dtype == np.float32
    assert tuple(state.tolist()) == oracle.initial_state(kind, dim)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_constants_that_a_spec_leaves_out_are_those_of_the_oracle(kind: str) -> None:
    optimizer = make_optimizer(KINDS, {"kind": kind})
    expected = oracle.constants({"kind": kind})
    for constant in fields(optimizer):
        assert float(getattr(optimizer, constant.name)) == getattr(expected, constant.name), constant.name


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_constant_has_one_name(kind: str) -> None:
    settings = {"kind": kind} | {each.name: 0.25 for each in fields(KINDS[kind])}
    optimizer, expected = make_optimizer(KINDS, settings), oracle.constants(settings)
    for constant in fields(optimizer):
        assert float(getattr(optimizer, constant.name)) == getattr(expected, constant.name) == 0.25


def test_ftrl_gives_exact_zeros_inside_the_l1_ball() -> None:
    optimizer = make_optimizer(KINDS, {"kind": "ftrl", "l1": 10.0})
    rows, _ = optimizer.step(
        np.ones((1, 2), np.float32),
        np.zeros((1, 4), np.float32),
        np.ones((1, 2), np.float32),
        np.ones(1, "f4"),
    )
    assert rows.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, "kind None"),
        ({"kind": "adamw"}, "adagrad, adam, ftrl, rowwise_adagrad, sgd"),
        ({"kind": 7}, "kind 7"),
        ({"kind": "sgd", "momentum": 0.9}, "momentum"),
        ({"kind": "sgd", "lr": -0.1}, "lr = -0.1"),
        ({"kind": "sgd", "lr": "fast"}, "lr = 'fast'"),
        ({"kind": "sgd", "lr": True}, "lr = True"),
        ({"kind": "sgd", "lr": float("nan")}, "lr = nan"),
        ({"kind": "sgd", "lr": 1e30}, "lr = 1e"),
        ("sgd", "'sgd' is not an object"),
        ([["kind", "sgd"]], "is not an object"),
        (None, "None is not an object"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_optimizer(KINDS, settings)
    assert names in str(caught.value)


def test_constants_are_rounded_to_float32_once() -> None:
    assert make_optimizer(KINDS, {"kind": "sgd", "lr": 0.1}).lr == np.float32(0.1)
    assert isinstance(make_optimizer(KINDS, {"kind": "sgd", "lr": 1}).lr, np.float32)
