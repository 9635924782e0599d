"""What one producer sends to one table: merged, numbered, and written as records.

Invariants: seqs rise per shard. Where frames are cut depends on step numbers and on the
calls of the steps alone, never on time, size or acknowledgements: a step that is pushed
again is cut as before. A call that is refused changes nothing. All handles of a table
share it: they are one producer. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from driftline.client.merging import Merged
from driftline.client.splitting import (
    Sender,
    Sequence,
    delete_frames,
    gradient_frames,
    upsert_frames,
)
from driftline.errors import InputError
from driftline.frames.events import GRADIENT_KINDS, Delete, Gradient, Upsert, write_event
from driftline.frames.headers import cloud_event
from driftline.log import Headers, Outgoing

Records = list[tuple[int, Outgoing]]
"""Frames with the shards they are for."""

MAX_MERGE_STEPS = 1 << 16
_BELOW = {"F32": np.float32(np.inf), "F16": np.float32(65520), "BF16": np.float32(3.3961775e38)}
"""What is not below rounds to infinity when it is sent, and a shard would skip the row."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Outbox:
    """Turns checked arrays into records; of m = `merge_steps`, steps k·m to k·m + m - 1 travel together."""

    def __init__(
        self,
        sender: Sender,
        gradient_dtype: str = "F32",
        *,
        merge_steps: int = 1,
        sequence: Sequence | None = None,
    ) -> None:
        if gradient_dtype not in GRADIENT_KINDS:
            raise InputError(f"gradient dtype {gradient_dtype!r}: one of {', '.join(GRADIENT_KINDS)}")
        self.sender = sender
        self._dtype, self._steps = gradient_dtype, check_merge_steps(merge_steps)
        self._sequence = sequence or Sequence()
        self._open: Merged | None = None

    @property
    def half_merged(self) -> Merged | None:
        """What is merged and not cut yet; None where that is nothing."""
        return self._open if self._open is not None and len(self._open.ids) else None

    def push(
        self,
        ids: NDArray[np.uint64],
        grads: NDArray[np.float32],
        step: int | None,
        read: Mapping[int, int],
        lr: np.float32 | None,
        traceparent: str | None,
    ) -> Records:
        """Merge a push and return what is to be sent now. Raises InputError, RepeatedStepError."""
        number = self._sequence.next(step)
        _check_trace(traceparent)
        before = self._open
        if before is not None and number // self._steps != before.last // self._steps:
            before = None  # it ends with the steps before this one's
        if before is None:
            merged = Merged.of(number, ids, grads, read, lr, traceparent)
        else:
            merged = before.then(number, ids, grads, read, lr, traceparent, self.sender.spec.shards)
        self._check_finite(merged)
        records = self.cut() if before is None else []
        self._sequence.begin(number)
        self._open = merged
        if (number + 1) % self._steps == 0:
            records += self.cut()
        else:
            self._open = merged.kept()
        return records

    def upsert(
        self,
        ids: NDArray[np.uint64],
        rows: NDArray[np.float32],
        state: NDArray[np.float32] | None,
        step: int | None,
        traceparent: str | None,
    ) -> Records:
        """Return the records of an upsert of distinct sorted `ids`, behind what was merged so far."""
        records = self._cut_before(step, traceparent)
        frames = upsert_frames(self.sender, self._sequence, ids, rows, state)
        return records + self._records(frames, traceparent)

    def delete(self, ids: NDArray[np.uint64], step: int | None, traceparent: str | None) -> Records:
        """Return the records of a delete of distinct sorted `ids`, behind what was merged so far."""
        records = self._cut_before(step, traceparent)
        frames = delete_frames(self.sender, self._sequence, ids)
        return records + self._records(frames, traceparent)

    def cut(self) -> Records:
        """End the merging behind the last step pushed and return its records."""
        merged, self._open = self._open, None
        if merged is None:
            return []
        frames = gradient_frames(
            self.sender, self._sequence, merged.ids, merged.grads, merged.read, merged.lr
        )
        return self._records(frames, merged.traceparent)

    def _cut_before(self, step: int | None, traceparent: str | None) -> Records:
        """Begin `step`, or go on within the last one, and return what was merged until there."""
        _check_trace(traceparent)
        self._sequence.check_more(step)
        records = self.cut()
        self._sequence.more(step)
        return records

    def _check_finite(self, merged: Merged) -> None:
        good = (np.abs(merged.grads) < _BELOW[self._dtype]).all(axis=1)
        if not good.all():
            row = int(merged.ids[~good][0])
            raise InputError(f"grads: the sum of the gradients of id {row} is not finite in {self._dtype}")

    def _records(
        self, frames: list[Gradient] | list[Upsert] | list[Delete], traceparent: str | None
    ) -> Records:
        trace: Headers = () if traceparent is None else (("traceparent", traceparent.encode()),)
        return [(frame.shard, self._record(frame, trace)) for frame in frames]

    def _record(self, frame: Gradient | Upsert | Delete, trace: Headers) -> Outgoing:
        origin = frame.origin
        source = f"producer/{origin.producer.hex()}"
        event_id = f"{origin.epoch}/{origin.seq}/{frame.shard}"
        headers = cloud_event(type(frame).__name__.lower(), source, event_id)
        return Outgoing(write_event(frame, as_dtype=self._dtype), None, headers + trace)


def check_merge_steps(steps: int) -> int:
    """Return how many steps are merged, or raise InputError."""
    if isinstance(steps, bool) or int(steps) != steps or not 1 <= steps <= MAX_MERGE_STEPS:
        raise InputError(f"merge_steps {steps!r} is not a whole number from 1 to {MAX_MERGE_STEPS}")
    return steps


def _check_trace(traceparent: str | None) -> None:
    if traceparent is not None and not _TRACEPARENT.fullmatch(traceparent):
        raise InputError(f"traceparent {traceparent!r} is not of the W3C form 00-<32 hex>-<16 hex>-<2 hex>")
