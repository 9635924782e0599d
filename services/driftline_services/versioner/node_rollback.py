"""Single rows back to a backup in memory, on request [EM5].

Invariant: a request is answered for each shard of its ids by whoever follows that shard, and
carried out once however often it is read and whoever reads it: what of one shard goes into one op,
and the id of that op, follow from the request and the shard alone, never from which other shards
an instance has. The rows go through the ops log as explicit values, so a replay needs no backup.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline import clock, topics
from driftline.control import ControlTopic, RollbackDone, RollbackRefused, RollbackRequested, Told
from driftline.errors import DriftlineError, InputError
from driftline.frames.events import RESTORE_ROWS, Op, Origin
from driftline.ids import NAMESPACE, shard_of
from driftline.log import Log
from driftline.ops.catalogue import Catalogue
from driftline.ops.requests import Signer, op_number
from driftline.versions import PartManifest
from driftline.versions.cache import ObjectCache
from driftline.versions.parts import Located, PartReader, Rows
from driftline_services.versioner.core import Versioner
from driftline_services.versioner.works import Shard

_logger = logging.getLogger(__name__)
_WAIT = 0.2
PATIENCE = 10.0  # seconds until a backup that has not come is taken for none
_LOOK_BACK = 4096  # control events read at a start: a request that is older has been given up
FRAME_BYTES = 512 << 10  # of rows in one op


@dataclass(frozen=True, slots=True)
class Share:
    """What of a request is ours."""

    request: RollbackRequested
    shards: tuple[int, ...]
    ids: NDArray[np.uint64]  # increasing


@dataclass(frozen=True, slots=True)
class Stretch:
    """What one op puts back: some ids of one shard."""

    asked: bytes  # id of the op's request: asked for twice, it counts once
    ids: NDArray[np.uint64]


class NodeRollbacks:
    """Answers the roll-back requests of the control topic."""

    def __init__(
        self,
        versioner: Versioner,
        topic: ControlTopic,
        log: Log,
        catalogue: Catalogue,
        signer: Signer,
        now: clock.Clock = clock.monotonic,
    ) -> None:
        self._versioner, self._topic, self._log, self._signer = versioner, topic, log, signer
        self._catalogue, self._now = catalogue, now
        self._open: dict[str, RollbackRequested] = {}
        self._since: dict[str, float] = {}
        self._answered: dict[str, set[int]] = {}
        self.done = 0
        self.refused = 0

    async def run(self) -> None:
        """Answer requests, for ever."""
        start: int | None = None
        while True:
            try:
                if start is None:
                    start = max(0, await self._topic.end() - _LOOK_BACK)
                reader = await self._topic.reader(start)
                try:
                    while True:
                        for told in await reader.read(wait=_WAIT):
                            self._note(told)
                        start = reader.position
                        if start >= await self._topic.end():
                            await self._answer()
                finally:
                    await reader.close()
            except DriftlineError as error:
                _logger.warning("control topic: %s", error)
                await asyncio.sleep(_WAIT)

    def _note(self, told: Told) -> None:
        event = told.event
        if isinstance(event, RollbackRequested):
            self._open[event.request] = event
            self._since.setdefault(event.request, self._now())
        elif isinstance(event, RollbackDone | RollbackRefused):
            self._answered.setdefault(event.request, set()).update(event.shards)

    async def _answer(self) -> None:
        for request in list(self._open.values()):
            share = self._share(request)
            if share is not None:
                await self._carry_out(share)

    def _share(self, request: RollbackRequested) -> Share | None:
        """Return what of a request is ours and not answered; forget it once all of it is answered."""
        versioner = self._versioner
        count = versioner.following.shards_of_table(request.table)
        ids = np.unique(np.array(request.ids, np.uint64))
        answered = self._answered.get(request.request, set())
        if count is None:
            if not versioner.following.leads or 0 in answered:
                return None
            return Share(request, (0,), ids)  # refused by whoever leads: nobody follows that table
        shards = shard_of(ids, count)
        if set(np.unique(shards).tolist()) <= answered:
            del self._open[request.request], self._since[request.request]
            return None
        mine = versioner.following.followed(request.table) - answered
        if self._now() - self._since[request.request] < PATIENCE:  # the backup may just be being taken
            mine &= versioner.following.reached(request.table, request.backup)
        here = np.isin(shards, sorted(mine))
        if not here.any():
            return None
        return Share(request, tuple(np.unique(shards[here]).tolist()), ids[here])

    async def _carry_out(self, share: Share) -> None:
        request = share.request
        try:
            rows, absent = await self._read(share)
            ops = await self._ask(share, rows)
        except InputError as error:
            self.refused += 1
            reason = f"{error}{await self._begun(share)}"
            await self._topic.tell(RollbackRefused(request.request, share.shards, reason))
        else:
            self.done += 1
            found = RollbackDone(
                request.request, request.table, request.backup, share.shards, len(rows), absent, ops
            )
            await self._topic.tell(found)
        self._answered.setdefault(request.request, set()).update(share.shards)

    async def _read(self, share: Share) -> tuple[Rows, tuple[int, ...]]:
        """Return the rows at the backup, and the ids that had none. Raises InputError."""
        versioner, request = self._versioner, share.request
        backup = versioner.backups.find(request.backup)
        count = versioner.following.shards_of_table(request.table)
        if count is None:
            raise InputError(f"there is no table {request.table!r} in this group")
        wanted: list[Shard] = [(request.table, shard) for shard in share.shards]
        held = [each.op for each in versioner.backups if all(shard in each.parts for shard in wanted)]
        if backup is None or request.backup not in held:
            some = ", ".join(map(str, held)) or "none"
            raise InputError(
                f"backup {request.backup} of {request.table} is not in memory (held: {some}): take one of "
                "those, or a version"
            )
        cache = versioner.works.repository.cache
        parts = {shard[1]: backup.parts[shard] for shard in wanted}
        work = functools.partial(
            read_rows, cache, parts, versioner.following.shape_of(request.table), share.ids, count
        )
        async with versioner.backing_up:  # nothing is dropped or merged meanwhile
            return await versioner.offload.run(work)

    async def _ask(self, share: Share, rows: Rows) -> tuple[int, ...]:
        """Return the ops that put `rows` back, each asked for unless it has been before."""
        await self._catalogue.catch_up()
        numbers: dict[bytes, int] = {}
        for stretch in self._stretches(share):
            places = np.flatnonzero(np.isin(rows.ids, stretch.ids, assume_unique=True))
            if len(places):
                known = self._catalogue.offset_of(stretch.asked)
                if known is None:
                    numbers[stretch.asked] = await self._append(share.request, stretch.asked, rows, places)
                else:
                    numbers[stretch.asked] = op_number(known)
        # another instance may have asked meanwhile: the first counts, who waits for the second waits in vain
        await self._catalogue.catch_up()
        first = {asked: self._catalogue.offset_of(asked) for asked in numbers}
        return tuple(
            number if (at := first[asked]) is None else op_number(at) for asked, number in numbers.items()
        )

    async def _append(
        self, request: RollbackRequested, asked: bytes, rows: Rows, places: NDArray[np.intp]
    ) -> int:
        """Ask for the op that puts some of `rows` back and return its number."""
        op = Op(
            RESTORE_ROWS,
            request.table,
            0,
            Origin(self._signer.requester, 0, 0),
            {"backup": request.backup, "request": request.request},
            rows.ids[places],
            rows.rows[places],
            rows.state[places],
        )
        topic = topics.ops(self._signer.group)
        bounds = await self._log.bounds(topic, 0)
        return op_number(await self._log.append(topic, 0, [self._signer.sign(op, bounds.end, asked)]))

    async def _begun(self, share: Share) -> str:
        """Say which ops of a share that is refused were asked for already, if any: by one that has died."""
        if self._versioner.following.shards_of_table(share.request.table) is None:
            return ""
        await self._catalogue.catch_up()
        offsets = [self._catalogue.offset_of(each.asked) for each in self._stretches(share)]
        numbers = ", ".join(str(op_number(each)) for each in offsets if each is not None)
        return f"; some of the rows were put back before, by op {numbers}" if numbers else ""

    def _stretches(self, share: Share) -> list[Stretch]:
        following, request = self._versioner.following, share.request
        count = following.shards_of_table(request.table)
        assert count is not None, "it was read"
        return stretches(request.request, share.ids, count, *following.shape_of(request.table))


def stretches(request: str, ids: NDArray[np.uint64], count: int, dim: int, state_size: int) -> list[Stretch]:
    """Cut ids (increasing) of a table of `count` shards into what single ops put back.

    The ids of one shard are cut alike whichever other shards are there, so instances that share the
    shards in another way than one that died ask for the very same ops.
    """
    step = max(1, FRAME_BYTES // (8 + 4 * (dim + state_size)))
    shards = shard_of(ids, count)
    found = []
    for shard in np.unique(shards).tolist():
        mine = ids[shards == shard]
        for start in range(0, len(mine), step):
            asked = uuid.uuid5(NAMESPACE, f"rollback {request} {shard} {start}").bytes
            found.append(Stretch(asked, mine[start : start + step]))
    return found


def read_rows(
    cache: ObjectCache,
    parts: Mapping[int, PartManifest],
    shape: tuple[int, int],
    ids: NDArray[np.uint64],
    count: int,
) -> tuple[Rows, tuple[int, ...]]:
    """Return the rows of `ids` (increasing) in these shards, and the ids that have none."""
    shards = shard_of(ids, count)
    found = []
    for shard, part in parts.items():
        mine = ids[shards == shard]
        reader = PartReader(cache, part, *shape)
        ordinals = reader.dictionary.find(mine)
        at = reader.locate(ordinals)
        there = at.found
        found.append(reader.take(mine[there], ordinals[there], Located(at.segment[there], at.rank[there])))
    names = ("ids", "ordinals", "lsn", "rows", "state")
    columns = [np.concatenate([getattr(each, name) for each in found]) for name in names]
    order = np.argsort(columns[0])
    rows = Rows(*(column[order] for column in columns))
    return rows, tuple(np.setdiff1d(ids, rows.ids).tolist())
