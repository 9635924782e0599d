"""Tables of a group: made by an op, and found again.

Invariant: what a table's shards or topics would refuse is refused here, where somebody looks; a
table is returned only with the spec that its shards have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from driftline import topics
from driftline.errors import ConfigError, PartitionCountError, UnknownTableError
from driftline.frames.events import SPEC
from driftline.log import Log
from driftline.ops.catalogue import named_tables
from driftline.shard.spec import TableSpec

if TYPE_CHECKING:
    from driftline.client.aio import AsyncClient
    from driftline.client.aio_table import AsyncTable


async def create_table(client: AsyncClient, log: Log, spec: TableSpec, timeout: float) -> AsyncTable:
    """Make sure that a table exists with this spec; see `AsyncClient.create_table`."""
    if spec.group != client.group:
        raise ConfigError(f"table {spec.name} has group {spec.group!r}, this client {client.group!r}")
    try:
        known = await client.spec(spec.name)
    except UnknownTableError:
        known = None
    if spec.frame_bytes is None:
        spec = replace(spec, frame_bytes=known.cut_bytes if known else spec.policy.max_frame)
    if known is not None and (refused := known.change_refused(spec)):
        raise ConfigError(refused)
    if known != spec:
        await _check_partitions(log, spec)
        asked = await client.operations.ask(SPEC, spec.name, spec.to_json())
        await client.wait_for_op({spec.name: spec.shards}, asked, timeout)
    table = await client.table(spec.name)
    if refused := table.spec.change_refused(spec):  # another client was first, with another spec
        raise ConfigError(refused)
    return table


async def known_tables(client: AsyncClient, log: Log) -> Mapping[str, TableSpec]:
    """Return the tables that the ops log names and the shards know."""
    found: dict[str, TableSpec] = {}
    for name in await named_tables(log, client.group):
        try:
            spec = await client.spec(name)
        except UnknownTableError:
            continue  # asked for, and not made
        if spec.group == client.group:
            found[name] = spec
    return found


async def _check_partitions(log: Log, spec: TableSpec) -> None:
    """Refuse what the router would refuse in its log, where nobody looks."""
    existing = await log.topics()
    for topic in (topics.gradients(spec.name), topics.updates(spec.name), topics.dead_letters(spec.name)):
        if (partitions := existing.get(topic, spec.shards)) != spec.shards:
            raise PartitionCountError(
                f"topic {topic} exists with {partitions} partitions, table {spec.name} has {spec.shards} "
                "shards: delete the topic, or make the table with as many shards"
            )
