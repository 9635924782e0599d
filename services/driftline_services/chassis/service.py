"""What every service has around its app: time-outs, tasks beside it, the ends of the logs it reads.

Invariant: a task beside an app that fails ends the worker, which says why; none outlives its app.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any

from driftline.errors import ConfigError, DriftlineError
from driftline.log import Log
from driftline_services.chassis.app import ChassisApp
from driftline_services.chassis.handler import TopicPartition
from driftline_services.chassis.settings import ChassisSettings

_logger = logging.getLogger(__name__)
_REFRESH = 2.0


def chassis_settings(session: float) -> ChassisSettings:
    """Return the settings of a member that may be silent for `session` seconds. Raises ConfigError."""
    if session > ChassisSettings().request_timeout:
        raise ConfigError(f"session_timeout_s is {session}; at most {ChassisSettings().request_timeout}")
    return ChassisSettings(session_timeout=session, heartbeat_interval=session / 5)


@contextlib.asynccontextmanager
async def beside(app: ChassisApp, work: Mapping[str, Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run `work`, by name, within the block; one that fails crashes the app."""
    tasks = [asyncio.create_task(each, name=name) for name, each in work.items()]

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            app.chassis.fail(error)

    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def follow_ends(
    log: Log, assigned: Callable[[], Iterable[TopicPartition]], ends: dict[TopicPartition, int]
) -> None:
    """Keep the ends of the assigned partitions up to date in `ends`, for ever."""
    while True:
        for tp in sorted(assigned()):
            try:
                ends[tp] = (await log.bounds(tp.topic, tp.partition)).end
            except DriftlineError as error:
                _logger.warning("end of %s/%d not known: %s", tp.topic, tp.partition, error)
        await asyncio.sleep(_REFRESH)
