"""A Kafka broker (KRaft) on loopback, from the jars of `org.apache.kafka:kafka_2.13`.

Invariant: the data directory is formatted once and keeps its cluster id; what the
broker acknowledged survives a kill of the process; ports stay the same over
restarts. Nothing creates a topic by accident.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from driftline.errors import ConfigError
from driftline.servers.child import Command
from driftline.servers.local import HOST, LocalServer

# One small node: C1 only and the serial collector bring it up in under 3 s on two cores.
_JVM = ("-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
_SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(8 << 20),
    "replica.fetch.max.bytes": str(8 << 20),
    # A killed broker may register again only when its old session has run out: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "num.network.threads": "2",
    "num.io.threads": "4",
}
_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""
_GET_JARS = "`make tools` copies them into $DRIFTLINE_TOOLS/kafka (it needs Maven)"


@dataclass(frozen=True, slots=True)
class Quorum:
    """A node's place among the controllers of a cluster."""

    cluster: str  # id of the cluster
    node: int
    controllers: Mapping[int, int]  # node -> controller port


@dataclass(frozen=True, slots=True)
class ListenerSecurity:
    """What the clients' listener asks of clients; another one, without any, is for the operator.

    `users` are SCRAM-SHA-512 credentials, known from the first start. `settings` holds the
    broker's side: key store, trust store, authorizer.
    """

    protocol: str
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)


class KafkaBroker(LocalServer):
    """One broker and controller in one process.

    Parameters
    ----------
    jars_dir: folder with the jars of `kafka_2.13` and what they need, see `find_jars`.
    data_dir: where the log lives; made and formatted when new.
    port: fixed port; None takes a free one and keeps it (the controller's port is always a free one).
    heap_mb: the JVM's maximum heap, MiB.
    settings: broker properties on top of ours.
    quorum: this broker's place in a cluster, see `KafkaCluster`; None: a cluster of its own.
    security: what clients must bring; None: nothing.
    """

    name = "kafka"
    ports_needed = 3  # clients, controllers, operator
    start_timeout = 60.0  # a JVM on a machine that is busy with other things

    def __init__(
        self,
        jars_dir: Path,
        data_dir: Path,
        *,
        port: int | None = None,
        heap_mb: int = 512,
        settings: Mapping[str, str] | None = None,
        quorum: Quorum | None = None,
        security: ListenerSecurity | None = None,
    ) -> None:
        super().__init__(data_dir, port=port)
        self.jars_dir = jars_dir.absolute()
        self._heap_mb = heap_mb
        self._settings = dict(settings or {})
        self._quorum = quorum
        self._security = security

    @property
    def bootstrap(self) -> str:
        """`host:port` for Kafka clients, stable over restarts."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """URL for driftline, stable over restarts."""
        return f"kafka://{self.bootstrap}"

    @property
    def operator_url(self) -> str:
        """URL that asks for no credentials, also where clients must bring them."""
        return self.url if self._security is None else f"kafka://{HOST}:{self._ports[2]}"

    def _choose_ports(self) -> Sequence[int]:
        client, controller, operator = super()._choose_ports()
        if self._quorum is not None:
            controller = self._quorum.controllers[self._quorum.node]
        return [client, controller, operator]

    def _command(self, ports: Sequence[int]) -> Command:
        java = find_java()
        if not any(self.jars_dir.glob("kafka_2.13-*.jar")):
            raise ConfigError(f"no Kafka jars (kafka_2.13-*.jar) in {self.jars_dir}: {_GET_JARS}")
        log_dir = self.data_dir / "log"
        log_dir.mkdir(parents=True, exist_ok=True)
        logging = self.data_dir / "log4j2.properties"
        logging.write_text(_LOGGING)
        properties = self.data_dir / "server.properties"
        quorum = self._quorum or Quorum(new_cluster_id(), 1, {1: ports[1]})
        settings = {
            **_SETTINGS,
            **_listeners(ports, self._security),
            "node.id": str(quorum.node),
            "controller.quorum.voters": ",".join(
                f"{node}@{HOST}:{port}" for node, port in quorum.controllers.items()
            ),
            "log.dirs": str(log_dir),
            **self._settings,
        }
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        run = [
            *(str(java), f"-Xmx{self._heap_mb}m", *_JVM, f"-Dlog4j2.configurationFile={logging}"),
            *("-cp", str(self.jars_dir / "*")),
        ]
        if not (log_dir / "meta.properties").exists():
            _format(run, properties, quorum.cluster, self._security.users if self._security else {})
        # SIGKILL when the parent dies: a JVM's shutdown hooks may hang, and the log survives it.
        return Command([*run, "kafka.Kafka", str(properties)], death_signal=signal.SIGKILL)

    def _answers(self, ports: Sequence[int], pid: int) -> bool:
        return brokers_alive(HOST, ports[0] if self._security is None else ports[2]) > 0


def find_jars() -> Path:
    """Return $DRIFTLINE_TOOLS/kafka; ConfigError when it is not set or holds no Kafka jars."""
    tools = os.environ.get("DRIFTLINE_TOOLS")
    if tools is None:
        raise ConfigError(f"DRIFTLINE_TOOLS is not set, so the Kafka jars cannot be found: {_GET_JARS}")
    jars = Path(tools) / "kafka"
    if not any(jars.glob("kafka_2.13-*.jar")):
        raise ConfigError(f"no Kafka jars (kafka_2.13-*.jar) in {jars}: {_GET_JARS}")
    return jars


def find_java() -> Path:
    """Return $JAVA_HOME/bin/java, else `java` from PATH; ConfigError when there is neither."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise ConfigError("no java found: Kafka needs Java 17 or newer (Debian: openjdk-17-jdk-headless)")
    return Path(found)


