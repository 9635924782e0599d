"""Going back to a stored version: the whole group, or rows by id.

Invariant: a restore is asked for only when every shard has its copy ready, so it takes
as long as a swap; one that cannot be prepared is given up, and nothing has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from driftline.client.asking import Request
from driftline.client.operations import Requested
from driftline.client.splitting import as_ids
from driftline.errors import (
    InputError,
    RestoreOvertakenError,
    StoreUnavailableError,
    TimedOutError,
    UnknownTableError,
    VersionUnloadableError,
)
from driftline.frames.events import PREPARE, RESTORE, RESTORE_ROWS, Op, Origin
from driftline.rows.staging import FAILED, READY, VERSION, SwappedIn
from driftline.shard.restore import MODES, ROLLBACK
from driftline.versions.labels import resolve
from driftline.versions.manifest import Attachment, Manifest
from driftline.versions.reader import Found, TableReader
from driftline.versions.tiers import check_exact

if TYPE_CHECKING:
    from driftline.client.aio import AsyncClient

_POLL = 0.02
_OP_BYTES = 512 << 10  # of rows in one restore-rows: below what any log takes as one record


@dataclass(frozen=True, slots=True)
class Restored:
    """A group that stands at a version again."""

    version: str
    mode: str
    op: int
    epochs: Mapping[str, int]  # table -> restores so far; tables that the version lacks are not in it
    attachments: Mapping[str, Attachment]


@dataclass(frozen=True, slots=True)
class RestoredRows:
    """Rows that stand as they were in a version."""

    version: str
    table: str
    rows: int
    absent: NDArray[np.uint64]  # ids that the version has no row of: left as they are
    ops: tuple[int, ...]


async def restore(
    client: AsyncClient, reference: str, mode: str, branch: str | None, scenario: str | None, timeout: float
) -> Restored:
    """Restore all tables of the group that a version has; see `AsyncClient.restore`."""
    if mode not in MODES:
        raise InputError(f"mode {mode!r}: one of {', '.join(MODES)}")
    if mode == ROLLBACK and (branch or scenario):
        raise InputError("a rollback stays in its branch and scenario; mode='checkout' goes on elsewhere")
    manifest = await manifest_of(client, reference)
    check_exact(manifest, "a restore")
    version, specs = manifest.version, await client.tables()
    shards = {name: spec.shards for name, spec in specs.items()}
    tables = {name: count for name, count in shards.items() if name in manifest.tables}
    if not tables:
        raise UnknownTableError(f"version {version} has none of the tables {', '.join(sorted(shards))}")
    await client.flush(timeout=timeout)
    operations, group = client.operations, client.group
    prepared = await operations.ask(PREPARE, group, {"version": version})
    try:
        async with asyncio.timeout(timeout):
            await client.wait_for_op(shards, prepared, timeout)
            epochs = await until_ready(client, tables, prepared)
    except TimeoutError:
        await give_up(client, prepared)
        raise TimedOutError(
            f"version {version} was not loaded by every shard within {timeout} s; nothing was changed"
        ) from None
    except BaseException:
        await give_up(client, prepared)
        raise
    more = {"branch": branch, "scenario": scenario}
    body = {"version": version, "prepare": prepared.number, "from_epoch": epochs, "mode": mode}
    body |= {name: value for name, value in more.items() if value}
    asked = await operations.ask(RESTORE, group, body)
    await client.wait_for_op(shards, asked, timeout)
    await check_taken(client, tables, asked)
    after = {name: epoch + 1 for name, epoch in epochs.items()}
    return Restored(version, mode, asked.number, after, manifest.attachments)


async def restore_rows(
    client: AsyncClient, table: str, ids: ArrayLike, reference: str, timeout: float
) -> RestoredRows:
    """Put rows back as they were in a version; see `AsyncClient.restore_rows`."""
    wanted = np.unique(as_ids(ids))
    manifest = await manifest_of(client, reference)
    check_exact(manifest, "a restore of rows")
    spec = await client.spec(table)
    found = await asyncio.to_thread(_read_rows, client, manifest, table, wanted)
    there = np.flatnonzero(found.found)
    await client.flush(timeout=timeout)
    at_once = max(1, _OP_BYTES // (4 * (spec.dim + spec.state_size) + 8))
    asked: list[Requested] = []
    for begin in range(0, len(there), at_once):
        some = there[begin : begin + at_once]
        rows, state = found.rows.rows[some], found.rows.state[some]
        body = {"version": manifest.version}
        op = Op(RESTORE_ROWS, table, 0, Origin(client.producer, 0, 0), body, wanted[some], rows, state)
        asked.append(await client.operations.ask_op(op))
    for each in asked:
        await client.wait_for_op({table: spec.shards}, each, timeout)
    absent = wanted[~found.found]
    return RestoredRows(manifest.version, table, len(there), absent, tuple(each.number for each in asked))


async def manifest_of(client: AsyncClient, reference: str) -> Manifest:
    """Return the manifest of the version that a reference names. Raises UnknownVersionError."""

    def read() -> Manifest:
        return resolve(client.repository, reference).manifest

    return await asyncio.to_thread(read)


def _read_rows(client: AsyncClient, manifest: Manifest, table: str, ids: NDArray[np.uint64]) -> Found:
    return TableReader(client.repository.cache, manifest, table).rows(ids)


async def until_ready(client: AsyncClient, tables: Mapping[str, int], prepared: Requested) -> dict[str, int]:
    """Return the epoch of each table once every shard of it has its copy.

    Raises VersionUnloadableError as soon as a shard says that it cannot load the version.
    """
    fields = (READY, FAILED, b"epoch")
    while True:
        epochs: dict[str, set[int]] = {name: set() for name in tables}
        ready = True
        for name, count in tables.items():
            for shard, reply in enumerate(await fields_of(client, name, count, fields)):
                done, failed, epoch = reply
                if failed is not None and (said := orjson.loads(failed))["op"] == prepared.number:
                    raise VersionUnloadableError(
                        f"shard {name}:{shard}: {said['message']}; nothing was changed"
                    )
                ready &= done == b"%d" % prepared.number
                epochs[name].add(int(epoch or b"0"))
        if ready and all(len(each) == 1 for each in epochs.values()):  # else another restore is under way
            return {name: each.pop() for name, each in epochs.items()}
        await asyncio.sleep(_POLL)


async def check_taken(client: AsyncClient, tables: Mapping[str, int], asked: Requested) -> None:
    """Return if all shards stand where op `asked` put them, or a later one. Raises RestoreOvertakenError."""
    for name, count in tables.items():
        for shard, (said,) in enumerate(await fields_of(client, name, count, (VERSION,))):
            swapped = SwappedIn.of(said) if said is not None else None
            if swapped is None or swapped.op < asked.number:
                raise RestoreOvertakenError(
                    f"shard {name}:{shard} was restored to {swapped.version if swapped else 'nothing'} by "
                    f"another operation first; op {asked.number} changed nothing. Look, and ask again"
                )


async def give_up(client: AsyncClient, prepared: Requested) -> None:
    """Have the shards drop what they have loaded for a restore."""
    await client.operations.ask(PREPARE, client.group, {"version": "", "prepare": prepared.number})


async def fields_of(
    client: AsyncClient, table: str, shards: int, fields: tuple[bytes, ...]
) -> list[list[bytes | None]]:
    """Return fields of the positions of all shards, None for those of a shard that does not answer."""
    requests = [Request.of(table, shard, fields) for shard in range(shards)]
    try:
        replies = await client.asker.ask(table, requests)
    except StoreUnavailableError:
        replies = [None] * shards
    nothing: list[bytes | None] = [None] * len(fields)
    return [
        [each if isinstance(each, bytes) else None for each in reply[:-1]]
        if isinstance(reply, list)
        else nothing
        for reply in replies
    ]
