"""What the version store asks of an object store.

Invariant: an object is complete from the moment it can be seen, and is never
changed. `create` either makes it or finds that it is there; there is no other
way to write. Keys are made of letters, digits and `._-`, in folders.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from driftline.errors import InputError

_KEY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
STAGING = ".staging"  # where a local store writes an object before it gives it its name


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing shows it."""

    key: str
    size: int  # bytes
    modified: float  # seconds since the epoch, by the store's clock


class ObjectStore(Protocol):
    """A flat space of immutable objects.

    Every method raises ObjectStoreUnavailableError when the store does not answer (whether a
    `create` took effect is then unknown), and ConfigError when it refuses this client.
    """

    @property
    def url(self) -> str:
        """What it was opened by, without credentials."""

    def create(self, key: str, data: bytes) -> None:
        """Make an object. Raises ObjectExistsError if there is one of that key, whatever it holds.

        When it returns, the object survives a power cut.
        """

    def get(self, key: str) -> bytes:
        """Return a whole object. Raises ObjectMissingError."""

    def get_ranges(self, key: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Return the bytes in each [start, end), none empty. Raises ObjectMissingError.

        A range that ends beyond the object is cut there.
        """

    def head(self, key: str) -> ObjectInfo | None:
        """Return what is known of an object, None if it does not exist."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects in the folder `prefix` and below, in no order; '' lists all."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that do not exist are no error."""

    def local_path(self, key: str) -> Path | None:
        """Return the file an object is, where objects are files of this machine."""


def checked_key(key: str) -> str:
    """Return `key`; raises InputError if it may not name an object."""
    if not _KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
        raise InputError(f"object key {key!r}: folders and names of letters, digits, '.', '_' and '-'")
    return key


def checked_name(what: str, name: str) -> str:
    """Return `name` of a branch, tag, team, table or group; raises InputError."""
    if len(name) > 100 or not _NAME.fullmatch(name):
        raise InputError(f"{what} {name!r}: 1 to 100 letters, digits, '_', '-', or '.' between them")
    return name


def store_now(store: ObjectStore) -> float:
    """Return the time by the store's clock: ages of objects are differences of that clock alone."""
    key = f"probe/{uuid.uuid4().hex}"
    store.create(key, b"now")
    info = store.head(key)
    store.delete([key])
    assert info is not None, "it was made just now"
    return info.modified
