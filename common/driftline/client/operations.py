"""Operations of one client: asked for, and waited for until they are passed or refused.

Invariant: every request is signed anew, right before it is appended; what the ops router
refuses ends the wait with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from driftline import topics
from driftline.errors import ConfigError, SigningKeyError
from driftline.frames.events import Op, Origin
from driftline.frames.headers import Keyring
from driftline.log import Log
from driftline.ops.catalogue import Catalogue
from driftline.ops.refusals import refusal, refusals_end
from driftline.ops.requests import Signer, op_number
from driftline.shard.spec import TableSpec

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Requested:
    """An op that is in the ops log."""

    number: int
    since: int  # where its refusal would be, or behind


class Operations:
    """The ops log of one group, as one client writes and reads it."""

    def __init__(self, log: Log, group: str, keyring: Keyring | None, requester: bytes) -> None:
        self._log, self._group, self._keyring, self._requester = log, group, keyring, requester

    @property
    def signs(self) -> bool:
        """Whether there is a key to sign with, and to tell genuine ops from forged ones."""
        return self._keyring is not None

    @property
    def keyring(self) -> Keyring:
        """The keys to sign with. Raises ConfigError without any."""
        if self._keyring is None:
            raise ConfigError("operations on tables are signed: give this client the deployment's key")
        return self._keyring

    async def ask(self, kind: str, target: str, body: Mapping[str, object]) -> Requested:
        """Ask for an op on `target`, a table or the group. Raises FrameError `oversized`."""
        return await self.ask_op(Op(kind, target, 0, Origin(self._requester, 0, 0), body))

    async def ask_op(self, op: Op, request: bytes | None = None) -> Requested:
        """Ask for an op that may carry rows. Raises FrameError `oversized`.

        `request`: an id of the request, 16 bytes, by which it is known when it is made again; it then
        counts once, and whoever makes it again looks for its number first.
        """
        signer = Signer(self._group, self._requester, self.keyring)
        topic = topics.ops(self._group)
        await self._log.create_topic(topic, 1)
        bounds, since = await asyncio.gather(self._log.bounds(topic, 0), refusals_end(self._log, self._group))
        record = signer.sign(op, bounds.end, request)
        return Requested(op_number(await self._log.append(topic, 0, [record])), since)

    async def wait(
        self, requested: Requested, passed: Coroutine[Any, Any, _Result], timeout: float
    ) -> _Result:
        """Return what `passed` returns. Raises why the op was refused, and TimeoutError."""
        offset = requested.number - 1
        passing = asyncio.create_task(passed)
        refusing = asyncio.create_task(refusal(self._log, self._group, offset, requested.since, self.keyring))
        tasks: set[asyncio.Task[Any]] = {passing, refusing}
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                return passing.result()
            raise refusing.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def tables(self) -> Mapping[str, TableSpec]:
        """Return the tables of the group. Raises SigningKeyError when no op is signed by a key of ours."""
        topic = topics.ops(self._group)
        await self._log.create_topic(topic, 1)
        catalogue = Catalogue(self._log, self._group, self.keyring)
        try:
            await catalogue.catch_up()
        finally:
            await catalogue.close()
        if catalogue.forged and not catalogue.signed:
            raise SigningKeyError(
                f"none of the {catalogue.forged} operations in {topic} is signed with key "
                f"{self.keyring.key_id}; give this client the `key` that the aggregators have"
            )
        return {name: born.spec for name, born in catalogue.tables.items()}
