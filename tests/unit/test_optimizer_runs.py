"""An optimizer's run over waves gives the bits of its steps, one wave after the other."""

from __future__ import annotations

import numpy as np
import pytest

from driftline.shard.optimizers import KINDS, make_optimizer
from driftline.shard.optimizers.base import Rows

DIM = 6
ENDS = [5, 9, 10]  # rows change three times, twice, once


def case(kind: str) -> tuple[Rows, Rows, Rows, Rows]:
    rng = np.random.default_rng(3)
    optimizer = make_optimizer(KINDS, {"kind": kind})
    rows = rng.standard_normal((5, DIM)).astype(np.float32)
    state = np.tile(optimizer.initial_state(DIM), (5, 1))
    grads = rng.standard_normal((10, DIM)).astype(np.float32)
    return rows, state, grads, np.full(10, 0.1, np.float32)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_run_gives_the_bits_of_its_steps(kind: str) -> None:
    rows, state, grads, lr = case(kind)
    optimizer = make_optimizer(KINDS, {"kind": kind})
    wanted_rows, wanted_state = rows.copy(), state.copy()
    for begin, end in zip([0, *ENDS[:-1]], ENDS, strict=True):
        part = slice(0, end - begin)
        wanted_rows[part], wanted_state[part] = optimizer.step(
            wanted_rows[part], wanted_state[part], grads[begin:end], lr[begin:end]
        )

    assert optimizer.run(rows, state, grads.copy(), lr, ENDS)
    assert rows.tobytes() == wanted_rows.tobytes()
    assert state.tobytes() == wanted_state.tobytes()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, np.float32(3e38)])
@pytest.mark.parametrize("wave", range(3))
def test_a_run_tells_of_any_wave_that_is_not_finite(kind: str, bad: float, wave: int) -> None:
    rows, state, grads, lr = case(kind)
    optimizer = make_optimizer(KINDS, {"kind": kind})
    grads[[0, *ENDS][wave]] = bad
    steps, finite, begin = (rows.copy(), state.copy()), True, 0
    with np.errstate(all="ignore"):
        for end in ENDS:
            part = slice(0, end - begin)
            new = optimizer.step(steps[0][part], steps[1][part], grads[begin:end], lr[begin:end])
            finite = finite and bool(np.isfinite(new[0]).all() and np.isfinite(new[1]).all())
            steps[0][part], steps[1][part] = new
            begin = end
        assert optimizer.run(rows, state, grads.copy(), lr, ENDS) == finite
