"""Rows of one shard, brought into memory part by part.

Invariant: at most `flush_bytes` of rows are on their way at a time: a delete frame of
1 MiB may name 131,072 of them, of any width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from driftline.rows.layout import RowLayout
from driftline.rows.shard_store import ShardStore
from driftline.shard.machine import Shard
from driftline_services.aggregator.limits import Limits


def rows_at_once(shard: Shard, limits: Limits) -> int:
    """Return how many rows `flush_bytes` hold."""
    return max(1, limits.flush_bytes // shard.cache.row_bytes)


def in_parts(ids: NDArray[np.uint64], size: int) -> Iterator[NDArray[np.uint64]]:
    """Yield `ids` in pieces of at most `size`."""
    return (ids[at : at + size] for at in range(0, len(ids), size))


async def fault_in(store: ShardStore, shard: Shard, limits: Limits, missing: NDArray[np.uint64]) -> None:
    """Fetch the rows of `missing` and enter them into the shard's cache. Raises FenceLostError."""
    for ids in in_parts(missing, rows_at_once(shard, limits)):
        shard.cache.enter(await store.fetch(RowLayout.of(shard.spec), ids))
