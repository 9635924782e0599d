"""64-bit identifiers: hashing, sharding and log sequence numbers.

Invariant: `shard_of` and `lsn` are part of the format. They give the same value
on every machine and in every release.
"""

from __future__ import annotations

import uuid

import numpy as np
from numpy.typing import NDArray

U64 = np.uint64
_GAMMA = U64(0x9E3779B97F4A7C15)
_MIX1 = U64(0xBF58476D1CE4E5B9)
_MIX2 = U64(0x94D049BB133111EB)

GENERATION_SHIFT = 48
OFFSET_MASK = (1 << GENERATION_SHIFT) - 1
NAMESPACE = uuid.UUID("6d3a4f9e-52a0-5d0c-9a4c-6c0f3f1f7a11")
"""Namespace of producer ids made from names (UUIDv5)."""


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the splitmix64 finaliser of each element; splitmix64(0) = 0xE220A8397B1DCDAF.

    Shape (…,) u64 in, same shape out; wraps modulo 2^64.
    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        z = x + _GAMMA
        z = (z ^ (z >> U64(30))) * _MIX1
        z = (z ^ (z >> U64(27))) * _MIX2
        return np.asarray(z ^ (z >> U64(31)), dtype=np.uint64)


def shard_of(ids: NDArray[np.uint64], shards: int) -> NDArray[np.int64]:
    """Return the shard of each id: splitmix64(id) mod `shards`, as int64 (n,)."""
    return shard_of_hash(splitmix64(ids), shards)


def shard_of_hash(hashes: NDArray[np.uint64], shards: int) -> NDArray[np.int64]:
    """Return the shards of ids whose splitmix64 is given."""
    if shards & (shards - 1):
        return np.asarray(hashes % U64(shards), dtype=np.int64)
    return np.asarray(hashes & U64(shards - 1), dtype=np.int64)  # the same, in a fifth of the time


def lsn(generation: int, offset: int) -> int:
    """Return the log sequence number of an offset: 16-bit generation << 48 | offset."""
    return (generation << GENERATION_SHIFT) | offset


def lsn_offset(value: int) -> int:
    """Return the offset part of a log sequence number."""
    return value & OFFSET_MASK


def lsn_generation(value: int) -> int:
    """Return the log generation of a log sequence number."""
    return value >> GENERATION_SHIFT


def producer_id(name: str | None = None) -> bytes:
    """Return 16 bytes naming a producer: UUIDv5 of `name`, or a fresh random one without a name."""
    return (uuid.uuid5(NAMESPACE, name) if name is not None else uuid.uuid4()).bytes


def ingest_producer(partition: int) -> bytes:
    """Return the producer of everything that comes from an ingest partition."""
    return producer_id(f"ingest:{partition}")


OPS_PRODUCER = producer_id("ops")
"""The router's own producer: only frames signed with the deployment key may carry it."""

MAX_INGEST_PARTITIONS = 1024
"""Partitions that an ingest topic may have; part of the rules, because shards know their producers."""

INGEST_PRODUCERS = frozenset(map(ingest_producer, range(MAX_INGEST_PARTITIONS)))
"""Producers that a shard never forgets: the router may read a partition from its begin again at any time."""
