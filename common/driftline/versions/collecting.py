"""Garbage collection: what no version needs goes, what any version needs stays.

Invariant: an object is deleted only if two marks, at least a grace period apart by the
store's clock, both found it unreferenced, and it is older than the grace period. A
version is removed by a tombstone first, keeps what it needs for another grace period,
and its name is never given again. Nothing that is pinned, tagged or a branch's begin
or head is removed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from driftline.errors import DamagedObjectError, ObjectExistsError, ObjectMissingError, VersionHeldError
from driftline.versions.documents import read_plain, write_plain
from driftline.versions.fragments import FOLDER as FRAGMENTS
from driftline.versions.graphs import FOLDER as GRAPHS
from driftline.versions.graphs import needed_graphs
from driftline.versions.labels import holders
from driftline.versions.manifest import manifest_key, part_objects, read_part
from driftline.versions.naming import is_version_name
from driftline.versions.registers import entry_key, number_of, older_entries
from driftline.versions.repository import Repository
from driftline.versions.stores import STAGING, store_now

_logger = logging.getLogger(__name__)
_MARKS = "gc"
_REGISTERS = ("tags", "pins", "branches", "deployments")
_COLLECTED = ("tables", "attachments", GRAPHS, FRAGMENTS, STAGING, "probe", "versions", "heads", *_REGISTERS)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a collection finds; `delete` is what it would delete now."""

    delete: tuple[str, ...]
    delete_bytes: int
    marked: Mapping[str, int]  # every unreferenced object older than the grace period -> bytes
    now: float  # by the store's clock
    first_mark: float | None  # of the earlier mark that `delete` rests on
    damaged: tuple[str, ...]  # manifests that cannot be read: nothing is deleted while there are any


def retire(repository: Repository, versions: Sequence[str], protected: Iterable[str] = ()) -> None:
    """Remove versions: from now on nobody can name them; their objects go with later collections.

    `protected`: versions that the log or an older Redis position can still reach. Raises
    VersionHeldError naming what holds a version (none is removed then), UnknownVersionError.
    """
    _refuse_held(repository, versions, protected)
    for version in versions:
        manifest = repository.manifest(version)
        tomb = f"versions/{version}/tomb"
        body = {"txn": manifest.txn, "at": repository.now(), "branch": manifest.branch}
        try:
            repository.store.create(tomb, write_plain(body))
        except ObjectExistsError:
            continue
        held = holders(repository).get(version)
        if held is not None:  # it was given a label at the same moment: the label stays
            repository.store.delete([tomb])
            raise VersionHeldError(f"version {version} is held by {held} since just now: it stays")


def plan_collection(repository: Repository) -> Plan:
    """Return what `collect` would do now; changes nothing but a probe object."""
    store = repository.store
    now = store_now(store)
    infos = [info for folder in _COLLECTED for info in store.list(folder)]  # before the manifests are read
    old = {info.key: info.size for info in infos if now - info.modified > repository.grace}
    sizes = {info.key: info.modified for info in infos}
    try:
        needed, damaged = _needed(repository, sizes, now)
    except ObjectMissingError as error:
        needed, damaged = set(old), [error.key]
    marked = {key: size for key, size in old.items() if key not in needed}
    if damaged:
        return Plan((), 0, marked, now, None, tuple(damaged))
    earlier = _mark_before(repository, now - repository.grace)
    at, keys = earlier if earlier is not None else (None, frozenset[str]())
    delete = tuple(sorted(key for key in marked if key in keys))
    return Plan(delete, sum(marked[key] for key in delete), marked, now, at, ())


def collect(repository: Repository) -> Plan:
    """Delete what two marks a grace period apart left over, and leave a mark; return what was done.

    May be interrupted anywhere: what is left is found again.
    """
    plan = plan_collection(repository)
    if plan.damaged:
        _logger.error("nothing is collected: %s cannot be read", ", ".join(plan.damaged))
        return plan
    # manifests last: while one exists, what it needs is not forgotten
    order = sorted(plan.delete, key=lambda key: (key.startswith("versions/"), key))
    repository.store.delete(order)
    remaining = sorted(plan.marked.keys() - set(plan.delete))
    _leave_mark(repository, plan.now, remaining)
    return plan


