"""A versioner that dies by SIGKILL in the middle of a commit: `python -m tests.support.dying_versioner`.

`DRIFTLINE_TESTS_DIE_AT` is the number of changes to the object store, from the first segment of a
barrier on, after which it dies; nothing of the product knows of it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from driftline.config import Settings, load_settings
from driftline.versions import Repository, group_url, open_repository, open_store
from driftline.versions.stores import ObjectInfo, ObjectStore
from driftline_services.chassis import run_worker
from driftline_services.versioner.app import versioner_app


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
    dying = DyingStore(store, int(os.environ["DRIFTLINE_TESTS_DIE_AT"]))
    return open_repository(dying, settings.group)


if __name__ == "__main__":
    found = load_settings({}, cwd=Path.cwd(), environ=os.environ).settings
    sys.exit(run_worker(lambda: versioner_app(found, opening)))
