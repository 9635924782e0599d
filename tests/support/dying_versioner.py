"""A versioner that dies by SIGKILL in the middle of a commit: `python -m tests.support.dying_versioner`.

`DRIFTLINE_TESTS_DIE_AT` is the number of changes to the object store, from the first segment of a
barrier on, after which it dies. `DRIFTLINE_TESTS_DIE_IN_ROLLBACK` is the moment of a node roll-back at
which it dies: see MOMENTS. Nothing of the product knows of either.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from driftline.config import Settings, load_settings
from driftline.versions import Repository, group_url, open_repository, open_store
from driftline.versions.stores import ObjectInfo, ObjectStore
from driftline_services.chassis import run_worker
from driftline_services.versioner.app import versioner_app
from driftline_services.versioner.node_rollback import NodeRollbacks


class DyingStore:
    """Passes everything on; dies after change number `at`, behind which nothing of this process happens."""

    def __init__(self, inner: ObjectStore, at: int) -> None:
        self._inner, self._left = inner, at
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
        self._begun = self._begun or "/op-" in key
        if self._begun:
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1


def opening(settings: Settings) -> Repository:
    store = open_store(group_url(settings.store_url, settings.group, settings.data_dir))
    dying = DyingStore(store, int(os.environ.get("DRIFTLINE_TESTS_DIE_AT", "-1")))
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


if __name__ == "__main__":
    if (moment := os.environ.get("DRIFTLINE_TESTS_DIE_IN_ROLLBACK")) is not None:
        name, dying_at = MOMENTS[moment]
        setattr(NodeRollbacks, name, dying_at(getattr(NodeRollbacks, name)))
    found = load_settings({}, cwd=Path.cwd(), environ=os.environ).settings
    sys.exit(run_worker(lambda: versioner_app(found, opening)))
