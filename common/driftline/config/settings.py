"""Every setting of a deployment, once, with its unit, default and rule.

Invariant: a `Settings` that exists is valid, and printing it, or a complaint about
a value, never shows a secret or the password in a URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from driftline.config.values import (
    Bytes,
    Gates,
    GroupName,
    HomePath,
    InstanceName,
    Keys,
    Limits,
    LogLevel,
    LogUrl,
    Port,
    RedisUrl,
    Scenario,
    Seconds,
    StoreUrl,
    TimeOfDay,
)
from driftline.rows.address import redact

ENV_PREFIX = "DRIFTLINE_"
HIDDEN = "***"
SECRETS = frozenset({"key", "kafka_password"})
"""Settings that are never printed, and not taken as flags."""


def redact_url(url: str) -> str:
    """Return `url` with passwords and tokens replaced by ***, also where it is malformed.

    Examples
    --------
    >>> redact_url("rediss://ann:s3@cret@host:6379/0?ssl_password=x")
    'rediss://ann:***@host:6379/0?ssl_password=***'
    """
    return redact(url)


class Settings(BaseSettings):
    """Valid settings; frozen. Made by `load_settings`; called directly, what is not given is the default."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    log_url: LogUrl = Field(
        default="local://.driftline",
        description="The log: `local://DIR` (embedded, one machine) or `kafka://host:port,host:port`.",
    )
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT",
        description="How to connect to `kafka://`: with TLS (`SSL`), with a login (`SASL_PLAINTEXT`), "
        "or both (`SASL_SSL`).",
    )
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="How the login is made: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`."
    )
    kafka_username: str | None = Field(default=None, description="User of the login.", min_length=1)
    kafka_password: SecretStr | None = Field(
        default=None,
        description="Password of the login. Wins over `kafka_password_file`; not taken as a flag.",
    )
    kafka_password_file: HomePath | None = Field(
        default=None, description="File that holds the password; white space around it does not count."
    )
    kafka_ca_file: HomePath | None = Field(
        default=None,
        description="Certificates (PEM) that vouch for the brokers. Not set: those that the system trusts.",
    )
    kafka_cert_file: HomePath | None = Field(
        default=None, description="Certificate (PEM) of this client, where brokers ask for one."
    )
    kafka_key_file: HomePath | None = Field(
        default=None,
        description="Its private key (PEM, without a password). Not set: it is in `kafka_cert_file`.",
    )
    redis_url: RedisUrl | None = Field(
        default=None,
        description="Redis that holds the rows: `redis://`, `rediss://` or `unix://`; several as "
        "`a=redis://…,b=redis://…`; a cluster as `redis+cluster://host:port,host:port`. "
        "Not set: the one that `driftline up` started.",
    )
    placement: Literal["equal", "least-stored"] = Field(
        default="equal",
        description="Server of a new table's shards, with several: in turn, or the one that stores least.",
    )
    data_dir: HomePath = Field(
        default=Path(".driftline"),
        description="Directory of what this machine keeps; relative to the working directory.",
    )
    store_url: StoreUrl | None = Field(
        default=None,
        description="Object store of the versions: `file:///DIR`, `s3://`, `gs://` or `az://` with a path; "
        "each group has a folder below it. Not set: `data_dir`/versions.",
    )
    version_cache_dir: HomePath | None = Field(
        default=None,
        description="Directory for objects of versions fetched from elsewhere. "
        "Not set: `data_dir`/version-cache.",
    )
    version_cache_bytes: Bytes = Field(
        default=4 << 30,
        description="Size that directory may have.",
        json_schema_extra={"unit": "bytes"},
    )
    version_buffer_bytes: Bytes = Field(
        default=1 << 30,
        description="Changed rows that a versioner keeps in memory, over its shards, before it moves them "
        "to a temporary file.",
        json_schema_extra={"unit": "bytes"},
    )
    version_every_s: Seconds | None = Field(
        default=None,
        description="A version so long after the last one, if rows have changed. Not set: none by time.",
        json_schema_extra={"unit": "seconds"},
    )
    version_every_bytes: Bytes | None = Field(
        default=None,
        description="A version once so much has changed since the last one. Not set: none by amount.",
        json_schema_extra={"unit": "bytes"},
    )
    version_daily_at: TimeOfDay | None = Field(
        default="00:00",
        description="A version each day at this time (UTC), if rows have changed; `off`: none.",
    )
    version_scenario: Scenario = Field(
        default="R",
        description="Scenario of the first version, where its barrier names none: 1 to 8 capitals or digits.",
    )
    version_gates: Gates = Field(
        default="",
        description="What judges a version before it is stored, separated by white space: "
        "`drift` (the monitor's verdict), `figure:NAME:lower|higher:TOLERANCE[%]`, "
        "`call:module.function`, `http://…` or `https://…`.",
    )
    version_gate_timeout_s: Seconds = Field(
        default=60.0,
        description="How long the gates may take, together.",
        json_schema_extra={"unit": "seconds"},
    )
    version_gate_unanswered: Literal["store", "reject"] = Field(
        default="store",
        description="What becomes of a version that a gate did not judge, for want of a figure or an answer.",
    )
    backup_every_s: Seconds | None = Field(
        default=60.0,
        description="A backup in the versioner's memory so long after the last, if rows have changed.",
        json_schema_extra={"unit": "seconds"},
    )
    backups_kept: int = Field(default=60, ge=0, le=10_000, description="Newest backups that are kept.")
    backups_hourly: int = Field(
        default=24, ge=0, le=10_000, description="Older backups that are kept, the newest of each hour."
    )
    backups_bytes: Bytes = Field(
        default=256 << 20,
        description="Memory that backups may take; the oldest go first.",
        json_schema_extra={"unit": "bytes"},
    )
    versioner: bool = Field(
        default=True, description="Whether `driftline up` runs a versioner beside the aggregator."
    )
    versioner_http_port: Port = Field(
        default=8322, description="Port on which the versioner answers /metrics, /livez and /readyz; 0: off."
    )
    drift_monitor: bool = Field(
        default=True,
        description="Whether `driftline up` runs a drift monitor beside the aggregator; versions and "
        "backups then wait for its verdict.",
    )
    drift_http_port: Port = Field(
        default=8323, description="Port on which the monitor answers /metrics, /livez and /readyz; 0: off."
    )
    drift_mode: Literal["observe", "approve", "auto"] = Field(
        default="observe",
        description="What becomes of an alarm: it is told (`observe`), carried out once a person says so "
        "(`approve`), or carried out at once (`auto`).",
    )
    drift_metric: Literal["cosine", "l2", "inner_product"] = Field(
        default="cosine", description="By what the monitor's graph calls rows near."
    )
    drift_neighbours: int = Field(default=10, ge=1, le=100, description="Neighbours per row in that graph.")
    drift_rows: int = Field(
        default=2_000_000,
        ge=1_000,
        description="Rows that a monitor watches at most, over its tables: of more, a part chosen by the "
        "ids' hash.",
    )
    drift_false_actions_per_day: float = Field(
        default=1 / 7,
        gt=0,
        description="False actions a day that are tolerated, of nodes and of ticks together.",
    )
    drift_few_nodes: int = Field(
        default=20, ge=0, description="Up to so many deviating nodes go back alone; more take the group back."
    )
    drift_thresholds: Limits = Field(
        default="",
        description="Fixed thresholds of nodes, in the place of the calibrated rule: `MEASURE=LIMIT`, "
        "separated by white space.",
    )
    drift_least_ticks: int = Field(
        default=100, ge=20, description="Ticks of calibration before ticks are judged as a whole."
    )
    drift_settle_ticks: int = Field(
        default=60, ge=0, description="Ticks without an alarm that must follow before a tick is learned from."
    )
    drift_cool_ticks: int = Field(
        default=30, ge=0, description="Ticks after a rollback in which only hard limits raise an alarm."
    )
    group: GroupName = Field(
        default="default", description="The tables that version together; names the ops topic."
    )
    key: Keys | None = Field(
        default=None,
        description="Signing keys of the deployment, hex, separated by commas: the current one, "
        "then retired ones. Wins over `key_file`; not taken as a flag.",
    )
    key_file: HomePath | None = Field(
        default=None,
        description="File with the same content as `key`. Not set: `data_dir`/key, "
        "made on first use with a `local://` log.",
    )
    instance_id: InstanceName | None = Field(
        default=None,
        description="Name of this worker that outlives restarts (static membership). "
        "Not set: a fresh member.",
    )
    cache_bytes: Bytes = Field(
        default=512 << 20,
        description="Rows cached in memory by a worker, over all its shards.",
        json_schema_extra={"unit": "bytes"},
    )
    flush_bytes: Bytes = Field(
        default=8 << 20,
        description="Changed rows of a shard that may wait for their commit before applying pauses.",
        json_schema_extra={"unit": "bytes"},
    )
    publish_window: Bytes = Field(
        default=16 << 20,
        description="Row states of a shard that may be committed but not yet published.",
        json_schema_extra={"unit": "bytes"},
    )
    push_buffer_bytes: Bytes = Field(
        default=64 << 20,
        description="Frames a publisher queues before `push` waits.",
        json_schema_extra={"unit": "bytes"},
    )
    ingest_partitions: int = Field(
        default=4,
        ge=1,
        le=1024,
        description="Partitions of the ingest topic, when the aggregator makes it.",
    )
    ingest_incarnation: int = Field(
        default=0,
        ge=0,
        lt=1 << 32,
        description="To be raised by one when the ingest topic was deleted and made anew: "
        "what it holds then counts as new.",
    )
    http_host: str = Field(
        default="127.0.0.1",
        description="Address on which a service answers /metrics, /livez and /readyz.",
        min_length=1,
    )
    http_port: Port = Field(default=8321, description="Port of the same; 0 turns it off.")
    log_level: LogLevel = Field(default="info", description="Least severe message a service logs.")
    session_timeout_s: Seconds = Field(
        default=10.0,
        description="A worker that is silent for so long loses its shards to the others (Kafka).",
        json_schema_extra={"unit": "seconds"},
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from the caller only: `load_settings` knows the other sources and their order."""
        return (init_settings,)

    def __repr_args__(self) -> Iterator[tuple[str | None, object]]:
        """Keep passwords out of logs and tracebacks that print the settings."""
        for name in type(self).model_fields:
            yield name, shown(name, getattr(self, name))


def shown(name: str, value: object) -> object:
    """Return the value of setting `name` as it may be printed: secrets hidden, paths as text."""
    if value is None:
        return None
    if name in SECRETS:
        return HIDDEN
    if isinstance(value, str) and name.endswith("_url"):
        return redact_url(value)
    return str(value) if isinstance(value, Path) else value
