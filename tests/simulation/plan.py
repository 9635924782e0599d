"""What a seed stands for: the table, the budgets, the faults and how much of everything.

Invariant: a plan is a function of its seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from driftline.shard.spec import Init, Policy, TableSpec
from driftline_services.aggregator.limits import Limits
from tests.simulation.judge import GROUP, SHARDS, TABLE
from tests.simulation.world import ROUGH, FaultRates

_OPTIMIZERS = ("sgd", "rowwise_adagrad", "adagrad", "adam", "ftrl")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed stands for."""

    spec: TableSpec
    limits: Limits
    rates: FaultRates
    steps: int
    ops: int
    storms: int
    rebuilds: bool  # Redis may come back without any data

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = Random(f"plan:{seed}")
        kind = rng.choice(_OPTIMIZERS)
        spec = TableSpec(
            TABLE,
            4,
            GROUP,
            SHARDS,
            {"kind": kind, "lr": 0.05} | ({"l1": 0.1} if kind == "ftrl" else {}),
            Init(seed, 0.1),
            Policy(4096, rng.choice(["apply", "drop"])),
        )
        limits = Limits(
            cache_bytes=rng.choice([1, 4000, 1 << 20]),
            flush_bytes=rng.choice([1, 400, 1 << 20]),
            publish_window=rng.choice([1, 1 << 20, 1 << 20]),
            mark_after=rng.choice([0.003, 0.003, 0.3]),
        )
        parts = Random(f"marker:{seed}")  # of its own: the seeds that find planted bugs stay the same
        limits = replace(limits, marker_bytes=parts.choice([100, 150, 1 << 20]))
        heavy = rng.choice([0.0, 1.0, 2.0, 4.0])
        faults = ["redis_cut_before", "redis_cut_midway", "redis_reply_lost", "redis_late"]
        faults += ["log_append_lost", "log_ack_lost", "log_append_late", "log_read_failed"]
        rates = replace(ROUGH, **{name: getattr(ROUGH, name) * heavy for name in faults})
        rates = replace(rates, slow=rng.choice([0.02, 0.1, 0.3]))
        return cls(spec, limits, rates, 14, 8, rng.randrange(2, 10), rng.random() < 0.3)
