"""Gradients of several steps, merged before they are sent.

Invariant: the sums are those of one push that holds the steps one after the other: per id
in order of occurrence, in float32, so a loop in one process that merges likewise gives the
same bits. What is merged can be applied no later than its oldest read allows. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from driftline.client.splitting import sum_duplicates
from driftline.errors import InputError
from driftline.ids import shard_of

Reads = Mapping[int, int | None]
"""Shard -> LSN of the oldest read; None where not every push for the shard said one."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The sum of the pushes of some steps."""

    first: int  # step
    last: int  # step: names the frames
    ids: NDArray[np.uint64]  # (n,), strictly increasing
    grads: NDArray[np.float32]  # (n, d)
    read: Reads
    lr: np.float32 | None  # of all of them
    traceparent: str | None  # the latest given

    @classmethod
    def of(
        cls,
        step: int,
        ids: NDArray[np.uint64],
        grads: NDArray[np.float32],
        read: Mapping[int, int],
        lr: np.float32 | None,
        traceparent: str | None,
    ) -> Self:
        """Return one push, its duplicates summed."""
        distinct, sums = sum_duplicates(ids, grads)
        return cls(step, step, distinct, sums, read, lr, traceparent)

    def then(
        self,
        step: int,
        ids: NDArray[np.uint64],
        grads: NDArray[np.float32],
        read: Mapping[int, int],
        lr: np.float32 | None,
        traceparent: str | None,
        shards: int,
    ) -> Self:
        """Return this and one more push behind it. Raises InputError for another learning rate."""
        if lr != self.lr:
            raise InputError(
                f"step {step} has lr {_said(lr)}, but the steps from {self.first} on, with which it is "
                f"merged, have {_said(self.lr)}: change lr only at steps divisible by merge_steps"
            )
        before, now = _named(self.ids, self.read, shards), _named(ids, read, shards)
        distinct, sums = sum_duplicates(
            np.concatenate((self.ids, ids)), np.concatenate((self.grads, grads))
        )  # the sums so far come first: ((a + b) + c) + d is the sum in order of occurrence
        return replace(
            self,
            last=step,
            ids=distinct,
            grads=sums,
            read=_older(before, now),
            traceparent=traceparent or self.traceparent,
        )

    def kept(self) -> Self:
        """Return the same in arrays of its own: the caller may write to its buffers after a push."""
        return replace(self, ids=self.ids.copy(), grads=self.grads.copy(), read=dict(self.read))


def _named(ids: NDArray[np.uint64], read: Reads, shards: int) -> dict[int, int | None]:
    """Return where the rows were read, of each shard that `ids` are in."""
    return {shard: read.get(shard) for shard in np.unique(shard_of(ids, shards)).tolist()}


def _older(one: dict[int, int | None], other: dict[int, int | None]) -> dict[int, int | None]:
    both = one | other
    for shard in one.keys() & other.keys():
        a, b = one[shard], other[shard]
        both[shard] = None if a is None or b is None else min(a, b)
    return both


def _said(lr: np.float32 | None) -> str:
    return "none of its own" if lr is None else f"{lr:g}"
