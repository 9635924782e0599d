"""Wires the aggregator: settings to log, Redis, keys and the Faust app.

Invariant: what is opened here is closed here, after the app has released its
shards.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import AsyncIterator

from prometheus_client import CollectorRegistry

from driftline import topics
from driftline.config import Settings, kafka_security, signing_key
from driftline.connecting import versions_of
from driftline.errors import PartitionCountError
from driftline.frames.headers import Keyring
from driftline.log import Log, open_log
from driftline.metrics import SampleCollector
from driftline.ops.catalogue import Catalogue
from driftline.rows.servers import Servers
from driftline.shard.numerics import check_machine
from driftline.shard.spec import TableSpec
from driftline.stack.run_file import redis_url
from driftline_services.aggregator.core import Aggregator
from driftline_services.aggregator.deploying import Deploying
from driftline_services.aggregator.limits import Limits
from driftline_services.aggregator.memory_watch import check_servers, watch_servers
from driftline_services.aggregator.status import Status
from driftline_services.chassis import ChassisApp, make_app, patiently
from driftline_services.chassis.http import Health, serving
from driftline_services.chassis.service import beside, chassis_settings

_logger = logging.getLogger(__name__)


def consumer_group(group: str) -> str:
    """Return the name of the aggregators' consumer group."""
    return f"driftline.{group}.aggregator"


@contextlib.asynccontextmanager
async def aggregator_app(settings: Settings) -> AsyncIterator[ChassisApp]:
    """Open everything an aggregator needs and yield its app. Raises ConfigError."""
    check_machine()
    keyring = Keyring.parse(signing_key(settings))
    servers = Servers.at(redis_url(settings))
    await check_servers(servers)
    security = kafka_security(settings)
    log = open_log(settings.log_url, security)
    await patiently("connecting to the log", log.start)
    async with log:
        for name in (topics.ops(settings.group), topics.refused_ops(settings.group)):
            await patiently(f"creating topic {name}", functools.partial(log.create_topic, name, 1))
        await patiently("creating the ingest topic", functools.partial(_create_ingest, log, settings))

        async def on_table(spec: TableSpec) -> None:
            await app.chassis.subscribe([topics.gradients(spec.name)])

        catalogue = Catalogue(log, settings.group, keyring, on_table)
        limits = Limits(
            cache_bytes=settings.cache_bytes,
            flush_bytes=settings.flush_bytes,
            publish_window=settings.publish_window,
        )
        versions = versions_of(settings)
        aggregator = Aggregator(
            settings.group,
            log,
            servers,
            keyring,
            catalogue,
            limits,
            settings.ingest_incarnation,
            settings.placement,
            versions,
        )
        app = make_app(
            consumer_group(settings.group),
            settings.log_url,
            [topics.ops(settings.group), topics.ingest(settings.group)],
            aggregator,
            instance_id=settings.instance_id,
            security=security,
            settings=chassis_settings(settings.session_timeout_s),
        )
        status = Status(aggregator, log)
        registry = CollectorRegistry()
        registry.register(SampleCollector(status.samples))
        await patiently("reading the ops log", catalogue.catch_up)
        work = {
            "catalogue": catalogue.follow(),
            "status": status.follow(),
            "redis servers": watch_servers(servers),
            "patrol": aggregator.patrol(),
            "deployments": Deploying(versions, lambda: aggregator.runners).run(),
        }
        try:
            async with (
                beside(app, work),
                serving(Health(status.shards), registry, host=settings.http_host, port=settings.http_port),
            ):
                yield app
        finally:
            await catalogue.close()
            await aggregator.ingest.close()


async def _create_ingest(log: Log, settings: Settings) -> None:
    await log.create_topic(topics.refused_ingest(settings.group), 1)
    topic = topics.ingest(settings.group)
    try:
        await log.create_topic(topic, settings.ingest_partitions)
    except PartitionCountError:  # any number will do: each partition is a producer of its own
        _logger.info("topic %s has another number of partitions than ingest_partitions", topic)
