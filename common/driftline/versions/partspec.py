"""Which shard is written, and what its objects are called.

Invariant: no two objects ever have the same key.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from driftline.versions.pages import Sealed

Sink = Callable[[Sealed], None]
"""Takes an object that was sealed: into the store, or into memory."""

SEGMENT_BYTES = 32 << 20
OWNER_EVERY = 24  # segments searched newest first before the next owner map; 16 to 32 are about equal
MOST_SEGMENTS = 256  # small ones: beyond it an owner map comes with a merge of those of fewest live rows


@dataclass(frozen=True, slots=True)
class PartSpec:
    """Which shard of which table is sealed, and for which version."""

    table: str
    part: int
    dim: int
    state_size: int
    txn: str  # what the version will be committed by
    segment_bytes: int = SEGMENT_BYTES
    owner_every: int = OWNER_EVERY
    most_segments: int = MOST_SEGMENTS

    def key(self, kind: str) -> str:
        """Return a key that no other object has or ever had."""
        return f"tables/{self.table}/{kind}/{self.part}/{self.txn}-{uuid.uuid4().hex[:16]}"
