"""Which versions the ops log goes back to: while it does, replaying it needs their rows.

Invariant: every version that a prepare or restore op names is among them, signed or not:
whoever asks may keep too much, never too little.
"""

from __future__ import annotations

import contextlib

from driftline import topics
from driftline.errors import FrameError
from driftline.frames.events import PREPARE, RESTORE, Op, read_event
from driftline.log import Log
from driftline.shard.screen import MAX_FRAME

_WAIT = 1.0


async def restored_versions(log: Log, group: str) -> frozenset[str]:
    """Return the versions that ops of `group` load; none if it has no ops log. Needs no key."""
    topic = topics.ops(group)
    if topic not in await log.topics():
        return frozenset()
    bounds = await log.bounds(topic, 0)
    reader = log.reader(topic, 0, bounds.begin)
    found: set[str] = set()
    try:
        while reader.position < bounds.end:
            for record in await reader.read(wait=_WAIT):
                with contextlib.suppress(FrameError):
                    event = read_event(record.value, limit=MAX_FRAME)
                    if isinstance(event, Op) and event.kind in (PREPARE, RESTORE):
                        found.add(str(event.body.get("version", "")))
    finally:
        await reader.close()
    return frozenset(found - {""})
