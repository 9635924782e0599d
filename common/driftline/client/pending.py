"""What a table handle remembers between calls, and how its calls are checked.

Invariant: everything a push sends is decided here and in the outbox, without I/O, so
the asynchronous and the synchronous table cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.client.outbox import Outbox, Records
from driftline.client.reading import Rows
from driftline.client.splitting import as_ids, as_matrix
from driftline.errors import InputError


class Pending:
    """One producer's hand on one table."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox, self._spec = outbox, outbox.sender.spec
        self._oldest_read: dict[int, int] = {}

    def note_read(self, rows: Rows) -> None:
        """Remember where rows were read, for a push that does not say."""
        for shard, at in rows.read.items():
            self._oldest_read.setdefault(shard, at)

    def push(
        self,
        ids: ArrayLike,
        grads: ArrayLike,
        step: int | None,
        read: Mapping[int, int] | None,
        lr: float | None,
        traceparent: str | None = None,
    ) -> Records:
        """Return the frames that a push completes, as (shard, record). Raises InputError."""
        wanted = as_ids(ids)
        matrix = as_matrix(f"grads for table {self._spec.name}", grads, len(wanted), self._spec.dim)
        rate = None if lr is None else _rate(lr)
        where = self._oldest_read if read is None else read
        records = self._outbox.push(wanted, matrix, step, where, rate, traceparent)
        self._oldest_read = {}
        return records

    def upsert(
        self,
        ids: ArrayLike,
        rows: ArrayLike,
        state: ArrayLike | None,
        traceparent: str | None = None,
        step: int | None = None,
    ) -> Records:
        """Return the frames of an upsert. Raises InputError, also for duplicate ids."""
        wanted = as_ids(ids)
        order = self._distinct_order(wanted)
        spec = self._spec
        matrix = as_matrix(f"rows for table {spec.name}", rows, len(wanted), spec.dim)[order]
        given = None
        if state is not None:
            given = as_matrix(f"states for table {spec.name}", state, len(wanted), spec.state_size)[order]
        return self._outbox.upsert(wanted[order], matrix, given, step, traceparent)

    def delete(self, ids: ArrayLike, traceparent: str | None = None, step: int | None = None) -> Records:
        """Return the frames of a delete; duplicates and unknown ids are fine. Raises InputError."""
        return self._outbox.delete(np.unique(as_ids(ids)), step, traceparent)

    def _distinct_order(self, ids: NDArray[np.uint64]) -> NDArray[np.intp]:
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeated):
            raise InputError(f"upsert: id {repeated[0]} is given more than once")
        return order


def _rate(lr: float) -> np.float32:
    rate = np.float32(lr)
    if not 0 <= rate < np.inf:
        raise InputError(f"lr {lr!r} is not a finite number of at least 0")
    return rate
