"""Redis servers that are not the plain one: tuned, behind TLS, and a cluster of several.

Invariant: all are real `redis-server` processes on loopback that end with the test.
"""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from driftline.servers import RedisServer
from driftline.servers.child import Command
from driftline.servers.local import HOST
from tests.support.waiting import until

SLOTS = 16384


class TunedRedis(RedisServer):
    """A Redis with settings of its own; `password` is that of the default user, if it has one."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str], *, password: str | None = None) -> None:
        super().__init__(data_dir)
        self._settings, self._password = dict(settings), password

    def _command(self, ports: Sequence[int]) -> Command:
        plain = super()._command(ports)
        more = [word for name, value in self._settings.items() for word in (f"--{name}", *value.split(" "))]
        return Command([*plain.arguments, *more], plain.environment, plain.death_signal)

    def _answers(self, ports: Sequence[int], pid: int) -> bool:
        try:
            with redis.Redis(host=HOST, port=ports[0], password=self._password, socket_timeout=2.0) as client:
                return bool(client.ping()) and client.info("server")["process_id"] == pid
        except redis.RedisError:
            return False

    def client(self) -> redis.Redis:
        """Return a client of the default user."""
        return redis.Redis(host=HOST, port=self.port, password=self._password)

    def tell(self, *command: object) -> object:
        """Run one command as the default user."""
        with self.client() as client:
            return tell(client, *command)


class ClusterNode(TunedRedis):
    """A node of a cluster; its bus has a port of its own, not one 10,000 higher, which may not exist."""

    ports_needed = 2

    def _command(self, ports: Sequence[int]) -> Command:
        plain = super()._command(ports)
        return Command(
            [*plain.arguments, "--cluster-port", str(ports[1])], plain.environment, plain.death_signal
        )

    @property
    def bus_port(self) -> int:
        return self._ports[1]


class TlsRedis(TunedRedis):
    """A Redis that speaks TLS only."""

    def __init__(self, data_dir: Path, authority: Authority) -> None:
        super().__init__(data_dir, {})
        self._authority = authority

    @property
    def url(self) -> str:
        return f"rediss://{HOST}:{self.port}/0?ssl_ca_certs={self._authority.ca}"

    def _command(self, ports: Sequence[int]) -> Command:
        plain = RedisServer._command(self, [0])
        files = self._authority
        more = ["--tls-port", str(ports[0]), "--tls-auth-clients", "no"]
        more += ["--tls-cert-file", str(files.certificate), "--tls-key-file", str(files.key)]
        more += ["--tls-ca-cert-file", str(files.ca)]
        return Command([*plain.arguments, *more], plain.environment, plain.death_signal)

    def _answers(self, ports: Sequence[int], pid: int) -> bool:
        try:
            with redis.Redis(
                host=HOST, port=ports[0], ssl=True, ssl_ca_certs=str(self._authority.ca), socket_timeout=2.0
            ) as client:
                return bool(client.ping()) and client.info("server")["process_id"] == pid
        except (redis.RedisError, ssl.SSLError):
            return False


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of the test's own, and a certificate of 127.0.0.1 by it."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def make(cls, directory: Path) -> Authority:
        """Create all files in `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        ca, ca_key = directory / "ca.crt", directory / "ca.key"
        request, key, certificate = (directory / f"server.{kind}" for kind in ("csr", "key", "crt"))
        names = directory / "names"
        names.write_text(f"subjectAltName=IP:{HOST}\n")
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        for arguments in (
            ["req", "-x509", *new_key, "-days", "2", "-subj", "/CN=tests", "-keyout", ca_key, "-out", ca],
            ["req", *new_key, "-subj", f"/CN={HOST}", "-keyout", key, "-out", request],
            [
                *("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"),
                *("-days", "2", "-extfile", names, "-out", certificate),
            ],
        ):
            subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
        return cls(ca, certificate, key)


class RedisCluster:
    """Three masters and a replica of each."""

    def __init__(self, nodes: Sequence[ClusterNode]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{HOST}:{node.port}" for node in self.nodes)

    def master_of(self, url: str) -> ClusterNode:
        """Return the node at a URL."""
        return next(node for node in self.nodes if f":{node.port}" in url)

    def form(self) -> None:
        """Join the nodes, spread the slots over the first three, make the rest their replicas."""
        masters, replicas = self.nodes[:3], self.nodes[3:]
        first = self.nodes[0]
        for node in self.nodes[1:]:
            first.tell("CLUSTER", "MEET", HOST, node.port, node.bus_port)
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for node, begin, end in zip(masters, bounds[:-1], bounds[1:], strict=True):
            node.tell("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
        until(lambda: all(self._knows(node) for node in self.nodes), "all nodes know each other", seconds=30)
        for master, replica in zip(masters, replicas, strict=True):
            name = master.tell("CLUSTER", "MYID")
            until(lambda r=replica, n=name: _replicate(r, n), "the replica accepts its master")  # type: ignore[misc]
        until(lambda: all(self._linked(each) for each in replicas), "replicas are in step", seconds=30)
        until(lambda: all(_state_ok(node) for node in self.nodes), "the cluster is ok", seconds=30)

    def _knows(self, node: TunedRedis) -> bool:
        info = node.tell("CLUSTER", "INFO")
        return f"cluster_known_nodes:{len(self.nodes)}" in _text(info) and _state_ok(node)

    def _linked(self, replica: TunedRedis) -> bool:
        return replica.client().info("replication").get("master_link_status") == "up"


def tell(client: redis.Redis, *command: object) -> object:
    """Run one command; redis-py has no types for this."""
    return client.execute_command(*command)  # type: ignore[no-untyped-call]


@contextmanager
def redis_cluster(directory: Path) -> Iterator[RedisCluster]:
    """Run a cluster of six nodes while inside."""
    settings = {
        "cluster-enabled": "yes",
        "cluster-node-timeout": "2000",
        "cluster-config-file": "nodes.conf",
        "repl-ping-replica-period": "1",
    }
    with ExitStack() as stack:
        nodes = [stack.enter_context(ClusterNode(directory / f"node-{n}", settings)) for n in range(6)]
        cluster = RedisCluster(nodes)
        cluster.form()
        yield cluster


def _replicate(replica: TunedRedis, master: object) -> bool:
    try:
        replica.tell("CLUSTER", "REPLICATE", master)
    except redis.RedisError:
        return False
    return True


def _state_ok(node: TunedRedis) -> bool:
    return "cluster_state:ok" in _text(node.tell("CLUSTER", "INFO"))


def _text(reply: object) -> str:
    if isinstance(reply, dict):
        return "\n".join(f"{name}:{value}" for name, value in reply.items())
    return reply.decode() if isinstance(reply, bytes) else str(reply)
