"""Trainers that push, crash and send again, and somebody who asks for operations.

Invariant: a trainer that comes back sends, byte for byte, everything since its last
checkpoint, so each of its frames must take effect exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import numpy as np

from driftline import topics
from driftline.client.outbox import Outbox
from driftline.client.pending import Pending
from driftline.client.publisher import Publisher
from driftline.client.splitting import Sender
from driftline.errors import LogUnavailableError
from driftline.frames.events import RESTORE_ROWS, Op, Origin
from driftline.frames.headers import Keyring
from driftline.ids import producer_id
from driftline.log.base import Outgoing
from driftline.ops.requests import Signer
from driftline.shard.spec import TableSpec
from tests.oracle import wire, writing
from tests.oracle.hashing import shard_of
from tests.simulation.judge import GROUP, SHARDS, TABLE
from tests.simulation.timeline import version_of
from tests.simulation.world import FakeLog, World

IDS = range(12)
Frames = list[tuple[int, Outgoing]]


class Trainer:
    """One producer and the processes it runs in, one after the other."""

    def __init__(
        self, name: str, world: World, log: FakeLog, spec: TableSpec, stands: Callable[[int], int]
    ) -> None:
        self._name, self._world, self._log, self._spec, self._stands = name, world, log, spec, stands
        self._rng = world.random(f"trainer:{name}")
        self.producer = producer_id(name)
        dtype = self._rng.choice(["F32", "F32", "F16", "BF16"])
        self._pending = Pending(Outbox(Sender(spec, self.producer, 0), dtype))
        self._history: list[Frames] = []
        self._checkpoint = self._strays = 0
        self.process = world.process(name)

    def sent(self, shard: int) -> list[int]:
        """Return the seqs of this producer's own frames for a shard."""
        frames = [frame for frames in self._history for to, frame in frames if to == shard and frame.headers]
        return [wire.decode(frame.value).seq for frame in frames]

    async def run(self, steps: int) -> None:
        """Push so many steps, however often the process dies meanwhile."""
        while True:
            task = self.process.spawn(self._session(steps))
            await asyncio.wait([task])
            if self._checkpoint == steps:
                return
            assert not self.process.alive, task.exception()
            await asyncio.sleep(self._rng.random() * 0.1)
            self.process = self._world.process(self._name)

    async def _session(self, steps: int) -> None:
        publisher = Publisher(self._log.handle(self.process), 1 << 20)
        step = max(0, self._checkpoint - self._rng.randrange(3))
        while step < steps:
            if step == len(self._history):
                self._history.append(self._stray() if self._rng.random() < 0.12 else self._next())
            await publisher.put(topics.gradients(TABLE), partial(self._history.__getitem__, step))
            step += 1
            if self._rng.random() < 0.2:
                await publisher.flush()
                self._checkpoint = max(step, self._checkpoint)
            await asyncio.sleep(self._rng.expovariate(1 / 0.025))
        await publisher.flush()
        self._checkpoint = steps

    def _next(self) -> Frames:
        rng = self._rng
        ids = rng.sample(IDS, rng.randrange(1, 6))
        draw = rng.random()
        if draw < 0.12:
            return self._pending.delete(ids)
        if draw < 0.2:
            given = rng.random() < 0.5
            state = self._matrix(len(ids), self._spec.state_size) if given else None
            return self._pending.upsert(ids, self._matrix(len(ids), self._spec.dim), state)
        read = {shard: self._stands(shard) for shard in range(SHARDS)} if rng.random() < 0.5 else {}
        ids += ids[:1]
        lr = rng.choice([None, None, 0.25])
        return self._pending.push(ids, self._matrix(len(ids), self._spec.dim), None, read, lr)

    def _matrix(self, rows: int, width: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        values = [abs(self._rng.gauss(0, 1)) for _ in range(rows * width)]
        return np.array(values, np.float32).reshape(rows, width)

    def _stray(self) -> Frames:
        """Return a frame that will be refused, or is at the edge of it, from a producer of its own."""
        rng, shard = self._rng, self._rng.randrange(SHARDS)
        self._strays += 1
        kind = rng.choice(["gradient", "delete", "delete"])
        metadata = writing.metadata(kind, TABLE, shard, producer_id(f"{self._name}:stray"), self._strays)
        mine = [row_id for row_id in IDS if shard_of(row_id, SHARDS) == shard]
        ids, width, fault = sorted(rng.sample(mine, 2)), self._spec.dim, rng.choice([0, 1, 2, 2, 2, 3, 4, 5])
        if fault == 0:
            return [(shard, Outgoing(b"garbage"))]
        if fault == 1:
            ids = ids[::-1]
        elif fault == 2:
            ids = sorted([*ids, *(row_id for row_id in IDS if shard_of(row_id, SHARDS) != shard)])
        elif fault == 3:
            width += 1
        elif fault == 4:
            metadata["table"] = "other"
        tensors = {"ids": writing.ids_tensor(ids)}
        if kind == "gradient":
            huge = [[3e38] * width for _ in ids]
            tensors["grads"] = writing.floats_tensor(huge, width)
        return [(shard, Outgoing(writing.encode(metadata, tensors)))]


class Operator:
    """Asks for ops: the table's spec first."""

    def __init__(self, world: World, log: FakeLog, keyring: Keyring, spec: TableSpec) -> None:
        self._rng = world.random("operator")
        self._log = log.handle(world.process("operator"))
        self._keyring, self._spec = keyring, spec
        self._requester = producer_id("operator")
        self._asked: list[Outgoing] = []
        self._barriers: list[int] = []  # op numbers
        self._prepared, self._epoch = "", 0

    async def run(self, count: int) -> None:
        """Ask for the table and then for `count` more ops."""
        await self._ask(self._request("spec", TABLE, self._spec.to_json()))
        for _ in range(count):
            await asyncio.sleep(self._rng.expovariate(1 / 0.05))
            await self._ask(self._some_request())

    def _request(self, kind: str, target: str, body: dict[str, object]) -> Outgoing:
        return self._signed(Op(kind, target, 0, Origin(self._requester, 0, 0), body))

    def _signed(self, op: Op) -> Outgoing:
        # the log is short enough for what was signed at its begin to be good to its end
        return Signer(GROUP, self._requester, self._keyring).sign(op, 0, self._rng.randbytes(16))

    def _some_request(self) -> Outgoing:
        rng, draw = self._rng, self._rng.random()
        if draw < 0.5:
            cut = draw < 0.2 or not self._barriers
            return self._request("barrier", GROUP, {"kind": "version"}) if cut else self._restoring()
        if draw < 0.65:
            return self._restore_rows()
        if draw < 0.75:
            shut_out = producer_id(rng.choice(["a:stray", "b:stray"]))
            return self._request("quarantine", GROUP, {"producer": shut_out.hex()})
        if draw < 0.9:
            changed = self._spec.to_json()
            changed["optimizer"]["lr"] = rng.choice([0.01, 0.1])
            if rng.random() < 0.3:
                changed["init"] = {"seed": 99, "scale": 0.5}  # refused: that is fixed for life
            return self._request("spec", TABLE, changed)
        return self._nonsense(draw)

    def _nonsense(self, draw: float) -> Outgoing:
        """Return what the router refuses."""
        if draw < 0.93:
            return self._request("restore", GROUP, {"version": "V"})
        if draw < 0.97:
            return self._rng.choice(self._asked)  # somebody has captured it
        return Outgoing(self._request("barrier", GROUP, {}).value)  # nobody has signed it

    def _restoring(self) -> Outgoing:
        """Return what a client asks for that restores: first a prepare, then the restore.

        Some restore what was not prepared, or in another epoch; some give a preparation up.
        """
        rng, version = self._rng, version_of(self._rng.choice(self._barriers))
        draw = rng.random()
        if not self._prepared and draw < 0.7:
            self._prepared = version
            return self._request("prepare", GROUP, {"version": version})
        if draw < 0.1:
            self._prepared = ""
            return self._request("prepare", GROUP, {"version": ""})
        if draw < 0.65:
            version = self._prepared or version
        elif version == self._prepared:  # what lies ready is another one's
            others = [each for each in map(version_of, self._barriers) if each != version]
            version = others[-1] if others else version
        self._prepared = ""
        epoch = self._epoch + (rng.random() < 0.1)
        self._epoch += epoch == self._epoch
        epochs = {TABLE: epoch} if rng.random() < 0.95 else {}
        self._epoch -= not epochs and epoch < self._epoch
        body = {"version": version, "prepare": 0, "from_epoch": epochs, "mode": "rollback"}
        return self._request("restore", GROUP, body)

    def _restore_rows(self) -> Outgoing:
        rng, spec = self._rng, self._spec
        ids = sorted(rng.sample(IDS, rng.randrange(1, 5)))
        rows = np.array([[rng.gauss(0, 1) for _ in range(spec.dim)] for _ in ids], np.float32)
        state = np.array([[rng.random() for _ in range(spec.state_size)] for _ in ids], np.float32)
        origin = Origin(self._requester, 0, 0)
        state = state.reshape(len(ids), spec.state_size)
        return self._signed(Op(RESTORE_ROWS, TABLE, 0, origin, {}, np.array(ids, np.uint64), rows, state))

    def _signs(self, outgoing: Outgoing) -> bool:
        return self._keyring.verifies(outgoing.value, outgoing.headers)

    async def _ask(self, outgoing: Outgoing) -> None:
        repeated = outgoing in self._asked
        self._asked.append(outgoing)
        while True:
            try:
                offset = await self._log.append(topics.ops(GROUP), 0, [outgoing])
                if not repeated and self._signs(outgoing) and wire.decode(outgoing.value).kind == "barrier":
                    self._barriers.append(offset + 1)
                return
            except LogUnavailableError:
                repeated = True  # which of the two counts is not known here
                await asyncio.sleep(0.02)
