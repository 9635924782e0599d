"""The serial judge: recomputes a table from its log and compares it with Redis, bit by bit.

Invariant: rows, state, LSNs, ordinals and positions are judged by `tests.oracle`
alone, which shares no code with driftline; of driftline only the log is read. That
every step took effect once is judged apart, from what the trainers say they pushed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import cast

import redis

from driftline import TableSpec, topics
from driftline.frames.headers import KEY_ID
from driftline.log import Record, open_log
from driftline.rows.layout import ShardKeys
from tests import oracle
from tests.chaos.kit.trainers import Trainer
from tests.integration.deployment import Deployment
from tests.oracle import wire

Step = tuple[bytes, int, int]
"""Producer, step, shard."""


class Judge:
    """Follows the log of one table; call `catch_up` as often as wanted, each record is judged once."""

    def __init__(self, deployment: Deployment, spec: TableSpec) -> None:
        key = deployment.keyring.current
        key_id = dict(deployment.keyring.sign(b""))[KEY_ID].decode()
        self._deployment, self._spec = deployment, spec
        homes = [deployment.home(spec, shard) for shard in range(spec.shards)]
        self._homes = homes  # no shard moves in a run, so a server that comes back empty is still its home
        self._oracles = [oracle.Shard(shard, keys={key_id: key}) for shard in range(spec.shards)]
        self._next = [0] * spec.shards
        self._seen: dict[Step, wire.Frame] = {}
        self.verdicts: Counter[str] = Counter()
        self.twice: list[Step] = []

    @property
    def spec(self) -> TableSpec:
        return self._spec

    @property
    def records(self) -> int:
        return sum(self._next)

    @property
    def frames(self) -> int:
        """Gradient frames that took effect."""
        return len(self._seen)

    def catch_up(self) -> None:
        """Judge what the log has got since."""
        for shard, records in enumerate(asyncio.run(self._read())):
            for record in records:
                self._judge(shard, record)

    def ends(self) -> list[int]:
        """Return the end of each shard's log."""
        return asyncio.run(self._ends())

    def positions(self) -> list[int]:
        """Return how far each shard is committed; -1 where Redis does not say."""
        return [int(found) if found is not None else -1 for found in self._stored(b"next")]

    def wait_until_applied(self, seconds: float) -> float:
        """Return after how many seconds every shard had committed all that the log held at the call."""
        begun = time.monotonic()
        ends = self.ends()
        while True:
            try:
                if all(at >= end for at, end in zip(self.positions(), ends, strict=True)):
                    return time.monotonic() - begun
            except redis.RedisError:
                pass  # a part of the fault, waited out as long as the deadline allows
            if time.monotonic() - begun > seconds:
                raise AssertionError(
                    f"{self._spec.name}: not within {seconds:g} s: "
                    f"Redis at {self._shown()}, the log at {ends}"
                )
            time.sleep(0.02)

    def differences(self) -> list[str]:
        """Compare Redis, at rest, with what the log says; empty when equal to the bit."""
        found: list[str] = []
        for shard, judged in enumerate(self._oracles):
            keys, where = ShardKeys.of(self._spec.name, shard), f"{self._spec.name}:{shard}"
            with redis.Redis.from_url(self._homes[shard]) as client:
                stored = cast("dict[bytes, bytes]", client.hgetall(keys.position))
                wanted = judged.position().fields()
                for name, value in wanted.items():
                    if stored.get(name) != value:
                        found.append(f"{where} w.{name!r}: {value!r} expected, {stored.get(name)!r} found")
                known = {name for name in stored if name[:2] in (b"p:", b"q:", b"r:")}
                found += [
                    f"{where} w.{name!r}: should not be there" for name in sorted(known - wanted.keys())
                ]
                images = oracle.redis_image(judged.table())
                for key, image in zip((keys.values, keys.state), images, strict=True):
                    found += _unequal(where, image, cast("dict[bytes, bytes]", client.hgetall(key)))
        return found

    def unlike(self, trainers: Iterable[Trainer]) -> list[str]:
        """Compare what took effect with what was pushed: every step once, as it was."""
        found = [f"step {step} of {name.hex()} on shard {shard} twice" for name, step, shard in self.twice]
        missing = dict(self._seen)
        for trainer in trainers:
            for step in range(trainer.steps):
                for shard, (ids, grads) in trainer.parts(step).items():
                    frame = missing.pop((trainer.producer, step, shard), None)
                    if frame is None:
                        found.append(f"step {step} of {trainer.name} on shard {shard} is lost")
                    elif frame.ids != ids or frame.values != grads:
                        found.append(f"step {step} of {trainer.name} on shard {shard} is another one")
        return found + [f"nobody pushed step {step} of {name.hex()}" for name, step, _ in missing]

    def _judge(self, shard: int, record: Record) -> None:
        outcome = self._oracles[shard].apply(record)
        self._next[shard] += 1
        self.verdicts[f"{outcome.verdict} {outcome.reason}".strip()] += 1
        if outcome.verdict != "applied":
            return
        frame = wire.decode(record.value)
        if frame.kind == "gradient":
            step = (frame.producer, frame.seq >> 16, shard)
            if step in self._seen:
                self.twice.append(step)
            self._seen[step] = frame

    async def _read(self) -> list[list[Record]]:
        topic, found = topics.gradients(self._spec.name), []
        async with open_log(self._deployment.log_url) as log:
            for shard, begin in enumerate(self._next):
                end = (await log.bounds(topic, shard)).end
                reader = log.reader(topic, shard, begin)
                records: list[Record] = []
                try:
                    while reader.position < end:
                        records += await reader.read(wait=5.0)
                finally:
                    await reader.close()
                found.append(records)
        return found

    async def _ends(self) -> list[int]:
        topic = topics.gradients(self._spec.name)
        async with open_log(self._deployment.log_url) as log:
            return [(await log.bounds(topic, shard)).end for shard in range(self._spec.shards)]

    def _stored(self, name: bytes) -> list[bytes | None]:
        found: dict[int, bytes | None] = {}
        for url in dict.fromkeys(self._homes):
            with redis.Redis.from_url(url, socket_timeout=5.0) as client:
                for shard in (each for each, home in enumerate(self._homes) if home == url):
                    key = ShardKeys.of(self._spec.name, shard).position
                    found[shard] = cast("bytes | None", client.hget(key.decode(), name.decode()))
        return [found[shard] for shard in range(self._spec.shards)]

    def _shown(self) -> str:
        try:
            return str(self.positions())
        except redis.RedisError as error:
            return f"({error})"


def _unequal(where: str, wanted: Mapping[bytes, bytes], stored: Mapping[bytes, bytes]) -> list[str]:
    return [
        f"{where} row {int.from_bytes(row, 'little')}: "
        f"{_hex(wanted.get(row))} expected, {_hex(stored.get(row))} found"
        for row in sorted(wanted.keys() | stored.keys())
        if wanted.get(row) != stored.get(row)
    ]


def _hex(value: bytes | None) -> str:
    return "nothing" if value is None else value.hex()
