"""The contract of the chassis, held over both transports.

Whatever happens to a worker, each record has exactly one effect, in order per
partition, and the position in the handler's own store says where to go on.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from driftline.errors import PositionError, TimedOutError
from driftline.log import LocalAddress, Log, Outgoing, open_log, parse_address
from driftline.log.local import LocalLog
from driftline_services.chassis import (
    Batch,
    ChassisApp,
    ChassisSettings,
    Handler,
    TopicPartition,
    make_app,
    serve,
)
from tests.conformance.consumer_recorder import SETTINGS, Recorder, Store
from tests.support import kafka_admin

PARTITIONS = 4
PATIENCE = 40.0  # seconds until a condition counts as never met


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return f"local://{tmp_path / 'log'}"
    return str(request.getfixturevalue("kafka_url"))


@pytest.fixture
async def log(url: str) -> AsyncIterator[Log]:
    async with open_log(url) as opened:
        yield opened


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def topic(log: Log, name: str) -> str:
    await log.create_topic(name, PARTITIONS)
    return name


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


class Workers:
    """Worker processes of one test."""

    def __init__(self, url: str, group: str, directory: Path) -> None:
        self._arguments = (url, group, str(directory / "store.sqlite"))
        self._directory = directory
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, worker: str, topic: str, *options: str) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("consumer_recorder.py")
        with (self._directory / f"{worker}.err").open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, str(script), *self._arguments, worker, topic, *options], stderr=errors
            )
        self.running.append(process)
        return process


@pytest.fixture
def workers(url: str, name: str, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(url, name, tmp_path)
    yield made
    for process in made.running:
        process.kill()
        process.wait()
    for errors in sorted(tmp_path.glob("*.err")):
        print(f"--- {errors.name}\n{errors.read_text()}")  # shown when the test fails


async def send(log: Log, topic: str, count: int, first: int = 0, size: int = 0) -> None:
    """Append `count` numbered records to every partition."""
    for partition in range(PARTITIONS):
        for start in range(first, first + count, 100):
            numbers = range(start, min(start + 100, first + count))
            records = [Outgoing(b"%d" % number + b"." * size) for number in numbers]
            for some in [records] if size < 1000 else [[record] for record in records]:
                await log.append(topic, partition, some)


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.02)


async def _applied(store: Store, tp: TopicPartition, position: int) -> None:
    await until(lambda: store.position(tp) >= position, f"{tp} is applied up to {position}")


async def exit_status(process: subprocess.Popen[bytes]) -> int:
    await until(lambda: process.poll() is not None, "the worker ends")
    return process.returncode


@asynccontextmanager
async def running(
    url: str, group: str, topics: list[str], handler: Handler, settings: ChassisSettings = SETTINGS
) -> AsyncIterator[ChassisApp]:
    app = make_app(group, url, topics, handler, settings=settings)
    stop = asyncio.Event()
    served = asyncio.create_task(serve(app, stop))
    try:
        yield app
    finally:
        stop.set()
        await served


def assert_exactly_once(store: Store, topic: str, count: int, size: int = 0) -> None:
    for partition in range(PARTITIONS):
        values = store.values(TopicPartition(topic, partition))
        assert values == [b"%d" % number + b"." * size for number in range(count)]


async def test_every_record_has_one_effect_in_order(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    await send(log, topic, 500)
    async with running(url, name, [topic], Recorder(store)):
        await until(lambda: store.count() == PARTITIONS * 500, "the backlog is applied")
        await send(log, topic, 100, first=500)
        await until(lambda: store.count() == PARTITIONS * 600, "what comes later is applied")
    assert_exactly_once(store, topic, 600)


async def test_a_second_worker_takes_its_share_and_gives_it_back(
    log: Log, topic: str, store: Store, workers: Workers
) -> None:
    workers.start("a", topic)
    await until(lambda: store.share("a") == PARTITIONS, "a owns everything")
    await send(log, topic, 300)
    second = workers.start("b", topic)
    await until(lambda: store.share("a") == store.share("b") == PARTITIONS // 2, "both own a half")
    await send(log, topic, 300, first=300)
    await until(lambda: store.count(worker="b") > 0, "b applies")
    second.send_signal(signal.SIGTERM)
    assert await exit_status(second) == 0
    await until(lambda: store.share("a") == PARTITIONS, "a owns everything again")
    await send(log, topic, 100, first=600)
    await until(lambda: store.count() == PARTITIONS * 700, "everything is applied")
    assert_exactly_once(store, topic, 700)


async def test_a_killed_worker_loses_and_repeats_nothing(
    log: Log, topic: str, store: Store, workers: Workers
) -> None:
    victim = workers.start("a", topic, "--delay", "0.005")
    workers.start("b", topic, "--delay", "0.005")
    await until(lambda: store.share("a") == store.share("b") == PARTITIONS // 2, "both own a half")
    await send(log, topic, 300)
    await until(lambda: store.count(worker="a") > 0, "a applies")
    victim.send_signal(signal.SIGKILL)
    await send(log, topic, 300, first=300)
    await until(lambda: store.count() == PARTITIONS * 600, "b has taken over")
    assert_exactly_once(store, topic, 600)


async def test_a_restarted_worker_goes_on_from_the_stored_position(
    log: Log, topic: str, store: Store, workers: Workers
) -> None:
    await send(log, topic, 200)
    first = workers.start("a", topic)
    await until(lambda: store.count() > 0, "a applies")
    first.send_signal(signal.SIGKILL)
    await exit_status(first)
    await send(log, topic, 200, first=200)
    workers.start("b", topic)
    await until(lambda: store.count() == PARTITIONS * 400, "b has applied the rest")
    assert_exactly_once(store, topic, 400)


async def test_sigterm_releases_and_ends_with_status_0(
    log: Log, topic: str, store: Store, workers: Workers
) -> None:
    await send(log, topic, 50)
    process = workers.start("a", topic, "--buffer")
    buffered = PARTITIONS * 50
    await until(
        lambda: sum(n for what, n in store.calls("a") if what == "buffered") == buffered, "a holds everything"
    )
    assert store.count() == 0
    process.send_signal(signal.SIGTERM)
    assert await exit_status(process) == 0
    assert [what for what, _ in store.calls("a")][-2:] == ["release", "closed"]
    assert_exactly_once(store, topic, 50)


async def test_sigterm_ends_a_worker_that_still_waits_for_its_topic(
    name: str, store: Store, workers: Workers, log: Log, tmp_path: Path
) -> None:
    process = workers.start("a", name)
    await until((tmp_path / "a.err").exists, "a is started")
    await until(lambda: process.poll() is None, "a runs")
    await log.create_topic(f"{name}-ready", 1)
    marker = workers.start("b", f"{name}-ready")
    await until(lambda: store.share("b") == 1, "a, started before, had the time to start too")
    for running_process in (process, marker):
        running_process.send_signal(signal.SIGTERM)
        assert await exit_status(running_process) == 0


async def test_a_raising_handler_ends_the_worker_and_nothing_is_lost(
    log: Log, topic: str, store: Store, workers: Workers
) -> None:
    await send(log, topic, 100)
    process = workers.start("a", topic, "--raise-at", "150")
    await until(lambda: store.count() == PARTITIONS * 100, "a has applied what came before")
    await send(log, topic, 100, first=100)
    assert await exit_status(process) == 1
    assert ("release", PARTITIONS) not in store.calls("a")
    workers.start("b", topic)
    await until(lambda: store.count() == PARTITIONS * 200, "b has applied the rest")
    assert_exactly_once(store, topic, 200)


async def test_a_failing_load_ends_the_worker(url: str, topic: str, name: str, store: Store) -> None:
    class Failing(Recorder):
        async def load(self, partitions: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
            raise RuntimeError("no store")

    with pytest.raises(RuntimeError, match="no store"):
        async with running(url, name, [topic], Failing(store)) as app:
            await until(lambda: app.chassis.error is not None, "the load has failed")


async def test_a_slow_partition_holds_up_neither_the_others_nor_the_membership(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    slow = TopicPartition(topic, 0)
    gate = asyncio.Event()
    most = 0

    class Slow(Recorder):
        async def apply(self, batch: Batch) -> None:
            nonlocal most
            most = max(most, app.chassis.budget.used)
            if batch.tp == slow:
                await gate.wait()
            await super().apply(batch)

    settings = replace(
        SETTINGS, max_poll_interval=2.0, fetch_bytes=16 << 10, lane_bytes=64 << 10, buffer_bytes=512 << 10
    )
    handler = Slow(store)
    async with running(url, name, [topic], handler, settings) as app:
        await send(log, topic, 2000, size=500)  # 1 MB per partition
        others = (PARTITIONS - 1) * 2000
        await until(lambda: store.count() == others, "the other partitions are done")
        waited = time.monotonic() + 2 * settings.max_poll_interval
        await until(lambda: time.monotonic() > waited, "time enough for an eviction has passed")
        gate.set()
        await until(lambda: store.count() == PARTITIONS * 2000, "the slow one is done too")
        assert store.calls("w") == [("load", PARTITIONS)]
    assert most < 1 << 20
    assert_exactly_once(store, topic, 2000, size=500)


async def test_everything_blocked_stays_within_the_buffer_and_in_the_group(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    gate = asyncio.Event()

    class Blocked(Recorder):
        async def apply(self, batch: Batch) -> None:
            await gate.wait()
            await super().apply(batch)

    settings = replace(SETTINGS, max_poll_interval=2.0, fetch_bytes=16 << 10, buffer_bytes=64 << 10)
    async with running(url, name, [topic], Blocked(store), settings) as app:
        await send(log, topic, 2000, size=500)
        await until(lambda: app.chassis.budget.used >= 64 << 10, "the buffer is full")
        waited = time.monotonic() + 2 * settings.max_poll_interval
        await until(lambda: time.monotonic() > waited, "time enough for an eviction has passed")
        assert app.chassis.budget.used < 128 << 10
        gate.set()
        await until(lambda: store.count() == PARTITIONS * 2000, "everything is applied")
        assert store.calls("w") == [("load", PARTITIONS)]
    assert_exactly_once(store, topic, 2000, size=500)


async def test_a_handler_that_lost_its_cache_seeks_back(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    lost = TopicPartition(topic, 1)

    class Forgetful(Recorder):
        times = 0

        async def apply(self, batch: Batch) -> None:
            if batch.tp == lost and batch.start >= 200 and self.times < 3:
                self.times += 1
                self.store.rewind(lost, 50 * self.times)
                self.flow.seek(lost, 50 * self.times)
            else:
                await super().apply(batch)

    handler = Forgetful(store)
    async with running(url, name, [topic], handler):
        for first in range(0, 800, 100):
            await send(log, topic, 100, first=first)
            await _applied(store, TopicPartition(topic, 0), first + 100)
        await until(lambda: store.count() == PARTITIONS * 800, "everything is applied")
    assert handler.times == 3
    assert_exactly_once(store, topic, 800)


async def test_a_seek_during_a_slow_apply_drops_what_is_queued(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    lost = TopicPartition(topic, 2)
    handler = Recorder(store, delay=0.02)
    settings = replace(SETTINGS, fetch_bytes=1 << 10)
    async with running(url, name, [topic], handler, settings) as app:
        await send(log, topic, 1000)
        for position in (300, 100, 0):
            await _applied(store, lost, position + 1)
            await app.chassis.hold(lost)  # no apply in hand from here on
            store.rewind(lost, position)
            app.chassis.resume(lost, position)
        handler.delay = 0.0
        await until(lambda: store.count() == PARTITIONS * 1000, "everything is applied")
    assert_exactly_once(store, topic, 1000)


async def test_a_held_partition_rests_until_resumed_while_others_go_on(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    held = TopicPartition(topic, 3)
    async with running(url, name, [topic], Recorder(store)) as app:
        await send(log, topic, 100)
        await until(lambda: store.count() == PARTITIONS * 100, "the first are applied")
        await app.chassis.hold(held)
        await send(log, topic, 100, first=100)
        await until(lambda: store.count() == PARTITIONS * 200 - 100, "the others go on")
        assert store.position(held) == 100
        await app.chassis.resume(held, store.position(held))
        await until(lambda: store.count() == PARTITIONS * 200, "the held one catches up")
    assert_exactly_once(store, topic, 200)


async def test_a_partition_left_out_by_load_is_held(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    out = TopicPartition(topic, 0)

    class Careful(Recorder):
        async def load(self, partitions: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
            return {tp: p for tp, p in (await super().load(partitions)).items() if tp != out}

    await send(log, topic, 100)
    async with running(url, name, [topic], Careful(store)) as app:
        await until(lambda: store.count() == (PARTITIONS - 1) * 100, "the others are applied")
        assert store.position(out) == 0
        app.chassis.resume(out, 0)
        await until(lambda: store.count() == PARTITIONS * 100, "the one left out is applied")
    assert_exactly_once(store, topic, 100)


async def test_a_topic_can_be_added_while_running(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    added = f"{name}-added"
    async with running(url, name, [topic], Recorder(store)) as app:
        await send(log, topic, 100)
        await until(lambda: store.count(topic) == PARTITIONS * 100, "the first topic is applied")
        await app.chassis.subscribe([added])  # does not exist yet
        await log.create_topic(added, PARTITIONS)
        await send(log, added, 100)
        await send(log, topic, 100, first=100)
        await until(lambda: store.count(added) == PARTITIONS * 100, "the new topic is applied")
        await until(lambda: store.count(topic) == PARTITIONS * 200, "the first one goes on")
    assert_exactly_once(store, added, 100)
    assert_exactly_once(store, topic, 200)


async def test_a_topic_may_be_missing_at_the_start(url: str, log: Log, name: str, store: Store) -> None:
    async with running(url, name, [name], Recorder(store)):
        await log.create_topic(name, PARTITIONS)
        await send(log, name, 100)
        await until(lambda: store.count() == PARTITIONS * 100, "the late topic is applied")
    assert (await log.topics())[name] == PARTITIONS
    assert_exactly_once(store, name, 100)


async def test_records_larger_than_a_fetch_come_through(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    size = 700_000
    settings = replace(SETTINGS, fetch_bytes=64 << 10, lane_bytes=64 << 10, buffer_bytes=256 << 10)
    async with running(url, name, [topic], Recorder(store), settings):
        await send(log, topic, 8, size=size)
        await until(lambda: store.count() == PARTITIONS * 8, "everything is applied")
    assert_exactly_once(store, topic, 8, size=size)


async def test_a_position_outside_the_log_stops_the_worker(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    await send(log, topic, 10)
    store.rewind(TopicPartition(topic, 0), 11)
    with pytest.raises(PositionError, match=topic):
        async with running(url, name, [topic], Recorder(store)) as app:
            await until(lambda: app.chassis.error is not None or app.crashed, "the worker has stopped")
    assert store.position(TopicPartition(topic, 0)) == 11


class Losing(Recorder):
    """Goes on without partitions whose log was cut off under them; partition 0 waits for `gate`."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.losses: list[tuple[TopicPartition, str]] = []
        self.gate = asyncio.Event()

    async def apply(self, batch: Batch) -> None:
        if batch.partition == 0:
            await self.gate.wait()
        await super().apply(batch)

    async def lost(self, tp: TopicPartition, error: PositionError) -> None:
        self.losses.append((tp, str(error)))


