"""What all Kafka clients of driftline share: arguments, time-outs, errors.

Invariant: every wait for a broker ends. What a client cannot do in its time-out
becomes LogUnavailableError with the cluster's address; what no retry can mend becomes
ConfigError.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from aiokafka import errors as kafka

from driftline.errors import ConfigError, LogUnavailableError
from driftline.log.address import KafkaAddress

REQUEST_TIMEOUT_S = 10.0
"""Longest wait for one answer of one broker."""

CALL_TIMEOUT_S = 20.0
"""Longest wait for a metadata call, retries included."""

APPEND_TIMEOUT_S = 30.0
"""Longest wait for the acknowledgement of a batch, retries included: a leader election fits."""

RETRY_S = 0.1

T = TypeVar("T")

# aiokafka logs as an error what driftline raises; without a handler of the application's
# choice that would go to stderr.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class ClientArguments:
    """Arguments that every aiokafka client takes; security options belong here."""

    bootstrap_servers: list[str]
    request_timeout_ms: int = int(REQUEST_TIMEOUT_S * 1000)


def arguments(address: KafkaAddress) -> ClientArguments:
    """Return the arguments of a client of the cluster at `address`."""
    return ClientArguments(list(address.servers))


@contextmanager
def translated(address: KafkaAddress, doing: str) -> Iterator[None]:
    """Turn aiokafka's errors and time-outs into driftline's."""
    try:
        yield
    except (
        kafka.TopicAuthorizationFailedError,
        kafka.ClusterAuthorizationFailedError,
        kafka.AuthenticationFailedError,
        kafka.UnsupportedSaslMechanismError,
        kafka.PolicyViolationError,
        kafka.IncompatibleBrokerVersion,
    ) as error:
        raise ConfigError(f"{address}: {doing}: refused: {error!r}; check ACLs and versions") from error
    except (kafka.KafkaError, TimeoutError, OSError) as error:
        raise LogUnavailableError(f"{address}: {doing}: {error!r}; is the cluster up?") from error


async def retried(call: Callable[[], Awaitable[T]], timeout_s: float = CALL_TIMEOUT_S) -> T:
    """Return what `call` returns, called again after errors that aiokafka deems retriable.

    Raises the last error, or TimeoutError, once `timeout_s` is over.
    """
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await call()
            except kafka.KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(RETRY_S)
