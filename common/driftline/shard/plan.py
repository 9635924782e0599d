"""What a stretch of log asks of the rows: the output of `screen`, the input of `apply`.

Invariant: a plan never crosses an op. It holds the changes of the records before
the first op, and that op itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from driftline.frames.events import Op
from driftline.log.base import Record
from driftline.shard.tally import Tally


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that goes to the dead-letter queue."""

    record: Record
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Gradients:
    """A run of gradients; an id may occur once per frame."""

    ids: NDArray[np.uint64]  # (n,) in log order
    grads: NDArray[np.float32]  # (n, d)
    lr: NDArray[np.float32]  # (n,)
    lsn: NDArray[np.uint64]  # (n,)


@dataclass(frozen=True, slots=True)
class Values:
    """Explicit rows from an upsert or a restore-rows; state None: as at birth."""

    ids: NDArray[np.uint64]  # (n,), distinct
    rows: NDArray[np.float32]
    state: NDArray[np.float32] | None
    lsn: int
    cause: np.uint8


@dataclass(frozen=True, slots=True)
class Removals:
    """Rows to delete."""

    ids: NDArray[np.uint64]  # (n,), distinct
    lsn: int


Run = Gradients | Values | Removals


@dataclass(frozen=True, slots=True)
class PendingOp:
    """An accepted op, not applied yet."""

    op: Op
    record: Record


@dataclass(slots=True)
class Plan:
    """The accepted changes of `consumed` records, then `op` if one was reached."""

    runs: list[Run] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    consumed: int = 0  # records, including the op's
    tally: Tally = field(default_factory=Tally)  # of the gradients among the changes
    op: PendingOp | None = None
    missing: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """Distinct ids whose rows must be fetched before `apply`."""
