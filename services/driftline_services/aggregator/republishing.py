"""What a successor publishes again: rows that committed records name, as Redis holds them now.

Invariant: their states may not have been acknowledged to the owner before, and a
record may have been refused and name anything. Hence ids of this shard only, and for
what is absent the LSN of the last committed record, at which it is absent for certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.errors import FrameError
from driftline.frames.events import RESTORE_ROWS, Delete, Op, read_event
from driftline.frames.states import States
from driftline.ids import shard_of
from driftline.log import Record
from driftline.shard.screen import MAX_FRAME
from driftline.shard.spec import TableSpec

_NO_IDS = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Named:
    """Rows that a stretch of log names."""

    ids: NDArray[np.uint64]  # distinct, of this shard
    deleted: NDArray[np.uint64]  # named by a delete, accepted or not


def named_rows(records: Sequence[Record], spec: TableSpec | None, shard: int) -> Named:
    """Return the rows of `shard` that `records` name; none before the table's spec."""
    named, deleted = [_NO_IDS], [_NO_IDS]
    for record in records:
        try:
            event = read_event(record.value, limit=MAX_FRAME)
        except FrameError:
            continue  # it is a dead letter already
        if isinstance(event, Delete):
            deleted.append(event.ids)
        if not isinstance(event, Op) or event.kind == RESTORE_ROWS:
            named.append(event.ids)
    ids = np.unique(np.concatenate(named)) if spec is not None else _NO_IDS
    mine = ids[shard_of(ids, spec.shards) == shard] if spec is not None else ids
    return Named(mine, np.concatenate(deleted))


def states_again(stored: States, named: Named, last: int) -> States:
    """Return the states to publish: `stored` rows, and tombstones at LSN `last` for deleted ones.

    A row that is absent without a delete was refused or skipped: nobody has it.
    """
    at = np.where((stored.lsn == 0) & np.isin(stored.ids, named.deleted), np.uint64(last), stored.lsn)
    keep = at != 0
    return States(
        stored.table,
        stored.shard,
        stored.ids[keep],
        stored.ordinals[keep],
        at[keep],
        stored.rows[keep],
        stored.state[keep],
        stored.flags[keep],
    )
