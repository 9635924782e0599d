"""From the first bad gradient to restored rows readable, over seeded trials on a real stack.

`python -m bench.recovery --trials 30 --rows 200000` runs Redis, aggregator, versioner and monitor on the
embedded log (or `--kafka`), trains a group of two tables at a tick of a second, and in each trial has a
worker train a cluster backwards. Prints p50 and p99, and every rollback that nobody asked for.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import driftline
from driftline.config import load_settings, new_key
from driftline.demo.watching import DriftWatch
from driftline.stack.local import LocalStack

_DIM, _PUSHED, _CLUSTER = 32, 2_000, 200
_TABLES = ("items", "users")


@dataclass
class Training:
    """Pushes small gradients to both tables, for ever, until `ending` is set."""

    client: driftline.Client
    rows: int
    seed: int
    ending: threading.Event = field(default_factory=threading.Event)
    steps: int = 0

    def run(self) -> None:
        rng = np.random.default_rng(self.seed)
        tables = [self.client.table(name) for name in _TABLES]
        while not self.ending.is_set():
            for table in tables:
                ids = np.unique(rng.integers(1, self.rows + 1, _PUSHED // 4, dtype=np.uint64))
                read = table.get(ids).read
                table.push(ids, rng.normal(scale=0.02, size=(len(ids), _DIM)).astype(np.float32), read=read)
            self.steps += 1
            self.ending.wait(0.2)


def main() -> None:
    """Run the trials and print what they came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kafka")
    parser.add_argument("--healthy", type=float, default=0.0, help="seconds to train without a fault first")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = run(Path(scratch), args.trials, args.rows, args.kafka, args.healthy)
    print(json.dumps(result, indent=2))
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


def run(directory: Path, trials: int, rows: int, kafka: str | None, healthy: float) -> dict[str, object]:
    """Return the seconds of each trial, and the alarms that no trial caused."""
    settings = load_settings(
        {
            "log_url": kafka or f"local://{directory}",
            "data_dir": directory,
            "group": "recovery",
            "http_port": 0,
            "backup_every_s": 1.0,
            "drift_mode": "auto",
            "drift_metric": "l2",
            "drift_least_ticks": 20,
            "drift_settle_ticks": 2,
            "drift_cool_ticks": 3,
            "drift_thresholds": "relative_offset=1.5",
        },
        cwd=directory,
        environ={"DRIFTLINE_KEY": new_key()} if kafka else {},
    ).settings
    with LocalStack(settings) as stack:
        ends = stack.endpoints
        options = driftline.Options(
            ends.log_url, ends.redis_url, ends.group, ends.key, security=ends.security
        )
        with driftline.Client(options) as client, DriftWatch(ends, print) as watch:
            fill(client, rows)
            training = Training(client, rows, 1)
            thread = threading.Thread(target=training.run, daemon=True)
            thread.start()
            wait(lambda: watch.judges(len(_TABLES)), 600.0, "the calibration")
            time.sleep(healthy)
            spontaneous = len(watch.rollbacks)
            seconds = [one(client, options, watch, rows, seed) for seed in range(trials)]
            training.ending.set()
            thread.join()
            rollbacks = len(watch.rollbacks)
    return {
        "rows": rows,
        "trials": trials,
        "p50": float(np.percentile(seconds, 50)) if seconds else None,
        "p99": float(np.percentile(seconds, 99)) if seconds else None,
        "seconds": seconds,
        "healthy_seconds": healthy,
        "rollbacks_without_a_fault": spontaneous,
        "rollbacks": rollbacks,
    }


def fill(client: driftline.Client, rows: int) -> None:
    """Make both tables and fill them."""
    rng = np.random.default_rng(0)
    for name in _TABLES:
        spec = driftline.TableSpec(
            name, _DIM, "recovery", 4, {"kind": "sgd", "lr": 1.0}, driftline.Init(1, 0.1)
        )
        table = client.create_table(spec)
        for start in range(1, rows + 1, 4_000):
            ids = np.arange(start, min(start + 4_000, rows + 1), dtype=np.uint64)
            table.upsert(ids, rng.normal(size=(len(ids), _DIM)).astype(np.float32))
        table.wait_readable()


def one(
    client: driftline.Client, options: driftline.Options, watch: DriftWatch, rows: int, seed: int
) -> float:
    """Return the seconds from a first bad push to the rows as they were before."""
    rng = np.random.default_rng(seed)
    wait(lambda: watch.judges(len(_TABLES)), 120.0, "a judge that judges")
    client.version_of(client.snapshot())
    wait(lambda: watch.judges(len(_TABLES)), 120.0, "a judge that judges")
    time.sleep(rng.random())
    ids = np.unique(rng.integers(1, rows + 1, _CLUSTER, dtype=np.uint64))
    told = threading.Event()
    with driftline.Client(options) as worker:
        worker.on_rolled_back(lambda notice: told.set())
        table = worker.table("items")
        read = table.get(ids)
        begun = time.perf_counter()
        table.push(
            ids, -50 * rng.normal(scale=0.02, size=(len(ids), _DIM)).astype(np.float32), read=read.read
        )
        before, after = read.vectors, table.get(ids, read_your_writes=True).vectors
        far = np.linalg.norm(after - before, axis=1)
        while True:
            now = table.get(ids).vectors
            if told.is_set() and (np.linalg.norm(now - before, axis=1) < far / 2).all():
                return time.perf_counter() - begun
            if time.perf_counter() - begun > 60:
                raise AssertionError(f"trial {seed}: not restored within 60 s; {watch.line}")
            time.sleep(0.005)


def wait(condition: object, seconds: float, what: str) -> None:
    """Return once `condition` holds."""
    assert callable(condition), "a function without arguments"
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
