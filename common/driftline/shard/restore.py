"""What a `prepare` and a `restore` mean to one shard, as values.

Invariant: a version never changes, so its name in the log is as good as its rows: a
replay that loads it again gets the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson

from driftline.frames.events import Op
from driftline.shard.cache import RowBlock


@dataclass(frozen=True, slots=True)
class VersionRows:
    """One shard of a version, to be swapped in."""

    rows: int  # live
    ordinals: int  # one more than the greatest that the version has given out
    blocks: Iterable[RowBlock] = ()  # all of its rows; none where only the store is to hold them


class LoadVersion(Protocol):
    """Loads one shard of one table from the version that a restore names."""

    def __call__(self, body: Mapping[str, object], table: str, shard: int) -> VersionRows:
        """Return the rows; raises what reading the version raises."""
        ...


@dataclass(frozen=True, slots=True)
class Preparation:
    """The version that is to be loaded beside the live rows, and the op that asked for it."""

    op: int
    version: str


def preparation_text(op: Op) -> str:
    """Return the position's `prep` behind a `prepare`; empty when it gives the last one up."""
    if not op.body.get("version"):
        return ""
    return orjson.dumps({**op.body, "op": op.origin.seq}, option=orjson.OPT_SORT_KEYS).decode()


def preparation(prep: str) -> Preparation | None:
    """Return what a position's `prep` says."""
    if not prep:
        return None
    body = orjson.loads(prep)
    return Preparation(int(body["op"]), str(body["version"]))
