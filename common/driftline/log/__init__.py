"""The log: one protocol, two backends, opened by URL.

Invariant: whatever `open_log` returns keeps the contract of `driftline.log.base`,
and tests/conformance holds both backends to it alike.
"""

from __future__ import annotations

from driftline.errors import ConfigError
from driftline.log.address import KafkaAddress, LocalAddress, parse_address
from driftline.log.base import Bounds, Headers, Log, Outgoing, Reader, Record
from driftline.log.limits import MAX_BATCH_BYTES, MAX_RECORD_BYTES, batch_size, record_size, split
from driftline.log.security import OPEN, KafkaSecurity

__all__ = [
    "MAX_BATCH_BYTES",
    "MAX_RECORD_BYTES",
    "Bounds",
    "Headers",
    "KafkaAddress",
    "KafkaSecurity",
    "LocalAddress",
    "Log",
    "Outgoing",
    "Reader",
    "Record",
    "batch_size",
    "check_exists",
    "open_log",
    "parse_address",
    "record_size",
    "split",
]


def open_log(url: str, security: KafkaSecurity = OPEN) -> Log:
    """Return the log at `url`; nothing is touched before `start` (or `async with`).

    `local://DIR` (relative) or `local:///abs/dir`: SQLite files, several processes of one
    machine. `kafka://host:port,host:port`: an Apache Kafka cluster, connected to as
    `security` says; a local log needs none.

    Raises ConfigError for any other URL.

    Examples
    --------
    >>> open_log("local://data/run").__class__.__name__
    'LocalLog'
    """
    address = parse_address(url, security)
    # Imported here: a local run need not load aiokafka, nor a Kafka client sqlite3.
    if isinstance(address, LocalAddress):
        from driftline.log.local import LocalLog

        return LocalLog(address.root)
    from driftline.log.kafka import KafkaLog

    return KafkaLog(address)


def check_exists(url: str) -> None:
    """Raise ConfigError when `url` names a directory that holds no log: a log to be read is not made.

    A Kafka cluster is not asked: it has its own way to say that there is nothing.
    """
    address = parse_address(url)
    if not isinstance(address, LocalAddress):
        return
    from driftline.log.local.layout import holds_log, nearest_log

    if holds_log(address.root):
        return
    near = nearest_log(address.root)
    hint = f"did you mean local://{near}?" if near else "start `driftline up`, or set DRIFTLINE_LOG_URL"
    what = "holds no log" if address.root.is_dir() else "is not there"
    raise ConfigError(f"log {url}: the directory {what}: {hint}")
