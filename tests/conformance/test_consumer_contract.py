"""The contract of the chassis, held over both transports.

Whatever happens to a worker, each record has exactly one effect, in order per
partition, and the position in the handler's own store says where to go on.
"""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from driftline.errors import PositionError, TimedOutError
from driftline.log import LocalAddress, Log, parse_address
from driftline.log.local import LocalLog
from driftline_services.chassis import (
    TopicPartition,
)
from tests.conformance.consumer_recorder import SETTINGS, Recorder, Store
from tests.conformance.consumer_scene import (
    PARTITIONS,
    PATIENCE,
    Workers,
    assert_exactly_once,
    exit_status,
    log,
    name,
    running,
    send,
    store,
    topic,
    until,
    url,
    workers,
)

__all__ = ["log", "name", "store", "topic", "url", "workers"]  # fixtures


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


async def test_a_position_outside_the_log_stops_the_worker(
    url: str, log: Log, topic: str, name: str, store: Store
) -> None:
    await send(log, topic, 10)
    store.rewind(TopicPartition(topic, 0), 11)
    with pytest.raises(PositionError, match=topic):
        async with running(url, name, [topic], Recorder(store)) as app:
            await until(lambda: app.chassis.error is not None or app.crashed, "the worker has stopped")
    assert store.position(TopicPartition(topic, 0)) == 11


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
