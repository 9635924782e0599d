"""Is this log the one the stored position was made from? And what the updates are told of a relog.

Invariant: a shard whose log does not continue its position stops and says so, with what is lost and
where it may begin. It never resets by itself: that would lose or repeat updates silently.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import orjson

from driftline import topics
from driftline.errors import DriftlineError, OffsetError, PositionError
from driftline.frames.states import RELOG, Marker
from driftline.log import Log
from driftline.ops.continuation import Continuation, Found, examine
from driftline.ops.evidence import candidate_of, evidence_of
from driftline.ops.starting import Advice, advise
from driftline.rows import resp
from driftline.rows.shard_store import ShardStore, Stored
from driftline.rows.source import VersionSource
from driftline.rows.staging import RELOGGED
from driftline.shard.position import Position
from driftline_services.aggregator.updates import Updates

_logger = logging.getLogger(__name__)


async def check_log(
    log: Log, table: str, shard: int, position: Position, versions: VersionSource | None = None
) -> int:
    """Return where the gradients log begins. Raises PositionError unless it continues `position`."""
    topic, name = topics.gradients(table), f"shard {table}:{shard}"
    spec = position.table_spec()
    partitions = (await log.topics()).get(topic)
    if spec is not None and partitions is not None and partitions != spec.shards:
        raise PositionError(
            f"{name}: topic {topic} has {partitions} partitions, the table {spec.shards} shards: "
            "an id would go to another shard; make the topic anew with as many, then "
            f"`driftline table relog {table}` starts a new log generation"
        )
    try:
        found = await examine(log, table, shard, position)
        if not found.continuation.fits:
            remedy = await _remedy(log, table, shard, position, found, versions)
            raise PositionError(f"{name}: {_cause(topic, position, found)}. {remedy}")
    except OffsetError as error:
        raise PositionError(f"{name}: {error}") from error
    if found.continuation is Continuation.UNCHECKED:
        _logger.warning(
            "%s: the record before offset %d is gone, its fingerprint unchecked", name, position.next
        )
    return found.bounds.begin


async def tell_relogged(updates: Updates, store: ShardStore, stored: Stored) -> None:
    """Tell the updates of a relog that put the shard back to a version, before anything else is published.

    Told twice after a crash, it means the same: nothing was published in between.
    """
    if stored.relogged and stored.position is not None:
        body: Mapping[str, object] = orjson.loads(stored.relogged)
        scalars, _ = stored.position.snapshot()
        table, shard = str(body["table"]), int(str(body["shard"]))
        await updates.mark(Marker(RELOG, table, shard, stored.position.op, body, scalars, {}))
        await store.note(resp.command(b"HDEL", store.keys.position, RELOGGED))


def _cause(topic: str, position: Position, found: Found) -> str:
    begin, end, following = found.bounds.begin, found.bounds.end, position.next
    if found.continuation is Continuation.ENDS_BEFORE:
        return (
            f"the store stands at offset {following}, the log ends at {end}: "
            "the log lost its tail or the topic was made anew"
        )
    if found.continuation is Continuation.ANOTHER_LOG:
        return f"the record at offset {following - 1} is not the one that was applied: another log"
    if following == 0 and not position.spec:
        return f"the store holds nothing of it, and {topic} begins at offset {begin}, by retention"
    return (
        f"the store stands at offset {following}, the log begins at {begin}: "
        f"records [{following}, {begin}) of {topic}, {begin - following} in all, "
        "were removed unapplied, by retention"
    )


async def _remedy(
    log: Log, table: str, shard: int, position: Position, found: Found, versions: VersionSource | None
) -> str:
    newest, trouble = None, ""
    try:
        if versions is not None and (place := await versions.newest(table, shard)) is not None:
            newest = await candidate_of(log, table, shard, place)
    except OffsetError:
        raise
    except DriftlineError as error:  # it may have been the better start: say that it was not looked at
        trouble = f" (the versions could not be asked for a better start: {error})"
    evidence = await evidence_of(log, table, shard, position, found)
    return _words(table, advise(evidence, newest)) + trouble


def _words(table: str, advice: Advice) -> str:
    if advice.version is not None:
        command = f"Stop the aggregators; `driftline table relog {table} --from {advice.version}`"
        if advice.lost is None:
            return f"{command} begins with that version, the newest; replay from it loses nothing"
        return f"{command} begins with that version, the newest; lost are {advice.lost.words(table)}"
    if not advice.possible:
        return (
            "There is no version to begin from (`driftline table relog` takes one with --from): put a copy "
            "of Redis's data back, or make the table anew under another name"
        )
    goes_on = " goes on without them in a new log generation"
    anew = " starts a new log generation"
    return f"`driftline table relog {table}`" + (goes_on if advice.lost is not None else anew)
