"""From what a trainer hands over to frames: checked, summed, split by shard and size.

Invariant: duplicates are summed in order of occurrence in float32, so a push
gives the bits that a plain loop over the same arrays gives. Within a producer,
(epoch, seq) rises strictly per shard: seq = step·2^16 + part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from driftline.errors import InputError, RepeatedStepError
from driftline.frames.events import Delete, Gradient, Origin, Upsert
from driftline.ids import shard_of
from driftline.shard.spec import FRAME_OVERHEAD, TableSpec

PARTS = 1 << 16
MAX_STEP = (1 << 48) - 1
_OFTEN = 8
"""Occurrences up to which ids are summed all at once, one occurrence after the other, and not id by id."""


def as_ids(ids: ArrayLike) -> NDArray[np.uint64]:
    """Return ids as u64 (n,). Raises InputError for anything but whole numbers from 0 to 2^64 - 1."""
    array = np.asarray(ids)
    if (
        array.size  # an empty list is float64 too
        and array.dtype.kind == "f"
        and isinstance(ids, list | tuple)
        and all(type(row) is int for row in ids)
    ):
        # numpy makes float64 of [1, 2**63]; elsewhere an int out of range makes it an object array
        array = np.array(ids, np.uint64 if min(ids) >= 0 else object)
    if array.ndim != 1:
        raise InputError(f"ids must have one dimension, got shape {array.shape}")
    if array.size and (array.dtype.kind not in "iu" or (array.dtype.kind == "i" and array.min() < 0)):
        raise InputError(f"ids must be whole numbers from 0 to 2^64 - 1, got {array.dtype} {array[:4]} …")
    return np.ascontiguousarray(array, dtype=np.uint64)


def as_matrix(name: str, values: ArrayLike, rows: int, width: int) -> NDArray[np.float32]:
    """Return float32 (rows, width). Raises InputError naming a wrong shape or the first non-finite row."""
    array = np.asarray(values)
    if array.dtype.kind in "fiu" and array.ndim == 2 and array.shape != (rows, width):
        found, columns = array.shape
        if columns != width:
            raise InputError(f"{name} need {width} columns, got {columns}")
        raise InputError(f"{name} need {rows} rows, one for each id, got {found}")
    if array.dtype.kind not in "fiu" or array.shape != (rows, width):
        raise InputError(f"{name} must be numbers of shape {(rows, width)}, got {array.dtype} {array.shape}")
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise InputError(f"{name}: row {row} is not finite in float32")
    return matrix


def sum_duplicates(
    ids: NDArray[np.uint64], grads: NDArray[np.float32]
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Return distinct ids in increasing order, and per id the sum of its gradients in order of occurrence."""
    if len(ids) < 2 or (ids[1:] > ids[:-1]).all():
        return ids, grads
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    fresh = np.ones(len(ids), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    starts = np.flatnonzero(fresh)
    counts = np.diff(starts, append=len(ids))
    sums = grads[order[starts]]
    with np.errstate(over="ignore", invalid="ignore"):  # the caller judges the sums
        often = np.flatnonzero(counts > _OFTEN)
        for at in often.tolist():
            sums[at] = _sum_rows(grads[order[starts[at] : starts[at] + counts[at]]])
        rest = np.flatnonzero((counts > 1) & (counts <= _OFTEN))
        for occurrence in range(1, _OFTEN):
            rest = rest[counts[rest] > occurrence]
            sums[rest] += grads[order[starts[rest] + occurrence]]
    return ordered[starts], sums


def _sum_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the sum of two or more rows, one after the other.

    numpy adds along the first axis row by row, except where there is but one column: those it
    adds pairwise. The begin is -0: 0 would turn a -0 into +0.
    """
    if rows.shape[1] == 1:
        last: NDArray[np.float32] = np.add.accumulate(rows, axis=0)[-1]
        return last
    sums: NDArray[np.float32] = np.add.reduce(rows, axis=0, initial=np.float32(-0.0))
    return sums


class Sequence:
    """Sequence numbers of one producer on one table.

    A producer with a name of its own (`named`) must say its steps: counted from 0 again after
    a restart, everything it sends would look sent before and change nothing.
    """

    def __init__(self, *, named: bool = False) -> None:
        self._named = named
        self._step = -1
        self._part = 0

    def next(self, step: int | None) -> int:
        """Return the number of a push at `step`, or at the next one, without beginning it.

        Raises RepeatedStepError if it does not rise.
        """
        if step is None:
            self._check_named("push")
            step = self._step + 1
        if not 0 <= step <= MAX_STEP:
            raise InputError(f"step {step} is not a whole number from 0 to 2^48 - 1")
        if step <= self._step:
            raise RepeatedStepError(
                f"step {step} was pushed before (the last was {self._step}); steps of one producer must rise"
            )
        return step

    def begin(self, step: int | None) -> None:
        """Start `step`, or the next one. Raises RepeatedStepError if it does not rise."""
        self._step, self._part = self.next(step), 0

    def check_more(self, step: int | None) -> None:
        """Raise what `more` would raise."""
        if step is not None:
            self.next(step)
        elif self._step < 0:
            self._check_named("upsert or delete before the first push")

    def more(self, step: int | None) -> None:
        """Start `step` for what is sent besides gradients, or go on within the last one."""
        self.check_more(step)
        if step is not None:
            self.begin(step)
        elif self._step < 0:
            self._step = 0

    def _check_named(self, call: str) -> None:
        if self._named:
            raise InputError(
                f"{call}: this producer has a name, so give step=, a number that never goes back"
            )

    def take(self, parts: int) -> int:
        """Return the first of `parts` sequence numbers in a row."""
        if self._part + parts > PARTS:
            raise InputError(f"step {self._step} needs more than {PARTS} frames; push less at once")
        first = (self._step << 16) + self._part
        self._part += parts
        return first


@dataclass(frozen=True, slots=True)
class Sender:
    """Who signs the frames of a table."""

    spec: TableSpec
    producer: bytes
    epoch: int


def gradient_frames(
    sender: Sender,
    sequence: Sequence,
    ids: NDArray[np.uint64],
    grads: NDArray[np.float32],
    read: Mapping[int, int | None],
    lr: np.float32 | None,
) -> list[Gradient]:
    """Return the frames of one push, distinct sorted `ids`; `read` maps shard to LSN."""
    spec = sender.spec
    cut = list(_cut(spec, ids, 8 + 4 * spec.dim))
    first = sequence.take(_parts(cut))
    return [
        Gradient(
            spec.name,
            shard,
            Origin(sender.producer, sender.epoch, first + part),
            ids[at],
            grads[at],
            read.get(shard),
            lr,
        )
        for shard, part, at in cut
    ]


def upsert_frames(
    sender: Sender,
    sequence: Sequence,
    ids: NDArray[np.uint64],
    rows: NDArray[np.float32],
    state: NDArray[np.float32] | None,
) -> list[Upsert]:
    """Return the frames of one upsert of distinct sorted `ids`."""
    spec = sender.spec
    cut = list(_cut(spec, ids, 8 + 4 * (spec.dim + spec.state_size)))
    first = sequence.take(_parts(cut))
    return [
        Upsert(
            spec.name,
            shard,
            Origin(sender.producer, sender.epoch, first + part),
            ids[at],
            rows[at],
            None if state is None else state[at],
        )
        for shard, part, at in cut
    ]


def delete_frames(sender: Sender, sequence: Sequence, ids: NDArray[np.uint64]) -> list[Delete]:
    """Return the frames that delete distinct sorted `ids`.

    Cut as if they carried the rows: whoever applies them has these in memory all at once.
    """
    spec = sender.spec
    cut = list(_cut(spec, ids, 8 + 4 * spec.dim))
    first = sequence.take(_parts(cut))
    return [
        Delete(spec.name, shard, Origin(sender.producer, sender.epoch, first + part), ids[at])
        for shard, part, at in cut
    ]


def _cut(
    spec: TableSpec, ids: NDArray[np.uint64], row_bytes: int
) -> Iterator[tuple[int, int, NDArray[np.intp]]]:
    """Yield (shard, part, places in `ids`) so that each frame stays below the table's limit."""
    step = max(1, (spec.cut_bytes - FRAME_OVERHEAD) // row_bytes)
    home = shard_of(ids, spec.shards)
    order = np.argsort(home, kind="stable")
    ends = np.cumsum(np.bincount(home, minlength=spec.shards)).tolist()
    begin = 0
    for shard, end in enumerate(ends):
        for part, start in enumerate(range(begin, end, step)):
            yield shard, part, order[start : min(start + step, end)]
        begin = end


def _parts(cut: list[tuple[int, int, NDArray[np.intp]]]) -> int:
    return 1 + max((part for _, part, _ in cut), default=0)
