"""Starts Redis and the services for a local run, keeps them up, and ends them.

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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from driftline import clock
from driftline.config import Settings, kafka_environment, kafka_security, shown, signing_key
from driftline.errors import ConfigError, DriftlineError
from driftline.log.security import OPEN, KafkaSecurity
from driftline.servers.child import Child, Command, spawn
from driftline.servers.redis import RedisServer
from driftline.stack import run_file
from driftline.stack.service import Service

_logger = logging.getLogger(__name__)
_POLL = 0.2
_SLOWEST = 5.0
_STOP_TIMEOUT = 30.0
_PASSED_ON = (
    "store_url",
    "version_cache_dir",
    "version_cache_bytes",
    "version_buffer_bytes",
    "version_every_s",
    "version_every_bytes",
    "version_daily_at",
    "version_scenario",
    "version_gate_timeout_s",
    "version_gate_unanswered",
    "backup_every_s",
    "backups_kept",
    "backups_hourly",
    "backups_bytes",
    "drift_mode",
    "drift_metric",
    "drift_neighbours",
    "drift_rows",
    "drift_false_actions_per_day",
    "drift_few_nodes",
    "drift_thresholds",
    "drift_least_ticks",
    "drift_settle_ticks",
    "drift_cool_ticks",
)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a deployment answers."""

    log_url: str
    redis_url: str
    group: str
    key: str = field(repr=False)
    security: KafkaSecurity = OPEN  # of kafka:// connections


class LocalStack:
    """Redis (unless one is set) and one of each service, as children of this process."""

    def __init__(self, settings: Settings, now: clock.Clock = clock.monotonic) -> None:
        self._settings, self._clock = settings, now
        self._redis: RedisServer | None = None
        self._services: list[Service] = []
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep_up, name="driftline stack", daemon=True)
        self.restarts = 0
        self.failure: DriftlineError | None = None
        """Why a service is not kept up any more; None while all are."""

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
        """Start everything; returns when Redis answers and the services have been started.

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
        self._services.append(self._service("aggregator", {}))
        if settings.versioner:
            port = settings.versioner_http_port if settings.http_port else 0
            self._services.append(self._service("versioner", {"DRIFTLINE_HTTP_PORT": str(port)}))
        if settings.drift_monitor:
            port = settings.drift_http_port if settings.http_port else 0
            self._services.append(self._service("drift_monitor", {"DRIFTLINE_HTTP_PORT": str(port)}))
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
        return str(self._log("aggregator"))

    def _log(self, name: str) -> Path:
        return self._settings.data_dir / name / "server.log"

    def stop(self) -> None:
        """End everything in order: the services make their work durable before Redis goes."""
        self._ending.set()
        if self._keeper.is_alive():
            self._keeper.join()
        for service in self._services:
            service.stop(_STOP_TIMEOUT)
        if self._redis is not None:
            self._redis.stop()
            run_file.remove(self._settings.data_dir)

    def _redis_url(self) -> str:
        return self._redis.url if self._redis is not None else run_file.redis_url(self._settings)

    def _service(self, name: str, more: Mapping[str, str]) -> Service:
        def start() -> Child:
            environment = {**self._environment(), **more}
            command = Command([sys.executable, "-m", f"driftline_services.{name}"], environment)
            return spawn(name, command, self._settings.data_dir / name)

        return Service(f"the {name.replace('_', ' ')}", self._log(name), start, self._clock)

    def _environment(self) -> dict[str, str]:
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
            "DRIFTLINE_VERSION_GATES": self._gates(),
            **self._version_settings(),
            **kafka_environment(kafka_security(settings)),
            # one thread of arithmetic: rows are too few per call for more to pay
            "OPENBLAS_NUM_THREADS": "1",
        }

    def _gates(self) -> str:
        """Return the gates, the monitor's among them where it runs."""
        gates = self._settings.version_gates.split()
        return " ".join(
            [*gates, *(["drift"] if self._settings.drift_monitor and "drift" not in gates else [])]
        )

    def _version_settings(self) -> dict[str, str]:
        chosen = {name: shown(name, getattr(self._settings, name)) for name in _PASSED_ON}
        return {
            f"DRIFTLINE_{name.upper()}": str(value) for name, value in chosen.items() if value is not None
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
                for service in self._services:
                    kept = service.keep()
                    if isinstance(kept, DriftlineError):
                        self.failure = kept
                        return
                    self.restarts += kept
            except DriftlineError as error:
                _logger.error("cannot start again, trying on: %s", error)
            # what dies at once is started again ever more slowly
            pause = min(pause * 2, _SLOWEST) if self.restarts > begun else max(pause * 0.95, _POLL)


def _absolute(log_url: str) -> str:
    scheme, mark, rest = log_url.partition("://")
    return f"{scheme}{mark}{os.path.abspath(rest)}" if scheme == "local" else log_url
