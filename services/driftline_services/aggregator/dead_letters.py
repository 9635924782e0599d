"""Dead letters: a refused record as it came, with the reason and where it was.

Invariant: the key says where the refused record was, so a dead letter written twice
(a crash between it and the commit) is recognised as one, and one of another generation
of the log as another.
"""

from __future__ import annotations

from driftline.dlq import letters as form
from driftline.frames.headers import cloud_event
from driftline.log import MAX_RECORD_BYTES, Outgoing, record_size
from driftline.shard.plan import Rejected
from driftline.shard.position import FIRST_GENERATION

_MESSAGE_BYTES = 1000
_HEAD_BYTES = 4096
"""Kept of a value too large to be held twice."""


def dead_letter(table: str, shard: int, rejected: Rejected, generation: int = FIRST_GENERATION) -> Outgoing:
    """Return the record for the dead-letter topic; a value too large to be held twice is cut off."""
    record = rejected.record
    origin = str(form.Place(shard, record.offset, generation))
    own = (
        *cloud_event("rejected", f"table/{table}", origin),
        (form.REASON, rejected.reason.encode()),
        (form.MESSAGE, rejected.message.encode()[:_MESSAGE_BYTES]),
        (form.OFFSET, b"%d" % record.offset),
        (form.PARTITION, b"%d" % shard),
        (form.GENERATION, b"%d" % generation),
        (form.TIMESTAMP, b"%d" % record.timestamp),
    )
    key = () if record.key is None else ((form.KEY, record.key),)
    original = tuple((form.ORIGINAL + name, value) for name, value in record.headers)
    letter = Outgoing(record.value, origin.encode(), (*own, *key, *original))
    if record_size(letter) > MAX_RECORD_BYTES:
        cut = (form.CUT, b"%d" % len(record.value))
        letter = Outgoing(record.value[:_HEAD_BYTES], origin.encode(), (*own, cut))
    return letter
