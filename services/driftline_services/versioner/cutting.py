"""From the first shard that reaches a cut to what becomes of it.

Invariant: a cut is decided once, for all shards of all tables, by the store; while it is open the
shards that have reached it stand still, so the cut before it is always decided first. What may pass
(a store that is away, a full disk) is waited out, and said.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from driftline.errors import DeltaError, DriftlineError, VersionRaceError
from driftline.versions import Manifest, PartManifest
from driftline.versions.gating import Candidate, finite_figures
from driftline_services.chassis.offload import Offload
from driftline_services.chassis.tasks import BACK_OFF
from driftline_services.versioner.gates import Gates
from driftline_services.versioner.shards import VERSION, Cut, ShardState
from driftline_services.versioner.works import Decision, Ruling, Shard, TableAt, Works

_logger = logging.getLogger(__name__)
_POLL = 0.25  # between looks at what other instances have sealed
_AT_ONCE = 2  # seals at a time: each takes some four times a segment of 32 MiB


@dataclass(slots=True)
class Arrival:
    """One of our shards at the cut."""

    state: ShardState
    cut: Cut
    part: PartManifest | None = None  # once it is sealed


@dataclass(slots=True)
class GroupCut:
    """A cut as this instance sees it."""

    cut: Cut
    tables: Mapping[str, TableAt]
    mine: frozenset[Shard]  # of those that the cut goes through
    leads: bool  # this instance runs the gate and tells the news
    arrivals: dict[Shard, Arrival] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    waiting_for: str = ""  # what holds it up
    failure: str = ""  # what has gone wrong and is tried again

    @property
    def shards(self) -> frozenset[Shard]:
        """All shards that the cut goes through."""
        return frozenset((name, n) for name, each in self.tables.items() for n in range(each.shards))

    def arrive(self, shard: Shard, arrival: Arrival) -> None:
        """One of our shards has reached the cut."""
        self.arrivals[shard] = arrival
        self.news.set()

    def leave(self, shard: Shard) -> None:
        """One of our shards is followed anew and will come again."""
        self.arrivals.pop(shard, None)

    def parts(self) -> dict[Shard, PartManifest]:
        """Return our shards that are sealed."""
        return {shard: each.part for shard, each in self.arrivals.items() if each.part is not None}


class Settler:
    """Settles the cuts of one instance.

    `broken` is told of a shard whose rows do not add up.
    """

    def __init__(
        self, works: Works, offload: Offload, gates: Gates, broken: Callable[[Shard, DeltaError], None]
    ) -> None:
        self._works, self._offload, self._gates, self._broken = works, offload, gates, broken
        self._sealing = asyncio.Semaphore(_AT_ONCE)

    async def settle(self, group: GroupCut) -> Decision:
        """Return what became of the cut, however long it takes."""
        attempt = 0
        while True:
            try:
                decision = await self._attempt(group)
            except VersionRaceError as error:
                _logger.warning("op %d: %s", group.cut.op, error)
                await asyncio.sleep(BACK_OFF[0])
                continue
            except DriftlineError as error:  # also what a person must mend: a damaged object, say
                group.failure = str(error)
                self._say(group, f"waiting: {error}")
                await asyncio.sleep(BACK_OFF[min(attempt, len(BACK_OFF) - 1)])
                attempt += 1
                continue
            attempt, group.failure = 0, ""
            if decision is not None:
                return decision

    async def _attempt(self, group: GroupCut) -> Decision | None:
        """Get on with the cut as far as possible; None: look again."""
        works, cut = self._works, group.cut
        group.news.clear()
        decision = await self._offload.run(functools.partial(works.decided, cut))
        if decision is not None:
            return decision
        await self._seal(group)
        parts: Mapping[Shard, PartManifest] = group.parts()
        alone = group.shards == group.mine
        if not alone:
            parts = await self._share(group)
        missing = sorted(group.shards - parts.keys())
        if missing:
            self._say(
                group, f"waiting for {len(missing)} shards, the first is {missing[0][0]}:{missing[0][1]}"
            )
            await self._wait(group, None if alone else _POLL)
            return None
        group.waiting_for = ""
        try:
            return await self._commit(group, parts)
        except DeltaError as error:  # objects that are too old to be used
            await self._again(group, error)
            return None

    async def _seal(self, group: GroupCut) -> None:
        await asyncio.gather(
            *(
                self._seal_one(group, shard)
                for shard in sorted(group.arrivals)
                if not group.arrivals[shard].part
            )
        )

    async def _seal_one(self, group: GroupCut, shard: Shard) -> None:
        arrival = group.arrivals[shard]
        async with self._sealing:
            try:
                seal = functools.partial(self._works.seal, arrival.state, arrival.cut)
                arrival.part = await self._offload.run(seal)
            except DeltaError as error:
                group.leave(shard)
                self._broken(shard, error)

    async def _share(self, group: GroupCut) -> Mapping[Shard, PartManifest]:
        works, cut = self._works, group.cut
        try:
            known = await self._offload.run(functools.partial(works.gather, cut))
            mine = {shard: part for shard, part in group.parts().items() if shard not in known}
            if not mine:
                return known
            await self._offload.run(functools.partial(works.publish, cut, mine))
            return await self._offload.run(functools.partial(works.gather, cut))
        except DeltaError as error:
            await self._again(group, error)
            return {}

    async def _again(self, group: GroupCut, error: DeltaError) -> None:
        _logger.warning("op %d is sealed again: %s", group.cut.op, error)
        await self._offload.run(functools.partial(self._works.begin_again, group.cut))
        for arrival in group.arrivals.values():
            arrival.part = None

    async def _commit(self, group: GroupCut, parts: Mapping[Shard, PartManifest]) -> Decision | None:
        works, cut = self._works, group.cut
        gate: Mapping[str, object] = {}
        if cut.kind == VERSION:
            ruling = await self._ruling(group, parts)
            if ruling is None:  # whoever leads will tell
                await self._wait(group, _POLL)
                return None
            if not ruling.accepted:
                return Decision(None, ruling.reason, ruling.gate)
            gate = ruling.gate
        commit = functools.partial(works.commit, cut, group.tables, parts, gate)
        return await self._offload.run(commit)

    async def _ruling(self, group: GroupCut, parts: Mapping[Shard, PartManifest]) -> Ruling | None:
        works, cut = self._works, group.cut
        known = await self._offload.run(functools.partial(works.ruling, cut.op))
        if known is not None:
            return known
        parent = await self._offload.run(functools.partial(works.parent, cut))
        if not group.leads:
            return None if self._gates.evaluators else Ruling(True, "", {})
        group.waiting_for = "the gate"
        outcome = await self._gates.judge(self._candidate(group, parts, parent))
        if outcome is None:
            return Ruling(True, "", {})
        ruling = Ruling(outcome.accepted, outcome.reason, outcome.to_json())
        return await self._offload.run(functools.partial(works.rule, cut.op, ruling))

    def _candidate(
        self, group: GroupCut, parts: Mapping[Shard, PartManifest], parent: Manifest | None
    ) -> Candidate:
        cut = group.cut
        metadata = cut.body.get("metadata")
        rows: dict[str, int] = dict.fromkeys(group.tables, 0)
        changed = dict(rows)
        for (table, _), part in parts.items():
            rows[table] += part.rows
            changed[table] += part.changed
        return Candidate(
            self._works.repository.group,
            cut.op,
            self._works.branch(cut),
            self._works.scenario(cut),
            finite_figures(cut.body.get("figures")),
            metadata if isinstance(metadata, Mapping) else {},
            parent.version if parent is not None else None,
            parent.figures if parent is not None else {},
            rows,
            changed,
        )

    async def _wait(self, group: GroupCut, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await group.news.wait()
        except TimeoutError:
            return

    def _say(self, group: GroupCut, text: str) -> None:
        if group.waiting_for != text:
            _logger.info("op %d: %s", group.cut.op, text)
        group.waiting_for = text
