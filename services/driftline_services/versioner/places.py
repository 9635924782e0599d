"""Which partition is which shard, and what a table or a version is called in events.

Invariant: pure; topics are named in one way, by `driftline.topics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from driftline.control import VersionCommitted
from driftline.shard.spec import TableSpec
from driftline.versions import Manifest
from driftline.versions.documents import checksum
from driftline_services.chassis import TopicPartition
from driftline_services.versioner.works import Shard

_UPDATES = ".updates"


def shard_of_tp(tp: TopicPartition) -> Shard:
    """Return the shard whose updates a partition holds."""
    return str(tp.topic).removesuffix(_UPDATES), tp.partition


def shards_of(shards: Iterable[Shard]) -> dict[str, tuple[int, ...]]:
    """Return shards by table."""
    found: dict[str, list[int]] = {}
    for table, number in sorted(shards):
        found.setdefault(table, []).append(number)
    return {table: tuple(numbers) for table, numbers in found.items()}


def schema_of(spec: TableSpec) -> str:
    """Return a digest of what decides the format of a table's rows."""
    kind = spec.optimizer.get("kind")
    return checksum(f"{spec.dim} {spec.dtype} {kind} {spec.state_size} {spec.shards}".encode())


def committed_event(manifest: Manifest) -> VersionCommitted:
    """Return what is told of a version."""
    gate = manifest.verdict.get("gate")
    return VersionCommitted(
        manifest.version,
        manifest.op,
        manifest.branch,
        manifest.name.scenario,
        manifest.parents,
        manifest.base,
        {name: table.rows for name, table in manifest.tables.items()},
        {name: sum(part.changed for part in table.parts) for name, table in manifest.tables.items()},
        gate if isinstance(gate, Mapping) else {},
    )
