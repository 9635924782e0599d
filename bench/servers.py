"""The servers that questions measure against: a real Kafka broker and a real Redis, as driftline runs them.

Invariant: everything lies in one scratch directory, which is gone afterwards; both
sides of a comparison use the same two servers with the same settings.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from driftline.servers import KafkaBroker, RedisServer
from driftline.servers.kafka import find_jars

KEY = "be" * 32  # signs the ops of throw-away deployments


@dataclass(frozen=True, slots=True)
class Stand:
    """Running servers and a scratch directory."""

    kafka: KafkaBroker
    redis: RedisServer
    scratch: Path

    def empty_redis(self) -> None:
        """Remove all keys, and the append-only file with them."""
        with redis.Redis.from_url(self.redis.url) as client:
            client.flushall()


@contextmanager
def servers(*, append_only: bool = True) -> Iterator[Stand]:
    """Start a broker and a Redis; the Redis writes its append-only file unless told otherwise."""
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as name:
        scratch = Path(name)
        with (
            KafkaBroker(find_jars(), scratch / "kafka") as kafka,
            RedisServer(scratch / "redis") as server,
        ):
            if not append_only:
                with redis.Redis.from_url(server.url) as client:
                    client.config_set("appendonly", "no")
            yield Stand(kafka, server, scratch)
