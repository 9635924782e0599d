"""A dead letter's frame as it is published again.

Invariant: the frame says what it said, under a producer made from the letter's place (and its
log's generation), epoch 0, seq 0. So it is applied once however often it is replayed, and uses up
no seq of its sender's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from driftline import topics
from driftline.dlq.letters import Letter, Place, Status, original_headers
from driftline.errors import FrameError
from driftline.frames.events import Delete, Gradient, Op, Origin, Upsert, event_of, write_event
from driftline.frames.headers import cloud_event
from driftline.frames.reasons import Reason
from driftline.frames.tensors import decode
from driftline.ids import producer_id
from driftline.log import Outgoing, Record
from driftline.shard.screen import MAX_FRAME

_KEPT = ("traceparent", "tracestate")
_NEVER = {
    topics.ops(""): "it is a request for an op, which counts once: ask for the op anew",
    topics.ingest(""): "a message is known by its place in the ingest topic, so sent from here it would be "
    "another one each time: have its producer send it again, corrected",
}


@dataclass(frozen=True, slots=True)
class Replay:
    """A frame to be published again, and where."""

    place: Place  # of the letter
    partition: int
    record: Outgoing


@dataclass(frozen=True, slots=True)
class Refused:
    """A letter with which that cannot be done, and why."""

    place: Place
    why: str


def never(source: str) -> str | None:
    """Return why dead letters of the topic `source` are never replayed; None for a table."""
    return next((why for suffix, why in _NEVER.items() if source.endswith(suffix)), None)


def producer_name(place: Place) -> str:
    """Return the name of the producer that replays the letter at `place`."""
    return f"dlq:{place}"


def prepare(letter: Letter, record: Record, table: str, shards: int) -> Replay | Refused:
    """Return what to publish for `letter`, whose bytes are in `record`, or why it cannot be replayed."""
    place = letter.place
    why = _settled(letter) or _worthless(letter, record)
    if why is not None:
        return Refused(place, why)
    try:
        frame = decode(record.value, limit=MAX_FRAME)
        event = event_of(frame)
    except FrameError as error:
        return Refused(place, f"it does not decode: {error}")
    if isinstance(event, Op):
        return Refused(place, f"it is an op ({event.kind}): ask for it anew, so that all shards see it")
    why = _elsewhere(event, table, shards)
    if why is not None:
        return Refused(place, why)
    origin = Origin(producer_id(producer_name(place)), 0, 0)
    kind = frame.kinds["grads"] if isinstance(event, Gradient) else "F32"
    value = write_event(replace(event, origin=origin), as_dtype=kind)
    headers = cloud_event(type(event).__name__.lower(), f"table/{table}/dlq", str(place))
    kept = tuple(header for header in original_headers(record) if header[0] in _KEPT)
    return Replay(place, event.shard, Outgoing(value, None, (*headers, *kept)))


def _settled(letter: Letter) -> str | None:
    where = f", at {letter.replayed_at}" if letter.replayed_at else ""
    return None if letter.status is Status.OPEN else f"it has been {letter.status} already{where}"


def _worthless(letter: Letter, record: Record) -> str | None:
    if letter.cut:
        return f"only the first {len(record.value)} of its {letter.size} bytes were kept"
    if letter.reason == Reason.FORGED:
        return "it is forged: its sender must send it unsigned, and an op must be asked for"
    return None


def _elsewhere(event: Gradient | Upsert | Delete, table: str, shards: int) -> str | None:
    if event.table != table:
        return f"it is for table {event.table!r}, not for {table!r}"
    if event.shard >= shards:
        return f"it is for shard {event.shard}, table {table} has {shards}"
    return None
