"""How fast does the aggregator drain a backlog of gradients from Kafka into Redis?

1M ids × 64 float32, Zipf 1.2, 4,096 lookups a step with duplicates summed by the publisher,
8 shards, row-wise Adagrad. Against: its own parts run one after the other; decode + map +
apply alone; the same runners on bare aiokafka; and an emulation of HugeCTR HPS's update path.
"""

from __future__ import annotations

from typing import Any

from bench import backlog
from bench.child import call
from bench.harness import Effort, Report
from bench.servers import KEY, Stand, servers
from bench.workload import Workload

STEPS, MERGE, LARGE = 1_500, 6, 256 << 10
UNIT = "gradient rows/s"


def run(report: Report, effort: Effort) -> None:
    """Measure and enter figures and ratios."""
    load, steps = Workload(), effort.scaled(STEPS)
    with servers() as stand:
        single = backlog.push(stand, "single", load, steps)
        merged = backlog.push(stand, "merged", load, steps, merge=MERGE, frame=LARGE)
        logs = {
            "single": single,
            "merged": merged,
            "values": backlog.values(stand, single, "values", load.dim),
            "values_256k": backlog.values(stand, single, "values_256k", load.dim, join_to=LARGE),
            "values_merged": backlog.values(stand, merged, "values_merged", load.dim, join_to=LARGE),
        }
        report.settings["drain"] = {
            **load.settings(),
            "steps": steps,
            "merged_steps": MERGE,
            "logs": {name: log.settings() for name, log in logs.items()},
        }
        sides = Sides(stand, logs, load.dim)
        report.measure(
            "drain",
            UNIT,
            effort.repeats,
            {
                "driftline": sides.driftline,
                "bare": sides.bare,
                "fetch": sides.fetch,  # runs all four parts
                "apply": lambda: sides.part("apply"),
                "flush": lambda: sides.part("flush"),
                "publish": lambda: sides.part("publish"),
                "one_after_the_other": sides.sequential,
                "hps_redispy": lambda: sides.hps("values", "redispy"),
                "hps_raw": lambda: sides.hps("values", "raw"),
                "hps_raw_256k": lambda: sides.hps("values_256k", "raw"),
                "merged": lambda: sides.driftline("merged"),
                "hps_raw_merged": lambda: sides.hps("values_merged", "raw"),
                "hps_raw_aiokafka": lambda: sides.hps("values", "raw", "drain_aiokafka"),
            },
        )
    report.enter("drain.rows_per_commit", "rows", sides.commit_sizes)
    report.ratio("drain_vs_parts", "drain.driftline", "drain.one_after_the_other")
    report.ratio("drain_vs_apply", "drain.driftline", "drain.apply")
    report.ratio("faust_vs_bare", "drain.driftline", "drain.bare")
    report.ratio("drain_vs_hps_redispy", "drain.driftline", "drain.hps_redispy")
    report.ratio("drain_vs_hps_raw", "drain.driftline", "drain.hps_raw")
    report.ratio("merged_vs_hps_raw_256k", "drain.merged", "drain.hps_raw_256k")
    report.ratio("merged_vs_hps_raw_merged", "drain.merged", "drain.hps_raw_merged")


class Sides:
    """One repeat of each side, as gradient rows a second; Redis is emptied before each."""

    def __init__(self, stand: Stand, logs: dict[str, backlog.Backlog], dim: int) -> None:
        self._stand, self._logs, self._dim = stand, logs, dim
        self._cuts: dict[str, list[int]] = {}
        self._parts: dict[str, float] = {}
        self.commit_sizes: list[float] = []

    def driftline(self, name: str = "single") -> float:
        log = self._logs[name]
        self._stand.empty_redis()
        found = call(
            "bench.drain_sides:driftline",
            {"settings": worker(self._stand, name), "table": name, "ends": log.ends},
        )
        if name == "single":
            self._cuts = found["cuts"]
            self.commit_sizes.append(found["committed_rows"] / found["commits"])
        return log.rows / float(found["seconds"])

    def bare(self) -> float:
        self._stand.empty_redis()
        return self._logs["single"].rows / float(call("bench.drain_sides:bare", self._where()))

    def fetch(self) -> float:
        """Measure all parts, with the commits of the last drain, and return the first."""
        self._stand.empty_redis()
        self._parts = call("bench.drain_sides:parts", {**self._where(), "cuts": self._cuts})
        return self.part("fetch")

    def part(self, name: str) -> float:
        return self._logs["single"].rows / self._parts[name]

    def sequential(self) -> float:
        return self._logs["single"].rows / sum(self._parts.values())

    def hps(self, name: str, writer: str, drain: str = "drain") -> float:
        self._stand.empty_redis()
        log = self._logs[name]
        seconds = call(
            f"bench.hps:{drain}",
            {
                "broker": self._stand.kafka.bootstrap,
                "redis_host": "127.0.0.1",
                "redis_port": self._stand.redis.port,
                "topic": name,
                "ends": log.ends,
                "dim": self._dim,
                "writer": writer,
            },
        )
        return log.rows / float(seconds)

    def _where(self) -> dict[str, Any]:
        return {
            "broker": self._stand.kafka.bootstrap,
            "redis_url": self._stand.redis.url,
            "table": "single",
            "ends": self._logs["single"].ends,
        }


def worker(stand: Stand, group: str) -> dict[str, Any]:
    """Return the settings of an aggregator at the stand as JSON."""
    return {
        "log_url": stand.kafka.url,
        "redis_url": stand.redis.url,
        "data_dir": str(stand.scratch / f"worker-{group}"),
        "group": group,
        "key": KEY,
        "http_port": 0,
        "log_level": "warning",
    }
