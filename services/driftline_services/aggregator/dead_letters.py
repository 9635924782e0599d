"""Dead letters: a refused record as it came, with the reason and where it was.

Invariant: the key is `partition:offset` of the refused record, so a dead letter
written twice (a crash between it and the commit) is recognised as one.
"""

from __future__ import annotations

from driftline.frames.headers import cloud_event
from driftline.log import MAX_RECORD_BYTES, Outgoing, record_size
from driftline.shard.plan import Rejected


def dead_letter(table: str, shard: int, rejected: Rejected) -> Outgoing:
    """Return the record for the dead-letter topic; a value too large to be held twice is cut off."""
    record = rejected.record
    origin = f"{shard}:{record.offset}"
    own = (
        *cloud_event("rejected", f"table/{table}", origin),
        ("dl-reason", rejected.reason.encode()),
        ("dl-message", rejected.message.encode()[:1000]),
        ("dl-offset", b"%d" % record.offset),
        ("dl-partition", b"%d" % shard),
        ("dl-timestamp", b"%d" % record.timestamp),
    )
    original = tuple((f"dl-original-{name}", value) for name, value in record.headers)
    letter = Outgoing(record.value, origin.encode(), own + original)
    if record_size(letter) > MAX_RECORD_BYTES:
        letter = Outgoing(record.value[:4096], origin.encode(), (*own, ("dl-cut", b"%d" % len(record.value))))
    return letter
