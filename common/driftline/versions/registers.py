"""Named values that change, made of objects that do not: tags, branches, pins.

Invariant: a value is replaced by creating the object with the next number, so a reader
sees the old value or the new one, and of two writers one learns that it came second.
Numbers count down, so the newest entry comes first in a listing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from driftline.errors import ObjectExistsError, VersionRaceError
from driftline.versions.documents import read_plain, write_plain
from driftline.versions.stores import ObjectStore

_HIGHEST = 10**10 - 1


@dataclass(frozen=True, slots=True)
class Entry:
    """The value of a register, and which change made it."""

    number: int  # of changes up to it, from 1
    value: Mapping[str, object]


def entry_key(folder: str, number: int) -> str:
    """Return the key of an entry."""
    return f"{folder}/{_HIGHEST - number:010d}"


def number_of(key: str) -> int:
    """Return the number in an entry's key."""
    return _HIGHEST - int(key.rpartition("/")[2])


def read_registers(store: ObjectStore, folder: str) -> dict[str, Entry]:
    """Return the newest entry of each register below `folder`, by its path there."""
    newest: dict[str, str] = {}
    for info in store.list(folder):
        name = info.key.rpartition("/")[0]
        newest[name] = min(newest.get(name, info.key), info.key)
    return {
        name.removeprefix(f"{folder}/"): Entry(number_of(key), read_plain(key, store.get(key)))
        for name, key in sorted(newest.items())
    }


def read_register(store: ObjectStore, folder: str) -> Entry | None:
    """Return the newest entry of one register, None if it was never written."""
    keys = sorted(info.key for info in store.list(folder))
    return Entry(number_of(keys[0]), read_plain(keys[0], store.get(keys[0]))) if keys else None


def write_register(
    store: ObjectStore, folder: str, before: Entry | None, value: Mapping[str, object]
) -> None:
    """Replace the value `before`. Raises VersionRaceError if somebody else has replaced it.

    After ObjectStoreUnavailableError the value is the old or the new one; writing again is safe.
    """
    number = before.number + 1 if before is not None else 1
    key = entry_key(folder, number)
    data = write_plain({**value, "change": uuid.uuid4().hex})
    try:
        store.create(key, data)
    except ObjectExistsError:
        if store.get(key) != data:  # else it is ours: a reply was lost on the way
            raise VersionRaceError(
                f"{folder} was changed by somebody else just now; look and try again"
            ) from None


def older_entries(keys: list[str]) -> list[str]:
    """Return those of some entries' keys that a newer entry has replaced."""
    newest: dict[str, str] = {}
    for key in keys:
        name = key.rpartition("/")[0]
        newest[name] = min(newest.get(name, key), key)
    return [key for key in keys if newest[key.rpartition("/")[0]] != key]
