"""An object store in memory that fails on command, with a clock that tests turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from driftline.errors import ObjectExistsError, ObjectMissingError, ObjectStoreUnavailableError
from driftline.versions.stores import STAGING, ObjectInfo, checked_key


class FakeObjects:
    """Passes the conformance suite of the real stores."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.objects: dict[str, tuple[bytes, float]] = {}

    @property
    def url(self) -> str:
        return "fake://"

    def copy(self) -> FakeObjects:
        again = FakeObjects(self.now)
        again.objects = dict(self.objects)
        return again

    def create(self, key: str, data: bytes) -> None:
        if checked_key(key) in self.objects:
            raise ObjectExistsError(key)
        self.objects[key] = (bytes(data), self.now())

    def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissingError(key)
        return self.objects[key][0]

    def get_ranges(self, key: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        data = self.get(key)
        return [data[start:end] for start, end in zip(starts, ends, strict=True)]

    def head(self, key: str) -> ObjectInfo | None:
        if key not in self.objects:
            return None
        data, modified = self.objects[key]
        return ObjectInfo(key, len(data), modified)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        for key, (data, modified) in list(self.objects.items()):
            if key.startswith(folder):
                yield ObjectInfo(key, len(data), modified)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.objects.pop(key, None)

    def local_path(self, key: str) -> Path | None:
        return None


class Fault(Enum):
    """What goes wrong with one operation."""

    BEFORE = "fails before it takes effect"
    LOST = "takes effect, but the reply is lost"
    TORN = "is cut off half-way"
    DOWN = "fails, and so does all that follows"


@dataclass
class FaultyObjects:
    """Passes operations on to `inner`, except that operation number `at` meets a fault."""

    inner: FakeObjects
    fault: Fault = Fault.BEFORE
    at: int = -1
    count: int = 0

    @property
    def url(self) -> str:
        return self.inner.url

    def create(self, key: str, data: bytes) -> None:
        if self._now():
            if self.fault is Fault.TORN:  # as local files tear: in the folder where nobody looks
                self.inner.create(f"{STAGING}/{self.count}", data[: len(data) // 2])
            if self.fault is Fault.LOST:
                self.inner.create(key, data)
            self._fail(key)
        self.inner.create(key, data)

    def get(self, key: str) -> bytes:
        self._read(key)
        return self.inner.get(key)

    def get_ranges(self, key: str, starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        self._read(key)
        return self.inner.get_ranges(key, starts, ends)

    def head(self, key: str) -> ObjectInfo | None:
        self._read(key)
        return self.inner.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._read(prefix)
        return self.inner.list(prefix)

    def delete(self, keys: Sequence[str]) -> None:
        if self._now():
            if self.fault is Fault.TORN:
                self.inner.delete(keys[: len(keys) // 2])
            if self.fault is Fault.LOST:
                self.inner.delete(keys)
            self._fail(", ".join(keys))
        self.inner.delete(keys)

    def local_path(self, key: str) -> Path | None:
        return None

    def _read(self, key: str) -> None:
        if self._now():
            self._fail(key)

    def _now(self) -> bool:
        number, self.count = self.count, self.count + 1
        return number == self.at or (self.fault is Fault.DOWN and 0 <= self.at < number)

    def _fail(self, key: str) -> None:
        raise ObjectStoreUnavailableError(f"operation {self.count - 1} on {key} {self.fault.value}")
