"""A stream of interactions: who touched what, when, oldest first.

Invariant: timestamps never go back; ids are 64 bits and stable: the same name gives
the same id on every machine and in every release.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError


def id_of(name: str) -> int:
    """Return the 64-bit id of a name: its 8-byte BLAKE2b, little-endian."""
    # surrogateescape: git paths need not be UTF-8, and the id is of the bytes as they are.
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Columns of equal length (n,), in order of time."""

    timestamps: NDArray[np.int64]  # Unix seconds
    users: NDArray[np.uint64]
    items: NDArray[np.uint64]

    def __post_init__(self) -> None:
        if not len(self.timestamps) == len(self.users) == len(self.items):
            raise InputError(
                f"columns of {len(self.timestamps)}, {len(self.users)} and {len(self.items)} events: "
                "timestamps, users and items must be of one length"
            )
        if np.any(np.diff(self.timestamps) < 0):
            raise InputError("timestamps go back: sort the events by time first (Events.by_time)")

    def __len__(self) -> int:
        return len(self.timestamps)

    def __getitem__(self, part: slice) -> Events:
        return Events(self.timestamps[part], self.users[part], self.items[part])

    @classmethod
    def by_time(cls, timestamps: list[int], users: list[int], items: list[int]) -> Events:
        """Return the events sorted by time; those of one second stay in the order given."""
        when = np.array(timestamps, np.int64)
        order = np.argsort(when, kind="stable")
        return cls(
            when[order],
            np.array(users, np.uint64)[order],
            np.array(items, np.uint64)[order],
        )
