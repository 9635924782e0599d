"""A table in plain arrays: the same trainer without a pipeline.

Invariant: bit for bit the arithmetic of the store (row-wise adagrad in FBGEMM's
order, initial rows, halving-tree sum, every operation in float32), written apart
from it on purpose, so that comparing the two compares two implementations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.demo.tables import Floats, Ids, TableSettings
from driftline.errors import InputError, RepeatedStepError
from driftline.ids import splitmix64

_FIRST_CAPACITY = 1024


def initial_rows(ids: Ids, settings: TableSettings) -> Floats:
    """Return the rows (n, d) that `ids` have before any gradient; they depend on (seed, id) alone.

    x_j = splitmix64(splitmix64(seed xor splitmix64(id)) + j), value_j = ((x_j >> 40)·2^-23 - 1)·scale.
    """
    start = splitmix64(np.uint64(settings.seed) ^ splitmix64(ids))
    x = splitmix64(start[:, None] + np.arange(settings.dims, dtype=np.uint64)[None, :])
    unit = (x >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return unit * np.float32(settings.scale)


def tree_sum(values: Floats) -> Floats:
    """Return the sum over the last axis (n, d) -> (n,), by halving: the order is part of the format."""
    width = 1 << (values.shape[1] - 1).bit_length()
    total = np.zeros((values.shape[0], width), np.float32)
    total[:, : values.shape[1]] = values
    while width > 1:
        width //= 2
        total = total[:, :width] + total[:, width:]
    return total[:, 0]


def sum_duplicates(ids: Ids, grads: Floats) -> tuple[Ids, Floats]:
    """Return each id once, ascending, with its gradients summed in order of occurrence in float32."""
    unique, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    summed = grads[first]
    later = np.ones(len(ids), bool)
    later[first] = False
    np.add.at(summed, inverse[later], grads[later])
    return unique, summed


def adagrad(rows: Floats, acc: Floats, grads: Floats, settings: TableSettings) -> tuple[Floats, Floats]:
    """Return (rows, acc) after one row-wise adagrad step; shapes (n, d), (n,), (n, d).

    Source: Duchi, Hazan, Singer, "Adaptive subgradient methods", JMLR 2011; one accumulator
    per row and the order of operations as in FBGEMM's `rowwise_adagrad`.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        acc = acc + tree_sum(grads * grads) / np.float32(settings.dims)
        rate = np.float32(settings.lr) / (np.sqrt(acc) + np.float32(settings.eps))
        return rows - rate[:, None] * grads, acc


@dataclass(frozen=True, slots=True)
class InProcessRows:
    """Rows read from an `InProcessTable`; `read` is the number of pushes they contain."""

    vectors: Floats
    read: int


class InProcessTable:
    """A `Table` in this process; a row is born by its first gradient, as in the store."""

    def __init__(self, settings: TableSettings) -> None:
        self.settings = settings
        self.skipped = 0  # ids whose result was not finite: left as they were
        self._slots: dict[int, int] = {}
        self._rows = np.empty((_FIRST_CAPACITY, settings.dims), np.float32)
        self._acc = np.empty(_FIRST_CAPACITY, np.float32)
        self._step = -1
        self._pushes = 0

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, ids: Ids) -> InProcessRows:
        """Return the rows of `ids`; initial rows for those without a gradient so far."""
        slots = self._find(ids)
        rows = self._rows[slots]  # slot -1 reads the last row, overwritten just below
        unknown = slots < 0
        if unknown.any():
            rows[unknown] = initial_rows(ids[unknown], self.settings)
        return InProcessRows(rows, self._pushes)

    def push(self, ids: Ids, grads: Floats, *, step: int, read: object) -> None:
        """Apply `grads` now. Raises RepeatedStepError unless `step` is beyond the last one."""
        if step <= self._step:
            raise RepeatedStepError(f"step {step} after step {self._step}: steps must rise; use a new step")
        if grads.shape != (len(ids), self.settings.dims):
            expected = (len(ids), self.settings.dims)
            raise InputError(f"gradients of shape {grads.shape} for {len(ids)} ids: expected {expected}")
        self._step = step
        self._pushes += 1
        unique, summed = sum_duplicates(ids, np.asarray(grads, np.float32))
        slots = self._find(unique)
        known = slots >= 0
        rows = self._rows[slots]
        rows[~known] = initial_rows(unique[~known], self.settings)
        acc = np.where(known, self._acc[slots], np.float32(0))
        rows, acc = adagrad(rows, acc, summed, self.settings)
        good = np.isfinite(rows).all(axis=1) & np.isfinite(acc)
        self.skipped += int(np.count_nonzero(~good))
        born = good & ~known
        slots[born] = self._add(unique[born])
        self._rows[slots[good]] = rows[good]
        self._acc[slots[good]] = acc[good]

    def flush(self) -> None:
        """Nothing is ever outstanding here."""

    def rows_of(self, ids: Ids) -> tuple[Floats, Floats]:
        """Return copies of the rows (n, d) and accumulators (n,) of known `ids`, for comparisons."""
        slots = self._find(ids)
        return self._rows[slots], self._acc[slots]

    def ids(self) -> Ids:
        """Return the ids that have a row, in order of birth."""
        return np.fromiter(self._slots, np.uint64, len(self._slots))

    def _find(self, ids: Ids) -> NDArray[np.int64]:
        find = self._slots.get
        return np.fromiter((find(i, -1) for i in ids.tolist()), np.int64, len(ids))

    def _add(self, ids: Ids) -> NDArray[np.int64]:
        first = len(self._slots)
        needed = first + len(ids)
        if needed > len(self._acc):
            capacity = max(needed, 2 * len(self._acc))
            self._rows = np.concatenate(
                [
                    self._rows,
                    np.empty((capacity - len(self._acc), self.settings.dims), np.float32),
                ]
            )
            self._acc = np.concatenate([self._acc, np.empty(capacity - len(self._acc), np.float32)])
        self._slots.update(zip(ids.tolist(), range(first, needed), strict=True))
        return np.arange(first, needed, dtype=np.int64)
