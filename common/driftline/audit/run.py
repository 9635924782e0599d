"""Audits a table: scans each shard, reads its log from the start, compares.

Invariant: an audit only reads, and it says "ok" only for shards whose whole log
it replayed.
"""

from __future__ import annotations

from collections.abc import Callable

from driftline import topics
from driftline.audit.replay import Replay
from driftline.audit.scan import MovedAwayError, ShardScan, scan_shard
from driftline.audit.verdict import ShardAudit, TableAudit
from driftline.errors import InputError, LogUnavailableError, PositionError, StateError
from driftline.frames.headers import Keyring
from driftline.log import Log
from driftline.rows.connection import Connect
from driftline.rows.layout import ShardKeys
from driftline.rows.servers import ONLY, Servers
from driftline.shard.position import FIRST_GENERATION
from driftline.shard.restore import LoadVersion

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
    versions: LoadVersion | None = None,
) -> TableAudit:
    """Return the audit of all `shards` of `table`, also while traffic flows.

    `versions` loads what restores in the log put in the place of all rows. Raises
    StoreUnavailableError, LogUnavailableError.
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
    versions: LoadVersion | None,
) -> ShardAudit:
    try:
        scan = await _scan(servers, table, shard)
    except PositionError as error:  # so damaged that it cannot be read: a finding like any other
        return _refused(shard, str(error))
    if scan is None:
        return _refused(shard, "Redis holds nothing of this shard")
    bounds = await log.bounds(topics.gradients(table), shard)
    if bounds.begin > 0 or scan.begin.gen != FIRST_GENERATION:
        return _refused(
            shard,
            f"its log starts at offset {bounds.begin} of generation {scan.begin.gen}: what came before "
            "is not in the log any more, and this release stores no versions to start from",
        )
    replay = Replay(table, shard, keyring, scan, versions)
    reader = log.reader(topics.gradients(table), shard, 0)
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
