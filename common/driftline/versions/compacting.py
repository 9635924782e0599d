"""Compaction: the same versions in fewer, fuller segments, and old ones in a lossy tier.

Invariant: a version keeps its name, its rows and its place in the log; it gets one more revision
of its manifest, which is all that a reader sees of it, at once. What is held (heads and begins of
branches, tags, pins, deployments, what the log goes back to) is never made lossy: it is looked at
before and behind, and a version that was given a hold meanwhile gets its exact rows back.

Any number may run at the same time, beside commits and collections: a revision is created if
absent, and what a loser wrote is unreferenced. Old segments go with later collections.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from driftline.errors import DeltaError, InputError, ObjectExistsError, VersionHeldError
from driftline.versions.history import OnProgress, read_all
from driftline.versions.labels import holders
from driftline.versions.manifest import Manifest, PartManifest, write_manifest
from driftline.versions.pages import Sealed
from driftline.versions.partspec import PartSpec
from driftline.versions.repository import Repository
from driftline.versions.rewriting import Limits, Rewrite, Shown, plan_rewrite, rewrite
from driftline.versions.tiers import EXACT, largest_error, level

_logger = logging.getLogger(__name__)
Protected = Callable[[], Iterable[str]]
"""Returns the versions that the log goes back to, as it is when asked."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did, or would do."""

    versions: tuple[str, ...] = ()  # stored otherwise now; in a plan: those that list what is rewritten
    segments: int = 0  # rewritten
    bytes: int = 0  # of those: free two collections later, a grace period apart
    rows: int = 0  # written anew
    written: int = 0  # bytes; in a plan 0
    tiers: Mapping[str, str] = field(default_factory=dict)  # of versions whose class was changed
    errors: Mapping[str, float] = field(default_factory=dict)  # of those: largest recorded
    held: Mapping[str, str] = field(default_factory=dict)  # of those: given a hold meanwhile, exact again


@dataclass(frozen=True, slots=True)
class _Shard:
    """One shard of those versions that have it, the oldest first."""

    spec: PartSpec
    versions: tuple[str, ...]
    shown: tuple[Shown, ...]


