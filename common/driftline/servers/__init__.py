"""Real servers on loopback for local runs and tests: Redis, Kafka and an S3-compatible store.

Invariant: a server started here never outlives the process that started it, and
at most one server runs on a data directory.
"""

from driftline.servers.kafka import KafkaBroker
from driftline.servers.kafka_cluster import KafkaCluster
from driftline.servers.redis import RedisServer
from driftline.servers.s3 import S3Gateway

__all__ = ["KafkaBroker", "KafkaCluster", "RedisServer", "S3Gateway"]
