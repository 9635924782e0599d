"""What a `prepare` and a `restore` mean to one shard, as values.

Invariant: a version never changes, so its name in the log is as good as its rows: a
replay that loads it again gets the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson

from driftline.errors import FrameError
from driftline.frames.events import PREPARE, RESTORE, Op
from driftline.frames.reasons import Reason
from driftline.shard.acceptance import check_prepare
from driftline.shard.cache import RowBlock

ROLLBACK, CHECKOUT = "rollback", "checkout"
MODES = (ROLLBACK, CHECKOUT)
"""Roll back: the branch goes on, with a version whose rows are an earlier one's. Check out: it goes on
from that version, in the branch and the scenario named."""


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


def check_asked(op: Op) -> None:
    """Raise FrameError `bad_op` unless a `prepare` or `restore` for a whole group is complete."""
    if op.kind == PREPARE:
        check_prepare(op)
    if op.kind != RESTORE:
        return
    version, epochs = op.body.get("version"), op.body.get("from_epoch")
    if not isinstance(version, str) or not version:
        raise FrameError(Reason.BAD_OP, f"restore of version {version!r}")
    if op.body.get("mode") not in MODES:
        raise FrameError(Reason.BAD_OP, f"restore in mode {op.body.get('mode')!r}: one of {', '.join(MODES)}")
    if not isinstance(epochs, Mapping) or not all(type(each) is int for each in epochs.values()):
        raise FrameError(Reason.BAD_OP, f"restore from epochs {epochs!r}: a whole number for each table")


def restore_body(body: Mapping[str, object], table: str) -> dict[str, object]:
    """Return what the shards of `table` see of a restore: their own epoch, or that the version lacks it."""
    epochs = body.get("from_epoch")
    assert isinstance(epochs, Mapping), "checked by `check_asked`"
    rest = {name: value for name, value in body.items() if name not in ("from_epoch", "absent")}
    return {**rest, "from_epoch": epochs[table]} if table in epochs else {**rest, "absent": True}


@dataclass(frozen=True, slots=True)
class Preparation:
    """The version that is to be loaded beside the live rows, and the op that asked for it."""

    op: int
    version: str


def preparation_text(op: Op, before: str) -> str:
    """Return the position's `prep` behind a `prepare`, which may give an earlier one, `before`, up.

    Who gives up names the op that asked; another one's preparation stays.
    """
    if not op.body.get("version"):
        current = preparation(before)
        return before if current is not None and op.body.get("prepare", current.op) != current.op else ""
    return orjson.dumps({**op.body, "op": op.origin.seq}, option=orjson.OPT_SORT_KEYS).decode()


def preparation(prep: str) -> Preparation | None:
    """Return what a position's `prep` says."""
    if not prep:
        return None
    body = orjson.loads(prep)
    return Preparation(int(body["op"]), str(body["version"]))
