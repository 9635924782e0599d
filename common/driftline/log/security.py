"""How a client proves who it is to a Kafka cluster, and how it knows the cluster.

Invariant: a `KafkaSecurity` that exists is a combination that can work, named by
the settings it comes from; printing it shows no secret. Certificates are read when a
client is opened, and kept by it: a renewed one counts from the next start on.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from driftline.errors import ConfigError

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """Protocol, credentials and certificates; the fields are the settings without `kafka_`.

    Raises ConfigError for a combination that cannot work, naming the settings.

    Examples
    --------
    >>> KafkaSecurity("SASL_SSL", "SCRAM-SHA-512", "ann", "secret")
    KafkaSecurity(security_protocol='SASL_SSL', sasl_mechanism='SCRAM-SHA-512', username='ann', \
ca_file=None, cert_file=None, key_file=None)
    """

    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None  # PEM; None trusts what the system trusts
    cert_file: Path | None = None  # PEM, of this client
    key_file: Path | None = None  # PEM; None: it is in cert_file

    def __post_init__(self) -> None:
        protocol, mechanism = self.security_protocol, self.sasl_mechanism
        if protocol not in PROTOCOLS:
            raise ConfigError(f"kafka_security_protocol is {protocol!r}: use one of {', '.join(PROTOCOLS)}")
        if mechanism is not None and mechanism not in MECHANISMS:
            raise ConfigError(f"kafka_sasl_mechanism is {mechanism!r}: use one of {', '.join(MECHANISMS)}")
        login = {
            "kafka_sasl_mechanism": mechanism,
            "kafka_username": self.username,
            "kafka_password": self.password,
        }
        files = {
            "kafka_ca_file": self.ca_file,
            "kafka_cert_file": self.cert_file,
            "kafka_key_file": self.key_file,
        }
        if self.uses_sasl and (missing := [name for name, value in login.items() if not value]):
            raise ConfigError(f"kafka_security_protocol is {protocol}: it needs {' and '.join(missing)} too")
        if not self.uses_sasl and (idle := [name for name, value in login.items() if value is not None]):
            raise ConfigError(
                f"{' and '.join(idle)} would not be used: kafka_security_protocol is {protocol}; "
                "set SASL_SSL or SASL_PLAINTEXT"
            )
        if not self.uses_tls and (idle := [name for name, value in files.items() if value is not None]):
            raise ConfigError(
                f"{' and '.join(idle)} would not be used: kafka_security_protocol is {protocol}; "
                "set SSL or SASL_SSL"
            )
        if self.key_file is not None and self.cert_file is None:
            raise ConfigError("kafka_key_file is set without kafka_cert_file: a key proves nothing alone")

    @property
    def uses_sasl(self) -> bool:
        return self.security_protocol.startswith("SASL_")

    @property
    def uses_tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    def ssl_context(self) -> ssl.SSLContext | None:
        """Return what TLS connections are made with, None without TLS: the host name is checked.

        Raises ConfigError naming a file that cannot be used.
        """
        if not self.uses_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(
                f"kafka_ca_file {str(self.ca_file)!r} cannot be used: {_reason(error)}"
            ) from None
        if self.cert_file is not None:
            try:
                # an empty password: without one OpenSSL would ask on the terminal
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"kafka_cert_file {str(self.cert_file)!r} or kafka_key_file {str(self.key_file)!r} "
                    f"cannot be used: {_reason(error)}; the key must be PEM without a password"
                ) from None
        return context

    def __str__(self) -> str:
        """Return who connects and how, as error messages say it."""
        if not self.uses_sasl:
            return self.security_protocol
        return f"{self.security_protocol}, user {self.username!r}, mechanism {self.sasl_mechanism}"


OPEN = KafkaSecurity()
"""Neither encryption nor authentication."""


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
