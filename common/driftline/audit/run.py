"""Audits a table: scans each shard, reads its log from the start, compares.

Invariant: an audit only reads, and it says "ok" only for shards whose log it replayed, from
their birth or from a start that it names.
"""

from __future__ import annotations

from collections.abc import Callable

from driftline import topics
from driftline.audit.replay import Replay
from driftline.audit.scan import MovedAwayError, ShardScan, scan_shard
from driftline.audit.starting import AuditVersions, find_start
from driftline.audit.verdict import ShardAudit, TableAudit
from driftline.errors import (
    DriftlineError,
    InputError,
    LogUnavailableError,
    PositionError,
    StateError,
    StoreUnavailableError,
)
from driftline.frames.headers import Keyring
from driftline.log import Log
from driftline.rows.connection import Connect
from driftline.rows.layout import ShardKeys
from driftline.rows.servers import ONLY, Servers

_WAIT = 10.0
_FETCH = 4 << 20

OnProgress = Callable[[int, int, int], None]
"""Called with shard, records replayed, records in all."""


async def audit_table(
    log: Log,
    redis: Servers | Connect,
    keyring: Keyring,
    table: str,
    shards: int,
    on_progress: OnProgress | None = None,
    versions: AuditVersions | None = None,
) -> TableAudit:
    """Return the audit of all `shards` of `table`, also while traffic flows.

    `versions` loads what restores in the log put in the place of all rows, and what a replay begins
    with where the log does not go back to the shard's birth. Raises StoreUnavailableError,
    LogUnavailableError.
    """
    servers = redis if isinstance(redis, Servers) else Servers.by_connect({ONLY: redis})
    audits = [
        await _audit_shard(log, servers, keyring, table, shard, on_progress, versions)
        for shard in range(shards)
    ]
    return TableAudit(table, tuple(audits))


async def _audit_shard(
    log: Log,
    servers: Servers,
    keyring: Keyring,
    table: str,
    shard: int,
    on_progress: OnProgress | None,
    versions: AuditVersions | None,
) -> ShardAudit:
    try:
        scan = await _scan(servers, table, shard)
    except PositionError as error:  # so damaged that it cannot be read: a finding like any other
        return _refused(shard, str(error))
    if scan is None:
        return _refused(shard, "Redis holds nothing of this shard")
    bounds = await log.bounds(topics.gradients(table), shard)
    try:
        start = await find_start(log, table, shard, bounds, scan.begin, versions)
        if start is None:
            return _refused(
                shard,
                f"its log starts at offset {bounds.begin} of generation {scan.begin.gen}: what came before "
                "is not in the log any more, and no version lies behind that to begin with. Take a "
                "snapshot while a versioner runs: audits begin at the version it becomes",
            )
        replay = Replay(table, shard, keyring, scan, versions, start)
    except (LogUnavailableError, StoreUnavailableError):
        raise
    except DriftlineError as error:  # the version to begin with cannot be read
        return _refused(shard, str(error))
    reader = log.reader(topics.gradients(table), shard, replay.next)
    try:
        while replay.next < replay.end:
            records = await reader.read(max_bytes=_FETCH, wait=_WAIT)
            if not records:
                raise LogUnavailableError(
                    f"{topics.gradients(table)}/{shard}: offset {replay.next} of {replay.end} did not come"
                )
            try:
                replay.feed(records)
            except (StateError, InputError) as error:  # a version that a restore names cannot be loaded
                return _refused(shard, str(error))
            if on_progress is not None:
                on_progress(shard, replay.next, replay.end)
    finally:
        await reader.close()
    return replay.verdict()


async def _scan(servers: Servers, table: str, shard: int) -> ShardScan | None:
    """Scan a shard where it is; again when it moved meanwhile."""
    while True:
        (home,) = (await servers.locate(table, [shard])).values()
        connection = await servers.open(home)
        try:
            return await scan_shard(connection, ShardKeys.of(table, shard))
        except MovedAwayError:
            await servers.forget(table, [shard])
        finally:
            await connection.close()


def _refused(shard: int, reason: str) -> ShardAudit:
    return ShardAudit(shard, 0, 0, (), 0, reason)
