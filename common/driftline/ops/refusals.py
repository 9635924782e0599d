"""What the ops router says to a request that it refuses, for those who wait for the op.

Invariant: read only. The letter of the op at offset n of the ops log has the key `0:n`.
"""

from __future__ import annotations

import asyncio
import logging

from driftline import topics
from driftline.errors import (
    ConfigError,
    DriftlineError,
    LogUnavailableError,
    OffsetError,
    OpRefusedError,
    SigningKeyError,
    UnknownTopicError,
)
from driftline.frames.headers import MESSAGE, REASON, Keyring
from driftline.frames.reasons import Reason
from driftline.log import Log, Record

_logger = logging.getLogger(__name__)
_WAIT = 1.0
_FIRST_LOOK = 0.25
"""Seconds: an op that is carried out mostly is so by then, and needs no connection of its own here."""


async def refusals_end(log: Log, group: str) -> int:
    """Return where to look from for the refusal of a request that is about to be made."""
    try:
        return (await log.bounds(topics.refused_ops(group), 0)).end
    except (UnknownTopicError, ConfigError):  # no aggregator was here yet, or we may not see it
        return 0


async def refusal(log: Log, group: str, offset: int, since: int, keyring: Keyring) -> DriftlineError:
    """Wait for ever until the request at `offset` is refused, and return the error that says so.

    `since`: from `refusals_end`, before the request was made. Who may not read the ops dead letters
    waits in vain.
    """
    await asyncio.sleep(_FIRST_LOOK)
    warned = False
    while True:
        try:
            return _error(group, offset, await _letter(log, group, offset, since), keyring)
        except (LogUnavailableError, UnknownTopicError, OffsetError):
            pass  # away, or not there yet
        except ConfigError as error:
            if not warned:
                _logger.warning("a refused operation cannot be told from a slow one: %s", error)
            warned = True
        await asyncio.sleep(_WAIT)


async def _letter(log: Log, group: str, offset: int, since: int) -> Record:
    """Wait for the dead letter of the request at `offset`."""
    reader, key = log.reader(topics.refused_ops(group), 0, since), b"0:%d" % offset
    try:
        while True:
            for record in await reader.read(wait=_WAIT):
                if record.key == key and REASON in dict(record.headers):
                    return record
    finally:
        await reader.close()


def _error(group: str, offset: int, record: Record, keyring: Keyring) -> DriftlineError:
    headers = dict(record.headers)
    reason = headers[REASON].decode("utf-8", "replace")
    message = headers.get(MESSAGE, b"").decode("utf-8", "replace")
    if reason == Reason.FORGED:
        return SigningKeyError(
            f"op {offset + 1} of group {group!r} was refused: it was signed with key {keyring.key_id}, which "
            f"is none of the deployment's ({message}); give this client the `key` that the aggregators have"
        )
    return OpRefusedError(
        reason, f"op {offset + 1} of group {group!r} was refused: {message}; nothing was changed"
    )