def plan_compaction(
    repository: Repository,
    tiers: Mapping[str, str] | None = None,
    protected: Protected = tuple,
    limits: Limits | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Compacted:
    """Return what `compact` would do now; changes nothing and raises as it does."""
    manifests, wanted = _wanted(repository, tiers or {}, protected)
    found = Compacted(tiers=_changed(manifests, wanted))
    shards = list(_shards(manifests, wanted))
    touched = set(found.tiers)
    for done, shard in enumerate(shards, 1):
        plan = plan_rewrite(shard.spec, shard.shown, limits or Limits(), repository.cache)
        gone = {plan.segments[number].entry.ref.key for number in plan.chosen}
        for version, shown in zip(shard.versions, shard.shown, strict=True):
            if any(each.ref.key in gone for each in shown.part.segments):
                touched.add(version)
        found = _added(found, plan)
        on_progress(done, len(shards))
    return replace(found, versions=tuple(each.version for each in manifests if each.version in touched))


def compact(
    repository: Repository,
    tiers: Mapping[str, str] | None = None,
    protected: Protected = tuple,
    limits: Limits | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Compacted:
    """Rewrite what is worth it; `tiers`: the class that some versions have from now on.

    May be interrupted anywhere and repeated. Raises VersionHeldError naming what holds a version that
    would become lossy, InputError for one that would become more exact than it is (nothing is changed
    then), UnknownVersionError, DamagedObjectError, DeltaError if it took longer than half a grace period.
    """
    manifests, wanted = _wanted(repository, tiers or {}, protected)
    done = Compacted(tiers=_changed(manifests, wanted))
    parts: dict[tuple[str, str, int], PartManifest] = {}
    keys: set[str] = set()
    sizes: list[int] = []

    def put(sealed: Sealed) -> None:
        keys.add(sealed.ref.key)
        sizes.append(sealed.ref.size)
        repository.put(sealed)

    shards = list(_shards(manifests, wanted))
    for number, shard in enumerate(shards, 1):
        plan = plan_rewrite(shard.spec, shard.shown, limits or Limits(), repository.cache)
        if plan.chosen:
            after = rewrite(shard.spec, shard.shown, plan, repository.cache, put)
            for version, old, new in zip(shard.versions, shard.shown, after, strict=True):
                if new is not old.part:
                    parts[version, shard.spec.table, shard.spec.part] = new
        done = _added(done, plan)
        on_progress(number, len(shards))
    if repository.age_of(keys) > repository.grace / 2:
        raise DeltaError(
            f"compaction took more than {repository.grace / 2:.0f} s, and what it wrote may be collected: "
            "run it more often, or fewer versions at a time"
        )
    made = (_published(repository, each, wanted[each.version], parts) for each in manifests)
    published = {each.version: each for each in made if each is not None}
    repository.settle(keys)
    held = _given_back(repository, manifests, published, done.tiers, protected)
    lossy = {version: tier for version, tier in done.tiers.items() if version in published}
    return replace(
        done,
        versions=tuple(published),
        written=sum(sizes),
        tiers={version: tier for version, tier in lossy.items() if version not in held},
        errors={version: largest_error(published[version]) for version in lossy if version not in held},
        held=held,
    )


def _wanted(
    repository: Repository, tiers: Mapping[str, str], protected: Protected
) -> tuple[list[Manifest], dict[str, str]]:
    """Return all versions, the oldest first, and the class that each is to have."""
    manifests = read_all(repository)[::-1]
    known = {each.version: each for each in manifests}
    held = _holds(repository, protected) if tiers else {}
    for version, tier in tiers.items():
        now = (known.get(version) or repository.manifest(version)).retention
        if level(tier) > level(now):
            raise InputError(f"version {version} is stored as {now}: {tier} would need bits that are gone")
        if tier not in (EXACT, now) and version in held:
            raise VersionHeldError(f"version {version} stays exact: it is held by {held[version]}")
    return manifests, {each.version: tiers.get(each.version, each.retention) for each in manifests}


def _holds(repository: Repository, protected: Protected) -> dict[str, str]:
    return dict.fromkeys(protected(), "the log: it can still be asked for") | holders(repository)


def _changed(manifests: Sequence[Manifest], wanted: Mapping[str, str]) -> dict[str, str]:
    return {
        each.version: wanted[each.version] for each in manifests if wanted[each.version] != each.retention
    }


def _shards(manifests: Sequence[Manifest], wanted: Mapping[str, str]) -> Iterable[_Shard]:
    groups: dict[tuple[str, int, int, int], list[Manifest]] = {}
    for manifest in manifests:
        for name, table in manifest.tables.items():
            for number in range(len(table.parts)):
                groups.setdefault((name, number, table.dim, table.state_size), []).append(manifest)
    for (name, number, dim, state_size), some in groups.items():
        yield _Shard(
            PartSpec(name, number, dim, state_size, some[-1].version),
            tuple(each.version for each in some),
            tuple(Shown(each.tables[name].parts[number], wanted[each.version]) for each in some),
        )


def _added(done: Compacted, plan: Rewrite) -> Compacted:
    return replace(
        done,
        segments=done.segments + len(plan.chosen),
        bytes=done.bytes + plan.bytes,
        rows=done.rows + plan.rows,
    )


def _published(
    repository: Repository,
    manifest: Manifest,
    tier: str,
    parts: Mapping[tuple[str, str, int], PartManifest],
) -> Manifest | None:
    """Create the next revision of a version that is stored otherwise; None if somebody was faster."""
    tables = {
        name: replace(
            table,
            parts=tuple(
                parts.get((manifest.version, name, number), part) for number, part in enumerate(table.parts)
            ),
        )
        for name, table in manifest.tables.items()
    }
    if tables == manifest.tables and tier == manifest.retention:
        return None
    new = replace(manifest, tables=tables, retention=tier, rev=manifest.rev + 1)
    return new if _created(repository, new) else None


def _created(repository: Repository, manifest: Manifest) -> bool:
    data = write_manifest(manifest)
    try:
        repository.store.create(manifest.key, data)
    except ObjectExistsError:  # ours, if a reply was lost on the way; else another compaction's
        return repository.store.get(manifest.key) == data
    return True


def _given_back(
    repository: Repository,
    manifests: Sequence[Manifest],
    published: Mapping[str, Manifest],
    tiers: Mapping[str, str],
    protected: Protected,
) -> dict[str, str]:
    """Make versions exact again that were given a hold while they became lossy; return what holds them."""
    if not tiers:
        return {}
    holds = _holds(repository, protected)
    held = {version: holds[version] for version in tiers if version in published and version in holds}
    before = {each.version: each for each in manifests}
    for version, holder in held.items():
        _logger.warning("version %s stays as it was: it is held by %s since just now", version, holder)
        _created(repository, replace(before[version], rev=published[version].rev + 1))
    return held