def brokers_alive(host: str, port: int) -> int:
    """Return how many brokers take part in the cluster behind `host:port`; 0 while it cannot tell.

    A broker listens before it may host topics; only the cluster's metadata tells. One Metadata
    request, version 5 (KIP-219), by hand: the client libraries are asynchronous.
    """
    body = struct.pack(">hhih", 3, 5, 0, -1) + struct.pack(">i?", 0, False)
    try:
        with socket.create_connection((host, port), timeout=1.0) as connection:
            connection.settimeout(5.0)
            connection.sendall(struct.pack(">i", len(body)) + body)
            reply = b""
            while len(reply) < 16:  # size, correlation id, throttle time, number of brokers
                chunk = connection.recv(4096)
                if not chunk:
                    return 0
                reply += chunk
    except OSError:
        return 0
    return int(struct.unpack_from(">i", reply, 12)[0])


def _listeners(ports: Sequence[int], security: ListenerSecurity | None) -> Mapping[str, str]:
    client, controller, operator = (f"{HOST}:{port}" for port in ports)
    if security is None:
        return {
            "listeners": f"PLAINTEXT://{client},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{client}",
        }
    protocol = security.protocol
    return {
        "listeners": f"{protocol}://{client},OPERATOR://{operator},CONTROLLER://{controller}",
        "advertised.listeners": f"{protocol}://{client},OPERATOR://{operator}",
        "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,OPERATOR:PLAINTEXT,{protocol}:{protocol}",
        "inter.broker.listener.name": "OPERATOR",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        f"listener.name.{protocol.lower()}.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        **security.settings,
    }


def new_cluster_id() -> str:
    """Return an id as Kafka wants it: 16 random bytes in base64, for URLs and without padding."""
    data = bytearray(uuid.uuid4().bytes)
    data[0] &= 0x7F  # else one in 64 begins with "-", and kafka-storage takes it for an option
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _format(run: Sequence[str], properties: Path, cluster: str, users: Mapping[str, str]) -> None:
    credentials = [
        word
        for name, password in users.items()
        for word in ("--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]")
    ]
    done = subprocess.run(
        [*run, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(properties), *credentials],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ConfigError(f"Kafka could not format {properties.parent}:\n{done.stdout}{done.stderr}")
