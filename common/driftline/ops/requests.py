"""An op as it is asked for: a signed frame on the group's ops topic.

Invariant: the number of an op is its place in the ops topic, plus one. Nothing
else orders operations, and nothing unsigned is one.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from driftline.errors import FrameError
from driftline.frames.events import Op, Origin, read_event, write_event
from driftline.frames.headers import Keyring, cloud_event
from driftline.frames.reasons import Reason
from driftline.frames.unreadable import check_readable
from driftline.ids import OPS_PRODUCER
from driftline.log import Outgoing, Record
from driftline.shard.screen import MAX_FRAME

MAX_BODY = 16 << 10
"""Bytes of JSON in an op's body: shards repeat it in the header of their marker, beside the position."""


def op_number(offset: int) -> int:
    """Return the number of the op at `offset` of the ops topic; 0 stands for none."""
    return offset + 1


def request(
    kind: str, target: str, body: Mapping[str, object], requester: bytes, keyring: Keyring
) -> Outgoing:
    """Return the record that asks for an op; `target` is a table, or the group for all of them.

    Raises FrameError `oversized` for a body over MAX_BODY.
    """
    _check_body(body)
    value = write_event(Op(kind, target, 0, Origin(requester, 0, 0), body))
    headers = cloud_event(kind, f"requester/{requester.hex()}", f"request/{kind}/{target}")
    return Outgoing(value, None, (*headers, *keyring.sign(value)))


def read_op(record: Record, keyring: Keyring) -> Op:
    """Return the op asked for by a record of the ops topic. Raises FrameError."""
    check_readable(record.headers)
    event = read_event(record.value, limit=MAX_FRAME)
    if (
        not isinstance(event, Op)
        or event.origin.producer == OPS_PRODUCER
        or not keyring.verifies(record.value, record.headers)
    ):
        raise FrameError(Reason.FORGED, "not an op signed with a key of this deployment")
    _check_body(event.body)
    return event


def _check_body(body: Mapping[str, object]) -> None:
    size = len(orjson.dumps(body))
    if size > MAX_BODY:
        raise FrameError(
            Reason.OVERSIZED, f"the body of the op is {size} bytes of JSON, the limit is {MAX_BODY}"
        )