async def cut_off(url: str, topic: str, partition: int, before: int) -> None:
    address = parse_address(url)
    if isinstance(address, LocalAddress):
        async with LocalLog(address.root) as log:
            await log.trim(topic, partition, before)
    else:
        await asyncio.to_thread(kafka_admin.expire, url, topic, partition, before)


async def test_a_log_cut_off_under_a_running_worker_costs_it_that_partition_only(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    handler, tp = Losing(store), TopicPartition(topic, 0)
    settings = replace(SETTINGS, fetch_bytes=64 << 10, lane_batches=1, stream_batches=1)
    await send(log, topic, 60, size=30_000)
    async with running(url, name, [topic], handler, settings) as app:
        for partition in range(1, PARTITIONS):
            await _applied(store, TopicPartition(topic, partition), 60)
        await cut_off(url, topic, 0, 55)
        handler.gate.set()
        await until(lambda: bool(handler.losses), "the loss is reported")
        await send(log, topic, 10, first=60)
        for partition in range(1, PARTITIONS):
            await _applied(store, TopicPartition(topic, partition), 70)
        lost_at = store.position(tp)
        assert [(lost, str(lost_at) in text, "relog" in text) for lost, text in handler.losses] == [
            (tp, True, True)
        ]
        assert lost_at < 55  # what had been fetched before was applied, and nothing was skipped
        store.rewind(tp, 55)
        handler.flow.resume(tp, 55)
        await _applied(store, tp, 70)
        assert app.chassis.error is None


async def test_a_position_outside_the_log_is_reported_for_its_partition(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    handler, tp = Losing(store), TopicPartition(topic, 1)
    handler.gate.set()
    await send(log, topic, 10)
    async with running(url, name, [topic], handler):
        await _applied(store, tp, 10)
        handler.flow.seek(tp, 1000)
        await until(lambda: bool(handler.losses), "the loss is reported")
        await send(log, topic, 10, first=10)
        await _applied(store, TopicPartition(topic, 2), 20)
        assert [lost for lost, _ in handler.losses] == [tp]
        assert store.position(tp) == 10


async def committed(url: str, group: str) -> dict[tuple[str, int], int]:
    """What the log holds for the group, read past the chassis."""
    address = parse_address(url)
    if isinstance(address, LocalAddress):
        async with LocalLog(address.root) as log:
            return await log.committed(group)
    admin = AIOKafkaAdminClient(bootstrap_servers=list(address.servers))
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group)
        return {(tp.topic, tp.partition): meta.offset for tp, meta in offsets.items()}
    finally:
        await admin.close()


async def test_durable_positions_are_committed_to_the_group_as_a_hint(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    await send(log, topic, 100)
    async with running(url, name, [topic], Recorder(store)):
        await until(lambda: store.count() == PARTITIONS * 100, "everything is applied")
    assert await committed(url, name) == {(topic, partition): 100 for partition in range(PARTITIONS)}


async def test_the_committed_offset_is_not_believed(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    class Bold(Recorder):
        async def load(self, partitions: frozenset[TopicPartition]) -> dict[TopicPartition, int]:
            loaded = await super().load(partitions)
            for tp in partitions:
                self.flow.hint(tp, 100)  # claims more than it has
            return dict(loaded)

    await send(log, topic, 100)

    async def boast() -> None:
        settings = replace(SETTINGS, drain_timeout=0.1)
        async with running(url, name, [topic], Bold(store, delay=PATIENCE), settings) as app:
            await until(lambda: app.chassis.budget.used > 0, "something is in hand")
            await app.consumer.commit()

    with pytest.raises(TimedOutError):  # stopped in the middle of its first batch
        await boast()
    assert (await committed(url, name))[topic, 0] == 100
    async with running(url, name, [topic], Recorder(store)):
        await until(lambda: store.count() == PARTITIONS * 100, "everything is applied")
    assert_exactly_once(store, topic, 100)


async def test_a_frozen_worker_that_wakes_up_does_no_harm(
    url: str, log: Log, topic: str, store: Store, workers: Workers
) -> None:
    if not url.startswith("kafka"):
        pytest.skip("a frozen process keeps its file locks, and so its partitions")
    frozen = workers.start("a", topic, "--delay", "0.005")
    workers.start("b", topic)
    await until(lambda: store.share("a") == store.share("b") == PARTITIONS // 2, "both own a half")
    await send(log, topic, 300)
    await until(lambda: store.count(worker="a") > 0, "a applies")
    frozen.send_signal(signal.SIGSTOP)
    await send(log, topic, 300, first=300)
    await until(lambda: store.count() == PARTITIONS * 600, "b has taken over")
    frozen.send_signal(signal.SIGCONT)
    await send(log, topic, 100, first=600)
    await until(lambda: store.count() == PARTITIONS * 700, "the rest is applied by whoever owns it")
    assert_exactly_once(store, topic, 700)


async def test_a_static_member_that_comes_back_causes_no_rebalance(
    url: str, log: Log, topic: str, store: Store, workers: Workers
) -> None:
    if not url.startswith("kafka"):
        pytest.skip("membership of the embedded log needs no names: the kernel frees a dead member's locks")
    workers.start("a", topic, "--instance", "one")
    victim = workers.start("b", topic, "--instance", "two")
    await until(lambda: store.share("a") == store.share("b") == PARTITIONS // 2, "both own a half")
    before = store.calls("a")
    victim.send_signal(signal.SIGKILL)
    await exit_status(victim)
    workers.start("c", topic, "--instance", "two")
    await until(lambda: store.share("c") == PARTITIONS // 2, "c has the share of b")
    await send(log, topic, 100)
    await until(lambda: store.count() == PARTITIONS * 100, "everything is applied")
    assert store.calls("a") == before
    assert_exactly_once(store, topic, 100)
