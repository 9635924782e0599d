"""A whole deployment of a chaos run, every part of which may be killed, frozen or cut off.

Invariant: all servers are the run's own, on loopback, and end with it. What was
repaired is running again when a fault's method returns; nobody waits for recovery here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from driftline import topics
from driftline.servers import KafkaBroker, RedisServer
from driftline.servers.kafka import find_jars
from driftline.servers.local import free_ports
from tests.chaos.kit.proxy import Proxy
from tests.integration.deployment import KAFKA, LOCAL, Deployment, Worker
from tests.support.waiting import until

_ASSIGNED = re.compile(r"assigned \d+ partitions of (\[.*\])")


@dataclass(slots=True)
class Stack:
    """Servers, the deployment on them, and its aggregators by name."""

    deployment: Deployment
    redis: RedisServer
    broker: KafkaBroker | None
    redis_proxy: Proxy | None  # before Redis, for the aggregators
    kafka_proxy: Proxy | None  # before the broker, for everybody: a broker has one advertised address
    workers: dict[str, Worker] = field(default_factory=dict)
    proxies: dict[str, Proxy] = field(default_factory=dict)  # before Redis, one for each worker

    def kill_worker(self, name: str, down: float) -> None:
        """SIGKILL, and start again after `down` seconds."""
        self.workers[name].kill()
        time.sleep(down)
        self.workers[name].start()

    def kill_redis(self, down: float) -> None:
        self.redis.kill()
        time.sleep(down)
        self.redis.start()

    def kill_broker(self, down: float) -> None:
        assert self.broker is not None, "only where there is one"
        self.broker.kill()
        time.sleep(down)
        self.broker.start()

    def router(self) -> str | None:
        """Return the worker that owns the ops partition, as its own log tells; None while none does."""
        ops = topics.ops(self.deployment.group)
        for name, worker in self.workers.items():
            found = _ASSIGNED.findall(worker.process.output())
            if worker.process.alive and found and f"'{ops}'" in found[-1]:
                return name
        return None

    def keep_alive(self) -> list[str]:
        """Start workers that have ended by themselves, as a supervisor would; return their last words."""
        ended = [name for name, worker in self.workers.items() if not worker.process.alive]
        words = [f"{name}: {self.workers[name].process.output()[-300:]}" for name in ended]
        for name in ended:
            self.workers[name].start()
        return words


@contextmanager
def stack(
    kind: str,
    directory: Path,
    *,
    workers: int = 2,
    static: bool = True,
    session_timeout: float = 3.0,
    proxies: bool = False,
    proxy_each: bool = False,
    more: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """Start everything on `kind` (LOCAL or KAFKA); with `proxies`, faults of the network are possible.

    `proxy_each`: with a proxy of its own before Redis for each worker.
    """
    with ExitStack() as parts:
        redis = parts.enter_context(RedisServer(directory / "redis"))
        redis_proxy = parts.enter_context(Proxy(redis.port)) if proxies else None
        broker: KafkaBroker | None = None
        kafka_proxy: Proxy | None = None
        log_url = f"local://{directory}/log"
        if kind == KAFKA:
            broker, kafka_proxy = _broker(parts, directory, proxies=proxies)
            log_url = broker.url if kafka_proxy is None else f"kafka://127.0.0.1:{kafka_proxy.port}"
        deployment = Deployment(
            kind, log_url, redis.url, directory, session_timeout=session_timeout, more=more or {}
        )
        built = Stack(deployment, redis, broker, redis_proxy, kafka_proxy)
        theirs = deployment if redis_proxy is None else deployment.with_redis(redis_proxy.url(redis.url))
        for number in range(workers):
            name = f"worker-{number}"
            if proxy_each:
                proxy = built.proxies[name] = parts.enter_context(Proxy(redis.port))
                theirs = deployment.with_redis(proxy.url(redis.url))
            built.workers[name] = parts.enter_context(
                theirs.worker(name, instance_id=name if static and kind == KAFKA else None)
            )
        yield built


def wait_until_owned(built: Stack, seconds: float = 30.0) -> None:
    """Return once some worker has the ops partition: from then on the group works."""
    until(lambda: built.router() is not None, "a worker owns the ops partition", seconds=seconds)


def _broker(parts: ExitStack, directory: Path, *, proxies: bool) -> tuple[KafkaBroker, Proxy | None]:
    if not proxies:
        return parts.enter_context(KafkaBroker(find_jars(), directory / "kafka")), None
    (port,) = free_ports(1)
    proxy = parts.enter_context(Proxy(port))
    settings = {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{proxy.port}"}
    broker = KafkaBroker(find_jars(), directory / "kafka", port=port, settings=settings)
    return parts.enter_context(broker), proxy


__all__ = ["KAFKA", "LOCAL", "Stack", "stack", "wait_until_owned"]
