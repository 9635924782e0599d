"""The same training without a pipeline: a dict of rows and a loop, one float32 at a time.

Invariant: shares no code with the store it judges; the arithmetic is the oracle's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from driftline import TableSpec
from tests.integration.deployment import Floats, Ids
from tests.oracle.f32 import add
from tests.oracle.hashing import initial_row
from tests.oracle.optimizers import STEPS, Constants, Row, State, constants, initial_state

Round = Callable[[Floats], Floats]


def as_f32(grads: Floats) -> Floats:
    return grads


def as_f16(grads: Floats) -> Floats:
    return grads.astype(np.float16).astype(np.float32)


def as_bf16(grads: Floats) -> Floats:
    """Keep the upper 16 bits, rounded to the nearest, ties to even (IEEE 754, roundTiesToEven)."""
    whole = grads.view(np.uint32)
    upper, rest = whole >> 16, whole & 0xFFFF
    up = (rest > 0x8000) | ((rest == 0x8000) & (upper & 1 == 1))
    rounded: Floats = ((upper + up) << 16).astype(np.uint32).view(np.float32)
    return rounded


class PlainTable:
    """Rows by id; `rounding` is what the wire does to a summed gradient."""

    def __init__(self, spec: TableSpec, rounding: Round = as_f32) -> None:
        self.spec, self._round = spec, rounding
        self._kind = str(spec.optimizer["kind"])
        self._constants: Constants = constants(spec.optimizer)
        self._rows: dict[int, tuple[Row, State]] = {}

    def get(self, ids: Ids) -> Floats:
        return np.array([self._row(each)[0] for each in ids.tolist()], np.float32)

    def push(self, ids: Ids, grads: Floats) -> None:
        sums: dict[int, Row] = {}
        for each, grad in zip(ids.tolist(), grads.tolist(), strict=True):
            sums[each] = tuple(map(add, sums[each], grad)) if each in sums else tuple(grad)
        wire = self._round(np.array(list(sums.values()), np.float32)).tolist()
        for each, grad in zip(sums, wire, strict=True):
            row, state = self._row(each)
            self._rows[each] = STEPS[self._kind](row, state, tuple(grad), self._constants.lr, self._constants)

    def delete(self, ids: Ids) -> None:
        for each in ids.tolist():
            self._rows.pop(each, None)

    def ids(self) -> Ids:
        return np.array(sorted(self._rows), np.uint64)

    def _row(self, each: int) -> tuple[Row, State]:
        spec = self.spec
        if each not in self._rows:
            born = initial_row(spec.init.seed, spec.init.scale, each, spec.dim)
            return born, initial_state(self._kind, spec.dim)
        return self._rows[each]
