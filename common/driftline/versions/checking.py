"""fsck: everything that a version store promises, looked at.

Invariant: a finding names the object, what was expected and what was found; no finding
means that every byte of every version is what was written, and every chain is whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from driftline.errors import DamagedObjectError, ObjectMissingError, StoreFormatError, UnknownVersionError
from driftline.versions.cache import ObjectCache
from driftline.versions.documents import read_plain
from driftline.versions.fragments import FOLDER as FRAGMENTS
from driftline.versions.graphs import FOLDER as GRAPHS
from driftline.versions.graphs import GraphKey, check_graph
from driftline.versions.manifest import Manifest, PartManifest, part_objects, read_manifest, read_part
from driftline.versions.pages import ObjectRef
from driftline.versions.parts import PartReader
from driftline.versions.registers import read_registers
from driftline.versions.repository import Repository
from driftline.versions.segments import Segment, SegmentRef
from driftline.versions.tiers import level

Progress = Callable[[str], None]
"""Called with the name of each version as its check begins."""

_DOCUMENTS = ("tags", "pins", "branches", "deployments", "gc")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    code: str  # damaged, missing, format, order, count, gap, label, revised, tier
    object: str  # its key
    message: str
    expected: str = ""
    found: str = ""


def fsck(repository: Repository, progress: Progress = lambda _: None) -> list[Finding]:
    """Return what is wrong, nothing if all is well. Reads every byte, each object once.

    Raises ObjectStoreUnavailableError only.
    """
    repository.forget()
    return list(_Check(repository, progress).run())


def check_version(repository: Repository, manifest: Manifest) -> list[Finding]:
    """Return what is wrong with one version, nothing if it can be restored. Reads each of its bytes.

    Raises ObjectStoreUnavailableError only.
    """
    repository.forget()
    return list(_Check(repository, lambda _: None).alone(manifest))


class _Check:
    def __init__(self, repository: Repository, progress: Progress) -> None:
        self._repository, self._progress = repository, progress
        self._done: set[str] = set()  # objects that were looked at
        self._bad: set[str] = set()  # those of them with a finding
        self._manifests: dict[str, Manifest] = {}

    def run(self) -> Iterator[Finding]:
        store = self._repository.store
        yield from self._document("format.json")
        for folder in _DOCUMENTS:
            for info in store.list(folder):
                yield from self._document(info.key)
        tombs = set()
        keys = sorted(info.key for info in store.list("versions"))
        for key in keys:
            if key.endswith("/tomb"):
                tombs.add(key.split("/")[1])
                yield from self._document(key)
        for key in keys:
            _, version, kind = key.split("/")
            if not kind.startswith("m-") or version in tombs:
                continue
            try:
                yield from self._revision(read_manifest(key, store.get(key)))  # newest last
            except (DamagedObjectError, ObjectMissingError, StoreFormatError) as error:
                yield _of(error)
        for version, manifest in self._manifests.items():
            self._progress(version)
            yield from self.version(manifest)
        yield from self._labels()
        yield from self._graphs()
        for info in store.list(FRAGMENTS):
            try:
                read_part(info.key, store.get(info.key))
            except (DamagedObjectError, StoreFormatError) as error:
                yield _of(error)
            except ObjectMissingError:
                continue  # dropped by its commit meanwhile

    def _revision(self, manifest: Manifest) -> Iterator[Finding]:
        """Take the next revision of a version; only how it is stored may differ from the one before."""
        before = self._manifests.get(manifest.version)
        self._manifests[manifest.version] = manifest
        if before is not None and _meant(before) != _meant(manifest):
            yield Finding("revised", manifest.key, "it says something else than its earlier revision")

    def _graphs(self) -> Iterator[Finding]:
        for info in self._repository.store.list(GRAPHS):
            found = GraphKey.parse(info.key)
            if found is not None and found.version in self._manifests:
                yield from self._whole(info.key, partial(check_graph, self._repository, info.key))

    def _document(self, key: str) -> Iterator[Finding]:
        try:
            read_plain(key, self._repository.store.get(key))
        except (DamagedObjectError, ObjectMissingError) as error:
            yield _of(error)

    def alone(self, manifest: Manifest) -> Iterator[Finding]:
        if manifest.base:  # what its log continues is read off it, if it is still there
            with contextlib.suppress(UnknownVersionError, DamagedObjectError):
                self._manifests[manifest.base] = self._repository.manifest(manifest.base)
        yield from self.version(manifest)

    def version(self, manifest: Manifest) -> Iterator[Finding]:
        maps = {key: each for table in manifest.tables.values() for key, each in table.maps.items()}
        for attachment in {**manifest.attachments, **maps}.values():
            if attachment.key not in self._done:
                self._done.add(attachment.key)
                try:
                    self._repository.read_attachment(attachment)
                except (DamagedObjectError, ObjectMissingError) as error:
                    yield _of(error)
        allowed = level(manifest.retention)
        base = self._manifests.get(manifest.base)
        for name, table in manifest.tables.items():
            if table.graph is not None:
                yield from self._object(table.graph)
            for shard, part in enumerate(table.parts):
                # a shard that a relog put back to another version goes on from there
                under = self._manifests.get(part.base) if part.base else base
                earlier = under.tables[name] if under is not None and name in under.tables else None
                before = earlier.parts[shard] if earlier is not None and shard < len(earlier.parts) else None
                where = f"{manifest.key} {name}:{shard}"
                for entry in part.segments:
                    if level(entry.tier) < allowed:
                        yield Finding(
                            "tier", where, f"it lists {entry.ref.key}", manifest.retention, entry.tier
                        )
                yield from self._chain(where, part, before, part.base or manifest.base)
                yield from self._part(where, part, table.dim, table.state_size)

    def _chain(
        self, where: str, part: PartManifest, before: PartManifest | None, base: str
    ) -> Iterator[Finding]:
        begin, end = part.begin, part.place.number("next")
        if before is not None and begin != before.place.number("next"):
            expected = str(before.place.number("next"))
            yield Finding("gap", where, f"its log begins where {base} does not end", expected, str(begin))
        same_log = before is not None and before.place.number("gen") == part.place.number("gen")
        if end < begin and (before is None or same_log):
            yield Finding("gap", where, "its log ends before it begins", f"at least {begin}", str(end))
        if "rows" in part.place.position and part.place.number("rows") != part.rows:
            yield Finding("count", where, "rows", str(part.place.number("rows")), str(part.rows))

    def _part(self, where: str, part: PartManifest, dim: int, state_size: int) -> Iterator[Finding]:
        cache = self._repository.cache
        for entry in part.segments:
            yield from self._whole(entry.ref.key, partial(_check_segment, cache, entry))
        for chunk in part.dictionary:
            yield from self._object(chunk.ref)
        if part.owners is not None:
            yield from self._object(part.owners.ref)
        if any(ref.key in self._bad for ref in part_objects(part)):
            return  # said already; what it does to each version that needs it would be noise
        try:
            reader = PartReader(cache, part, dim, state_size)
            live = int(np.count_nonzero(reader.codes()))
            named = reader.dictionary.ids(reader.ordinals)[np.flatnonzero(reader.codes())]
        except (DamagedObjectError, ObjectMissingError) as error:
            yield _of(error)
            return
        if live != part.rows:
            yield Finding("count", where, "live rows", str(part.rows), str(live))
        if len(np.unique(named)) != live:
            yield Finding(
                "count", where, "live rows have different ids", str(live), str(len(np.unique(named)))
            )

    def _object(self, ref: ObjectRef) -> Iterator[Finding]:
        yield from self._whole(ref.key, lambda: self._repository.cache.open(ref).check())

    def _whole(self, key: str, check: Callable[[], object]) -> Iterator[Finding]:
        if key in self._done:
            return
        self._done.add(key)
        try:
            check()
        except (DamagedObjectError, ObjectMissingError) as error:
            self._bad.add(key)
            yield _of(error)

    def _labels(self) -> Iterator[Finding]:
        listing = self._repository.listing()
        for folder in ("tags", "branches", "pins", "deployments"):
            try:
                entries = read_registers(self._repository.store, folder)
            except DamagedObjectError:
                continue  # named above
            for name, entry in entries.items():
                version = entry.value.get("version")
                if (
                    isinstance(version, str)
                    and version not in listing.revisions
                    and not self._past(entry.value)
                ):
                    key = f"{folder}/{name}"
                    yield Finding("label", key, "points to a version that does not exist", version, "nothing")

    def _past(self, value: object) -> bool:
        until = value.get("until") if isinstance(value, dict) else None
        return isinstance(until, int | float) and until <= self._repository.now()


def _meant(manifest: Manifest) -> Manifest:
    """Return what of a manifest no compaction changes."""
    tables = {
        name: replace(
            table,
            parts=tuple(replace(part, segments=(), dictionary=(), owners=None) for part in table.parts),
        )
        for name, table in manifest.tables.items()
    }
    return replace(manifest, tables=tables, rev=0, retention="")


def _check_segment(cache: ObjectCache, entry: SegmentRef) -> None:
    cache.open(entry.ref).check()
    segment = Segment(cache, entry)
    ordinals, dead = segment.ordinals.astype(np.int64), segment.dead.astype(np.int64)
    counts = f"{entry.rows} rows, {entry.dead} tombstones"
    found = f"{len(ordinals)} rows, {len(dead)} tombstones"
    if counts != found:
        raise DamagedObjectError(entry.ref.key, "its counts", counts, found)
    if (np.diff(ordinals) <= 0).any() or (np.diff(dead) <= 0).any() or len(np.intersect1d(ordinals, dead)):
        raise DamagedObjectError(entry.ref.key, "its ordinals", "strictly increasing", "not so")
    both = np.concatenate([ordinals, dead])
    if (int(both.min()), int(both.max())) != (entry.first, entry.last):
        raise DamagedObjectError(
            entry.ref.key, "its ordinals", f"{entry.first} to {entry.last}", f"{both.min()} to {both.max()}"
        )


def _of(error: DamagedObjectError | ObjectMissingError | StoreFormatError) -> Finding:
    if isinstance(error, DamagedObjectError):
        return Finding("damaged", error.key, error.where, error.expected, error.found)
    if isinstance(error, ObjectMissingError):
        return Finding("missing", error.key, "something refers to it", "an object", "nothing")
    return Finding("format", "", str(error))
