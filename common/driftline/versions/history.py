"""The versions of a group as a graph, and what each of them weighs.

Invariant: a version comes before the versions it continues, whatever the clocks of their
writers said; among versions that are free to go first, the younger does.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from driftline.errors import ObjectMissingError
from driftline.versions.labels import branches, deployments, line, pins, tags
from driftline.versions.manifest import Manifest
from driftline.versions.repository import Repository

OnProgress = Callable[[int, int], None]
"""Called with how many of how many are done."""

_READERS = 16


@dataclass(frozen=True, slots=True)
class Weight:
    """What a version shows, and what it added to the store."""

    rows: int  # visible
    changed: int  # rows and tombstones that it stored itself
    bytes: int  # of objects that its base did not need


def read_all(repository: Repository, on_progress: OnProgress = lambda done, total: None) -> list[Manifest]:
    """Return the newest manifest of every version, newest version first.

    One that is removed meanwhile is left out. Raises DamagedObjectError.
    """
    listed = list(repository.listing().revisions.items())
    found: list[Manifest] = []
    with ThreadPoolExecutor(_READERS) as pool:
        for done, each in enumerate(pool.map(lambda pair: _read(repository, *pair), listed), 1):
            found += [each] if each is not None else []
            on_progress(done, len(listed))
    return in_order(found)


def newest(repository: Repository) -> Manifest | None:
    """Return the version that was cut last from the live tables, on whatever branch."""
    listing, hints = repository.listing(), repository.hints()
    deepest: dict[str, tuple[int, str]] = {}
    unknown = []
    for version in listing.revisions:
        hint = hints.get(version)
        if hint is None:
            unknown.append(version)
        else:
            deepest[hint.branch] = max(deepest.get(hint.branch, (-1, "")), (hint.depth, version))
    names = [*unknown, *(version for _, version in deepest.values())]
    heads = [repository.read_manifest(version, listing.revisions[version]) for version in names]
    found = [next((each for each in line(repository, head) if each.op), head) for head in heads]
    return max(found, key=lambda each: (each.op, each.created), default=None)


def in_order(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return versions so that each comes before its parents, the newest first."""
    known = {each.version: each for each in manifests}
    children = Counter(parent for each in known.values() for parent in set(each.parents))
    free = [(-each.created, -each.depth, name) for name, each in known.items() if not children[name]]
    heapq.heapify(free)
    ordered: list[Manifest] = []
    while free:
        manifest = known[heapq.heappop(free)[2]]
        ordered.append(manifest)
        for parent in set(manifest.parents):
            children[parent] -= 1
            if not children[parent] and parent in known:
                heapq.heappush(free, (-known[parent].created, -known[parent].depth, parent))
    return ordered


def ancestry(manifests: Iterable[Manifest], version: str) -> list[Manifest]:
    """Return those of `manifests` that `version` goes back to, itself included, in their order."""
    known = {each.version: each for each in manifests}
    reached, ahead = set[str](), [version]
    while ahead:
        name = ahead.pop()
        if name in known and name not in reached:
            reached.add(name)
            ahead += known[name].parents
    return [each for each in known.values() if each.version in reached]


def weigh(manifest: Manifest, base: Manifest | None) -> Weight:
    """Return what a version weighs; `base`: the one its rows were laid on, if it still exists.

    Without a base that is there, only its own segments are counted.
    """
    parts = [part for table in manifest.tables.values() for part in table.parts]
    if base is None and manifest.base:
        own = [each for part in parts for each in part.segments if each.version == manifest.version]
        size = sum(each.ref.size for each in own)
    else:
        before = base.objects() if base is not None else {}
        size = sum(size for key, size in manifest.objects().items() if key not in before)
    rows = sum(table.rows for table in manifest.tables.values())
    return Weight(rows, sum(part.changed for part in parts), size)


def labels_of(repository: Repository) -> Mapping[str, list[str]]:
    """Return what each version is called besides its name: branch heads, tags, deployments, pins."""
    called: dict[str, list[str]] = {}
    for branch, head in branches(repository).items():
        if head is not None:
            called.setdefault(head, []).append(branch)
    for tag, version in tags(repository).items():
        called.setdefault(version, []).append(f"tag: {tag}")
    for version in deployments(repository):
        called.setdefault(version, []).append("deployed")
    for pin in pins(repository):
        called.setdefault(pin.version, []).append(f"pin: {pin.team}")
    return called


def _read(repository: Repository, version: str, rev: int) -> Manifest | None:
    try:
        return repository.read_manifest(version, rev)
    except ObjectMissingError:
        if version in repository.listing().revisions:
            raise
        return None
