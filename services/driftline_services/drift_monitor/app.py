"""Wiring of the drift monitor: settings in, a chassis app out.

Invariant: everything with a clock, a thread or a connection is made here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
from collections.abc import AsyncIterator

from prometheus_client import CollectorRegistry

from driftline import topics
from driftline.client.aio import AsyncClient
from driftline.config import Settings, kafka_security, signing_key
from driftline.connecting import options_of
from driftline.control import ControlTopic
from driftline.drift import GuardSettings, JudgeSettings, Mode, Thresholds
from driftline.frames.headers import Keyring
from driftline.graph import GraphSettings, Metric
from driftline.log import open_log
from driftline.metrics import SampleCollector
from driftline.ops.catalogue import Catalogue
from driftline.shard.spec import TableSpec
from driftline.versions import Repository, open_group
from driftline_services.chassis import ChassisApp, make_app, patiently
from driftline_services.chassis.announcing import Announcer
from driftline_services.chassis.http import Health, serving
from driftline_services.chassis.offload import Threads
from driftline_services.chassis.service import beside, chassis_settings
from driftline_services.drift_monitor.asking import Means
from driftline_services.drift_monitor.beginning import Watching
from driftline_services.drift_monitor.core import Monitor
from driftline_services.drift_monitor.deciding import Rules
from driftline_services.drift_monitor.recovery import Recovery
from driftline_services.drift_monitor.status import Status

_DAY = 86_400.0
_THREADS = 2  # the arrays are in numpy's hands


def consumer_group(group: str) -> str:
    """Return the name of the monitors' consumer group."""
    return f"driftline.{group}.drift"


def judge_settings(settings: Settings) -> JudgeSettings:
    """Return how ticks are judged. Raises ConfigError."""
    limits = dict(each.split("=") for each in settings.drift_thresholds.split())
    return JudgeSettings(
        false_actions_per_day=settings.drift_false_actions_per_day,
        ticks_per_day=_DAY / (settings.backup_every_s or 60.0),
        few_nodes=settings.drift_few_nodes,
        least_ticks=settings.drift_least_ticks,
        settle_ticks=settings.drift_settle_ticks,
        cool_ticks=settings.drift_cool_ticks,
        thresholds=Thresholds({name: float(limit) for name, limit in limits.items()}),
        threshold_after=GuardSettings().known_after,
        mode=Mode(settings.drift_mode),
    )


@contextlib.asynccontextmanager
async def monitor_app(settings: Settings) -> AsyncIterator[ChassisApp]:
    """Open everything a monitor needs and yield its app. Raises ConfigError, StoreFormatError."""
    judged = judge_settings(settings)
    graph = GraphSettings(neighbours=settings.drift_neighbours, metric=Metric(settings.drift_metric))
    keyring = Keyring.parse(signing_key(settings))
    security = kafka_security(settings)
    threads = Threads(_THREADS)
    log = open_log(settings.log_url, security)
    await patiently("connecting to the log", log.start)
    async with log, AsyncClient(options_of(settings)) as client:
        control = ControlTopic(log, settings.group, keyring)
        ops = topics.ops(settings.group)
        await patiently(f"creating topic {ops}", functools.partial(log.create_topic, ops, 1))
        await patiently("creating the control topic", control.create)

        async def on_table(spec: TableSpec) -> None:
            await app.chassis.subscribe([topics.updates(spec.name)])

        catalogue = Catalogue(log, settings.group, keyring, on_table)
        instance = settings.instance_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        announcer = Announcer(control)
        watching = Watching(judged, graph, settings.drift_rows, settings.data_dir, settings.group, instance)
        monitor = Monitor(
            log, catalogue, functools.partial(open_repository, settings), announcer, threads, watching
        )
        app = make_app(
            consumer_group(settings.group),
            settings.log_url,
            [],
            monitor,
            instance_id=settings.instance_id,
            security=security,
            settings=chassis_settings(settings.session_timeout_s),
        )
        relapse = settings.drift_cool_ticks + settings.drift_settle_ticks
        rules = Rules(settings.drift_mode, relapse, max(1, settings.drift_cool_ticks), instance)
        means = Means(control, announcer, catalogue, client, threads)
        recovery = Recovery(means, rules, lambda: monitor.leads, monitor.freeze)
        status = Status(monitor, recovery, log)
        registry = CollectorRegistry()
        registry.register(SampleCollector(status.samples))
        await patiently("reading the ops log", catalogue.catch_up)
        work = {"catalogue": catalogue.follow(), "status": status.follow(), "recovery": recovery.run()}
        try:
            async with (
                beside(app, work),
                serving(Health(status.shards), registry, host=settings.http_host, port=settings.http_port),
            ):
                yield app
        finally:
            await catalogue.close()
            threads.close()


def open_repository(settings: Settings) -> Repository:
    """Return the repository that the settings name."""
    return open_group(
        settings.store_url,
        settings.group,
        settings.data_dir,
        cache_dir=settings.version_cache_dir,
        cache_bytes=settings.version_cache_bytes,
    )
