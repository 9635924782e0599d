"""The five optimizers for one row, in scalar float32.

Invariant: only + − × ÷ √, comparisons and casts, each rounded to float32, in the
order written (architecture.md, "Numerics"). Constants are rounded to float32
first; `lr` comes from the frame if it carries one (formats.md: "trainers have schedules").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.oracle.f32 import F32, ONE, ZERO, add, div, f32, mul, sqrt, sub, tree_sum

Row = tuple[F32, ...]
State = tuple[F32, ...]


@dataclass(frozen=True, slots=True)
class Constants:
    """An optimizer's constants, each a float32; zero where it has none of that name."""

    lr: F32
    eps: F32 = ZERO
    beta1: F32 = ZERO
    beta2: F32 = ZERO
    beta: F32 = ZERO
    l1: F32 = ZERO
    l2: F32 = ZERO


# docs/explanation/numerics.md, "Optimizers"
_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "sgd": {"lr": 0.05},
    "rowwise_adagrad": {"lr": 0.05, "eps": 1e-8},
    "adagrad": {"lr": 0.05, "eps": 1e-8},
    "adam": {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
    "ftrl": {"lr": 0.1, "beta": 1.0, "l1": 0.0, "l2": 0.0},
}


def constants(body: Mapping[str, object]) -> Constants:
    """Read a spec's `optimizer` object; raise ValueError for a constant that is unknown or no number."""
    known = _DEFAULTS[str(body["kind"])]
    found: dict[str, F32] = {}
    for name, value in {**known, **body}.items():
        if name == "kind":
            continue
        if name not in known:
            raise ValueError(f"optimizer.{name} is no constant of {body['kind']}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e30:
            raise ValueError(f"optimizer.{name} is {value!r}, not a number of at least 0")
        found[name] = f32(value)
    return Constants(**found)


def sgd(w: Row, state: State, g: Row, lr: F32, c: Constants) -> tuple[Row, State]:
    return tuple(sub(x, mul(lr, y)) for x, y in zip(w, g, strict=True)), ()


def rowwise_adagrad(w: Row, state: State, g: Row, lr: F32, c: Constants) -> tuple[Row, State]:
    """One accumulator a row, of the mean square gradient."""
    mean = div(tree_sum([mul(y, y) for y in g]), f32(len(g)))
    acc = add(state[0], mean)
    step = div(lr, add(sqrt(acc), c.eps))
    return tuple(sub(x, mul(step, y)) for x, y in zip(w, g, strict=True)), (acc,)


def adagrad(w: Row, state: State, g: Row, lr: F32, c: Constants) -> tuple[Row, State]:
    acc = tuple(add(a, mul(y, y)) for a, y in zip(state, g, strict=True))
    row = tuple(sub(x, div(mul(lr, y), add(sqrt(a), c.eps))) for x, y, a in zip(w, g, acc, strict=True))
    return row, acc


def adam(w: Row, state: State, g: Row, lr: F32, c: Constants) -> tuple[Row, State]:
    """State m[d], v[d], then the running products of β1 and β2."""
    d = len(w)
    p1, p2 = mul(state[2 * d], c.beta1), mul(state[2 * d + 1], c.beta2)
    c1, c2 = sub(ONE, c.beta1), sub(ONE, c.beta2)
    u1, u2 = sub(ONE, p1), sub(ONE, p2)
    m = tuple(add(mul(c.beta1, a), mul(c1, y)) for a, y in zip(state[:d], g, strict=True))
    v = tuple(add(mul(c.beta2, a), mul(mul(c2, y), y)) for a, y in zip(state[d : 2 * d], g, strict=True))
    row = tuple(
        sub(x, div(mul(lr, div(a, u1)), add(sqrt(div(b, u2)), c.eps)))
        for x, a, b in zip(w, m, v, strict=True)
    )
    return row, (*m, *v, p1, p2)


def ftrl(w: Row, state: State, g: Row, lr: F32, c: Constants) -> tuple[Row, State]:
    """State z[d], n[d]; lr is McMahan's alpha (KDD 2013, algorithm 1)."""
    d = len(w)
    z, n = list(state[:d]), list(state[d:])
    row = []
    for j in range(d):
        grown = add(n[j], mul(g[j], g[j]))
        sigma = div(sub(sqrt(grown), sqrt(n[j])), lr)
        z[j] = sub(add(z[j], g[j]), mul(sigma, w[j]))
        n[j] = grown
        if abs(z[j]) <= c.l1:
            row.append(ZERO)
        else:
            top = sub(c.l1, z[j]) if z[j] > 0.0 else sub(-c.l1, z[j])
            row.append(div(top, add(div(add(c.beta, sqrt(grown)), lr), c.l2)))
    return tuple(row), (*z, *n)


Step = Callable[[Row, State, Row, F32, Constants], tuple[Row, State]]
STEPS: Mapping[str, Step] = {
    "sgd": sgd,
    "rowwise_adagrad": rowwise_adagrad,
    "adagrad": adagrad,
    "adam": adam,
    "ftrl": ftrl,
}


def initial_state(kind: str, dim: int) -> State:
    """Return the state of a newborn row: zeros, but adam's running products start at 1."""
    sizes = {"sgd": 0, "rowwise_adagrad": 1, "adagrad": dim, "adam": 2 * dim, "ftrl": 2 * dim}
    return (ZERO,) * sizes[kind] + ((ONE, ONE) if kind == "adam" else ())
