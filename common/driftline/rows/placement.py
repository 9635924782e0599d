"""Where a shard is, as far as servers have answered; and where a new one shall be.

Invariant: the truth is each shard's `w`. A `w` without `moved_to` is live; of several
(a server came back from an older append-only file) the one moved last counts, then the
one further on; that is always a right state of its position, only perhaps an old one.
A `w` with `moved_to` is a signpost. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from driftline.errors import ConfigError

EQUAL, LEAST_STORED = "equal", "least-stored"
POLICIES = (EQUAL, LEAST_STORED)
NEW_SHARD_BYTES = 1 << 20
"""What a new shard counts for while a table is spread: it is empty, and will not stay so."""

FIELDS = (b"next", b"owner", b"place", b"moved_to", b"op", b"rows")


@dataclass(frozen=True, slots=True)
class Holding:
    """What one server holds of a shard."""

    server: str
    next: int
    owner: bytes
    place: int  # moves so far
    moved_to: str | None
    op: int
    rows: int  # as the position says
    values: int  # rows that are there

    @property
    def live(self) -> bool:
        """Whether this is where the shard is, not a signpost."""
        return self.moved_to is None

    @property
    def rank(self) -> tuple[int, int, str]:
        """Order among several: the one moved last, then the one further on."""
        return self.place, self.next, self.server


@dataclass(frozen=True, slots=True)
class View:
    """One shard on all servers that have answered."""

    shard: int
    holdings: tuple[Holding, ...]
    silent: tuple[str, ...] = ()  # servers that have not answered

    @property
    def live(self) -> Holding | None:
        """Where the shard is, as far as known."""
        return max((each for each in self.holdings if each.live), key=lambda each: each.rank, default=None)

    @property
    def signpost(self) -> Holding | None:
        """Where the shard left last."""
        return max(
            (each for each in self.holdings if not each.live), key=lambda each: each.rank, default=None
        )

    @property
    def remains(self) -> tuple[Holding, ...]:
        """What is left to clear away once the shard lives: rows behind a signpost, and older lives."""
        live = self.live
        return tuple(
            each
            for each in self.holdings
            if live is not None and each.server != live.server and (each.live or each.values)
        )


def read_holding(server: str, fields: Sequence[bytes | None], values: int) -> Holding | None:
    """Return what the reply to HMGET w FIELDS says; None where the server holds nothing of the shard."""
    following, owner, place, moved_to, op, rows = fields
    if following is None:
        return None
    return Holding(
        server,
        int(following),
        owner or b"",
        int(place or b"0"),
        None if moved_to is None else moved_to.decode(),
        int(op or b"0"),
        int(rows or b"0"),
        values,
    )


def equal(shards: int, names: Sequence[str]) -> list[str]:
    """Return a server per shard: shard i on server i mod n, in order of names."""
    ordered = sorted(names)
    return [ordered[shard % len(ordered)] for shard in range(shards)]


def least_stored(shards: int, used: Mapping[str, int]) -> list[str]:
    """Return a server per shard: each in turn the one that stores least, with what it was just given."""
    load = dict(sorted(used.items()))
    chosen: list[str] = []
    for _ in range(shards):
        name = min(load, key=lambda each: load[each])
        load[name] += NEW_SHARD_BYTES
        chosen.append(name)
    return chosen


def check_policy(name: str) -> str:
    """Return `name`. Raises ConfigError unless it is one of POLICIES."""
    if name not in POLICIES:
        raise ConfigError(f"placement {name!r}: one of {', '.join(POLICIES)}")
    return name
