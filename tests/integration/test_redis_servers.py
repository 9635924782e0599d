"""Several Redis servers: where shards are born, and that they can be moved while everything goes on."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
import pytest
import redis

from driftline import Table, TableSpec
from driftline.errors import DriftlineError
from driftline.rows.layout import ShardKeys
from driftline.rows.placement import View
from driftline.rows.servers import Servers
from driftline.servers import RedisServer
from tests.integration.deployment import LOCAL, Deployment, bits, pushed
from tests.integration.plain import PlainTable
from tests.support.waiting import until

pytestmark = pytest.mark.redis
IDS = np.arange(200, dtype=np.uint64)


@pytest.fixture
def pair(redis_factory: Callable[[], RedisServer]) -> tuple[RedisServer, RedisServer]:
    return redis_factory(), redis_factory()


@pytest.fixture
def two(pair: tuple[RedisServer, RedisServer], tmp_path: Path) -> Deployment:
    """A deployment on two servers, a and b."""
    return Deployment(LOCAL, f"local://{tmp_path}/log", f"a={pair[0].url},b={pair[1].url}", tmp_path)


def views(deployment: Deployment, spec: TableSpec) -> dict[int, View]:
    return asyncio.run(Servers.at(deployment.redis_url).survey(spec.name, range(spec.shards)))


def homes(deployment: Deployment, spec: TableSpec) -> list[str | None]:
    """Return the server of each shard."""
    found = views(deployment, spec)
    return [live.server if (live := found[shard].live) else None for shard in range(spec.shards)]


def rows_on(server: RedisServer, spec: TableSpec, shard: int) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.hlen(ShardKeys.of(spec.name, shard).values))


def driftline(deployment: Deployment, *arguments: str) -> str:
    """Run the command line and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "driftline.cli.main", *arguments],
        env={**deployment.environment(), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=deployment.directory,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def training(deployment: Deployment, spec: TableSpec) -> Iterator[PlainTable]:
    """Train all the while; every read must show the own writes, bit for bit."""
    plain, stop = PlainTable(spec), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        rng = np.random.default_rng(3)
        try:
            with deployment.client() as client:
                table = client.table(spec.name)
                while not stop.is_set():
                    step(table, plain, rng)
                table.wait_readable(timeout=100)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield plain
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def step(table: Table, plain: PlainTable, rng: np.random.Generator) -> None:
    ids = rng.choice(IDS, 24, replace=False)
    rows = table.get(ids, read_your_writes=True, timeout=100)
    assert np.array_equal(bits(rows.vectors), bits(plain.get(ids)))
    grads = rows.vectors * np.float32(0.5) + rng.standard_normal(rows.vectors.shape).astype(np.float32)
    table.push(ids, grads, read=rows.read)
    plain.push(ids, grads)


def test_shards_of_a_new_table_are_spread_in_turn(two: Deployment) -> None:
    spec = two.spec(shards=5)
    with two.worker(), two.client() as client:
        client.create_table(spec)
        assert homes(two, spec) == ["a", "b", "a", "b", "a"]


def test_least_stored_puts_a_new_table_where_there_is_room(
    two: Deployment, pair: tuple[RedisServer, RedisServer], tmp_path: Path
) -> None:
    with redis.Redis.from_url(pair[0].url) as client:
        client.set("ballast", bytes(20 << 20))
    least = Deployment(
        LOCAL, f"local://{tmp_path}/l", two.redis_url, tmp_path, more={"DRIFTLINE_PLACEMENT": "least-stored"}
    )
    spec = least.spec(shards=4)
    with least.worker(), least.client() as connected:
        connected.create_table(spec)
        assert homes(least, spec) == ["b"] * 4


@pytest.mark.parametrize("optimizer", ["rowwise_adagrad", "adam"])
def test_a_shard_moves_while_training_reads_its_own_writes(
    two: Deployment, pair: tuple[RedisServer, RedisServer], optimizer: str
) -> None:
    spec = two.spec(shards=2, optimizer={"kind": optimizer, "lr": 0.05})
    with two.worker(), two.client() as client:
        table = client.create_table(spec)
        with training(two, spec) as plain:
            for server in ("b", "a", "b"):
                driftline(two, "shards", "move", spec.name, "0", server, "--wait")
                assert homes(two, spec) == [server, "b"]
        assert np.array_equal(bits(table.get(IDS).vectors), bits(plain.get(IDS)))
        listed = orjson.loads(driftline(two, "shards", "ls", spec.name, "--json"))
        assert [each["server"] for each in listed] == ["b", "b"]
        assert sum(each["rows"] for each in listed) == len(plain.ids())
    assert two.audit(spec).ok


def test_rows_left_behind_are_cleared_and_a_signpost_stays(
    two: Deployment, pair: tuple[RedisServer, RedisServer]
) -> None:
    spec = two.spec(shards=1)
    with two.worker(), two.client() as client:
        table = client.create_table(spec)
        table.upsert(IDS, np.ones((len(IDS), spec.dim)))
        table.wait_readable()
        driftline(two, "shards", "move", spec.name, "0", "b", "--wait")
        assert rows_on(pair[0], spec, 0) == len(IDS)  # for reads under way
        until(lambda: rows_on(pair[0], spec, 0) == 0, "a is cleared", seconds=40)
        signpost = views(two, spec)[0].signpost
        assert signpost is not None
        assert (signpost.server, signpost.moved_to) == ("a", "b")


def test_an_aggregator_killed_at_any_point_of_moves_loses_nothing(two: Deployment) -> None:
    spec = two.spec(shards=2)
    rng = random.Random(5)
    with two.worker() as worker, two.client() as client:
        table = client.create_table(spec)
        with training(two, spec) as plain:
            for _ in range(8):
                for shard in range(2):
                    client.move_shard(spec.name, shard, rng.choice("ab"))
                threading.Event().wait(rng.random() * 0.4)  # a random point, not a condition
                worker.restart()
        with two.client() as reader:
            until(lambda: all(homes(two, spec)), "both shards live", seconds=60)
            reader.snapshot(timeout=100)
            found = reader.table(spec.name).get(IDS)
        assert np.array_equal(bits(found.vectors), bits(plain.get(IDS)))
        assert table.spec == spec
    assert two.audit(spec).ok


def test_a_server_added_later_takes_shards(two: Deployment, redis_factory: Callable[[], RedisServer]) -> None:
    spec = two.spec(shards=1)
    with two.worker(), two.client() as client:
        table = client.create_table(spec)
        table.upsert(IDS, np.ones((len(IDS), spec.dim)))
        table.wait_readable()
        driftline(two, "shards", "add-server", "c", redis_factory().url)
        driftline(two, "shards", "move", spec.name, "0", "c", "--wait")
        assert homes(two, spec) == ["c"]
        assert table.get(IDS, on_missing="raise").found.all()  # a client that had not heard of c
        assert pushed(table, IDS).all()
    assert two.audit(spec).ok


def test_a_move_to_nowhere_is_refused(two: Deployment) -> None:
    spec = two.spec(shards=1)
    with two.worker(), two.client() as client:
        client.create_table(spec)
        client.move_shard(spec.name, 0, "nowhere")
        client.snapshot()
        assert homes(two, spec) == ["a"]
        with pytest.raises(DriftlineError, match="shards 0 to 0"):
            client.move_shard(spec.name, 7, "b")


def test_shards_of_one_server_go_on_while_another_is_away(
    two: Deployment, pair: tuple[RedisServer, RedisServer]
) -> None:
    spec = two.spec(shards=2)
    with two.worker() as worker, two.client() as client:
        table = client.create_table(spec)
        on_a = [each for each in IDS.tolist() if table_home(each) == 0]
        pair[1].kill()
        worker.restart()  # it takes shard 0 over without waiting for b
        table.push(on_a, np.ones((len(on_a), spec.dim)))
        table.wait_readable(timeout=60)
        pair[1].start()
        table.push(IDS, np.ones((len(IDS), spec.dim)))
        table.wait_readable(timeout=60)
    assert two.audit(spec).ok


def table_home(row: int) -> int:
    from driftline.ids import shard_of

    return int(shard_of(np.array([row], np.uint64), 2)[0])


def test_a_server_that_loses_the_tail_of_its_file_is_replayed_from_the_log(
    two: Deployment, pair: tuple[RedisServer, RedisServer]
) -> None:
    spec = two.spec(shards=2)
    with two.worker(), two.client() as client:
        table, plain = client.create_table(spec), PlainTable(spec)
        rng = np.random.default_rng(1)
        for _ in range(20):
            step(table, plain, rng)
        behind = int(two.position(spec, 1)[b"next"])
        for _ in range(40):
            step(table, plain, rng)
        pair[1].kill()
        (log,) = pair[1].data_dir.glob("appendonlydir/*.incr.aof")
        cut(log, b"%d" % behind)
        pair[1].start()
        for _ in range(5):
            step(table, plain, rng)
        assert np.array_equal(bits(pushed(table, IDS)), bits(plain.get(IDS)))
    assert two.audit(spec).ok


def cut(path: Path, following: bytes) -> None:
    """Cut an append-only file behind the transaction that left a position at `following`."""
    data = path.read_bytes()
    at = data.index(b"$4\r\nnext\r\n$%d\r\n%b\r\n" % (len(following), following))
    end = data.index(b"*1\r\n$4\r\nEXEC\r\n", at) + len(b"*1\r\n$4\r\nEXEC\r\n")
    assert end < len(data)
    path.write_bytes(data[:end])
