"""The log on an Apache Kafka cluster, `kafka://host:port,…`, by aiokafka.

Invariant: nothing outside this package names aiokafka; its errors leave as driftline's.
"""

from __future__ import annotations

from driftline.log.kafka.log import KafkaLog

__all__ = ["KafkaLog"]
