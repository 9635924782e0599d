"""The other process in the conformance tests of the log: `log_worker.py COMMAND …`.

    append URL TOPIC PARTITION TAG SIZE BATCHES BYTES   append, one line per acknowledged batch
    member ROOT GROUP TOPIC PARTITIONS                  join, one line per change, until stdin ends
    fill URL TOPIC LIMIT                                append under a file size limit until refused, then on
    member-fork ROOT GROUP TOPIC PARTITIONS             join, fork, let the child say its id and live on, die
    fork URL TOPIC                                      append, fork, say what the child may do, append again

Each batch is SIZE records with the keys "TAG/batch/index".
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from pathlib import Path

from driftline.errors import ConfigError, LogUnavailableError
from driftline.log import Outgoing, open_log
from driftline.log.local.members import Membership


def batch(tag: str, number: int, size: int, length: int) -> list[Outgoing]:
    """Return one batch of the worker, as the tests expect to find it."""
    return [Outgoing(b"v" * length, key=f"{tag}/{number}/{index}".encode()) for index in range(size)]


def say(line: object) -> None:
    print(line, flush=True)


async def append(
    url: str, topic: str, partition: str, tag: str, size: str, batches: str, length: str
) -> None:
    async with open_log(url) as log:
        for number in range(int(batches)):
            first = await log.append(topic, int(partition), batch(tag, number, int(size), int(length)))
            say(f"{number} {first}")


def member(root: str, group: str, topic: str, partitions: str) -> None:
    membership = Membership(Path(root), group, {topic: int(partitions)})
    membership.join()
    while True:
        changes = membership.poll()
        for given in changes.give_up:
            membership.release(given)
        if changes:
            say(" ".join(str(held.partition) for held in sorted(membership.held)))
        time.sleep(0.02)


def member_fork(root: str, group: str, topic: str, partitions: str) -> None:
    membership = Membership(Path(root), group, {topic: int(partitions)})
    membership.join()
    membership.poll()
    if os.fork() == 0:
        say(os.getpid())
        signal.pause()
    os.kill(os.getpid(), signal.SIGKILL)


async def fill(url: str, topic: str, limit: str) -> None:
    async with open_log(url) as log:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), hard))
        for number in range(1_000_000):
            try:
                await log.append(topic, 0, batch("fill", number, 4, 50_000))
            except LogUnavailableError as error:
                say(number)
                say(error)
                break
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        say(await log.append(topic, 0, batch("after", 0, 4, 50_000)))


async def fork(url: str, topic: str) -> None:
    async with open_log(url) as log:
        await log.append(topic, 0, batch("parent", 0, 1, 10))
        child = os.fork()
        if child == 0:
            for attempt in (log, open_log(url)):
                try:
                    await attempt.start()
                    await attempt.append(topic, 0, batch("child", 0, 1, 10))
                except ConfigError as error:
                    say(f"refused {error}")
            os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        say(await log.append(topic, 0, batch("parent", 1, 1, 10)))


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    if command == "append":
        asyncio.run(append(*rest))
    elif command == "member":
        member(*rest)
    elif command == "member-fork":
        member_fork(*rest)
    elif command == "fill":
        asyncio.run(fill(*rest))
    elif command == "fork":
        asyncio.run(fork(*rest))
    else:
        sys.exit(f"unknown command {command!r}")
