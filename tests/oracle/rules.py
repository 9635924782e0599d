"""Which well-formed frames a table accepts, and which gradients came too late.

Invariant: these functions look at a frame, the rules in force and nothing else, so
"a replay rejects what was rejected" (architecture.md).
"""

from __future__ import annotations

from tests.oracle.hashing import shard_of
from tests.oracle.spec import Spec
from tests.oracle.wire import Frame


class Rejected(Exception):  # noqa: N818
    """A well-formed frame that the rules refuse: dead letter, seq used up. A verdict, not a fault."""


def check(frame: Frame, table: Spec | None, shard: int) -> Spec:
    """Check what any frame must fulfil: table, shard, widths, order, ownership of its ids."""
    if table is None or frame.table != table.name:
        raise Rejected("table")
    if frame.shard != shard:
        raise Rejected("shard")
    if frame.kind in ("gradient", "upsert", "restore-rows"):
        if frame.width != table.dim:
            raise Rejected("dim")
        if frame.state is not None and frame.state_width != len(table.newborn_state):
            raise Rejected("state")
    # "ids u64[n] strictly increasing". Choice: of every frame with ids, not of gradients alone.
    if any(a >= b for a, b in zip(frame.ids, frame.ids[1:], strict=False)):
        raise Rejected("unsorted")
    if any(shard_of(row_id, table.shards) != shard for row_id in frame.ids):
        raise Rejected("foreign_id")
    return table


def stale_for(frame: Frame, table: Spec, bound: int) -> bool:
    """Tell whether the rows of a gradient were read before the restore at LSN `bound`.

    formats.md: "Stale: read_pos ≤ floor". A bound of 0 is no restore: the first record of a log is
    its spec. Without read_pos: "per table, default apply"; under `drop` it counts as stale while
    there is anything to be staler than.
    """
    if bound == 0:
        return False
    if frame.read_pos is None:
        return table.without_read_pos == "drop"
    return frame.read_pos <= bound
