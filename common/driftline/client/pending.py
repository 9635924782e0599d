"""What a table handle remembers between calls, and how its calls become frames.

Invariant: everything a push sends is decided here, without I/O, so the
asynchronous and the synchronous table cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.client.reading import Rows
from driftline.client.splitting import (
    Sender,
    Sequence,
    as_ids,
    as_matrix,
    delete_frames,
    gradient_frames,
    sum_duplicates,
    upsert_frames,
)
from driftline.errors import InputError
from driftline.frames.events import GRADIENT_KINDS, Delete, Gradient, Upsert, write_event
from driftline.frames.headers import cloud_event
from driftline.log import Headers, Outgoing

_BELOW = {"F32": np.float32(np.inf), "F16": np.float32(65520), "BF16": np.float32(3.3961775e38)}
"""What is not below rounds to infinity when it is sent, and a shard would skip the row."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Pending:
    """One producer's hand on one table."""

    def __init__(
        self, sender: Sender, gradient_dtype: str = "F32", *, sequence: Sequence | None = None
    ) -> None:
        if gradient_dtype not in GRADIENT_KINDS:
            raise InputError(f"gradient dtype {gradient_dtype!r}: one of {', '.join(GRADIENT_KINDS)}")
        self._sender, self._dtype = sender, gradient_dtype
        self._sequence = sequence or Sequence()
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
    ) -> list[tuple[int, Outgoing]]:
        """Return the frames of a push, as (shard, record). Raises InputError."""
        wanted = as_ids(ids)
        spec = self._sender.spec
        matrix = as_matrix(f"grads for table {spec.name}", grads, len(wanted), spec.dim)
        rate = None if lr is None else _rate(lr)
        distinct, sums = sum_duplicates(wanted, matrix)
        good = (np.abs(sums) < _BELOW[self._dtype]).all(axis=1)
        if not good.all():
            row = int(distinct[~good][0])
            raise InputError(f"grads: the sum of the gradients of id {row} is not finite in {self._dtype}")
        self._sequence.begin(step)
        where = self._oldest_read if read is None else read
        frames = gradient_frames(self._sender, self._sequence, distinct, sums, where, rate)
        self._oldest_read = {}
        return self._records(frames, traceparent)

    def upsert(
        self,
        ids: ArrayLike,
        rows: ArrayLike,
        state: ArrayLike | None,
        traceparent: str | None = None,
        step: int | None = None,
    ) -> list[tuple[int, Outgoing]]:
        """Return the frames of an upsert. Raises InputError, also for duplicate ids."""
        wanted = as_ids(ids)
        order = self._distinct_order(wanted)
        spec = self._sender.spec
        matrix = as_matrix(f"rows for table {spec.name}", rows, len(wanted), spec.dim)[order]
        given = None
        if state is not None:
            given = as_matrix(f"states for table {spec.name}", state, len(wanted), spec.state_size)[order]
        self._sequence.more(step)
        frames = upsert_frames(self._sender, self._sequence, wanted[order], matrix, given)
        return self._records(frames, traceparent)

    def delete(
        self, ids: ArrayLike, traceparent: str | None = None, step: int | None = None
    ) -> list[tuple[int, Outgoing]]:
        """Return the frames of a delete; duplicates and unknown ids are fine. Raises InputError."""
        self._sequence.more(step)
        frames = delete_frames(self._sender, self._sequence, np.unique(as_ids(ids)))
        return self._records(frames, traceparent)

    def _distinct_order(self, ids: NDArray[np.uint64]) -> NDArray[np.intp]:
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeated):
            raise InputError(f"upsert: id {repeated[0]} is given more than once")
        return order

    def _records(
        self, frames: list[Gradient] | list[Upsert] | list[Delete], traceparent: str | None
    ) -> list[tuple[int, Outgoing]]:
        trace: Headers = () if traceparent is None else (("traceparent", _checked(traceparent)),)
        return [(frame.shard, self._record(frame, trace)) for frame in frames]

    def _record(self, frame: Gradient | Upsert | Delete, trace: Headers) -> Outgoing:
        origin = frame.origin
        source = f"producer/{origin.producer.hex()}"
        event_id = f"{origin.epoch}/{origin.seq}/{frame.shard}"
        headers = cloud_event(type(frame).__name__.lower(), source, event_id)
        return Outgoing(write_event(frame, as_dtype=self._dtype), None, headers + trace)


def _checked(traceparent: str) -> bytes:
    if not _TRACEPARENT.fullmatch(traceparent):
        raise InputError(f"traceparent {traceparent!r} is not of the W3C form 00-<32 hex>-<16 hex>-<2 hex>")
    return traceparent.encode()


def _rate(lr: float) -> np.float32:
    rate = np.float32(lr)
    if not 0 <= rate < np.inf:
        raise InputError(f"lr {lr!r} is not a finite number of at least 0")
    return rate
