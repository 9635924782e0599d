"""Where two lines of versions part.

Invariant: it follows from the parents in the manifests alone. A version that is gone is still
known by name, so two lines that part at one are never taken to part further back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from driftline.errors import UnknownVersionError
from driftline.versions.history import read_all
from driftline.versions.labels import head
from driftline.versions.manifest import Manifest
from driftline.versions.repository import Repository
from driftline.versions.tiers import check_exact

Parents = Callable[[str], Sequence[str]]
"""Returns the parents of a version, also of one that was removed."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Three versions, and those on the way from each head to where it meets the other's past."""

    ours: Manifest
    theirs: Manifest
    ancestor: Manifest
    our_line: tuple[Manifest, ...]
    their_line: tuple[Manifest, ...]

    @property
    def merged_before(self) -> bool:
        return self.ancestor.version == self.theirs.version


def common_ancestor(parents: Parents, known: Mapping[str, Manifest], ours: str, theirs: str) -> Manifest:
    """Return the version that both go back to and that no other such version goes back to.

    Of several (lines that were merged crosswise), the deepest. Raises UnknownVersionError if it is gone.
    """
    common = past(parents, ours) & past(parents, theirs)
    passed = {name for each in common for name in past(parents, each) - {each}}
    best = sorted(common - passed)
    gone = [name for name in best if name not in known]
    if gone or not best:
        what = f"{gone[0]}, which was removed" if gone else "nothing that both know"
        raise UnknownVersionError(
            f"{ours} and {theirs} go back to {what}; a merge needs the rows of where the lines part"
        )
    return max((known[name] for name in best), key=lambda each: (each.depth, each.version))


def past(parents: Parents, version: str) -> set[str]:
    """Return a version and all that it goes back to, also those that are gone, by name."""
    reached, ahead = {version}, [version]
    while ahead:
        for name in parents(ahead.pop()):
            if name not in reached:
                reached.add(name)
                ahead.append(name)
    return reached


def lines_of(repository: Repository, theirs: str, branch: str) -> Lines:
    """Return what a merge of version `theirs` into a branch goes by.

    Raises UnknownVersionError, LossyVersionError.
    """
    ours, other = head(repository, branch), repository.manifest(theirs)
    if ours is None:
        raise UnknownVersionError(f"branch {branch} has no version to merge into")
    manifests = {each.version: each for each in read_all(repository)}
    manifests |= {each.version: each for each in (ours, other)}

    @cache
    def parents(name: str) -> Sequence[str]:
        each = manifests.get(name)
        return each.parents if each is not None else repository.removed_parents(name)

    ancestor = common_ancestor(parents, manifests, ours.version, theirs)
    for each in (ours, other, ancestor):
        check_exact(each, "a merge")
    return Lines(
        ours,
        other,
        ancestor,
        _until(manifests, ours, past(parents, theirs)),
        _until(manifests, other, past(parents, ours.version)),
    )


def _until(manifests: Mapping[str, Manifest], each: Manifest, past: set[str]) -> tuple[Manifest, ...]:
    """Return a version and its first parents until one is in `past`, as far as they exist."""
    found = []
    while each.version not in past:
        found.append(each)
        after = manifests.get(each.parent or "")
        if after is None:
            break
        each = after
    return tuple(found)
