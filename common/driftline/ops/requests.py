"""An op as it is asked for: a signed frame on the group's ops topic.

Invariant: the number of an op is its place in the ops topic, plus one. Nothing
else orders operations, and nothing unsigned is one. What is signed names its group,
an id of its own and how long the ops log was, so that nobody else can use it a second
time or elsewhere: see `driftline.ops.window`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from driftline.errors import FrameError
from driftline.frames.events import GROUP, Op, Origin, event_of, natural, write_event
from driftline.frames.headers import Keyring, cloud_event
from driftline.frames.reasons import Reason
from driftline.frames.tensors import decode
from driftline.frames.unreadable import check_readable
from driftline.ids import OPS_PRODUCER
from driftline.log import Outgoing, Record
from driftline.shard.screen import MAX_FRAME

MAX_BODY = 16 << 10
"""Bytes of JSON in an op's body: shards repeat it in the header of their marker, beside the position."""

REQUEST, BEHIND = "request", "behind"
"""In the metadata of a request: its id, and the end of the ops log when it was signed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An op that was asked for, and what tells this request from all others."""

    op: Op
    request: bytes  # 16, drawn for this request alone
    behind: int  # offset at which the ops log ended when it was signed


@dataclass(frozen=True, slots=True)
class Signer:
    """Who asks for ops of one group."""

    group: str
    requester: bytes
    keyring: Keyring

    def sign(self, op: Op, behind: int, request: bytes | None = None) -> Outgoing:
        """Return the record that asks for `op`; `behind` is where the ops log ends now.

        Raises FrameError `oversized` for a body over MAX_BODY.
        """
        _check_body(op.body)
        request = request or uuid.uuid4().bytes
        more = {GROUP: self.group, REQUEST: request.hex(), BEHIND: str(behind)}
        value = write_event(op, more=more)
        headers = cloud_event(op.kind, f"requester/{self.requester.hex()}", f"request/{request.hex()}")
        return Outgoing(value, None, (*headers, *self.keyring.sign(value)))

    def request(self, kind: str, target: str, body: Mapping[str, object], behind: int) -> Outgoing:
        """Return the record that asks for an op; `target` is a table, or the group for all of them.

        Raises FrameError `oversized` for a body over MAX_BODY.
        """
        return self.sign(Op(kind, target, 0, Origin(self.requester, 0, 0), body), behind)


def op_number(offset: int) -> int:
    """Return the number of the op at `offset` of the ops topic; 0 stands for none."""
    return offset + 1


def read_op(record: Record, keyring: Keyring, group: str) -> Asked:
    """Return the op asked for by a record of the ops topic of `group`. Raises FrameError."""
    check_readable(record.headers)
    frame = decode(record.value, limit=MAX_FRAME)
    event = event_of(frame)
    if (
        not isinstance(event, Op)
        or event.origin.producer == OPS_PRODUCER
        or not keyring.verifies(record.value, record.headers)
    ):
        raise FrameError(Reason.FORGED, "not an op signed with a key of this deployment")
    found = frame.metadata.get(GROUP)
    if found != group:
        raise FrameError(Reason.FORGED, f"signed for group {found!r}, this is the ops log of {group!r}")
    _check_body(event.body)
    return Asked(event, _request(frame.metadata), natural(frame.metadata, BEHIND))


def _request(metadata: Mapping[str, str]) -> bytes:
    text = metadata.get(REQUEST, "")
    try:
        request = bytes.fromhex(text) if len(text) == 32 else b""
    except ValueError:
        request = b""
    if len(request) != 16:
        raise FrameError(Reason.UNDECODABLE, f"request {text!r} is not 32 hex digits")
    return request


def _check_body(body: Mapping[str, object]) -> None:
    size = len(orjson.dumps(body))
    if size > MAX_BODY:
        raise FrameError(
            Reason.OVERSIZED, f"the body of the op is {size} bytes of JSON, the limit is {MAX_BODY}"
        )
