from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import driftline
from driftline.config import load_settings
from driftline.errors import ConfigError
from driftline.stack.local import LocalStack

IDS = np.arange(64, dtype=np.uint64)
ONES = np.ones((64, 4), np.float32)
THREADS, PUSHES = 4, 25


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[driftline.Options]:
    home = tmp_path_factory.mktemp("stack")
    flags = {"log_url": f"local://{home}", "data_dir": home, "http_port": 0}
    with LocalStack(load_settings(flags, cwd=home, environ={}).settings) as stack:
        at = stack.endpoints
        # a buffer that is always full: pushes wait for room in the middle of everything
        yield driftline.Options(at.log_url, at.redis_url, at.group, at.key, push_buffer_bytes=20_000)


def counting(name: str) -> driftline.TableSpec:
    """A table whose rows count the gradients of ones that were applied, negated."""
    optimizer = {"kind": "sgd", "lr": 1.0}
    return driftline.TableSpec(name, 4, shards=2, optimizer=optimizer, init=driftline.Init(scale=0.0))


def push_from_threads(tables: list[driftline.Table]) -> None:
    def work(table: driftline.Table) -> None:
        for _ in range(PUSHES):
            table.push(IDS, ONES)

    threads = [threading.Thread(target=work, args=(table,)) for table in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_every_push_of_threads_that_share_a_handle_counts(options: driftline.Options) -> None:
    with driftline.Client(options) as client:
        table = client.create_table(counting("shared"))
        push_from_threads([table] * THREADS)
        rows = table.get(IDS, read_your_writes=True)
    assert (rows.vectors == -THREADS * PUSHES).all()


def test_every_push_of_handles_of_one_client_counts(options: driftline.Options) -> None:
    with driftline.Client(options) as client:
        tables = [client.create_table(counting("handles"))]
        tables += [client.table("handles") for _ in range(THREADS - 1)]
        push_from_threads(tables)
        rows = tables[0].get(IDS, read_your_writes=True)
    assert (rows.vectors == -THREADS * PUSHES).all()


def test_a_resumed_trainer_cuts_its_steps_as_before_though_larger_frames_are_taken_now(
    options: driftline.Options,
) -> None:
    named = replace(options, producer="trainer", push_buffer_bytes=1 << 20)
    small = replace(counting("resumed"), policy=driftline.Policy(max_frame=4096))
    ids, grads = np.arange(2_000, dtype=np.uint64), np.ones((2_000, 4), np.float32)
    with driftline.Client(named) as client:
        table = client.create_table(small)
        table.push(ids, grads, step=7)

    with driftline.Client(named) as client:
        table = client.create_table(replace(small, policy=driftline.Policy(max_frame=1 << 20)))
        table.push(ids, grads, step=7)  # again, from the checkpoint before it
        rows = table.get(ids, read_your_writes=True)
    assert table.spec.frame_bytes == 4096
    assert (rows.vectors == -1).all()


def test_a_client_that_is_closed_says_so(options: driftline.Options) -> None:
    with driftline.Client(options) as client:
        table = client.create_table(counting("closed"))
    with pytest.raises(ConfigError, match="closed"):
        table.push(IDS, ONES)
