"""Several Kafka brokers that keep each other's records.

Invariant: what was acknowledged is on most of the brokers, so any one of them can be
killed without losing it or stopping writes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from driftline.servers.kafka import KafkaBroker, Quorum, new_cluster_id
from driftline.servers.local import free_ports


class KafkaCluster:
    """Three brokers, each a controller too; every partition on all, two of them enough to write.

    `start` starts all; single brokers are killed and started by themselves.
    """

    def __init__(self, jars_dir: Path, data_dir: Path, *, heap_mb: int = 256, size: int = 3) -> None:
        ports = free_ports(2 * size)
        controllers = dict(enumerate(ports[size:], start=1))
        cluster = new_cluster_id()
        settings = {
            "default.replication.factor": str(size),
            "min.insync.replicas": str(size // 2 + 1),
            "offsets.topic.replication.factor": str(size),
        }
        self.brokers = [
            KafkaBroker(
                jars_dir,
                data_dir / f"broker-{node}",
                port=port,
                heap_mb=heap_mb,
                settings=settings,
                quorum=Quorum(cluster, node, controllers),
            )
            for node, port in enumerate(ports[:size], start=1)
        ]

    @property
    def url(self) -> str:
        """URL for driftline, naming all brokers."""
        return "kafka://" + ",".join(broker.bootstrap for broker in self.brokers)

    def broker(self, node: int) -> KafkaBroker:
        """Return the broker whose node id is `node`."""
        return self.brokers[node - 1]

    def start(self) -> Self:
        """Start all brokers at once: one alone would wait for the others."""
        with ThreadPoolExecutor(len(self.brokers)) as threads:
            for started in [threads.submit(broker.start) for broker in self.brokers]:
                started.result()
        return self

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL to all: an orderly end of the last of them would wait for a quorum."""
        for broker in self.brokers:
            broker.kill()
