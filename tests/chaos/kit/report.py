"""What was injected, what was seen, what was wrong: the outcome of one run.

Invariant: a run is good only if it says so: a violation, once noted, stays.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass(slots=True)
class Report:
    """One seed of one scenario; printed as it goes when `verbose`."""

    scenario: str
    seed: int
    verbose: bool = False
    begun: float = field(default_factory=time.monotonic)
    injected: Counter[str] = field(default_factory=Counter)
    measured: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    counts: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.violations

    def inject(self, kind: str, detail: str = "") -> None:
        """Note a fault as it is injected."""
        self.injected[kind] += 1
        self.tell(f"{kind} {detail}")

    def measure(self, what: str, value: float) -> None:
        self.measured[what].append(value)

    def violated(self, what: str) -> None:
        self.violations.append(what)
        self.tell(f"VIOLATION: {what}")

    def violated_all(self, found: Sequence[str]) -> None:
        """Note what is wrong; at most ten of them in words."""
        for each in found[:10]:
            self.violated(each)
        if len(found) > 10:
            self.violated(f"and {len(found) - 10} more")

    def tell(self, line: str) -> None:
        if self.verbose:
            print(
                f"{datetime.now(UTC):%H:%M:%S} {self.scenario} {self.seed}: {line}",
                file=sys.stderr,
                flush=True,
            )

    @contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Measure how long the block takes, in seconds."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self.measure(what, time.monotonic() - begun)

    def lines(self) -> list[str]:
        """Return the report as text."""
        took = time.monotonic() - self.begun
        faults = ", ".join(f"{count} x {kind}" for kind, count in sorted(self.injected.items()))
        found = [
            f"{self.scenario}, seed {self.seed}: {'ok' if self.good else 'VIOLATED'}, {took:.0f} s",
            f"  injected: {sum(self.injected.values())} ({faults})",
        ]
        found += [f"  {name}: {value:,}" for name, value in self.counts.items()]
        found += [f"  {name}: {_spread(values)}" for name, values in sorted(self.measured.items())]
        return found + [f"  violation: {each}" for each in self.violations]


def _spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    median, n = statistics.median(ordered), len(ordered)
    return f"median {median:.2f}, 95% {p95:.2f}, largest {ordered[-1]:.2f}, n = {n}"
