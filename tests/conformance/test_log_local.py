"""What only the embedded log has: trim, heads, committed offsets, full disks, forks."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from driftline.errors import ConfigError, InputError, LogUnavailableError, OffsetError, StateError
from driftline.log import Bounds, Outgoing, open_log
from driftline.log.local import LocalLog, checkpoint, connections, layout, store

if TYPE_CHECKING:
    from tests.conformance.conftest import Spawn

pytestmark = pytest.mark.asyncio

WAIT = 20.0
TOPIC = "t"


@pytest_asyncio.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalLog]:
    """A started local log with a topic of four partitions."""
    async with LocalLog(tmp_path / "log") as log:
        await log.create_topic(TOPIC, 4)
        yield log


def file_of(log: LocalLog, partition: int) -> Path:
    found = layout.find_topic(log.root, TOPIC)
    assert found is not None
    return found.file(partition)


async def append(log: LocalLog, partition: int, count: int, length: int = 10) -> int:
    return await log.append(TOPIC, partition, [Outgoing(b"v" * length)] * count)


async def test_trim_moves_begin_and_keeps_offsets(local: LocalLog) -> None:
    await append(local, 0, 10)
    assert await local.trim(TOPIC, 0, 4) == Bounds(4, 10)
    assert await local.bounds(TOPIC, 0) == Bounds(4, 10)
    assert [r.offset for r in await local.reader(TOPIC, 0, 4).read()] == list(range(4, 10))
    assert await append(local, 0, 1) == 10


async def test_a_trimmed_offset_is_out_of_range(local: LocalLog) -> None:
    await append(local, 0, 10)
    await local.trim(TOPIC, 0, 4)
    with pytest.raises(OffsetError, match=r"offset 3 .* holds \[4, 10\)"):
        await local.reader(TOPIC, 0, 3).read()


async def test_a_partition_trimmed_empty_goes_on_where_it_was(local: LocalLog) -> None:
    await append(local, 0, 3)
    assert await local.trim(TOPIC, 0, 99) == Bounds(3, 3)
    with pytest.raises(OffsetError):
        await local.reader(TOPIC, 0, 2).read()
    assert await append(local, 0, 1) == 3
    assert [r.offset for r in await local.reader(TOPIC, 0, 3).read()] == [3]


async def test_trim_never_moves_begin_back(local: LocalLog) -> None:
    await append(local, 0, 5)
    await local.trim(TOPIC, 0, 3)
    assert await local.trim(TOPIC, 0, 1) == Bounds(3, 5)


async def test_trim_deletes_the_rows_of_a_long_partition(local: LocalLog) -> None:
    await append(local, 0, 3 * store.SWEEP_RECORDS)
    await local.trim(TOPIC, 0, 3 * store.SWEEP_RECORDS - 5)
    connection = sqlite3.connect(file_of(local, 0))
    assert connection.execute("SELECT count(*) FROM log").fetchone() == (5,)
    connection.close()


async def test_heads_tell_the_next_offset_of_every_partition(local: LocalLog) -> None:
    await append(local, 1, 3)
    await append(local, 3, 1)
    heads = local.heads(TOPIC)
    assert heads.dtype == "uint64"
    assert heads.tolist() == [0, 3, 0, 1]


async def test_waiting_for_many_partitions_ends_with_the_first_news(local: LocalLog) -> None:
    waiting = asyncio.create_task(local.wait_for_news(TOPIC, dict.fromkeys(range(4), 0), WAIT))
    await asyncio.sleep(0)
    await append(local, 2, 1)
    assert await waiting
    assert await local.wait_for_news(TOPIC, {2: 1}, 0.01) is False


async def test_a_reader_wakes_though_the_writer_died_before_it_raised_the_head(local: LocalLog) -> None:
    reader = local.reader(TOPIC, 0, 0)
    assert list(await reader.read(wait=0.01)) == []
    waiting = asyncio.create_task(reader.read(wait=WAIT))
    await asyncio.sleep(0)
    other = store.open_partition(file_of(local, 0))
    store.append(other, [Outgoing(b"unannounced")], 1)
    connections.close(other)
    assert [r.value for r in await waiting] == [b"unannounced"]
    assert local.heads(TOPIC)[0] == 1


async def test_timestamps_hold_still_while_the_clock_goes_back(tmp_path: Path) -> None:
    times = iter([1000.0, 999.0, 1000.5])
    async with LocalLog(tmp_path, clock=lambda: next(times)) as log:
        await log.create_topic(TOPIC, 1)
        for _ in range(3):
            await append(log, 0, 1)
        records = await log.reader(TOPIC, 0, 0).read()
    assert [r.timestamp for r in records] == [1_000_000, 1_000_000, 1_000_500]


async def test_committed_offsets_are_kept_per_group(local: LocalLog, tmp_path: Path) -> None:
    await local.commit("g", {(TOPIC, 0): 5, (TOPIC, 1): 6})
    await local.commit("g", {(TOPIC, 1): 7})
    async with LocalLog(tmp_path / "log") as other:
        assert await other.committed("g") == {(TOPIC, 0): 5, (TOPIC, 1): 7}
        assert await other.committed("another") == {}
        with pytest.raises(InputError, match="consumer group"):
            await other.committed("../g")


async def test_a_full_disk_refuses_the_append_whole_and_the_log_recovers(
    local: LocalLog, tmp_path: Path, spawn: Spawn
) -> None:
    child = spawn("fill", f"local://{tmp_path}/log", TOPIC, 3_000_000)
    said, _ = await asyncio.to_thread(child.communicate, None, WAIT)
    appended, error, after = said.splitlines()
    assert int(appended) > 3
    assert "0.sqlite" in error
    assert int(after) == 4 * int(appended)
    assert await local.bounds(TOPIC, 0) == Bounds(0, 4 * int(appended) + 4)


async def test_a_lock_held_too_long_is_log_unavailable(
    local: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LOCK_TIMEOUT_S", 0.02)
    await append(local, 0, 1)
    blocker = sqlite3.connect(file_of(local, 0), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailableError, match="locked by another process"):
        await append(local, 0, 1)
    blocker.execute("ROLLBACK")
    blocker.close()
    assert await append(local, 0, 1) == 1


async def test_a_damaged_file_is_told_apart_from_a_busy_one(local: LocalLog) -> None:
    file_of(local, 0).write_bytes(b"not a database, surely" * 4000)
    with pytest.raises(StateError, match="damaged"):
        await append(local, 0, 1)


async def test_the_write_ahead_log_is_reset_once_it_is_large(
    local: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "CHECKPOINT_BYTES", 1 << 20)
    path, size, before = file_of(local, 0), 0, -1
    async with asyncio.timeout(WAIT):
        while size > before:  # until it is smaller than it was
            first = await append(local, 0, 4, 50_000)
            before, size = size, checkpoint.wal_bytes(path)
    assert [len(r.value) for r in await local.reader(TOPIC, 0, first).read()] == [50_000] * 4


async def test_a_log_serves_several_event_loops(local: LocalLog) -> None:
    found: list[bytes] = []

    async def elsewhere() -> None:
        found.extend(r.value for r in await local.reader(TOPIC, 0, 0).read(wait=WAIT))
        await local.append(TOPIC, 1, [Outgoing(b"back")])

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    await local.append(TOPIC, 0, [Outgoing(b"there")])
    assert [r.value for r in await local.reader(TOPIC, 1, 0).read(wait=WAIT)] == [b"back"]
    thread.join(WAIT)
    assert found == [b"there"]


async def test_a_forked_child_is_refused_and_the_parent_undisturbed(
    local: LocalLog, tmp_path: Path, spawn: Spawn
) -> None:
    child = spawn("fork", f"local://{tmp_path}/log", TOPIC)
    said, _ = await asyncio.to_thread(child.communicate, None, WAIT)
    refusals, last = said.splitlines()[:-1], said.splitlines()[-1]
    assert [line.startswith("refused") and "fork" in line for line in refusals] == [True, True]
    assert last == "1"
    assert await local.bounds(TOPIC, 0) == Bounds(0, 2)


async def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file"):
        await open_log(f"local://{tmp_path}/file").start()


async def test_a_log_not_started_says_so(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="not started"):
        await open_log(f"local://{tmp_path}").topics()
