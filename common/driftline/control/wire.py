"""Control events as records: JSON with CloudEvents attributes, signed.

Invariant: what is signed names the group, the type and the id of the event, so that an event of
one group, or one kind, cannot be passed off as another; the headers only repeat it for programs
that look no further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import orjson
from pydantic import TypeAdapter, ValidationError

from driftline.control.events import KINDS, ControlEvent
from driftline.errors import FrameError
from driftline.frames.headers import Headers, Keyring
from driftline.frames.reasons import Reason
from driftline.log import Outgoing, Record

JSON_TYPE = b"application/json"
PREFIX = "driftline."


@dataclass(frozen=True, slots=True)
class Told:
    """An event of a group, as the control topic has it."""

    group: str
    id: str
    event: ControlEvent
    offset: int
    time: int  # when it was appended, by the log's clock, ms


def event_id(event: ControlEvent) -> str:
    """Return the id of an event: the same for the same fact."""
    return f"{event.TYPE}/{event.subject}"


def write_control(group: str, event: ControlEvent, keyring: Keyring, now: float) -> Outgoing:
    """Return the record that tells `event`; `now` is seconds since the epoch."""
    at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    name, source = event_id(event), f"group/{group}"
    value = orjson.dumps(
        {"type": event.TYPE, "id": name, "group": group, "time": at, "data": asdict(event)},
        option=orjson.OPT_NON_STR_KEYS,
    )
    headers: Headers = (
        ("ce_specversion", b"1.0"),
        ("ce_type", f"{PREFIX}{event.TYPE}".encode()),
        ("ce_source", source.encode()),
        ("ce_id", name.encode()),
        ("ce_time", at.encode()),
        ("content-type", JSON_TYPE),
    )
    return Outgoing(value, group.encode(), (*headers, *keyring.sign(value)))


def read_control(record: Record, keyring: Keyring) -> Told:
    """Return the event in a record. Raises FrameError: forged, undecodable, or of an unknown type."""
    if not keyring.verifies(record.value, record.headers):
        raise FrameError(Reason.FORGED, "not an event signed with a key of this deployment")
    return read_unverified(record)


def read_unverified(record: Record) -> Told:
    """Return what a record says, whoever wrote it: to be shown, never to be acted upon.

    Raises FrameError: undecodable, or of an unknown type.
    """
    try:
        body = orjson.loads(record.value)
        kind, name, group, data = body["type"], body["id"], body["group"], body["data"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise FrameError(Reason.UNDECODABLE, f"control event: {error!r}") from None
    if kind not in KINDS:
        raise FrameError(Reason.UNKNOWN_TYPE, f"control event of type {kind!r}")
    try:
        event: ControlEvent = _ADAPTERS[kind].validate_python(data)
    except ValidationError as error:
        raise FrameError(Reason.UNDECODABLE, f"control event {kind}: {error.errors()[0]['msg']}") from None
    if name != event_id(event) or not isinstance(group, str):
        raise FrameError(Reason.UNDECODABLE, f"control event {kind}: its id {name!r} is another's")
    return Told(group, name, event, record.offset, record.timestamp)


_ADAPTERS: Mapping[str, TypeAdapter[ControlEvent]] = {name: TypeAdapter(kind) for name, kind in KINDS.items()}
