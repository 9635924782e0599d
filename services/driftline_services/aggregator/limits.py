"""How much a worker may hold, and how far publishing may lag behind commits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from driftline.frames.markers import PART_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is held and how far publishing may lag, in bytes."""

    cache_bytes: int = 512 << 20  # over all shards of a worker
    flush_bytes: int = 8 << 20  # per shard: dirty rows that may pile up before applying waits for a commit
    gather_bytes: int = 2 << 20  # per shard: dirty rows for which a commit waits while the log holds more
    gather_for: float = 0.5  # seconds that it waits at most
    rest_for: float = 0.05  # seconds at most between a slow commit and the next
    publish_window: int = 16 << 20  # per shard: states committed, not yet published
    marker_bytes: int = PART_BYTES  # of members in one frame; a marker with more is written in parts
    mark_after: float = 0.5  # seconds idle before `published` is written on its own

    def shared_by(self, shards: int) -> Limits:
        """Return what one of `shards` shards of a worker may use: the cache is shared."""
        return replace(self, cache_bytes=max(1, self.cache_bytes // shards))
