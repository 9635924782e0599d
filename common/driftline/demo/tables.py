"""What the learner needs of a table, and the settings both sides of a comparison share.

Invariant: a `Table` is all that the trainer touches of the store. Rows are read by
id, gradients are pushed by id, and nothing else passes between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint64]
Floats = NDArray[np.float32]


class Rows(Protocol):
    """Rows as they were read, and the position they were read at."""

    @property
    def vectors(self) -> Floats:
        """Row i belongs to the i-th id asked for; shape (n, d), float32."""
        ...

    @property
    def read(self) -> object:
        """Opaque position token: hand it back with the gradients made from these rows."""
        ...


class Table(Protocol):
    """One embedding table, whatever stands behind it."""

    def get(self, ids: Ids) -> Rows:
        """Return the rows of `ids` (n,); an id never seen gets its reproducible initial row.

        Duplicates are allowed. A row pushed before by this caller is returned with that
        push applied, if the table reads its own writes.
        """
        ...

    def push(self, ids: Ids, grads: Floats, *, step: int, read: object) -> None:
        """Hand over gradients (n, d) for `ids` (n,); `step` rises from push to push.

        Duplicates are summed in order of occurrence, in float32.
        """
        ...

    def flush(self) -> None:
        """Return once everything pushed is acknowledged."""
        ...


@dataclass(frozen=True, slots=True)
class TableSettings:
    """Row-wise adagrad and the initial rows, as a table spec carries them."""

    dims: int
    lr: float
    scale: float  # initial rows are uniform in [-scale, scale)
    seed: int
    eps: float = 1e-8


@dataclass(frozen=True, slots=True)
class Settings:
    """How the demo learns. The defaults are those the figures in the docs were reached with."""

    dims: int = 32  # of a whole row; an item's last dimension is its bias
    seed: int = 0
    batch: int = 64  # events per step; all are scored before any is learned from
    k: int = 20  # recall@k
    negatives: int = 192  # drawn per step from the items of the last `window` events
    hard_negatives: int = 192  # per step: what the model now ranks highest for the users of the batch
    window: int = 5_000  # events that negatives are drawn from
    reread: int = 1  # items pushed in the last `reread` steps are read again before scoring
    sweep: int = 64  # further items read again per step, in turn: repairs what other writers changed
    warm_up: float = 0.1  # share of the events that no recall figure counts
    users_lr: float = 0.3
    items_lr: float = 0.1
    scale: float = 0.1

    def users(self) -> TableSettings:
        """Settings of the table `users`."""
        return TableSettings(self.dims, self.users_lr, self.scale, self.seed)

    def items(self) -> TableSettings:
        """Settings of the table `items`; another seed, or equal ids would share their initial rows."""
        return TableSettings(self.dims, self.items_lr, self.scale, self.seed + 1)
