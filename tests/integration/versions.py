"""Versions made of what the aggregators publish, as a versioner would: seal each shard, commit.

Invariant: a version is made from the updates topics alone, up to the barrier's markers.
"""

from __future__ import annotations

from collections.abc import Sequence

from driftline import Client, TableSpec
from driftline.frames.markers import Markers
from driftline.frames.states import Marker, States
from driftline.versions import (
    MAIN,
    DeltaBuffer,
    Draft,
    Manifest,
    PartManifest,
    PartSpec,
    Place,
    Repository,
    TableManifest,
    commit,
    head,
    seal_part,
)
from driftline.versions.partspec import Sink
from tests.integration.deployment import Deployment


def cut_version(
    deployment: Deployment, client: Client, specs: Sequence[TableSpec], branch: str = MAIN
) -> Manifest:
    """Cut a barrier and commit it as the next version of a branch, of all `specs`."""
    op = client.snapshot().op
    repository = deployment.repository
    parent = head(repository, branch)
    tables = {spec.name: _table(deployment, repository, spec, op) for spec in specs}
    draft = Draft(
        f"op-{op}",
        "N",
        tables,
        branch,
        parents=(parent.version,) if parent is not None else (),
        op=op,
        attachments={"dense": repository.attach(b"weights of op %d" % op)},
    )
    return commit(repository, draft)


def _table(deployment: Deployment, repository: Repository, spec: TableSpec, op: int) -> TableManifest:
    parts = [_part(deployment, repository, spec, shard, op) for shard in range(spec.shards)]
    return TableManifest(spec.dim, spec.state_size, "schema", tuple(parts))


def _part(
    deployment: Deployment, repository: Repository, spec: TableSpec, shard: int, op: int
) -> PartManifest:
    delta, markers, base = DeltaBuffer(spec.dim, spec.state_size), Markers(), None
    sink: Sink = repository.put
    for at, update in enumerate(deployment.updates(spec, shard)):
        if isinstance(update, States):
            delta.add(update)
            continue
        marker = markers.take(update)
        if marker is None:
            continue
        if marker.kind == "restore" and marker.body["restored"]:
            manifest = repository.manifest(str(marker.body["version"]))
            base = manifest.tables[spec.name].parts[shard]
            delta.clear(int(str(marker.position["floor"])))
        if marker.op == op:
            return _sealed(repository, spec, shard, op, base, delta, marker, at, sink)
    raise AssertionError(f"no marker of op {op} in shard {shard} of {spec.name}")


def _sealed(
    repository: Repository,
    spec: TableSpec,
    shard: int,
    op: int,
    base: PartManifest | None,
    delta: DeltaBuffer,
    marker: Marker,
    at: int,
    sink: Sink,
) -> PartManifest:
    place = Place.of(marker.position, marker.tensors, at + 1)
    part = PartSpec(spec.name, shard, spec.dim, spec.state_size, f"op-{op}")
    return seal_part(part, base, delta, place, repository.cache, sink)
