"""The commit of a version: segments first, manifest last, the name is the lock.

Invariant: a version exists for everybody or for nobody, all tables of it. A commit that
failed in any way may be repeated with the same `txn`: it commits once. Two writers
never both continue one branch from the same version by a minor; the second is told.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from driftline.errors import (
    DamagedObjectError,
    DeltaError,
    DriftlineError,
    LossyVersionError,
    ObjectExistsError,
    ObjectMissingError,
    ObjectStoreUnavailableError,
    RetryError,
    VersionHeldError,
    VersionRaceError,
)
from driftline.versions.collecting import retire
from driftline.versions.documents import read_plain
from driftline.versions.labels import head
from driftline.versions.manifest import (
    MAIN,
    Attachment,
    Manifest,
    TableManifest,
    manifest_key,
    part_objects,
    write_manifest,
)
from driftline.versions.naming import VersionName, checked_scenario, is_version_name, major_names, minor_names
from driftline.versions.repository import Repository
from driftline.versions.stores import checked_name, store_now
from driftline.versions.tiers import EXACT

_logger = logging.getLogger(__name__)
_IN_FLIGHT = 5  # tries, while a store says both "exists" and "missing"


@dataclass(frozen=True, slots=True)
class Draft:
    """A version before it has a name."""

    txn: str  # names the commit, e.g. the number of its barrier: the same txn commits once
    scenario: str
    tables: Mapping[str, TableManifest]
    branch: str = MAIN
    parents: tuple[str, ...] = ()  # (): the first version of its line; a second one was merged in
    base: str = ""  # whose rows the deltas were laid on, if not the first parent: a rollback's target
    new_run: bool = False  # a new training run, dense part or dimension: a new major
    op: int = 0
    writer: str = ""
    retention: str = EXACT
    metadata: Mapping[str, object] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    verdict: Mapping[str, object] = field(default_factory=dict)
    attachments: Mapping[str, Attachment] = field(default_factory=dict)

    def names(self) -> Iterator[VersionName]:
        """Yield the names it may have, best first."""
        parent = VersionName.parse(self.parents[0]) if self.parents else None
        if parent is not None and parent.scenario == checked_scenario(self.scenario) and not self.new_run:
            return minor_names(parent)
        return major_names(parent, self.scenario)


def commit(repository: Repository, draft: Draft) -> Manifest:
    """Commit a version whose objects are in the store (or held); return its manifest.

    Raises ObjectStoreUnavailableError: it may or may not have happened, repeat it with the same
    draft. VersionRaceError: the branch has moved on, and what was built on its old head is void.
    DeltaError: too long has passed since its segments were put; seal again.
    """
    checked_name("txn", draft.txn)
    began = repository.now()
    known = head(repository, draft.branch)
    if known is not None and known.txn == draft.txn:
        return known
    if (known.version if known is not None else None) != (draft.parents[0] if draft.parents else None):
        return _already(repository, draft, known)
    stood_on = [] if known is None else [known]
    others = sorted({*draft.parents[1:], draft.base} - {"", *draft.parents[:1]})
    stood_on += [repository.manifest(each) for each in others]  # raises if one was removed: its rows may go
    parts = [part for table in draft.tables.values() for part in table.parts]
    _check_tiers(draft)
    keys = {ref.key for part in parts for ref in part_objects(part)}
    repository.put_held(keys)
    if repository.age_of(keys) > repository.grace / 2:
        raise DeltaError(
            f"the objects of {draft.txn} were put more than {repository.grace / 2:.0f} s ago and may be "
            "collected: seal the version again"
        )
    _check_revisions(repository, draft, keys, stood_on)
    committed = _create(repository, draft, known)
    repository.settle(keys)
    if repository.now() - began > repository.grace / 2:
        _still_there(repository, committed)
    try:
        repository.put_hint(committed)
    except RetryError as error:  # it is committed, and a hint is only a hint
        _logger.warning("head hint of %s: %s", committed.version, error)
    return committed


def _check_tiers(draft: Draft) -> None:
    lossy = (
        (name, each)
        for name, table in draft.tables.items()
        for part in table.parts
        for each in part.segments
        if each.tier != EXACT
    )
    for name, entry in lossy:
        raise LossyVersionError(
            f"{draft.txn}: rows of {name} that {entry.version} wrote are in tier {entry.tier}; a version is "
            "built on exact ones"
        )


def _check_revisions(
    repository: Repository, draft: Draft, keys: set[str], stood_on: Sequence[Manifest]
) -> None:
    """Refuse objects of a revision that compaction replaced so long ago that they may be collected."""
    if not any(each.rev for each in stood_on):
        return
    now, half = store_now(repository.store), repository.grace / 2
    left = {key for key in keys if not repository.put_here(key)}
    for each in stood_on:
        left -= each.objects().keys()
    for each in stood_on if left else []:
        found = {info.key: info.modified for info in repository.store.list(f"versions/{each.version}")}
        revisions = sorted(int(key.rpartition("-")[2]) for key in found if key.rpartition("/")[2][:2] == "m-")
        for rev, later in pairwise(revisions):
            if now - found[manifest_key(each.version, later)] <= half:
                left -= repository.read_manifest(each.version, rev).objects().keys()
    for key in sorted(left):
        info = repository.store.head(key)
        if info is None or now - info.modified > half:
            raise DeltaError(
                f"{draft.txn} was built on a revision of {stood_on[0].version} that compaction has replaced, "
                f"and {key} may be collected: seal the version again"
            )


def find_commit(repository: Repository, draft: Draft) -> Manifest | None:
    """Return the version that a draft was committed as, None if it was not."""
    for name in draft.names():
        taken = _at(repository, str(name))
        if taken is None:
            return None
        if isinstance(taken, Manifest) and taken.txn == draft.txn:
            return taken
    return None


def _already(repository: Repository, draft: Draft, known: Manifest | None) -> Manifest:
    found = find_commit(repository, draft)
    if found is not None:
        return found
    parent = draft.parents[0] if draft.parents else "nothing"
    now = known.version if known is not None else "nothing"
    raise VersionRaceError(
        f"branch {draft.branch} is at {now}, not at {parent}: another writer has continued it; begin again "
        "from its head"
    )


def _create(repository: Repository, draft: Draft, parent: Manifest | None) -> Manifest:
    for name in draft.names():
        version = str(name)
        for _ in range(_IN_FLIGHT):
            taken = _at(repository, version) if _removed(repository, version) else None
            if taken is None:
                manifest = _manifest(draft, parent, version, repository.now())
                try:
                    repository.store.create(manifest.key, write_manifest(manifest))
                except ObjectExistsError:
                    taken = _at(repository, version)
                    if taken is None:
                        continue  # there and not there: another put is in flight
                else:
                    if not _removed(repository, version):
                        return manifest
                    repository.store.delete([manifest.key])  # the name died meanwhile
                    break
            if taken == draft.txn:
                raise VersionHeldError(f"{draft.txn} was committed as {version}, which was removed since")
            if isinstance(taken, Manifest):
                if taken.txn == draft.txn:
                    return taken
                if (taken.branch, taken.parents) == (draft.branch, draft.parents):
                    raise VersionRaceError(
                        f"{version} on branch {draft.branch} was committed by another writer "
                        f"({taken.writer or taken.txn}); begin again from there"
                    )
            break
        else:
            raise ObjectStoreUnavailableError(
                f"{repository.store.url}: {manifest_key(version, 0)} exists and cannot be read; try again"
            )
    raise AssertionError("names do not end")


def _removed(repository: Repository, version: str) -> bool:
    return repository.store.head(f"versions/{version}/tomb") is not None


def _at(repository: Repository, version: str) -> Manifest | str | None:
    """Return what has a name: its manifest, what is known of one that cannot be read, or None."""
    try:
        return repository.read_manifest(version, 0)
    except DamagedObjectError as error:
        return str(error)
    except ObjectMissingError:
        tomb = f"versions/{version}/tomb"
        if repository.store.head(tomb) is None:
            return None
        return str(read_plain(tomb, repository.store.get(tomb)).get("txn", ""))


def _manifest(draft: Draft, parent: Manifest | None, version: str, now: float) -> Manifest:
    return Manifest(
        version=version,
        txn=draft.txn,
        branch=draft.branch,
        depth=parent.depth + 1 if parent is not None else 0,
        created=now,
        tables={name: _named(table, version) for name, table in draft.tables.items()},
        parents=draft.parents,
        base=draft.base or (draft.parents[0] if draft.parents else ""),
        op=draft.op,
        writer=draft.writer,
        retention=draft.retention,
        metadata=draft.metadata,
        figures=draft.figures,
        verdict=draft.verdict,
        attachments=draft.attachments,
    )


def _named(table: TableManifest, version: str) -> TableManifest:
    """Return a table whose new segments, this txn's and those of backups, carry the version's name."""
    parts = tuple(
        replace(
            part,
            segments=tuple(
                each if is_version_name(each.version) else replace(each, version=version)
                for each in part.segments
            ),
        )
        for part in table.parts
    )
    return replace(table, parts=parts)


def _still_there(repository: Repository, manifest: Manifest) -> None:
    """Take a version back that took so long that its objects may have been collected."""
    gone = [key for key in manifest.objects() if repository.store.head(key) is None]
    if gone:
        try:
            retire(repository, [manifest.version])
        except DriftlineError as error:
            _logger.error("%s lacks %s and could not be taken back: %s", manifest.version, gone[0], error)
        raise DeltaError(f"{manifest.version} took too long and lost {gone[0]}: seal the version again")
