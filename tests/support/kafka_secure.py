"""A Kafka broker that asks for TLS, a login and rights, with certificates made for the occasion.

Invariant: the rights are those of docs/how-to/kafka-security.md: its commands are
read from the page, and an option that is not understood is an error.
"""

from __future__ import annotations

import argparse
import re
import secrets
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest

from driftline.log import KafkaSecurity
from driftline.servers import KafkaBroker
from driftline.servers.kafka import ListenerSecurity, find_jars
from tests.support.servers import ROOT

PAGE = ROOT / "docs" / "how-to" / "kafka-security.md"
ROLES = ("trainer", "reader", "ingest", "operator", "service")
MECHANISM = "SCRAM-SHA-512"

# Codes of the protocol: ResourceType, PatternType, AclOperation, AclPermissionType (KIP-140, KIP-290).
_RESOURCES = {"topic": 2, "group": 3}
_PATTERNS = {"literal": 3, "prefixed": 4}
_OPERATIONS = {"All": 2, "Read": 3, "Write": 4, "Create": 5, "Describe": 8}
_ALLOW = 3


@dataclass(frozen=True, slots=True)
class Acl:
    """One right, as the protocol has it."""

    principal: str
    operation: str
    resource: str  # "topic" or "group"
    name: str
    pattern: str


@dataclass(frozen=True, slots=True)
class SecureBroker:
    """A running broker, the passwords of its users, and the authority that it trusts."""

    broker: KafkaBroker
    passwords: Mapping[str, str]
    ca_file: Path

    @property
    def url(self) -> str:
        return self.broker.url

    def security(
        self, user: str, *, password: str | None = None, ca_file: Path | None = None
    ) -> KafkaSecurity:
        """Return how `user` connects."""
        given = self.passwords[user] if password is None else password
        return KafkaSecurity("SASL_SSL", MECHANISM, user, given, ca_file or self.ca_file)


@contextmanager
def secure_broker(directory: Path) -> Iterator[SecureBroker]:
    """Run a broker with TLS, SCRAM and an authorizer; nobody has any right yet."""
    ca = make_authority(directory / "ca")
    store = make_certificate(directory / "ca", directory / "broker.pem")
    passwords = {role: secrets.token_hex(12) for role in ROLES}
    security = ListenerSecurity(
        "SASL_SSL",
        passwords,
        {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",  # who comes in by the operator's port
        },
    )
    with KafkaBroker(find_jars(), directory / "broker", security=security) as broker:
        yield SecureBroker(broker, passwords, ca)


def make_authority(directory: Path) -> Path:
    """Make a certificate authority and return its certificate."""
    directory.mkdir()
    ca, key = directory / "ca.pem", directory / "ca.key"
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=driftline tests"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
        *("-keyout", str(key), "-out", str(ca)),
    )
    return ca


def make_certificate(authority: Path, target: Path) -> Path:
    """Make a certificate for loopback, signed by an authority; return a file with key and certificate."""
    key, request, signed = (target.with_suffix(suffix) for suffix in (".key", ".csr", ".crt"))
    extensions = target.with_suffix(".ext")
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=broker"),
        *("-keyout", str(key), "-out", str(request)),
    )
    _openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(authority / "ca.pem")),
        *("-CAkey", str(authority / "ca.key"), "-days", "2", "-extfile", str(extensions)),
        *("-out", str(signed)),
    )
    target.write_text(key.read_text() + signed.read_text())
    return target


def documented_acls(role: str) -> list[Acl]:
    """Return the rights that the page's commands give to `role`."""
    block = re.search(rf"<!-- acls: {role} -->\n```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None, f"{PAGE} has no ACLs for {role}"
    return [acl for line in block[1].splitlines() for acl in _parse(line)]


async def grant(operator_url: str, acls: list[Acl]) -> None:
    """Give rights, as `kafka-acls.sh --add` would."""
    admin = AIOKafkaAdminClient(bootstrap_servers=operator_url.removeprefix("kafka://"))
    await admin.start()
    try:
        for acl in acls:
            request = CreateAclsRequest(
                _RESOURCES[acl.resource],
                acl.name,
                _PATTERNS[acl.pattern],
                acl.principal,
                "*",
                _OPERATIONS[acl.operation],
                _ALLOW,
            )
            answer = await admin._send_request(request)
            assert [each[0] for each in answer.creation_responses] == [0], answer
    finally:
        await admin.close()


def _parse(line: str) -> list[Acl]:
    command = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    command.add_argument("--bootstrap-server", required=True)
    command.add_argument("--command-config", required=True)
    command.add_argument("--add", action="store_true", required=True)
    command.add_argument("--allow-principal", required=True)
    command.add_argument("--operation", action="append", required=True, choices=_OPERATIONS)
    command.add_argument("--resource-pattern-type", default="literal", choices=_PATTERNS)
    for resource in _RESOURCES:
        command.add_argument(f"--{resource}", action="append", default=[])
    program, *words = shlex.split(line)
    assert program == "kafka-acls.sh", line
    given = command.parse_args(words)
    return [
        Acl(given.allow_principal, operation, resource, name, given.resource_pattern_type)
        for operation in given.operation
        for resource in _RESOURCES
        for name in getattr(given, resource)
    ]


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
