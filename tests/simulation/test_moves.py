"""Lives of the aggregator with three Redis servers and shards on the move, under every fault there is.

DRIFTLINE_TESTS_MOVE_SEEDS=N runs N seeds instead.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.moves import run_seeds

SEEDS = int(os.environ.get("DRIFTLINE_TESTS_MOVE_SEEDS", "200"))
CHUNK = 20


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_a_shard_on_the_move_is_at_each_moment_what_the_log_says(first: int) -> None:
    run_seeds(range(first, min(first + CHUNK, SEEDS)))
