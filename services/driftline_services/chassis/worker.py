"""Run a chassis app: as the main program of a process, or inside a running loop.

Invariant: `serve` returns only after the handler has released its partitions
and every task and thread of the app is gone, or raises the error that stopped
the app. `run_worker` turns that into an exit status and never hangs: 0 in order, 1 on an
error, 2 when no restart would help because a setting has to change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from driftline.errors import ConfigError
from driftline_services.chassis.app import ChassisApp
from driftline_services.chassis.process import settle
from driftline_services.chassis.settings import ChassisSettings

logger = logging.getLogger(__name__)
WRONG_SETTINGS = 2  # exit status, as of the command line
REPEAT_AFTER = 30.0  # seconds until a library may say the same again

QUIET_LOGGERS = (
    "faust",
    "mode",
    "aiokafka",
    # Faust services log under the module of their class
    "driftline_services.chassis.app",
    "driftline_services.chassis.kafka",
    "driftline_services.chassis.local",
)


async def serve(app: ChassisApp, stop: asyncio.Event) -> None:
    """Run `app` until `stop` is set; raises the error that stopped it earlier."""
    starting = asyncio.create_task(app.start(), name="start")  # done only after the first assignment
    stopped = asyncio.create_task(app.wait_until_stopped(), name="app stopped")
    asked = asyncio.create_task(stop.wait(), name="stop asked")
    try:
        waiting = {starting, stopped, asked}
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if done != {starting} or starting.exception() is not None:
                break
    finally:
        await _stop(app, [starting, stopped, asked])
    error = app.chassis.error or app.crash_reason or _failure(starting)
    if error is not None:
        raise error


async def _stop(app: ChassisApp, tasks: list[asyncio.Task[object] | asyncio.Task[None]]) -> None:
    stopping = asyncio.ensure_future(app.stop())
    while not stopping.done():
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            if stopping.cancelled():
                break
            continue  # cancelled from outside: the end is orderly all the same
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    return task.exception() if task.done() and not task.cancelled() else None


def run_worker(
    build: Callable[[], AbstractAsyncContextManager[ChassisApp]], *, log_level: int = logging.INFO
) -> int:
    """Run the app that `build` makes until SIGINT or SIGTERM; return the exit status.

    `build` is entered inside the event loop, so what the handler needs (a log, a
    store) opens around the app and closes after it; a signal ends it there too. A second
    signal has its default effect.
    """
    quiet_logging(log_level)
    try:
        asyncio.run(_main(build))
    except ConfigError as error:  # for whoever deploys: where it was raised says nothing more
        logger.error("the worker cannot run: %s", error)
        return WRONG_SETTINGS
    except Exception:
        logger.exception("the worker stopped on an error")
        return 1
    return 0


async def _main(build: Callable[[], AbstractAsyncContextManager[ChassisApp]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    settings = ChassisSettings()  # until the app is there
    bomb = ExitTimer()
    building = asyncio.current_task()  # None once the app is there

    def ask() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        bomb.light(settings.drain_timeout + settings.exit_timeout)
        stop.set()
        if building is not None:
            building.cancel()  # it may be waiting for a broker that never comes

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    try:
        async with build() as app:
            building = None
            settle()
            settings = app.chassis.settings
            app.chassis.on_error(lambda _: bomb.light(settings.exit_timeout))
            await serve(app, stop)
    except asyncio.CancelledError:
        if building is None or not stop.is_set():
            raise
        logger.info("stopped before it was ready")
    finally:
        bomb.defuse()


class ExitTimer:
    """Ends the process if an end does not come about: a crashed consumer thread may never answer."""

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def light(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = threading.Timer(seconds, os._exit, (1,))
            self._timer.daemon = True
            self._timer.start()

    def defuse(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def quiet_logging(level: int = logging.INFO) -> None:
    """Log to stderr; what Faust and aiokafka say only from WARNING on, and not over and over."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(OnceInAWhile("aiokafka", REPEAT_AFTER))
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)


class OnceInAWhile(logging.Filter):
    """Lets each message of a library through once in so many seconds, whatever its arguments.

    aiokafka tells of a broker that is away at every attempt, several times a second.
    """

    def __init__(self, library: str, seconds: float) -> None:
        super().__init__()
        self._library, self._seconds = library, seconds
        self._told: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] != self._library:
            return True
        message = (record.name, str(record.msg))
        if record.created - self._told.get(message, -self._seconds) < self._seconds:
            return False
        self._told[message] = record.created
        return True
