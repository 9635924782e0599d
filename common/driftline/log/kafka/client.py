"""What all Kafka clients of driftline share: arguments, time-outs, errors.

Invariant: every wait for a broker ends. What a client cannot do in its time-out
becomes LogUnavailableError with the cluster's address; what no retry can mend becomes
ConfigError, which names the user but never the password.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol, TypedDict, TypeVar

from aiokafka import errors as kafka
from aiokafka.conn import create_conn

from driftline.errors import ConfigError, LogUnavailableError
from driftline.log.address import KafkaAddress

REQUEST_TIMEOUT_S = 5.0
"""Longest wait for one answer of one broker: what a path that has gone costs after it is back.
All bytes in flight, 64 MiB, fit in at 110 Mbit/s."""

LOOKUP_TIMEOUT_S = 2.0
"""Longest wait for a small answer (topics, bounds) before it is asked for on another connection.
A takeover asks on connections that may have been dead for long: this comes on top of the time
that the loss of the path took to be noticed."""

CALL_TIMEOUT_S = 20.0
"""Longest wait for a metadata call, retries included."""

APPEND_TIMEOUT_S = 30.0
"""Longest wait for the acknowledgement of a batch, retries included: a leader election fits."""

RETRY_S = 0.1

TLS_END_S = 0.1
"""A TLS connection that was closed still exchanges good-byes; asyncio cannot be asked when it is done."""

T = TypeVar("T")

# aiokafka logs as an error what driftline raises; without a handler of the application's
# choice that would go to stderr.
logging.getLogger("aiokafka").addHandler(logging.NullHandler())


class ConnectionArguments(TypedDict):
    """What it takes to be let in by a broker."""

    request_timeout_ms: int
    security_protocol: str
    ssl_context: ssl.SSLContext | None
    sasl_mechanism: str
    sasl_plain_username: str | None
    sasl_plain_password: str | None


class ClientArguments(ConnectionArguments):
    """Arguments that every aiokafka client takes."""

    bootstrap_servers: list[str]


def arguments(address: KafkaAddress) -> ClientArguments:
    """Return the arguments of a client of the cluster at `address`.

    Raises ConfigError for a certificate that cannot be read.
    """
    return {"bootstrap_servers": list(address.servers), **_connection_arguments(address)}


def _connection_arguments(address: KafkaAddress) -> ConnectionArguments:
    security = address.security
    return {
        "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
        "security_protocol": security.security_protocol,
        "ssl_context": security.ssl_context(),
        "sasl_mechanism": security.sasl_mechanism or "PLAIN",  # aiokafka's default, not used without SASL
        "sasl_plain_username": security.username,
        "sasl_plain_password": security.password,
    }


async def ended(address: KafkaAddress) -> None:
    """Return when closed connections are gone: a loop that ends before complains about open sockets."""
    await asyncio.sleep(TLS_END_S if address.security.uses_tls else 0)


class Startable(Protocol):
    """An aiokafka client."""

    async def start(self) -> None: ...


class Stoppable(Protocol):
    """An aiokafka client."""

    async def stop(self) -> None: ...


async def stop(client: Stoppable) -> None:
    """Stop `client`, in a task of its own.

    While a broker is away, aiokafka's `stop` lets the CancelledError of its fetches escape: to the
    caller that would look as if somebody had cancelled it.
    """
    stopping = asyncio.ensure_future(client.stop())
    try:
        await asyncio.wait({stopping})
    finally:
        stopping.cancel()  # nothing once it is done; else whoever waits was cancelled himself
    if not stopping.cancelled():
        stopping.result()


async def connect(client: Startable, address: KafkaAddress) -> None:
    """Start `client`; raises ConfigError when it is not let in, LogUnavailableError when nobody answers."""
    with translated(address, f"connecting ({address.security})"):
        async with asyncio.timeout(CALL_TIMEOUT_S):
            try:
                await client.start()
            except (kafka.KafkaConnectionError, ValueError):  # ValueError: see _REFUSALS
                await explain_refusal(address)
                raise


async def explain_refusal(address: KafkaAddress) -> None:
    """Raise ConfigError when a broker is there but does not let us in: no retry can mend it.

    aiokafka only logs why it could not connect, so one connection to each server is tried
    by hand. Returns when one lets us in, or when nothing is known but that none answers.
    """
    refusals: list[ConfigError] = []
    for server in address.servers:
        try:
            async with _connection(address, server):
                return
        except _AWAY:
            continue
        except _REFUSALS as error:
            refusals.append(_refusal(address, server, error))
        except (kafka.KafkaError, OSError):
            continue  # starting, or silent
    if refusals:
        raise refusals[0]


@asynccontextmanager
async def _connection(address: KafkaAddress, server: str) -> AsyncIterator[None]:
    host, _, port = server.rpartition(":")
    opened = await create_conn(host.strip("[]"), int(port), **_connection_arguments(address))
    try:
        yield
    finally:
        opened.close()


# Ends of the connection, which a broker that stops or starts brings about too.
_AWAY = (ssl.SSLEOFError, ssl.SSLZeroReturnError, TimeoutError)
# ValueError: a SCRAM signature of a broker that does not know the password either
_REFUSALS = (
    kafka.AuthenticationFailedError,
    kafka.SaslAuthenticationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
    ssl.SSLError,
    ValueError,
)


def _refusal(address: KafkaAddress, server: str, error: Exception) -> ConfigError:
    who = f"{address}: {server} ({address.security})"
    if isinstance(error, ssl.SSLCertVerificationError):
        trusted = address.security.ca_file or "the system's certificates"
        return ConfigError(
            f"{who}: its certificate is not trusted by {trusted}: {error.verify_message}; check kafka_ca_file"
        )
    if isinstance(error, ssl.SSLError):
        return ConfigError(
            f"{who}: no TLS connection: {error.reason}; does this port speak TLS, and does it ask for "
            "a client certificate (kafka_cert_file)?"
        )
    if isinstance(error, kafka.UnsupportedSaslMechanismError):
        return ConfigError(f"{who}: the broker does not offer this mechanism; check kafka_sasl_mechanism")
    if isinstance(error, kafka.IllegalSaslStateError):
        return ConfigError(f"{who}: the broker does not expect a login on this port")
    return ConfigError(f"{who}: authentication failed; check kafka_username and kafka_password")


@contextmanager
def translated(address: KafkaAddress, doing: str) -> Iterator[None]:
    """Turn aiokafka's errors and time-outs into driftline's."""
    try:
        yield
    except (
        kafka.TopicAuthorizationFailedError,
        kafka.GroupAuthorizationFailedError,
        kafka.ClusterAuthorizationFailedError,
        kafka.AuthenticationFailedError,
        kafka.SaslAuthenticationFailed,
        kafka.UnsupportedSaslMechanismError,
        kafka.PolicyViolationError,
        kafka.IncompatibleBrokerVersion,
    ) as error:
        raise ConfigError(
            f"{address}: {doing}: refused ({address.security}): {error!r}; check ACLs and versions"
        ) from error
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
