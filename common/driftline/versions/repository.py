"""All versions of one group, in one folder of an object store.

Invariant: what exists follows from the manifests alone. A version exists from the
moment its first manifest does until its tombstone does; heads are hints that spare
requests, and whatever they say is held against the manifests.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driftline import clock
from driftline.errors import (
    DamagedObjectError,
    ObjectExistsError,
    ObjectMissingError,
    StoreFormatError,
    UnknownVersionError,
)
from driftline.versions.cache import DEFAULT_BYTES, ObjectCache
from driftline.versions.documents import checksum, read_plain, write_plain
from driftline.versions.manifest import Attachment, Manifest, PartManifest, manifest_key, read_manifest
from driftline.versions.naming import VersionName, is_version_name
from driftline.versions.pages import Sealed
from driftline.versions.references import nearest
from driftline.versions.registers import entry_key, number_of
from driftline.versions.stores import ObjectStore, checked_name

FORMAT = 1
DEFAULT_GRACE = 24 * 3600.0
_PUTS = 8  # at a time
_MANIFESTS = 128  # kept parsed
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a listing of all versions shows."""

    revisions: dict[str, int]  # version -> its newest revision; those that exist
    removed: frozenset[str]  # versions with a tombstone

    def names(self) -> list[str]:
        """Return the versions that exist, by scenario and number."""
        return [str(name) for name in sorted(map(VersionName.parse, self.revisions))]


@dataclass(frozen=True, slots=True)
class Hint:
    """A version as its head hint shows it."""

    branch: str
    depth: int
    version: str


