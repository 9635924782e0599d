"""Manifests: everything that a version needs, in one object, whose creation is the commit.

Invariant: a manifest carries all tables of its group, so they are committed together
or not at all; it lists every object that reading the version takes, so opening it
never follows a chain; and it holds each shard's whole position at the barrier, so
"version and log from there" rebuilds the table to the bit.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from driftline.errors import DamagedObjectError, UnknownTableError
from driftline.frames.tensors import DTYPES
from driftline.versions.dictionary import ChunkRef
from driftline.versions.documents import pack, unpack
from driftline.versions.naming import VersionName
from driftline.versions.owners import OwnerRef
from driftline.versions.pages import ObjectRef
from driftline.versions.segments import SegmentRef

MAIN = "main"
EXACT_CLASS = "exact"
_NAMES = {dtype: name for name, dtype in DTYPES.items() if name != "BF16"}


@dataclass(frozen=True, slots=True)
class TensorText:
    """A small tensor inside JSON."""

    dtype: str
    shape: tuple[int, ...]
    data: str  # base64, little-endian

    @classmethod
    def of(cls, array: NDArray[np.generic]) -> TensorText:
        """Return the text of an array."""
        return cls(_NAMES[array.dtype], array.shape, base64.b64encode(array.tobytes()).decode())

    def array(self) -> NDArray[np.generic]:
        """Return the array, read-only."""
        return np.frombuffer(base64.b64decode(self.data), DTYPES[self.dtype]).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a shard stood at the barrier: `Position.snapshot()`, and the updates behind it."""

    position: Mapping[str, object]  # the fixed fields of `w`
    tensors: Mapping[str, TensorText] = field(default_factory=dict)  # its producers and restored ids
    updates: int = 0  # next offset of the updates partition: where a versioner goes on

    @classmethod
    def of(
        cls, position: Mapping[str, object], tensors: Mapping[str, NDArray[np.generic]], updates: int
    ) -> Place:
        """Return the place in a barrier's marker at `updates` - 1."""
        return cls(position, {name: TensorText.of(array) for name, array in tensors.items()}, updates)

    def number(self, name: str) -> int:
        """Return a whole number of the position, 0 if it is not in it."""
        value = self.position.get(name, 0)
        assert isinstance(value, int), name
        return value

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the tensors of the position."""
        return {name: text.array() for name, text in self.tensors.items()}


@dataclass(frozen=True, slots=True)
class PartManifest:
    """One shard of one table."""

    place: Place
    rows: int  # live
    begin: int  # the version's own gradients are those at offsets [begin, place.position["next"])
    segments: tuple[SegmentRef, ...] = ()  # all that are read, oldest first
    dictionary: tuple[ChunkRef, ...] = ()  # oldest first
    owners: OwnerRef | None = None  # of the first `owners.covers` segments
    changed: int = 0  # rows and tombstones that the version itself stored
    base: str = ""  # whose rows it was laid on, where that is not the version's own base: behind a relog


@dataclass(frozen=True, slots=True)
class Attachment:
    """An opaque file of a version: dense weights, a map, a graph."""

    key: str
    size: int
    digest: str  # blake2b-128


@dataclass(frozen=True, slots=True)
class TableManifest:
    """One table."""

    dim: int
    state_size: int
    schema: str  # digest of what of the spec decides the format of its rows
    parts: tuple[PartManifest, ...]  # by shard
    graph: ObjectRef | None = None
    maps: Mapping[str, Attachment] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Live rows."""
        return sum(part.rows for part in self.parts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A version of a group of tables."""

    version: str
    txn: str  # what the commit was known by before it had a name
    branch: str
    depth: int  # versions before it on the way to its root
    created: float  # seconds since the epoch, by the writer's clock
    tables: Mapping[str, TableManifest]
    parents: tuple[str, ...] = ()  # first: what it continues; second: what was merged in
    base: str = ""  # whose rows the delta was laid on: the first parent, or the target of a rollback
    rev: int = 0  # rises when the same rows are stored otherwise (compaction)
    op: int = 0  # number of the barrier op
    writer: str = ""
    retention: str = EXACT_CLASS
    metadata: Mapping[str, object] = field(default_factory=dict)  # scenario data, model, mode, window …
    figures: Mapping[str, float] = field(default_factory=dict)  # quality [EM3, EM16]
    verdict: Mapping[str, object] = field(default_factory=dict)  # gate and drift monitor
    attachments: Mapping[str, Attachment] = field(default_factory=dict)
    format: int = 1

    @property
    def name(self) -> VersionName:
        """The version's name."""
        return VersionName.parse(self.version)

    @property
    def parent(self) -> str | None:
        """The version it continues."""
        return self.parents[0] if self.parents else None

    @property
    def key(self) -> str:
        """Key of this manifest."""
        return manifest_key(self.version, self.rev)

    def table(self, name: str) -> TableManifest:
        """Return a table. Raises UnknownTableError."""
        if name not in self.tables:
            raise UnknownTableError(
                f"version {self.version} has no table {name!r}; it has {', '.join(self.tables)}"
            )
        return self.tables[name]

    def objects(self) -> dict[str, int]:
        """Return the key and size of every object that the version needs besides this one."""
        needed: dict[str, int] = {each.key: each.size for each in self.attachments.values()}
        for table in self.tables.values():
            needed |= {each.key: each.size for each in table.maps.values()}
            refs = [table.graph] if table.graph is not None else []
            for part in table.parts:
                refs += part_objects(part)
            needed |= {ref.key: ref.size for ref in refs}
        return needed


def part_objects(part: PartManifest) -> list[ObjectRef]:
    """Return the objects that a shard of a version needs."""
    owners = [part.owners.ref] if part.owners is not None else []
    return [*(each.ref for each in part.segments), *(each.ref for each in part.dictionary), *owners]


def manifest_key(version: str, rev: int) -> str:
    """Return the key of revision `rev` of a version's manifest."""
    return f"versions/{version}/m-{rev:06d}"


_MANIFEST = TypeAdapter(Manifest)
_PART = TypeAdapter(PartManifest)


def write_manifest(manifest: Manifest) -> bytes:
    """Return the object of a manifest."""
    return pack(_MANIFEST.dump_json(manifest))


def read_manifest(key: str, data: bytes) -> Manifest:
    """Return the manifest in the object `key`. Raises DamagedObjectError, StoreFormatError."""
    try:
        manifest = _MANIFEST.validate_json(unpack(key, data))
    except ValidationError as error:
        raise DamagedObjectError(key, "its JSON", "a manifest", str(error.errors()[0])) from None
    if manifest.key != key:
        raise DamagedObjectError(key, "its name", key, manifest.key)
    return manifest


def write_part(part: PartManifest) -> bytes:
    """Return a fragment: one shard of a version in the making."""
    return pack(orjson.dumps(_PART.dump_python(part, mode="json")))


def read_part(key: str, data: bytes) -> PartManifest:
    """Return the shard in a fragment. Raises DamagedObjectError, StoreFormatError."""
    try:
        return _PART.validate_json(unpack(key, data))
    except ValidationError as error:
        raise DamagedObjectError(key, "its JSON", "a fragment", str(error.errors()[0])) from None
