"""What the store is full of: by version, by branch, by tier, and what nobody needs any more.

Invariant: every byte that is listed is counted once: it is an object of at least one version, a
manifest, or neither. A version's own bytes are those that no other version needs: what removing
it would free; of two versions that share an object alone, neither owns it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from driftline.versions.graphs import FOLDER as GRAPHS
from driftline.versions.graphs import GraphKey
from driftline.versions.history import OnProgress, read_all
from driftline.versions.manifest import Manifest
from driftline.versions.repository import Repository
from driftline.versions.tiers import EXACT, largest_error


@dataclass(frozen=True, slots=True)
class VersionUsage:
    """What one version takes."""

    version: str
    branch: str
    created: float
    rows: int  # visible
    changed: int  # rows and tombstones that it stored itself
    grown: int  # bytes that the version it is laid on does not need: the growth it brought
    own: int  # bytes that no other version needs
    shared: int  # bytes that others need, too
    manifest: int  # bytes of its manifests
    retention: str  # class
    stored: Mapping[str, int]  # tier -> bytes of the segments it reads, own or shared
    error: float  # largest recorded, 0 where all is exact


@dataclass(frozen=True, slots=True)
class BranchUsage:
    """What one branch takes."""

    branch: str
    versions: int
    own: int  # bytes that only versions of this branch need
    shared: int  # bytes that versions of other branches need, too


@dataclass(frozen=True, slots=True)
class TierUsage:
    """What is stored in one tier."""

    tier: str
    segments: int
    rows: int
    bytes: int
    error: float  # largest recorded


@dataclass(frozen=True, slots=True)
class Usage:
    """What a store takes; versions the oldest first."""

    versions: tuple[VersionUsage, ...]
    branches: tuple[BranchUsage, ...]
    tiers: tuple[TierUsage, ...]
    kinds: Mapping[str, int]  # segments, dictionaries, owner maps, graphs, attachments -> bytes
    manifests: int  # bytes
    unreferenced: int  # bytes that no version needs: gone two collections later, a grace period apart
    total: int  # bytes


_KINDS = {"seg": "segments", "dict": "dictionaries", "own": "owner maps"}


def usage(repository: Repository, on_progress: OnProgress = lambda done, total: None) -> Usage:
    """Return what takes room. Raises DamagedObjectError, ObjectStoreUnavailableError."""
    manifests = read_all(repository, on_progress)[::-1]
    sizes = {info.key: info.size for info in repository.store.list("")}
    graphs = [(key, GraphKey.parse(key)) for key in sizes if key.startswith(f"{GRAPHS}/")]
    objects = {each.version: each.objects() | _graphs(each, graphs, sizes) for each in manifests}
    needed: dict[str, int] = {}
    for each in objects.values():
        needed |= each
    kinds: Counter[str] = Counter()
    for key, size in needed.items():
        kinds[_kind(key)] += size
    documents = {key: size for key, size in sizes.items() if key not in needed and _is_manifest(key)}
    dead = sum(size for key, size in sizes.items() if key not in needed and _can_be_left(key))
    return Usage(
        _versions(manifests, objects, documents),
        _branches(manifests, objects),
        _tiers(manifests),
        dict(kinds),
        sum(documents.values()),
        dead,
        sum(sizes.values()),
    )


def _graphs(
    manifest: Manifest, graphs: Sequence[tuple[str, GraphKey | None]], sizes: Mapping[str, int]
) -> dict[str, int]:
    """Return the graphs that a version needs: its own, and those that its own is a delta onto."""
    own = [each for _, each in graphs if each is not None and each.version == manifest.version]
    chains = {(each.table, each.base): each.depth for each in own}
    return {
        key: sizes[key]
        for key, each in graphs
        if each is not None and each.depth <= chains.get((each.table, each.base), -1)
    }


def _versions(
    manifests: Sequence[Manifest], objects: Mapping[str, Mapping[str, int]], documents: Mapping[str, int]
) -> tuple[VersionUsage, ...]:
    users = Counter(key for each in objects.values() for key in each)
    written: Counter[str] = Counter()
    for key, size in documents.items():
        written[key.split("/")[1]] += size
    known = {each.version: each for each in manifests}
    found = []
    for each in manifests:
        mine = objects[each.version]
        own = sum(size for key, size in mine.items() if users[key] == 1)
        base = objects[each.base] if each.base in known else {}
        stored: dict[str, int] = {}
        parts = [part for table in each.tables.values() for part in table.parts]
        for entry in {segment.ref.key: segment for part in parts for segment in part.segments}.values():
            stored[entry.tier] = stored.get(entry.tier, 0) + entry.ref.size
        found.append(
            VersionUsage(
                each.version,
                each.branch,
                each.created,
                sum(table.rows for table in each.tables.values()),
                sum(part.changed for part in parts),
                sum(size for key, size in mine.items() if key not in base),
                own,
                sum(mine.values()) - own,
                written[each.version],
                each.retention,
                stored,
                largest_error(each),
            )
        )
    return tuple(found)


def _branches(
    manifests: Sequence[Manifest], objects: Mapping[str, Mapping[str, int]]
) -> tuple[BranchUsage, ...]:
    needs: dict[str, dict[str, int]] = {}
    for each in manifests:
        needs.setdefault(each.branch, {}).update(objects[each.version])
    users = Counter(key for each in needs.values() for key in each)
    count = Counter(each.branch for each in manifests)
    found = []
    for branch, mine in sorted(needs.items()):
        own = sum(size for key, size in mine.items() if users[key] == 1)
        found.append(BranchUsage(branch, count[branch], own, sum(mine.values()) - own))
    return tuple(found)


def _tiers(manifests: Sequence[Manifest]) -> tuple[TierUsage, ...]:
    segments = {
        each.ref.key: each
        for manifest in manifests
        for table in manifest.tables.values()
        for part in table.parts
        for each in part.segments
    }
    found = []
    for tier in sorted({each.tier for each in segments.values()} | {EXACT}):
        some = [each for each in segments.values() if each.tier == tier]
        errors = [max(each.error, each.state_error) for each in some]
        rows, size = sum(each.rows for each in some), sum(each.ref.size for each in some)
        found.append(TierUsage(tier, len(some), rows, size, max(errors, default=0.0)))
    return tuple(found)


def _kind(key: str) -> str:
    folder = key.split("/")
    return _KINDS.get(folder[2], folder[2]) if folder[0] == "tables" else folder[0]


def _is_manifest(key: str) -> bool:
    return key.startswith("versions/") and "/m-" in key


def _can_be_left(key: str) -> bool:
    return key.startswith(("tables/", "attachments/", f"{GRAPHS}/", "frag/", ".staging/"))