class Repository:
    """The versions of a group; see `open_repository`.

    Parameters
    ----------
    store: the group's own folder of an object store.
    cache: for its objects.
    now: the wall clock, seconds.
    grace: seconds that an object nobody refers to stays; a commit must not take longer than half.
    """

    def __init__(
        self,
        store: ObjectStore,
        group: str,
        cache: ObjectCache,
        *,
        now: clock.Clock = clock.system,
        grace: float = DEFAULT_GRACE,
    ) -> None:
        self.store, self.group, self.cache, self.now, self.grace = store, group, cache, now, grace
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self._lock = threading.Lock()
        self._put_at: dict[str, float] = {}

    # -- objects

    def put(self, sealed: Sealed) -> None:
        """Store a sealed object (a `Sink`). Its key is its own: to put it again changes nothing."""
        self._put_at.setdefault(sealed.ref.key, self.now())
        try:
            self.store.create(sealed.ref.key, sealed.data)
        except ObjectExistsError:
            return  # a reply was lost: nobody else makes this key

    @contextmanager
    def puts(self) -> Iterator[Callable[[Sealed], None]]:
        """Give a `Sink` that stores side by side; at the end all is stored, or the first error is raised.

        Most of a put is waiting: for a disk to synchronise, or for a store's reply. Until then the objects
        can be read from memory.
        """
        waiting: list[tuple[str, Future[None]]] = []

        def sink(sealed: Sealed) -> None:
            self.hold(sealed)
            waiting.append((sealed.ref.key, pool.submit(self.put, sealed)))

        try:
            with ThreadPoolExecutor(_PUTS) as pool:
                yield sink
                for _, each in waiting:
                    each.result()
        finally:
            for key, _ in waiting:
                self.cache.release(key)

    def hold(self, sealed: Sealed) -> None:
        """Keep a sealed object in memory only (a `Sink`); `put_held` stores it later."""
        self.cache.hold(sealed.ref.key, sealed.data)

    def put_held(self, keys: Iterable[str]) -> None:
        """Store the objects among `keys` that are held in memory; they stay held until released."""
        for key in keys:
            data = self.cache.held(key)
            if data is not None:
                self._put_at.setdefault(key, self.now())
                try:
                    self.store.create(key, data)
                except ObjectExistsError:
                    continue

    def age_of(self, keys: Iterable[str]) -> float:
        """Return how long ago this process put the oldest of `keys`, 0 if it put none."""
        return max([0.0, *(self.now() - self._put_at[key] for key in keys if key in self._put_at)])

    def put_here(self, key: str) -> bool:
        """Return whether this process put an object that is part of no version yet."""
        return key in self._put_at

    def settle(self, keys: Iterable[str]) -> None:
        """Note that `keys` are part of a version now."""
        for key in keys:
            self._put_at.pop(key, None)

    def attach(self, data: bytes) -> Attachment:
        """Store an opaque file to go with a version (dense weights)."""
        attachment = Attachment(f"attachments/{uuid.uuid4().hex}", len(data), checksum(data))
        self._put_at[attachment.key] = self.now()
        self.store.create(attachment.key, data)
        return attachment

    def read_attachment(self, attachment: Attachment) -> bytes:
        """Return an attachment's bytes. Raises ObjectMissingError, DamagedObjectError."""
        data = self.store.get(attachment.key)
        if checksum(data) != attachment.digest:
            raise DamagedObjectError(attachment.key, "its checksum", attachment.digest, checksum(data))
        return data

    # -- versions

    def listing(self) -> Listing:
        """Return which versions exist now."""
        revisions: dict[str, int] = {}
        removed: set[str] = set()
        for info in self.store.list("versions"):
            _, _, rest = info.key.partition("/")
            name, _, kind = rest.partition("/")
            if not is_version_name(name):
                continue
            if kind == "tomb":
                removed.add(name)
            elif kind.startswith("m-") and kind[2:].isdigit():
                revisions[name] = max(revisions.get(name, 0), int(kind[2:]))
        alive = {name: rev for name, rev in revisions.items() if name not in removed}
        return Listing(alive, frozenset(removed))

    def manifest(self, version: str) -> Manifest:
        """Return the newest manifest of a version. Raises UnknownVersionError, DamagedObjectError."""
        keys = [info.key.rpartition("/")[2] for info in self.store.list(f"versions/{version}")]
        revisions = [int(key[2:]) for key in keys if key.startswith("m-")]
        if "tomb" in keys:
            raise UnknownVersionError(f"version {version} was removed")
        if not revisions:
            names = self.listing().names()
            raise UnknownVersionError(f"there is no version {version}", nearest(version, names))
        return self.read_manifest(version, max(revisions))

    def read_manifest(self, version: str, rev: int) -> Manifest:
        """Return one revision of a manifest. Raises ObjectMissingError, DamagedObjectError."""
        key = manifest_key(version, rev)
        with self._lock:
            found = self._manifests.get(key)
            if found is not None:
                self._manifests.move_to_end(key)
                return found
        manifest = read_manifest(key, self.store.get(key))
        with self._lock:
            self._manifests[key] = manifest
            while len(self._manifests) > _MANIFESTS:
                self._manifests.popitem(last=False)
        return manifest

    def removed_parents(self, version: str) -> tuple[str, ...]:
        """Return the parents of a version that was removed, as far as its tombstone says."""
        try:
            key = f"versions/{version}/tomb"
            found = read_plain(key, self.store.get(key)).get("parents")
        except ObjectMissingError:
            return ()
        return tuple(map(str, found)) if isinstance(found, list) else ()

    def current(self, version: str, table: str, shard: int, part: PartManifest) -> PartManifest:
        """Return `part`, a shard that was read of a version before, as it is stored now.

        A version's rows never change, but compaction moves them. Where the version is gone, or the
        shard stood elsewhere in it, `part` is returned.
        """
        if not is_version_name(version):
            return part
        try:
            found = self.manifest(version).tables.get(table)
        except UnknownVersionError:
            return part
        if found is None or shard >= len(found.parts) or found.parts[shard].place != part.place:
            return part
        return found.parts[shard]

    def forget(self) -> None:
        """Drop what is cached in memory: the next read goes to the store and checks anew."""
        with self._lock:
            self._manifests.clear()
        self.cache.forget()

    def hints(self) -> dict[str, Hint]:
        """Return what the head hints say, by version."""
        hints: dict[str, Hint] = {}
        for info in self.store.list("heads"):
            parts = info.key.split("/")
            number, _, version = parts[-1].partition("-")
            if len(parts) == 3 and number.isdigit() and is_version_name(version):
                hints[version] = Hint(parts[1], number_of(number), version)
        return hints

    def put_hint(self, manifest: Manifest) -> None:
        """Note a version in its branch's heads."""
        key = f"{entry_key(f'heads/{manifest.branch}', manifest.depth)}-{manifest.version}"
        try:
            self.store.create(key, b"")
        except ObjectExistsError:
            return

    def tip(self, branch: str) -> Manifest | None:
        """Return the last version that was committed on a branch, None if none was.

        Raises what reading its manifest raises: a branch does not fall back behind a damaged head.
        """
        listing, hints = self.listing(), self.hints()
        on_branch: list[tuple[int, str]] = []
        for version, rev in listing.revisions.items():
            hint = hints.get(version)
            if hint is not None and hint.branch == branch:
                on_branch.append((hint.depth, version))
            elif hint is None:
                manifest = self.read_manifest(version, rev)
                if manifest.branch == branch:
                    on_branch.append((manifest.depth, version))
        for _, version in sorted(on_branch, reverse=True):
            manifest = self.read_manifest(version, listing.revisions[version])
            if manifest.branch == branch:
                return manifest
        return None


def open_repository(
    store: ObjectStore,
    group: str,
    *,
    cache: Path | None = None,
    cache_bytes: int = DEFAULT_BYTES,
    now: clock.Clock = clock.system,
    grace: float = DEFAULT_GRACE,
) -> Repository:
    """Return the repository of `group` in `store`, made if the store holds none yet.

    `cache`: a directory for objects that are fetched; None keeps them in memory. Raises
    StoreFormatError if the store holds another group's versions or a newer format.
    """
    checked_name("group", group)
    try:
        data = store.get("format.json")
    except ObjectMissingError:
        try:
            store.create("format.json", write_plain({"format": FORMAT, "group": group, "kind": "versions"}))
        except ObjectExistsError:
            _logger.debug("%s was made by somebody else at the same moment", store.url)
        data = store.get("format.json")
    body = read_plain("format.json", data)
    if body.get("kind") != "versions" or body.get("format") != FORMAT:
        raise StoreFormatError(
            f"{store.url} holds {body.get('kind')} of format {body.get('format')}; this release reads "
            f"versions of format {FORMAT}: upgrade, or use another folder"
        )
    if body.get("group") != group:
        raise StoreFormatError(
            f"{store.url} holds the versions of group {body.get('group')!r}, not of {group!r}: give each "
            "group a folder of its own"
        )
    return Repository(store, group, ObjectCache(store, cache, cache_bytes), now=now, grace=grace)
