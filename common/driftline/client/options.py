"""Who a client is and where its deployment is; and what a snapshot is to it.

Invariant: plain values; the signing key never shows in a repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from driftline.log.security import OPEN, KafkaSecurity


@dataclass(frozen=True, slots=True)
class Options:
    """Where a deployment is, and who this client is in it."""

    log_url: str
    redis_url: str
    group: str = "default"
    key: str | None = field(
        default=None, repr=False
    )  # signing key(s); needed for ops: create_table, snapshot
    producer: str | None = None  # a name that survives restarts, with the steps of its checkpoint
    producer_epoch: int = 0
    push_buffer_bytes: int = 64 << 20
    gradient_dtype: str = "F32"
    security: KafkaSecurity = OPEN  # of kafka:// connections
    merge_steps: int = 1  # steps whose gradients are summed before they are sent
    store_url: str | None = None  # of the versions; None: below `data_dir`
    data_dir: Path = Path(".driftline")
    version_cache_dir: Path | None = None  # for objects that are fetched; None: below `data_dir`


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A barrier that every shard has passed."""

    op: int
    tables: Mapping[str, int]  # table -> shards
    since: int = 0  # where the control topic ended before: its outcome is told behind