def _refuse_held(repository: Repository, versions: Sequence[str], protected: Iterable[str]) -> None:
    held = dict.fromkeys(protected, "the log: it can still be asked for") | holders(repository)
    for version in versions:
        if version in held:
            raise VersionHeldError(f"version {version} is held by {held[version]}: remove that first")


def _needed(repository: Repository, objects: Mapping[str, float], now: float) -> tuple[set[str], list[str]]:
    """Return the keys that something refers to, and the manifests that cannot be read."""
    needed: set[str] = set()
    damaged: list[str] = []
    txns: set[str] = set()
    alive: set[str] = set()
    newest: dict[str, int] = {}
    for key in objects:
        parts = key.split("/")
        if parts[0] == "versions" and len(parts) == 3 and parts[2].startswith("m-"):
            newest[parts[1]] = max(newest.get(parts[1], 0), int(parts[2][2:]))
    # those committed since the listing refer to objects that are younger than it, or to their base's
    newest |= {name: max(rev, newest.get(name, 0)) for name, rev in repository.listing().revisions.items()}
    for version, rev in newest.items():
        tomb = f"versions/{version}/tomb"
        if tomb in objects and now - objects[tomb] > repository.grace:
            needed.add(tomb)
            continue
        alive.add(version)
        newest_key = manifest_key(version, rev)
        # a revision that was replaced serves readers that opened it, for a grace period
        for each in range(rev + 1):
            key = manifest_key(version, each)
            if each < rev and (key not in objects or now - objects.get(newest_key, now) > repository.grace):
                continue
            try:
                manifest = repository.read_manifest(version, each)
            except DamagedObjectError:
                damaged.append(key)
                continue
            txns.add(manifest.txn)
            needed |= {key, tomb, *manifest.objects()}
            hint = f"{entry_key(f'heads/{manifest.branch}', manifest.depth)}-{version}"
            needed.add(hint)
    needed |= needed_graphs(objects, alive)
    needed |= {key for key in objects if key.endswith("/tomb") and key.startswith("versions/")}
    for folder in _REGISTERS:
        some = [key for key in objects if key.startswith(f"{folder}/")]
        needed |= set(some) - set(older_entries(some))
    for key, modified in objects.items():
        if (
            key.startswith(f"{FRAGMENTS}/")
            and now - modified <= repository.grace
            and key.split("/")[1] not in txns
        ):
            try:
                needed |= {ref.key for ref in part_objects(read_part(key, repository.store.get(key)))}
            except ObjectMissingError:
                continue  # committed and dropped meanwhile
    return needed, damaged


def _mark_before(repository: Repository, moment: float) -> tuple[float, frozenset[str]] | None:
    """Return the newest mark that was left before `moment`."""
    infos = sorted(repository.store.list(_MARKS), key=lambda info: info.key)
    for info in infos:
        if info.modified <= moment:
            keys = read_plain(info.key, repository.store.get(info.key)).get("marked")
            if isinstance(keys, list):
                return info.modified, frozenset(map(str, keys))
    return None


def _leave_mark(repository: Repository, now: float, keys: Sequence[str]) -> None:
    """Leave a mark, and drop those that a newer one old enough has replaced."""
    infos = sorted(repository.store.list(_MARKS), key=lambda info: info.key)
    number = number_of(infos[0].key) + 1 if infos else 1
    try:
        repository.store.create(entry_key(_MARKS, number), write_plain({"at": now, "marked": list(keys)}))
    except ObjectExistsError:
        return  # somebody else collects at the same moment: their mark serves
    past = [info.key for info in infos if now - info.modified > repository.grace]
    repository.store.delete(past[1:])


def removable(repository: Repository, keep: Iterable[str], protected: Iterable[str] = ()) -> list[str]:
    """Return the versions that neither `keep` names nor anything holds, for `retire`."""
    stay = {*keep, *protected, *holders(repository)}
    return [name for name in repository.listing().names() if name not in stay and is_version_name(name)]
