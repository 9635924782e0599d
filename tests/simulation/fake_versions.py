"""A version store for the simulation: each barrier of the log is a version, read with faults.

Invariant: what it gives is what the oracle says of the shard at that barrier, or an error;
in blocks, between which anything may happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial

import numpy as np

from driftline.errors import ObjectMissingError, ObjectStoreUnavailableError
from driftline.rows.source import VersionPart, VersionPlace
from driftline.shard.cache import RowBlock
from driftline.shard.spec import TableSpec
from tests.oracle import Expected
from tests.simulation.timeline import Timeline
from tests.simulation.world import Process, World

_BLOCK = 2  # rows


class FakeVersions:
    """The versions as one process reads them."""

    def __init__(
        self, world: World, process: Process, timelines: Sequence[Timeline], spec: TableSpec, failing: float
    ) -> None:
        self._world, self._process, self._timelines, self._spec = world, process, timelines, spec
        self._failing, self._rng = failing, world.random(f"versions:{process.name}")

    async def part(self, version: str, table: str, shard: int) -> VersionPart | None:
        await self._wait(f"opens {version}")
        cut = self._timelines[shard].stored(version)
        if cut is None:
            raise ObjectMissingError(f"versions/{version}/m-000000")
        rows = dict(cut.table)
        ordinals = int(cut.fields[b"ord"])
        blocks = partial(self._blocks, rows)
        return VersionPart(len(rows), ordinals, self._spec.dim, self._spec.state_size, blocks)

    async def newest(self, table: str, shard: int) -> VersionPlace | None:
        return None

    async def deployed(self) -> frozenset[str]:
        return frozenset()

    async def _blocks(self, rows: dict[int, Expected]) -> AsyncIterator[RowBlock]:
        ids = sorted(rows, reverse=True)
        for begin in range(0, len(ids), _BLOCK):
            await self._wait("reads a block")
            some = ids[begin : begin + _BLOCK]
            found = [rows[row_id] for row_id in some]
            yield RowBlock(
                np.array(some, np.uint64),
                np.ones(len(some), bool),
                np.frombuffer(b"".join(each.row for each in found), np.float32).reshape(len(some), -1),
                np.frombuffer(b"".join(each.state for each in found), np.float32).reshape(
                    len(some), self._spec.state_size
                ),
                np.array([each.lsn for each in found], np.uint64),
                np.array([each.ordinal for each in found], np.uint32),
            )

    async def _wait(self, what: str) -> None:
        await self._process.pass_door()
        await asyncio.sleep(self._rng.random() * 0.01)
        await self._process.pass_door()
        if self._rng.random() < self._failing:
            self._world.trace(self._process.name, f"versions: {what}, and fails")
            raise ObjectStoreUnavailableError(f"the store is away while somebody {what}")
