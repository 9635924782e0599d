"""The Faust app of a stream service.

Invariant: Faust is the chassis (services, rebalancing, static membership, life
cycle) and nothing else: no tables, no web, no acks, no producer of its own. One
agent reads one channel, whatever topics are subscribed, and hands each batch to
the lane of its partition; positions are the handler's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Any, cast

import faust
from faust.app.base import BootStrategy
from faust.transport.base import Conductor
from faust.types import EventT, Message
from faust.types.transports import ConductorT, TransportT

from driftline.errors import ConfigError
from driftline.log.address import KafkaAddress, LocalAddress, parse_address
from driftline.log.security import OPEN, KafkaSecurity
from driftline_services.chassis.core import Chassis
from driftline_services.chassis.handler import Handler
from driftline_services.chassis.kafka import KafkaTransport
from driftline_services.chassis.lanes import Delivery, Loss
from driftline_services.chassis.local import LocalTransport
from driftline_services.chassis.settings import ChassisSettings


class ConsumerOnly(BootStrategy):
    """Start no producer (services append through `driftline.log`) and no web server."""

    enable_kafka_producer = False
    enable_web = False


class OneChannelConductor(Conductor):
    """Deliver every message to one channel.

    Faust's own conductor looks up a callback per topic and partition, compiled
    from the topics its agents were declared with; ours grow while the app runs.
    """

    async def deliver(self, message: Message) -> None:
        app = cast(ChassisApp, self.app)
        event = app.create_event(None, message.value, {}, message)
        await app.batches.put(event)

    def _compile_message_handler(self) -> Any:
        return self.deliver


class ChassisApp(faust.App):
    """A Faust app whose unit of work is the batch; make it with `make_app`."""

    BootStrategy = ConsumerOnly

    def __init__(self, group: str, *, url: str, chassis: Chassis, **options: Any) -> None:
        self.url = url
        self.chassis = chassis
        super().__init__(group, **options)
        self.batches = self.channel(value_type=None, maxsize=chassis.settings.stream_fetches)
        self.agent(self.batches, name="batches")(self._to_lanes)
        self.on_before_shutdown.connect(self._let_go, weak=False)  # weak: a bound method would be forgotten
        chassis.on_error(self._fail)
        self._failing: asyncio.Task[None] | None = None

    async def _to_lanes(self, stream: Any) -> None:
        async for event in cast(AsyncIterable[EventT[Any]], stream.noack().events()):
            for each in cast(Sequence[Delivery | Loss], event.value):
                if isinstance(each, Loss):
                    self.chassis.lose(each)
                else:
                    await self.chassis.deliver(each)

    async def _let_go(self, *_: object, **__: object) -> None:
        await self.chassis.end()
        if self._consumer is not None:
            await self._consumer.commit()

    def _fail(self, error: BaseException) -> None:
        # Not left to the agent's supervisor, which would restart it and forget the batch.
        self._failing = asyncio.ensure_future(self.crash(error))

    def _new_transport(self) -> TransportT:
        transport = LocalTransport if isinstance(parse_address(self.url), LocalAddress) else KafkaTransport
        return cast(TransportT, transport(self.conf.broker_consumer, self))

    def _new_producer_transport(self) -> TransportT:
        return self.transport

    def _new_conductor(self) -> ConductorT:
        return OneChannelConductor(app=self, beacon=None)

    def _create_directories(self) -> None:
        """Create none: there are no tables, and the working directory is not ours."""


def make_app(
    group: str,
    url: str,
    topics: Iterable[str],
    handler: Handler,
    *,
    instance_id: str | None = None,
    security: KafkaSecurity = OPEN,
    settings: ChassisSettings | None = None,
) -> ChassisApp:
    """Return an app that feeds `handler` from `topics` of the log at `url`, as a member of `group`.

    Call it inside the event loop that will run the app. `instance_id` makes the
    member static (Kafka): back under its id within the session time-out, it
    causes no rebalance. `security` is how a Kafka cluster is connected to. Topics may be
    missing yet, and may be added later (`app.chassis.subscribe`). Raises ConfigError for a
    malformed URL, an empty group, or a certificate that cannot be used.
    """
    if not group:
        raise ConfigError("the consumer group has no name; give one per service and deployment")
    address = parse_address(url)
    chosen = settings if settings is not None else ChassisSettings()
    return ChassisApp(
        group,
        url=url,
        chassis=Chassis(handler, topics, chosen),
        broker=_broker(address),
        broker_credentials=_credentials(security) if isinstance(address, KafkaAddress) else None,
        store="memory://",
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_group_instance_id=instance_id,
        consumer_auto_offset_reset="none",  # never reset: a position outside the log is an error
        consumer_max_fetch_size=chosen.fetch_bytes,
        consumer_metadata_max_age_ms=30_000,
        stream_buffer_maxsize=chosen.stream_fetches,
        stream_wait_empty=False,  # nothing is acked, so nothing is ever pending; lanes end in `release`
        stream_recovery_delay=0.0,
        broker_commit_interval=chosen.commit_interval,
        broker_session_timeout=chosen.session_timeout,
        broker_heartbeat_interval=chosen.heartbeat_interval,
        broker_rebalance_timeout=chosen.rebalance_timeout,
        broker_request_timeout=chosen.request_timeout,
        broker_max_poll_interval=chosen.max_poll_interval,
        worker_redirect_stdouts=False,
    )


def _broker(address: KafkaAddress | LocalAddress) -> list[str]:
    if isinstance(address, KafkaAddress):
        return [f"kafka://{server}" for server in address.servers]
    return ["local://log"]  # only the scheme matters to Faust: the transport opens the log by the app's URL


def _credentials(security: KafkaSecurity) -> faust.auth.Credentials | None:
    context = security.ssl_context()
    if security.uses_sasl:
        return faust.SASLCredentials(
            username=security.username,
            password=security.password,
            mechanism=security.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
