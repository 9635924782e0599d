"""The embedded log: topics, appends, readers and committed offsets over SQLite files.

Invariant: an append that returned is in its partition file, committed, and survives
kill -9 of any process (not the loss of power: `synchronous=NORMAL`). Usable from
several event loops and threads of one process.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from driftline import clock as clocks
from driftline.errors import ConfigError, LogUnavailableError, OffsetError, StateError, UnknownTopicError
from driftline.log.base import Bounds, Outgoing, Reader
from driftline.log.limits import check_batch, check_name, check_partitions
from driftline.log.local import groups, layout, store
from driftline.log.local.checkpoint import Checkpointer
from driftline.log.local.heads import Heads
from driftline.log.local.lanes import Lane, Lanes
from driftline.log.local.reader import LocalReader
from driftline.log.local.watch import Watch

APPEND_LANES = 2
READ_LANES = 2
"""Appends and reads have lanes of their own: a reader never queues behind a waiting writer."""

T = TypeVar("T")


class LocalLog:
    """The log in a directory; see `driftline.log.base.Log`.

    `clock` gives the append time in seconds since the epoch.
    """

    def __init__(self, root: Path, clock: clocks.Clock = clocks.system) -> None:
        self._root = root.absolute()
        self._clock = clock
        self._topics: dict[str, tuple[layout.Topic, Heads]] = {}
        self._guard = threading.Lock()
        self._threads: _Threads | None = None
        self._watches: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def root(self) -> Path:
        """The directory, absolute."""
        return self._root

    async def start(self) -> None:
        """Create the directory unless it is there; raises ConfigError when that cannot be."""
        with _translated_os(self._root):
            layout.topics_directory(self._root).mkdir(parents=True, exist_ok=True)
        if self._threads is None:
            self._threads = _Threads()

    async def close(self) -> None:
        """Finish what was begun and close the files; a second call does nothing."""
        threads, self._threads = self._threads, None
        for watch in list(self._watches.values()):
            watch.close()
        if threads is not None and threads.pid == os.getpid():
            await asyncio.to_thread(threads.close)
        with self._guard:
            self._topics.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def topics(self) -> Mapping[str, int]:
        self._running()
        with _translated_os(self._root):
            return layout.list_topics(self._root)

    async def create_topic(self, topic: str, partitions: int) -> None:
        self._running()
        check_name("topic", topic)
        check_partitions(topic, partitions)
        with _translated_os(self._root):
            await asyncio.to_thread(layout.create_topic, self._root, topic, partitions)

    async def append(self, topic: str, partition: int, records: Sequence[Outgoing]) -> int:
        check_batch(topic, partition, records)
        found, heads = self._partition(topic, partition)
        threads, path = self._running(), found.file(partition)
        batch = tuple(records)
        threads.checkpoints.raise_failure(path)

        def run(connection: sqlite3.Connection) -> int:
            heads.wait_open(partition)
            first = store.append(connection, batch, int(self._clock() * 1000))
            heads.lift(partition, first + len(batch))
            threads.checkpoints.appended(path, heads, partition)
            return first

        return await _on(threads.append.of(topic, partition), path, run)

    async def bounds(self, topic: str, partition: int) -> Bounds:
        found, _ = self._partition(topic, partition)
        return await _on(self._running().read.of(topic, partition), found.file(partition), store.bounds)

    def reader(self, topic: str, partition: int, offset: int) -> Reader:
        self._partition(topic, partition)
        return LocalReader(self, topic, partition, offset)

    async def fetch(self, topic: str, partition: int, offset: int, max_bytes: int) -> store.Chunk:
        """Read records from `offset` on, in one snapshot; see `store.read`."""
        found, heads = self._partition(topic, partition)

        def run(connection: sqlite3.Connection) -> store.Chunk:
            heads.wait_open(partition)
            try:
                return store.read(connection, offset, max_bytes)
            except OffsetError as error:
                raise OffsetError(f"{topic}[{partition}]: {error}") from error

        return await _on(self._running().read.of(topic, partition), found.file(partition), run)

    async def trim(self, topic: str, partition: int, before: int) -> Bounds:
        """Drop the records below `before` for good and return what is left.

        The space is used again by later appends. Offsets go on where they were.
        """
        found, _ = self._partition(topic, partition)
        lane = self._running().append.of(topic, partition)
        bounds = await _on(lane, found.file(partition), lambda c: store.trim(c, before))
        while await _on(lane, found.file(partition), store.sweep):
            pass  # appends that wait in the lane get their turn in between
        return bounds

    def heads(self, topic: str) -> NDArray[np.uint64]:
        """Return the next offset of every partition, u64 (partitions,), without touching a file.

        A hint that may lag behind for up to 100 ms while someone waits in `wait_for_news`.
        """
        return self._topic(topic)[1].all()

    async def wait_for_news(self, topic: str, positions: Mapping[int, int], wait: float) -> bool:
        """Return True once some partition holds a record at or past its offset, False after `wait`.

        `positions`: partition -> offset of the next record wanted. Any number of partitions
        costs one look at shared memory every 1 to 4 ms.
        """
        self._running()
        heads = self._topic(topic)[1]
        return await self._watch().news(topic, heads, positions, wait)

    async def refresh(self, topic: str, partitions: Sequence[int]) -> None:
        """Bring the heads of `partitions` up to what the files hold."""
        read = self._running().read
        heads = self._topic(topic)[1]
        by_lane: dict[Lane, dict[int, Path]] = {}
        for partition in partitions:
            found, _ = self._partition(topic, partition)
            by_lane.setdefault(read.of(topic, partition), {})[partition] = found.file(partition)
        for lane, files in by_lane.items():
            ends = await asyncio.wrap_future(lane.submit_each(tuple(files.values()), store.end))
            for partition, end in zip(files, ends, strict=True):
                heads.lift(partition, end)

    async def commit(self, group: str, offsets: groups.Offsets) -> None:
        """Store the committed offsets of a consumer group; those not named stay."""
        await self._on_group(group, partial(groups.commit, offsets=dict(offsets)))

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Return the committed offsets of a consumer group, empty when there are none."""
        return await self._on_group(group, groups.committed)

    async def _on_group(self, group: str, action: Callable[[sqlite3.Connection], T]) -> T:
        path = groups.group_file(self._root, check_name("consumer group", group))
        return await _on(self._running().groups, path, action)

    def _running(self) -> _Threads:
        if self._threads is None:
            raise StateError(f"log local://{self._root} is not started, or closed: use `async with`")
        if self._threads.pid != os.getpid():
            raise ConfigError(
                f"log local://{self._root} was opened before this process was forked: "
                "open it after the fork, or start processes by the spawn method"
            )
        return self._threads

    def _topic(self, topic: str) -> tuple[layout.Topic, Heads]:
        known = self._topics.get(topic)
        if known is not None:
            return known
        self._running()
        check_name("topic", topic)
        with _translated_os(self._root), self._guard:
            found = layout.find_topic(self._root, topic)
            if found is None:
                raise UnknownTopicError(f"log local://{self._root} has no topic {topic!r}: create it first")
            return self._topics.setdefault(topic, (found, Heads(found.heads, found.partitions)))

    def _partition(self, topic: str, partition: int) -> tuple[layout.Topic, Heads]:
        found, heads = self._topic(topic)
        if not 0 <= partition < found.partitions:
            raise UnknownTopicError(
                f"topic {topic!r} has no partition {partition}: it has 0..{found.partitions - 1}"
            )
        return found, heads

    def _watch(self) -> Watch:
        loop = asyncio.get_running_loop()
        with self._guard:
            watch = self._watches.get(loop)
            if watch is None:
                watch = self._watches[loop] = Watch(self.refresh)
            return watch


class _Threads:
    def __init__(self) -> None:
        self.pid = os.getpid()
        self.append = Lanes("driftline-append", APPEND_LANES, store.open_partition)
        self.read = Lanes("driftline-read", READ_LANES, store.open_partition)
        self.groups = Lane("driftline-groups", groups.open_group)
        self.checkpoints = Checkpointer()

    def close(self) -> None:
        # The checkpointer last but for the appenders, whose last close checkpoints anyway.
        self.checkpoints.close()
        self.read.close()
        self.groups.close()
        self.append.close()


async def _on(lane: Lane, path: Path, action: Callable[[sqlite3.Connection], T]) -> T:
    return await asyncio.wrap_future(lane.submit(path, action))


@contextmanager
def _translated_os(root: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError, FileNotFoundError) as error:
        raise ConfigError(f"log local://{root}: {error}; check the directory and its permissions") from error
    except OSError as error:
        raise LogUnavailableError(f"log local://{root}: {error}") from error
