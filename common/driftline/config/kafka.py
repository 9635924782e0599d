"""The security of Kafka connections, from the settings.

Invariant: a password is read from its file when a connection is about to be made,
and no error repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from driftline.config.settings import ENV_PREFIX, Settings
from driftline.errors import ConfigError
from driftline.log.security import KafkaSecurity

_UNREAD = "not read yet"


def kafka_security(settings: Settings) -> KafkaSecurity:
    """Return how to connect to Kafka.

    Raises ConfigError naming the settings that do not fit together, or a password file that
    cannot be read.
    """
    password = settings.kafka_password.get_secret_value() if settings.kafka_password is not None else None
    if password is None and settings.kafka_password_file is not None:
        password = _read(settings)
    return _security(settings, password)


def kafka_environment(security: KafkaSecurity) -> Mapping[str, str]:
    """Return the variables that give a child process this security, with paths made absolute.

    What is not set is empty, which counts as not set.
    """
    variables: dict[str, str] = {}
    for each in fields(security):
        value = getattr(security, each.name)
        text = str(value.absolute()) if isinstance(value, Path) else value or ""
        variables[f"{ENV_PREFIX}KAFKA_{each.name.upper()}"] = text
    return variables


def check_kafka(settings: Settings) -> None:
    """Raise ConfigError naming the settings that do not fit together; reads no file."""
    given = settings.kafka_password is not None or settings.kafka_password_file is not None
    _security(settings, _UNREAD if given else None)


def _security(settings: Settings, password: str | None) -> KafkaSecurity:
    return KafkaSecurity(
        settings.kafka_security_protocol,
        settings.kafka_sasl_mechanism,
        settings.kafka_username,
        password,
        settings.kafka_ca_file,
        settings.kafka_cert_file,
        settings.kafka_key_file,
    )


def _read(settings: Settings) -> str:
    path = settings.kafka_password_file
    assert path is not None, "the caller has looked"
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        # a decoding error would quote the content
        reason = error.strerror if isinstance(error, OSError) else "not plain text"
        raise ConfigError(f"kafka_password_file {str(path)!r} cannot be read: {reason}") from None
    if not text:
        raise ConfigError(f"kafka_password_file {str(path)!r} is empty")
    return text
