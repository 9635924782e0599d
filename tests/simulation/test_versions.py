"""Lives of versioners and a failing object store beside the aggregators, under every fault there is.

DRIFTLINE_TESTS_VERSION_SEEDS=N runs N seeds instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.simulation.judge import Violation
from tests.simulation.version_mutations import MUTATIONS
from tests.simulation.versions import run_seeds

SEEDS = int(os.environ.get("DRIFTLINE_TESTS_VERSION_SEEDS", "1000"))
CHUNK = 50
PLANTED = 300
"""Seeds tried before a planted bug counts as missed."""


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_version_is_what_the_log_says_at_its_barrier_and_is_made_once(first: int) -> None:
    run_seeds(range(first, min(first + CHUNK, SEEDS)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_a_planted_bug_is_caught(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    violation = next(filter(None, map(_violation, range(PLANTED))), None)
    assert violation is not None, f"{mutate.__name__} was not caught in {PLANTED} seeds"
    assert violation.check in MUTATIONS[mutate], f"something else was found: {violation}"


def _violation(seed: int) -> Violation | None:
    try:
        run_seeds([seed])
    except Violation as violation:
        return violation
    return None
