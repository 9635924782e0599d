"""Branches, tags and pins: what people call versions, and what keeps them.

Invariant: a label points to a version that exists; while it does, the version is not
removed. Whoever makes a label looks for a tombstone afterwards, whoever makes a
tombstone looks for labels afterwards, so one of the two sees the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from driftline.errors import UnknownVersionError, VersionHeldError
from driftline.versions.manifest import MAIN, Manifest
from driftline.versions.naming import is_version_name
from driftline.versions.references import (
    LATEST,
    Reference,
    backup_of,
    checked_label,
    nearest,
    parse_reference,
    time_of,
)
from driftline.versions.registers import read_register, read_registers, write_register
from driftline.versions.repository import Repository
from driftline.versions.stores import checked_name
from driftline.versions.tiers import check_exact


@dataclass(frozen=True, slots=True)
class Pin:
    """A team needs a version until some time."""

    team: str
    version: str
    until: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference names."""

    reference: Reference
    manifest: Manifest


def tags(repository: Repository) -> dict[str, str]:
    """Return the version of each tag."""
    return _labels(repository, "tags")


def branches(repository: Repository) -> dict[str, str | None]:
    """Return the head of each branch; None for a main that has no version yet."""
    names = [MAIN, *(name for name in _labels(repository, "branches") if name != MAIN)]
    heads = {name: head(repository, name) for name in names}
    return {name: each.version if each is not None else None for name, each in heads.items()}


def head(repository: Repository, branch: str) -> Manifest | None:
    """Return the newest version of a branch; of one without own versions, where it begins.

    None for a main branch without versions. Raises UnknownVersionError.
    """
    tip = repository.tip(branch)
    if tip is not None or branch == MAIN:
        return tip
    begins = _labels(repository, "branches")
    if branch not in begins:
        raise UnknownVersionError(f"there is no branch {branch}", nearest(branch, [MAIN, *begins]))
    return repository.manifest(begins[branch])


def set_tag(repository: Repository, name: str, version: str) -> None:
    """Point a tag to a version, whether it existed or not."""
    if name == MAIN or name in _labels(repository, "branches"):
        raise VersionHeldError(f"tag {name!r}: a branch is called so")
    _point(repository, f"tags/{checked_label('tag', name)}", version)


def remove_tag(repository: Repository, name: str) -> None:
    """Remove a tag. Raises UnknownVersionError."""
    _unpoint(repository, "tags", name)


def create_branch(repository: Repository, name: str, at: str) -> None:
    """Make a branch that begins at version `at`.

    Raises VersionHeldError if the name is taken, LossyVersionError: training needs the bits it goes on from.
    """
    folder = f"branches/{checked_label('branch', name)}"
    if name == MAIN or read_register(repository.store, folder) is not None:
        raise VersionHeldError(f"branch {name!r} exists, or existed: its versions still carry the name")
    if name in tags(repository):
        raise VersionHeldError(f"branch {name!r}: a tag is called so")
    check_exact(repository.manifest(at), "a branch")
    _point(repository, folder, at)


def remove_branch(repository: Repository, name: str) -> None:
    """Remove a branch: its versions stay until they are retired. Raises UnknownVersionError."""
    _unpoint(repository, "branches", name)


def pin(repository: Repository, team: str, version: str, until: float) -> None:
    """Keep a version for a team until a time (seconds since the epoch)."""
    _point(repository, f"pins/{checked_name('team', team)}/{version}", version, until)


def unpin(repository: Repository, team: str, version: str) -> None:
    """Give a pin up. Raises UnknownVersionError."""
    _unpoint(repository, "pins", f"{team}/{version}")


def deploy(repository: Repository, version: str) -> None:
    """Have a version readable beside the live rows; aggregators load it. Raises UnknownVersionError."""
    _point(repository, f"deployments/{version}", version)


def undeploy(repository: Repository, version: str) -> None:
    """Have a version no longer readable beside the live rows. Raises UnknownVersionError."""
    _unpoint(repository, "deployments", version)


def deployments(repository: Repository) -> list[str]:
    """Return the versions that are to be readable beside the live rows."""
    return list(_labels(repository, "deployments"))


