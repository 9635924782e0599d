"""Where the ingest router goes on, and when it must not."""

from __future__ import annotations

from pathlib import Path

import pytest

from driftline import topics
from driftline.errors import PositionError
from tests.support.ingest_setting import GROUP, TOPIC, Doubtful, Setting, gradient, setting

__all__ = ["setting"]  # a fixture


async def test_without_a_stored_position_forwarding_begins_at_the_begin_of_the_log(setting: Setting) -> None:
    await setting.send(gradient(1))
    assert await setting.router().start(0) == 0


async def test_a_router_goes_on_behind_what_is_acknowledged(setting: Setting) -> None:
    await setting.router().forward(await setting.send(gradient(1), gradient(2)))
    await setting.send(gradient(3))
    assert await setting.router().start(0) == 2
    assert await setting.router().start(1) == 0


async def make_anew(setting: Setting, tmp_path: Path, *messages: object) -> Setting:
    """Return the setting with an ingest topic that was deleted and made anew."""
    log = Doubtful(tmp_path / "anew")
    await log.start()
    await log.create_topic(topics.ops(GROUP), 1)
    await log.create_topic(TOPIC, 2)
    other = Setting(log)
    other.redis = setting.redis
    if messages:
        await other.send(*messages)
    return other


@pytest.mark.parametrize("held", [0, 1, 5])
async def test_a_topic_made_anew_stops_the_partition(setting: Setting, tmp_path: Path, held: int) -> None:
    await setting.router().forward(await setting.send(gradient(1), gradient(2)))
    anew = await make_anew(setting, tmp_path, *(gradient(row) for row in range(held)))
    router = anew.router()
    with pytest.raises(PositionError, match="raise ingest_incarnation to 1"):
        await router.start(0)
    assert 0 not in router.positions
    await anew.log.close()


async def test_a_raised_incarnation_takes_the_new_topic_from_its_begin(
    setting: Setting, tmp_path: Path
) -> None:
    await setting.router().forward(await setting.send(gradient(1), gradient(2)))
    anew = await make_anew(setting, tmp_path, gradient(1))
    assert await anew.router(incarnation=1).start(0) == 0
    await anew.log.close()


async def test_a_worker_with_an_older_incarnation_does_not_forward(setting: Setting) -> None:
    await setting.router(incarnation=1).forward(await setting.send(gradient(1)))
    with pytest.raises(PositionError, match="incarnation 1 has been forwarded"):
        await setting.router(incarnation=0).start(0)


async def test_messages_lost_to_retention_stop_the_partition(setting: Setting) -> None:
    await setting.router().forward(await setting.send(gradient(1)))
    await setting.send(gradient(2), gradient(3))
    await setting.log.trim(TOPIC, 0, 2)
    with pytest.raises(PositionError, match="removed 1 messages that were never forwarded"):
        await setting.router().start(0)


async def test_forwarded_messages_may_go_by_retention(setting: Setting) -> None:
    await setting.router().forward(await setting.send(gradient(1)))
    await setting.send(gradient(2), gradient(3))
    await setting.log.trim(TOPIC, 0, 1)
    assert await setting.router().start(0) == 1


async def test_a_damaged_position_is_not_taken_for_none(setting: Setting) -> None:
    await setting.router().forward(await setting.send(gradient(1)))
    next(iter(setting.redis.hashes.values()))[b"last"] = b"?"
    with pytest.raises(PositionError, match="damaged"):
        await setting.router().start(0)
