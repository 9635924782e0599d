"""Wiring of the versioner: settings in, a chassis app out.

Invariant: everything with a clock, a thread or a connection is made here.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable

from prometheus_client import CollectorRegistry

from driftline import clock, topics
from driftline.config import Settings, kafka_security, redact_url, signing_key
from driftline.control import ControlTopic
from driftline.frames.headers import Keyring
from driftline.ids import producer_id
from driftline.log import open_log
from driftline.metrics import SampleCollector
from driftline.ops.catalogue import Catalogue
from driftline.ops.requests import Signer
from driftline.shard.spec import TableSpec
from driftline.versions import Repository, open_group
from driftline.versions.gating import Unanswered
from driftline_services.chassis import ChassisApp, make_app, patiently
from driftline_services.chassis.announcing import Announcer
from driftline_services.chassis.http import Health, serving
from driftline_services.chassis.offload import Threads
from driftline_services.chassis.service import beside, chassis_settings
from driftline_services.versioner.backups import Backups
from driftline_services.versioner.core import Versioner
from driftline_services.versioner.drift_gate import DriftGate
from driftline_services.versioner.gates import Gates, parse_gates
from driftline_services.versioner.node_rollback import NodeRollbacks
from driftline_services.versioner.status import Status
from driftline_services.versioner.triggers import Requester, Rules, Stand, seconds_of
from driftline_services.versioner.works import Works

_logger = logging.getLogger(__name__)
OpenRepository = Callable[[Settings], Repository]


def consumer_group(group: str) -> str:
    """Return the name of the versioners' consumer group."""
    return f"driftline.{group}.versioner"


def open_repository(settings: Settings) -> Repository:
    """Return the repository that the settings name."""
    return open_group(
        settings.store_url,
        settings.group,
        settings.data_dir,
        cache_dir=settings.version_cache_dir,
        cache_bytes=settings.version_cache_bytes,
    )


@contextlib.asynccontextmanager
async def versioner_app(
    settings: Settings, opening: OpenRepository = open_repository
) -> AsyncIterator[ChassisApp]:
    """Open everything a versioner needs and yield its app. Raises ConfigError, StoreFormatError."""
    keyring = Keyring.parse(signing_key(settings))
    security = kafka_security(settings)
    threads = Threads()
    repository = await patiently(
        "opening the version store", lambda: threads.run(functools.partial(opening, settings))
    )
    log = open_log(settings.log_url, security)
    await patiently("connecting to the log", log.start)
    async with log:
        control = ControlTopic(log, settings.group, keyring)
        drift = DriftGate(control)
        evaluators = parse_gates(settings.version_gates, redact_url, drift)
        unanswered = Unanswered(settings.version_gate_unanswered)
        gates = Gates(evaluators, unanswered, settings.version_gate_timeout_s)
        ops = topics.ops(settings.group)
        await patiently(f"creating topic {ops}", functools.partial(log.create_topic, ops, 1))
        await patiently("creating the control topic", control.create)

        async def on_table(spec: TableSpec) -> None:
            await app.chassis.subscribe([topics.updates(spec.name)])

        catalogue = Catalogue(log, settings.group, keyring, on_table)
        instance = settings.instance_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        versioner = Versioner(
            log,
            catalogue,
            Works(repository, instance, settings.version_scenario),
            Backups(repository, settings.backups_kept, settings.backups_hourly, settings.backups_bytes),
            gates,
            Announcer(control),
            threads,
            instance=instance,
            memory=settings.version_buffer_bytes,
        )
        app = make_app(
            consumer_group(settings.group),
            settings.log_url,
            [],
            versioner,
            instance_id=settings.instance_id,
            security=security,
            settings=chassis_settings(settings.session_timeout_s),
        )
        signer = Signer(settings.group, producer_id(f"versioner {settings.group}"), keyring)
        requester = Requester(
            log,
            signer,
            rules_of(settings),
            _standing(versioner, clock.system()),
            lambda: versioner.following.last_op,
        )
        rollbacks = NodeRollbacks(versioner, control, log, catalogue, signer)
        status = Status(versioner, requester, rollbacks, log)
        registry = CollectorRegistry()
        registry.register(SampleCollector(status.samples))
        await patiently("reading the ops log", catalogue.catch_up)
        work = {
            "catalogue": catalogue.follow(),
            "status": status.follow(),
            "barriers": requester.run(),
            "node roll-backs": rollbacks.run(),
        }
        if drift in evaluators:
            work["drift"] = drift.run(versioner)
        try:
            async with (
                beside(app, work),
                serving(Health(status.shards), registry, host=settings.http_host, port=settings.http_port),
            ):
                yield app
        finally:
            await catalogue.close()
            threads.close()


def rules_of(settings: Settings) -> Rules:
    """Return which barriers the settings want asked for."""
    return Rules(
        settings.version_every_s,
        settings.version_every_bytes,
        seconds_of(settings.version_daily_at),
        settings.backup_every_s if settings.backups_kept or settings.backups_hourly else None,
    )


def _standing(versioner: Versioner, started: float) -> Callable[[], Stand | None]:
    def stand() -> Stand | None:
        if not versioner.following.leads:
            return None
        newest = versioner.newest.created if versioner.newest is not None else started
        backups = [backup.time / 1e3 for backup in versioner.backups]
        return Stand(
            newest,
            max([started, newest, *backups]),
            versioner.following.changed_bytes,
            any(state.changed_since_backup for state in versioner.states.values()),
        )

    return stand
