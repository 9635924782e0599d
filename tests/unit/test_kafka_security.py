"""Settings of Kafka's security: what fits together, what is refused, and what is never shown."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from driftline.cli.config_command import app
from driftline.config import kafka_environment, kafka_security, load_settings
from driftline.errors import ConfigError
from driftline.log import KafkaAddress, KafkaSecurity, parse_address
from driftline_services.chassis.worker import OnceInAWhile

SECRET = "s3cret-of-the-tests"
LOGIN = {
    "DRIFTLINE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "DRIFTLINE_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "DRIFTLINE_KAFKA_USERNAME": "ann",
    "DRIFTLINE_KAFKA_PASSWORD": SECRET,
}


def security_of(environ: Mapping[str, str], tmp_path: Path) -> KafkaSecurity:
    return kafka_security(load_settings({}, cwd=tmp_path, environ=environ).settings)


def test_nothing_set_means_neither_encryption_nor_login(tmp_path: Path) -> None:
    assert security_of({}, tmp_path) == KafkaSecurity()
    assert KafkaSecurity().ssl_context() is None


def test_the_settings_make_the_security_of_every_connection(tmp_path: Path) -> None:
    found = security_of(LOGIN, tmp_path)
    assert found == KafkaSecurity("SASL_SSL", "SCRAM-SHA-512", "ann", SECRET)


def test_a_password_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    environ = {**LOGIN, "DRIFTLINE_KAFKA_PASSWORD": "", "DRIFTLINE_KAFKA_PASSWORD_FILE": str(file)}
    assert security_of(environ, tmp_path).password == SECRET


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe"])
def test_a_password_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    environ = {**LOGIN, "DRIFTLINE_KAFKA_PASSWORD": "", "DRIFTLINE_KAFKA_PASSWORD_FILE": str(file)}
    with pytest.raises(ConfigError, match=f"kafka_password_file '{file}'"):
        security_of(environ, tmp_path)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"SASL_MECHANISM": ""}, ["SASL_SSL", "kafka_sasl_mechanism"]),
        ({"USERNAME": ""}, ["SASL_SSL", "kafka_username"]),
        ({"PASSWORD": ""}, ["SASL_SSL", "kafka_password"]),
        ({"SECURITY_PROTOCOL": "SSL"}, ["kafka_sasl_mechanism and kafka_username and kafka_password", "SSL"]),
        ({"SECURITY_PROTOCOL": "SASL_PLAINTEXT", "CA_FILE": "ca.pem"}, ["kafka_ca_file", "SASL_PLAINTEXT"]),
        ({"KEY_FILE": "key.pem"}, ["kafka_key_file", "kafka_cert_file"]),
        ({"SECURITY_PROTOCOL": "TLS"}, ["kafka_security_protocol = 'TLS'"]),
        ({"SASL_MECHANISM": "GSSAPI"}, ["kafka_sasl_mechanism = 'GSSAPI'"]),
    ],
)
def test_a_combination_that_cannot_work_is_refused_by_name_when_settings_are_loaded(
    tmp_path: Path, change: Mapping[str, str], names: list[str]
) -> None:
    environ = LOGIN | {f"DRIFTLINE_KAFKA_{name}": value for name, value in change.items()}
    with pytest.raises(ConfigError) as caught:
        load_settings({}, cwd=tmp_path, environ=environ)
    assert all(name in str(caught.value) for name in names), caught.value
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("name", "field"), [("ca_file", "ca_file"), ("cert_file", "cert_file")])
def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path, name: str, field: str) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("not a certificate")
    for file in (broken, tmp_path / "missing.pem"):
        security = KafkaSecurity("SSL", **{field: file})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=rf"kafka_{name} '{file}'"):
            security.ssl_context()


def test_neither_security_nor_address_shows_the_password() -> None:
    security = KafkaSecurity("SASL_SSL", "SCRAM-SHA-512", "ann", SECRET)
    address = parse_address("kafka://k", security)
    assert isinstance(address, KafkaAddress)
    assert address.security == security
    assert SECRET not in f"{security!r} {security} {address!r} {address}"


def test_a_child_gets_the_same_security_by_its_environment(tmp_path: Path) -> None:
    security = KafkaSecurity("SASL_SSL", "PLAIN", "ann", SECRET, tmp_path / "ca.pem")
    assert security_of(kafka_environment(security), tmp_path) == security
    assert security_of(kafka_environment(KafkaSecurity()), tmp_path) == KafkaSecurity()


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_config_show_hides_the_password(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    shown = CliRunner().invoke(app, ["show", *options])
    assert shown.exit_code == 0
    assert "ann" in shown.output
    assert SECRET not in shown.output


def test_a_password_is_not_taken_as_a_flag() -> None:
    refused = CliRunner().invoke(app, ["show", "--kafka-password", SECRET])
    assert isinstance(refused.exception, ConfigError)
    assert "DRIFTLINE_KAFKA_PASSWORD" in str(refused.exception)
    assert SECRET not in str(refused.exception)


def record(name: str, message: str, created: float) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, "", 0, message, ("node",), None)
    made.created = created
    return made


def test_what_a_library_repeats_is_let_through_once_in_a_while() -> None:
    noise = OnceInAWhile("aiokafka", 30.0)
    assert noise.filter(record("aiokafka.conn", "away: %s", 1000.0))
    assert not noise.filter(record("aiokafka.conn", "away: %s", 1029.0))
    assert noise.filter(record("aiokafka.conn", "back: %s", 1029.0))
    assert noise.filter(record("aiokafka.conn", "away: %s", 1031.0))
    assert noise.filter(record("driftline", "away: %s", 1032.0))
    assert noise.filter(record("driftline", "away: %s", 1032.0))
