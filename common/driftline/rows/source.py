"""Where a shard's owner gets the rows of a version from.

Invariant: the same version gives the same rows whenever it is asked for, or an error that
names what is missing or damaged; never a part of them that looks whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from driftline.shard.cache import RowBlock
from driftline.shard.position import Position


@dataclass(frozen=True, slots=True)
class VersionPart:
    """One shard of one table of a version."""

    rows: int  # live
    ordinals: int  # one more than the greatest that was given out
    dim: int
    state_size: int
    blocks: Callable[[], AsyncIterator[RowBlock]]  # all rows, a bounded number at a time


@dataclass(frozen=True, slots=True)
class VersionPlace:
    """Where one shard stood when a version was cut."""

    version: str
    position: Position  # its fixed fields; no producers, no restored rows
    updates: int = 0  # next offset of the updates


class VersionSource(Protocol):
    """Opens versions."""

    async def part(self, version: str, table: str, shard: int) -> VersionPart | None:
        """Return a shard as it is in a version, None where the version does not have its table.

        Raises RetryError while the store does not answer; UnknownVersionError, ObjectMissingError,
        DamagedObjectError.
        """
        ...

    async def newest(self, table: str, shard: int) -> VersionPlace | None:
        """Return where a shard stood at the newest version; None where that has no such shard.

        Raises what `part` raises.
        """
        ...

    async def deployed(self) -> frozenset[str]:
        """Return the versions that are to be readable beside the live rows. Raises RetryError."""
        ...
