"""`python -m tests.simulation [FIRST [COUNT]]`: run seeds until one fails; without COUNT, for ever.

Invariant: what fails here fails again under its seed:
`DRIFTLINE_TESTS_SEED=N pytest -s tests/simulation/test_aggregator.py`.
"""

from __future__ import annotations

import itertools
import sys
import time

from tests.simulation.scenario import run_seed


def main() -> int:
    """Run the seeds; return the exit status."""
    first = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    seeds = itertools.count(first) if len(sys.argv) <= 2 else range(first, first + int(sys.argv[2]))
    begun, done = time.perf_counter(), 0
    try:
        for seed in seeds:
            run_seed(seed)
            done += 1
            print(f"\r{done} seeds from {first} on, {time.perf_counter() - begun:.0f} s", end="", flush=True)
    except KeyboardInterrupt:
        pass  # how a soak ends
    finally:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
