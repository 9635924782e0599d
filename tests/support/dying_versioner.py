"""A versioner that dies by SIGKILL in the middle of a commit: `python -m tests.support.dying_versioner`.

`DRIFTLINE_TESTS_DIE_AT` is the number of changes to the object store after which it dies, counted from
the first one whose key contains `DRIFTLINE_TESTS_DIE_FROM`: a barrier's first segment, unless it says
otherwise. `DRIFTLINE_TESTS_DIE_IN_ROLLBACK` is the moment of a node roll-back at which it dies, and
`DRIFTLINE_TESTS_DIE_IN_RESTORE` that of a restore: see MOMENTS. Nothing of the product knows of them.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftline.config import Settings, load_settings
from driftline.frames.events import PREPARE, RESTORE
from driftline.frames.states import Marker
from driftline.versions import Repository, group_url, open_repository, open_store
from driftline.versions.stores import ObjectInfo, ObjectStore
from driftline_services.chassis import run_worker
from driftline_services.versioner import core
from driftline_services.versioner.app import versioner_app
from driftline_services.versioner.core import Versioner
from driftline_services.versioner.cutting import Arrival, GroupCut
from driftline_services.versioner.node_rollback import NodeRollbacks
from driftline_services.versioner.shards import CHECKOUT, ROLLBACK, Cut, ShardState
from driftline_services.versioner.works import Works


class DyingStore:
    """Passes everything on; dies after change number `at`, behind which nothing of this process happens."""

    def __init__(self, inner: ObjectStore, at: int, first: str) -> None:
        self._inner, self._left, self._first = inner, at, first
        self._begun = False

    @property
    def url(self) -> str:
        return self._inner.url

    def create(self, key: str, data: bytes) -> None:
        self._inner.create(key, data)
        self._changed(key)

    def delete(self, keys: Sequence[str]) -> None:
        self._inner.delete(keys)
        self._changed(",".join(keys))

    def get(self, key: str) -> bytes:
        return self._inner.get(key)

    def get_ranges(self, key: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        return self._inner.get_ranges(key, starts, ends)

    def head(self, key: str) -> ObjectInfo | None:
        return self._inner.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._inner.list(prefix)

    def local_path(self, key: str) -> Path | None:
        return self._inner.local_path(key)

    def _changed(self, key: str) -> None:
        self._begun = self._begun or self._first in key
        if self._begun:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1


def opening(settings: Settings) -> Repository:
    store = open_store(group_url(settings.store_url, settings.group, settings.data_dir))
    first = os.environ.get("DRIFTLINE_TESTS_DIE_FROM", "/op-")
    dying = DyingStore(store, int(os.environ.get("DRIFTLINE_TESTS_DIE_AT", "-1")), first)
    return open_repository(dying, settings.group)


Step = Callable[..., Awaitable[Any]]


def dying_before(step: Step) -> Step:
    """Return `step`, which never begins."""

    async def dies(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    return dies


def dying_after(step: Step) -> Step:
    """Return `step`, behind which nothing happens."""

    async def dies(*arguments: object) -> None:
        await step(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    return dies


MOMENTS: Mapping[str, tuple[str, Callable[[Step], Step]]] = {
    "request read": ("_carry_out", dying_before),
    "rows read": ("_ask", dying_before),
    "first op asked for": ("_append", dying_after),
    "ops asked for": ("_ask", dying_after),
    "answered": ("_carry_out", dying_after),
}
"""Moment of a node roll-back -> the step of NodeRollbacks, and on which side of it the process dies."""


def concerns_restore(arguments: tuple[object, ...]) -> bool:
    """Tell whether a step is about a restore, or what becomes of one."""
    for each in arguments:
        cut = each.cut if isinstance(each, GroupCut | Arrival) else each
        if isinstance(cut, Cut) and cut.kind in (ROLLBACK, CHECKOUT):
            return True
        if isinstance(each, Marker) and each.kind == RESTORE:
            return True
    return False


def concerns_prepare(arguments: tuple[object, ...]) -> bool:
    """Tell whether a step is about the marker of a prepare."""
    return any(isinstance(each, Marker) and each.kind == PREPARE for each in arguments)


@dataclass(frozen=True, slots=True)
class Moment:
    """A step behind which the process dies, if it concerns a prepare or restore."""

    owner: object
    step: str
    concerns: Callable[[tuple[object, ...]], bool] = concerns_restore

    def plant(self) -> None:
        """Have the process die there."""
        real = getattr(self.owner, self.step)

        def die(arguments: tuple[object, ...]) -> None:
            if self.concerns(arguments):
                os.kill(os.getpid(), signal.SIGKILL)

        @functools.wraps(real)
        def plain(*arguments: Any) -> Any:
            result = real(*arguments)
            die(arguments)
            return result

        @functools.wraps(real)
        async def waits(*arguments: Any) -> Any:
            result = await real(*arguments)
            die(arguments)
            return result

        setattr(self.owner, self.step, waits if inspect.iscoroutinefunction(real) else plain)


RESTORE_MOMENTS: Mapping[str, Moment] = {
    "prepare read": Moment(ShardState, "take", concerns_prepare),
    "restore read": Moment(ShardState, "take"),
    "shard put back": Moment(core, "put_back"),
    "shard waits for the others": Moment(GroupCut, "arrive"),
    "shard sealed": Moment(Works, "seal"),
    "committed": Moment(Works, "commit"),
    "told": Moment(Versioner, "_tell"),
    "tidied up": Moment(Works, "tidy"),
}
"""Moment of a prepare and restore -> the step behind which the process dies."""


if __name__ == "__main__":
    if (moment := os.environ.get("DRIFTLINE_TESTS_DIE_IN_ROLLBACK")) is not None:
        name, dying_at = MOMENTS[moment]
        setattr(NodeRollbacks, name, dying_at(getattr(NodeRollbacks, name)))
    if (moment := os.environ.get("DRIFTLINE_TESTS_DIE_IN_RESTORE")) is not None:
        RESTORE_MOMENTS[moment].plant()
    found = load_settings({}, cwd=Path.cwd(), environ=os.environ).settings
    sys.exit(run_worker(lambda: versioner_app(found, opening)))
