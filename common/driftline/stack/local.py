"""Starts Redis and the aggregator for a local run, keeps them up, and ends them.

Invariant: nothing it started outlives it, however it ends; a child that dies is
started again on the same data, port and settings, so clients just see a pause. What
no restart can mend (a wrong setting, an end right after each start) ends the keeping,
with the reason.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from driftline import clock
from driftline.config import Settings, kafka_environment, kafka_security, signing_key
from driftline.errors import ConfigError, DriftlineError, StateError
from driftline.log.security import OPEN, KafkaSecurity
from driftline.servers.child import Child, Command, spawn
from driftline.servers.redis import RedisServer
from driftline.stack import run_file

_logger = logging.getLogger(__name__)
_POLL = 0.2
_SLOWEST = 5.0
_STOP_TIMEOUT = 30.0
_QUICK = 5.0  # seconds of life below which an end counts as quick
_QUICK_ENDS = 5  # in a row, before the keeping is given up
_WRONG_SETTINGS = 2  # exit status of a service that cannot run as it is set up
_TOLD_LINES = 3


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a deployment answers."""

    log_url: str
    redis_url: str
    group: str
    key: str = field(repr=False)
    security: KafkaSecurity = OPEN  # of kafka:// connections


class LocalStack:
    """Redis (unless one is set) and one aggregator, as children of this process."""

    def __init__(self, settings: Settings, now: clock.Clock = clock.monotonic) -> None:
        self._settings, self._clock = settings, now
        self._redis: RedisServer | None = None
        self._worker: Child | None = None
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, name="driftline stack", daemon=True)
        self.restarts = 0
        self.failure: DriftlineError | None = None
        """Why the aggregator is not kept up any more; None while it is."""
        self._started = 0.0
        self._quick_ends = 0

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start everything; returns when Redis answers and the aggregator has been started.

        Raises ConfigError when a part cannot run.
        """
        settings = self._settings
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"data_dir {str(settings.data_dir)!r}: {error.strerror}; choose another"
            ) from None
        if settings.redis_url is None:
            self._redis = RedisServer(settings.data_dir / "redis").start()
            run_file.write(settings.data_dir, self._redis.url)
        self._worker = self._spawn_worker()
        self._keeper.start()
        return self

    @property
    def endpoints(self) -> Endpoints:
        """Where this deployment answers, for clients."""
        settings = self._settings
        return Endpoints(
            settings.log_url,
            self._redis_url(),
            settings.group,
            signing_key(settings),
            kafka_security(settings),
        )

    @property
    def worker_log(self) -> str:
        """Path of the aggregator's log."""
        return str(self._settings.data_dir / "aggregator" / "server.log")

    def stop(self) -> None:
        """End everything in order: the aggregator makes its work durable before Redis goes."""
        self._ending.set()
        if self._keeper.is_alive():
            self._keeper.join()
        if self._worker is not None:
            self._worker.stop(_STOP_TIMEOUT)
        if self._redis is not None:
            self._redis.stop()
            run_file.remove(self._settings.data_dir)

    def _redis_url(self) -> str:
        return self._redis.url if self._redis is not None else run_file.redis_url(self._settings)

    def _spawn_worker(self) -> Child:
        command = Command([sys.executable, "-m", "driftline_services.aggregator"], self._environment())
        self._started = self._clock()
        return spawn("aggregator", command, self._settings.data_dir / "aggregator")

    def _environment(self) -> Mapping[str, str]:
        settings = self._settings
        return {
            "DRIFTLINE_LOG_URL": _absolute(settings.log_url),
            "DRIFTLINE_REDIS_URL": self._redis_url(),
            "DRIFTLINE_DATA_DIR": str(settings.data_dir.absolute()),
            "DRIFTLINE_GROUP": settings.group,
            "DRIFTLINE_KEY": signing_key(settings),
            "DRIFTLINE_HTTP_PORT": str(settings.http_port),
            "DRIFTLINE_CACHE_BYTES": str(settings.cache_bytes),
            "DRIFTLINE_FLUSH_BYTES": str(settings.flush_bytes),
            "DRIFTLINE_PUBLISH_WINDOW": str(settings.publish_window),
            "DRIFTLINE_LOG_LEVEL": settings.log_level,
            **kafka_environment(kafka_security(settings)),
            # one thread of arithmetic: rows are too few per call for more to pay
            "OPENBLAS_NUM_THREADS": "1",
        }

    def _keep_up(self) -> None:
        pause = _POLL
        while not self._ending.wait(pause):
            begun = self.restarts
            try:
                if self._redis is not None and not self._redis.running:
                    _logger.warning("redis-server ended; starting it again")
                    self.restarts += 1
                    self._redis.start()
                if self._worker is not None and not self._worker.alive:
                    self.failure = self._judge(self._worker)
                    if self.failure is not None:
                        return
                    _logger.warning("the aggregator ended; starting it again, its log is %s", self.worker_log)
                    for line in last_errors(self._worker.output()):
                        _logger.warning("it said: %s", line)
                    self.restarts += 1
                    self._worker = self._spawn_worker()
            except DriftlineError as error:
                _logger.error("cannot start again, trying on: %s", error)
            # what dies at once is started again ever more slowly
            pause = min(pause * 2, _SLOWEST) if self.restarts > begun else max(pause * 0.95, _POLL)

    def _judge(self, worker: Child) -> DriftlineError | None:
        """Return why an aggregator that ended is not to be started again, None if it is."""
        said = "\n".join(last_errors(worker.output())) or "it said nothing"
        if worker.exit_status == _WRONG_SETTINGS:
            return ConfigError(f"the aggregator cannot run, and no restart would help:\n{said}")
        quick = self._clock() - self._started < _QUICK
        self._quick_ends = self._quick_ends + 1 if quick else 0
        if self._quick_ends < _QUICK_ENDS:
            return None
        return StateError(
            f"the aggregator ended {self._quick_ends} times within {_QUICK:g} s of its start, the last time "
            f"with status {worker.exit_status}; its log is {self.worker_log}:\n{said}"
        )


def last_errors(output: str) -> Sequence[str]:
    """Return the last line of a service's log that tells of an error and the end of what follows it.

    What follows is a traceback, whose last line says what happened. Without such a line: the last ones.

    Examples
    --------
    >>> last_errors("1 INFO a: fine\\n2 ERROR b: stopped\\nTraceback:\\n  ...\\nValueError: 7")
    ['2 ERROR b: stopped', 'ValueError: 7']
    """
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [at for at, line in enumerate(lines) if " ERROR " in line or " CRITICAL " in line]
    if not errors:
        return lines[-_TOLD_LINES:]
    return [lines[errors[-1]], *lines[errors[-1] + 1 :][-1:]]


def _absolute(log_url: str) -> str:
    scheme, mark, rest = log_url.partition("://")
    return f"{scheme}{mark}{os.path.abspath(rest)}" if scheme == "local" else log_url
