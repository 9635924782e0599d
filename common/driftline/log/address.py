"""URLs of logs, taken apart.

Invariant: pure; a URL that parses names exactly one log, everything else is a
ConfigError that names the URL and the accepted forms.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from driftline.errors import ConfigError
from driftline.log.security import OPEN, KafkaSecurity

KAFKA_PORT = 9092
LOCAL = "local://"
KAFKA = "kafka://"


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """Directory of an embedded log; relative to the working directory unless absolute."""

    root: Path


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """Bootstrap servers of a cluster, and how to be let in; printed without the latter.

    Every client that driftline opens takes its arguments from `driftline.log.kafka.client.arguments`.
    """

    servers: tuple[str, ...]  # "host:port", at least one
    security: KafkaSecurity = OPEN

    def __str__(self) -> str:
        return KAFKA + ",".join(self.servers)


def parse_address(url: str, security: KafkaSecurity = OPEN) -> LocalAddress | KafkaAddress:
    """Return the address that `url` stands for; `security` matters to a Kafka cluster only.

    Raises ConfigError when the scheme is neither `local` nor `kafka`, or a part is malformed.

    Examples
    --------
    >>> parse_address("kafka://a:9092,b").servers
    ('a:9092', 'b:9092')
    >>> str(parse_address("local:///var/lib/driftline").root)
    '/var/lib/driftline'
    """
    if url.startswith(LOCAL):
        directory = url.removeprefix(LOCAL)
        if not directory:
            raise ConfigError(f"log URL {url!r} names no directory: use local://DIR or local:///abs/dir")
        return LocalAddress(Path(directory).expanduser())
    if url.startswith(KAFKA):
        servers = tuple(_server(url, part) for part in url.removeprefix(KAFKA).split(","))
        return KafkaAddress(servers, security)
    raise ConfigError(f"log URL {url!r} is not known: use local://DIR or kafka://host:port,host:port")


def _server(url: str, text: str) -> str:
    host, colon, port = text.rpartition(":") if _has_port(text) else (text, "", str(KAFKA_PORT))
    del colon
    if not host or any(mark in host for mark in "/?#@ ") or not port.isascii() or not port.isdigit():
        raise ConfigError(f"log URL {url!r}: {text!r} is not host:port")
    if not 0 < int(port) < 1 << 16:
        raise ConfigError(f"log URL {url!r}: port {port} is not in 1..65535")
    return f"{host}:{port}"


def _has_port(text: str) -> bool:
    # "[::1]" is an IPv6 host without a port: the last colon is inside the brackets.
    return ":" in text and not text.endswith("]")
