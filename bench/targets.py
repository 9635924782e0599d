"""What the ratios are to be, on two cores for everything: trainer, broker, Redis and aggregator.

Invariant: every ratio with a target is a key here, and the targets are not moved to where
a measurement fell.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A ratio of rates: more is better."""

    bound: float

    def met(self, ratio: float) -> bool:
        return ratio >= self.bound

    def __str__(self) -> str:
        return f"≥ {self.bound:g}"


@dataclass(frozen=True, slots=True)
class AtMost:
    """A ratio of times or bytes: less is better."""

    bound: float

    def met(self, ratio: float) -> bool:
        return ratio <= self.bound

    def __str__(self) -> str:
        return f"≤ {self.bound:g}"


SPEED: dict[str, AtLeast | AtMost] = {
    "drain_vs_parts": AtLeast(0.75),
    "drain_vs_apply": AtLeast(0.33),
    "faust_vs_bare": AtLeast(0.9),
    "drain_vs_hps_redispy": AtLeast(1.0),
    "drain_vs_hps_raw": AtLeast(0.8),
    "merged_vs_hps_raw_256k": AtLeast(1.0),
    "fresh_p50_vs_hps_30k": AtMost(0.25),
    "fresh_p99_vs_hps_30k": AtMost(0.2),
    "fresh_p50_vs_hps_half": AtMost(1.0),
    "fresh_p99_vs_hps_half": AtMost(1.0),
    "get_vs_redispy": AtLeast(1.4),
    "get_vs_raw": AtLeast(0.9),
    "start_1m_vs_10k": AtMost(1.5),
    "local_vs_kafka": AtLeast(0.8),
    "aggregator_bytes_factor": AtMost(1.3),
    "redis_bytes_factor": AtMost(1.05),
}
"""Of `make bench`; docs/performance.md has a line for each."""

GRAPH: dict[str, AtLeast | AtMost] = {
    "recall_random_min": AtLeast(0.995),
    "recall_changed_min": AtLeast(0.995),
    "recall_affected_min": AtLeast(0.995),
    "jaccard_error": AtMost(0.002),
    "rebuild_vs_ours": AtLeast(5.0),
    "exact_vs_ours_500k": AtLeast(3.0),
    "memory_factor": AtMost(2.5),
}
"""Of `make bench-drift` and `make bench-alarm`."""

VERSIONS: dict[str, AtLeast | AtMost] = {
    "bytes_vs_changed": AtMost(1.02),
    "commit_p50_vs_lance": AtMost(0.5),
    "ids1000_warm_vs_lance": AtMost(0.5),
    "ids1000_cold_vs_lance": AtMost(1.0),
    "full_load_vs_lance": AtMost(1.0),
    "diff_vs_lance": AtMost(1.0),
}
"""Of `make bench-versions`; docs/performance.md has a line for each."""

TARGETS = SPEED | GRAPH | VERSIONS