def pins(repository: Repository) -> list[Pin]:
    """Return the pins that have not run out."""
    found = []
    for path, entry in read_registers(repository.store, "pins").items():
        until = entry.value.get("until")
        if isinstance(until, int | float) and until > repository.now():
            team, _, version = path.partition("/")
            found.append(Pin(team, version, float(until)))
    return found


def holders(repository: Repository) -> dict[str, str]:
    """Return the versions that may not be removed, each with what holds it."""
    held = {each.version: f"pin of {each.team}" for each in pins(repository)}
    held |= dict.fromkeys(deployments(repository), "deployment")
    held |= {version: f"tag {name}" for name, version in tags(repository).items()}
    begins = {version: f"begin of branch {name}" for name, version in _labels(repository, "branches").items()}
    tips = {head: f"head of branch {name}" for name, head in branches(repository).items() if head is not None}
    return held | begins | _cuts(repository, tips) | tips


def _cuts(repository: Repository, heads: Iterable[str]) -> dict[str, str]:
    """Return the versions that live tables go on from below heads that were merged or imported."""
    found = {}
    for name in heads:
        head = repository.manifest(name)
        cut = next((each for each in line(repository, head) if each.op), None) if not head.op else None
        if cut is not None:
            found[cut.version] = f"head {name}, which was not cut from the live tables"
    return found


def resolve(repository: Repository, text: str) -> Resolved:
    """Return the version that a reference names.

    Raises InputError; UnknownVersionError with the nearest names.
    """
    reference = parse_reference(text)
    manifest = _base(repository, reference.base)
    for _ in range(reference.back):
        if manifest.parent is None:
            raise UnknownVersionError(f"{text}: {manifest.version} is the first of its line")
        manifest = repository.manifest(manifest.parent)
    if reference.table is not None:
        manifest.table(reference.table)
    return Resolved(reference, manifest)


def line(repository: Repository, manifest: Manifest) -> Iterator[Manifest]:
    """Yield a version and its first parents, as far back as they exist."""
    yield manifest
    while manifest.parent is not None:
        try:
            manifest = repository.manifest(manifest.parent)
        except UnknownVersionError:
            return
        yield manifest


def _base(repository: Repository, name: str) -> Manifest:
    if is_version_name(name):
        return repository.manifest(name)
    at = time_of(name)
    if name in (LATEST, MAIN) or at is not None:
        newest = repository.tip(MAIN)
        if newest is None:
            raise UnknownVersionError(f"{repository.store.url} holds no version of branch {MAIN} yet")
        for each in line(repository, newest):
            if at is None or each.created <= at:
                return each
        raise UnknownVersionError(f"no version of {MAIN} is as old as {name}")
    labelled, begins = tags(repository), _labels(repository, "branches")
    if name in labelled:
        return repository.manifest(labelled[name])
    if name in begins:
        found = head(repository, name)
        assert found is not None, "a branch begins somewhere"
        return found
    if backup_of(name) is not None:
        raise UnknownVersionError(
            f"{name} is a backup in memory, no version: `driftline rollback --ids … --to {name}` uses it"
        )
    known = [*repository.listing().names(), *labelled, *begins, MAIN, LATEST]
    raise UnknownVersionError(f"no version, branch or tag is called {name!r}", nearest(name, known))


def _labels(repository: Repository, folder: str) -> dict[str, str]:
    entries = read_registers(repository.store, folder)
    return {name: str(each.value["version"]) for name, each in entries.items() if each.value.get("version")}


def _point(repository: Repository, folder: str, version: str, until: float | None = None) -> None:
    repository.manifest(version)
    before = read_register(repository.store, folder)
    value = {"version": version, "at": repository.now(), "until": until}
    write_register(repository.store, folder, before, value)
    if repository.store.head(f"versions/{version}/tomb") is not None:
        write_register(
            repository.store,
            folder,
            read_register(repository.store, folder),
            before.value if before is not None else {"version": None},
        )
        raise UnknownVersionError(f"version {version} was removed just now")


def _unpoint(repository: Repository, folder: str, name: str) -> None:
    entry = read_register(repository.store, f"{folder}/{name}")
    if entry is None or not entry.value.get("version"):
        known = read_registers(repository.store, folder)
        raise UnknownVersionError(f"there is no {name!r} in {folder}", nearest(name, known))
    write_register(repository.store, f"{folder}/{name}", entry, {"version": None, "at": repository.now()})
