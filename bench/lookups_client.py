"""One reading process: `python -m bench.lookups_client`, told by stdin what to read and when to begin."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import redis
from numpy.typing import NDArray

from bench.lookups import IDS, KINDS, TABLE
from bench.workload import Workload
from driftline.client import Client, Options
from driftline.ids import shard_of, splitmix64
from driftline.rows import resp
from driftline.rows.layout import ShardKeys

BATCHES = 64
Read = Callable[[NDArray[np.uint64]], NDArray[np.float32]]


def main() -> None:
    asked: dict[str, Any] = orjson.loads(sys.stdin.buffer.readline())
    load = Workload(**asked["load"])
    batches = {kind: _batches(load, kind) for kind in KINDS}
    readers = {side: make(asked["url"], load, asked["scratch"]) for side, make in MAKERS.items()}
    first = batches["zipf"][0]
    for side, read in readers.items():
        assert np.array_equal(read(first), readers["raw"](first)), f"{side} reads other rows"
    print("ready", flush=True)
    while line := sys.stdin.buffer.readline():
        asked = orjson.loads(line)
        read, some = readers[asked["side"]], batches[asked["kind"]]
        time.sleep(max(0.0, asked["begin"] - time.monotonic()))
        done, end = 0, asked["begin"] + asked["seconds"]
        while time.monotonic() < end:
            read(some[done % BATCHES])
            done += 1
        print(done * IDS / asked["seconds"], flush=True)


def _batches(load: Workload, kind: str) -> list[NDArray[np.uint64]]:
    rng = np.random.default_rng()  # clients read different rows
    if kind == "uniform":
        return [splitmix64(rng.integers(0, load.rows, IDS).astype(np.uint64)) for _ in range(BATCHES)]
    weights = np.cumsum(1 / np.arange(1, load.rows + 1) ** load.zipf)
    ranks = weights / weights[-1]
    return [splitmix64(np.searchsorted(ranks, rng.random(IDS)).astype(np.uint64)) for _ in range(BATCHES)]


def driftline_reader(url: str, load: Workload, scratch: str) -> Read:
    """`table.get`."""
    table = Client(Options(f"local://{scratch}/log", url)).table(TABLE)
    return lambda ids: table.get(ids).vectors


def redispy_reader(url: str, load: Workload, scratch: str) -> Read:
    """redis-py with hiredis: one pipeline of HMGET, one `np.frombuffer` over all values joined."""
    client = redis.Redis.from_url(url, protocol=2)
    keys = [ShardKeys.of(TABLE, shard).values for shard in range(load.shards)]
    row = 4 * load.dim

    def read(ids: NDArray[np.uint64]) -> NDArray[np.float32]:
        order, counts = _grouped(ids, load.shards)
        names = ids[order].tobytes()
        pipeline = client.pipeline(transaction=False)
        begin = 0
        for key, count in zip(keys, counts, strict=True):
            if count:
                fields = [names[at : at + 8] for at in range(8 * begin, 8 * (begin + count), 8)]
                pipeline.execute_command("HMGET", key, *fields)  # type: ignore[no-untyped-call]
                begin += count
        values = [value for found in pipeline.execute() for value in found]
        rows = np.frombuffer(b"".join(values), np.uint8).reshape(len(ids), -1)[:, :row]
        vectors = np.empty((len(ids), load.dim), np.float32)
        vectors[order] = np.ascontiguousarray(rows).view("<f4")
        return vectors

    return read


def raw_reader(url: str, load: Workload, scratch: str) -> Read:
    """A plain socket: requests built by numpy, replies cut at their constant stride and checked."""
    at = urlsplit(url)
    assert at.hostname is not None
    assert at.port is not None
    connection = socket.create_connection((at.hostname, at.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    keys = [ShardKeys.of(TABLE, shard).values for shard in range(load.shards)]
    value = 4 * load.dim + 16  # row, lsn, ordinal, state
    head = b"$%d\r\n" % value
    stride = len(head) + value + 2
    reply = np.dtype(
        {
            "names": ["head", "row"],
            "formats": [f"V{len(head)}", ("<f4", (load.dim,))],
            "offsets": [0, len(head)],
            "itemsize": stride,
        }
    )
    wanted = np.frombuffer(head, f"V{len(head)}")
    buffer = bytearray(IDS * stride + 1_024)
    view = memoryview(buffer)

    def read(ids: NDArray[np.uint64]) -> NDArray[np.float32]:
        order, counts = _grouped(ids, load.shards)
        grouped, parts, places = ids[order], list[resp.Bytes](), list[tuple[int, int]]()
        begin = size = 0
        for key, count in zip(keys, counts, strict=True):
            if count:
                parts += resp.on_ids(b"HMGET", key, grouped[begin : begin + count])
                first = size + len(b"*%d\r\n" % count)
                places.append((first, count))
                begin, size = begin + count, first + count * stride
        connection.sendall(b"".join(parts))
        got = 0
        while got < size:
            got += connection.recv_into(view[got:size])
        vectors = np.empty((len(ids), load.dim), np.float32)
        begin = 0
        for first, count in places:
            found = np.frombuffer(buffer, reply, count, first)
            if not (found["head"] == wanted).all():
                raise ValueError("a row is missing or has another length")
            vectors[order[begin : begin + count]] = found["row"]
            begin += count
        return vectors

    return read


def _grouped(ids: NDArray[np.uint64], shards: int) -> tuple[NDArray[np.intp], list[int]]:
    home = shard_of(ids, shards)
    return np.argsort(home.astype(np.uint16), kind="stable"), np.bincount(home, minlength=shards).tolist()


MAKERS = {"driftline": driftline_reader, "redispy": redispy_reader, "raw": raw_reader}


if __name__ == "__main__":
    main()
