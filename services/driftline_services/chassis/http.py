"""The three questions a platform asks a service: /metrics, /livez and /readyz.

Invariant: the verdicts are pure functions of what was observed and of a clock
handed in, and every "no" names its reasons. Live means: restarting would not help.
Ready means: what is assigned to this worker is being served. A service that waits
for Redis or the log is live, and not ready once its lag stands still.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from driftline import clock
from driftline.errors import ConfigError

EVENT_LOOP = "event loop"


class Code(StrEnum):
    """Why a service is not live or not ready; stable, for alerts."""

    STUCK = "stuck"
    UNASSIGNED = "unassigned"
    TAKING_OVER = "taking_over"
    FAILED = "failed"
    STALLED = "stalled"
    STORE_FULL = "store_full"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is wrong, and with what."""

    code: Code
    subject: str  # "users/3", "event loop"
    detail: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Fine when there is nothing against it."""

    reasons: tuple[Reason, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class Beat:
    """The last sign of a task."""

    at: float  # monotonic seconds
    idle: bool = False  # it waits for work: silence is no sign of trouble


@dataclass(frozen=True, slots=True)
class ShardHealth:
    """What the service knows of one assigned shard now."""

    table: str
    shard: int
    taken_over: bool
    applied: int = 0  # next offset, in memory
    end: int = 0  # next offset of the log
    failure: str | None = None
    store_full: str | None = None  # the store takes no writes for want of memory, in its words
    unprepared: str | None = None  # why the version to be restored is not loaded

    @property
    def name(self) -> str:
        return f"{self.table}/{self.shard}"

    @property
    def lag(self) -> int:
        return max(0, self.end - self.applied)


@dataclass(frozen=True, slots=True)
class Mark:
    """Since when a shard has been seen with this applied offset, and whether it was behind then."""

    applied: int
    behind: bool
    since: float


def mark(marks: Mapping[str, Mark], shards: Sequence[ShardHealth], now: float) -> dict[str, Mark]:
    """Return the marks after seeing `shards` at `now`; those of shards gone are dropped.

    A shard that had no lag at the last look is measured from this one on: when its
    first new record came is not known.
    """
    after: dict[str, Mark] = {}
    for shard in shards:
        old = marks.get(shard.name)
        same = old is not None and old.applied == shard.applied and old.behind and shard.lag > 0
        since = old.since if old is not None and same else now
        after[shard.name] = Mark(shard.applied, shard.lag > 0, since)
    return after


def liveness(beats: Mapping[str, Beat], now: float, max_age: float) -> Verdict:
    """Judge whether every task that is at work gave a sign within `max_age` seconds."""
    return Verdict(
        tuple(
            Reason(Code.STUCK, name, f"no progress for {now - beat.at:.1f} s, allowed {max_age:g} s")
            for name, beat in beats.items()
            if not beat.idle and now - beat.at > max_age
        )
    )


def readiness(
    shards: Sequence[ShardHealth] | None, marks: Mapping[str, Mark], now: float, stall_after: float
) -> Verdict:
    """Judge whether every assigned shard is served; None means that nothing was assigned yet.

    An empty assignment is ready: there may be more workers than shards.
    """
    if shards is None:
        return Verdict((Reason(Code.UNASSIGNED, "worker", "the consumer group has not assigned shards yet"),))
    found = (_reason(shard, marks.get(shard.name), now, stall_after) for shard in shards)
    return Verdict(tuple(reason for reason in found if reason is not None))


def _reason(shard: ShardHealth, seen: Mark | None, now: float, stall_after: float) -> Reason | None:
    if shard.failure is not None:
        return Reason(Code.FAILED, shard.name, shard.failure)
    if shard.store_full is not None:
        return Reason(Code.STORE_FULL, shard.name, shard.store_full)
    if not shard.taken_over:
        return Reason(Code.TAKING_OVER, shard.name, "assigned, not taken over yet")
    if seen is not None and seen.behind and now - seen.since >= stall_after:
        detail = f"{shard.lag} records behind, at offset {shard.applied} for {now - seen.since:.1f} s"
        return Reason(Code.STALLED, shard.name, detail)
    if shard.unprepared is not None:
        return Reason(Code.VERSION, shard.name, shard.unprepared)
    return None


class Health:
    """Collects the signs of one worker and judges them when asked.

    Parameters
    ----------
    shards: the shards assigned now, None before the first assignment.
    max_age: seconds a task at work may go without a beat. Whoever waits out a store or
        log that is away beats at each attempt: a restart would not bring it back.
    stall_after: seconds a shard may stay behind without applying anything.
    now: monotonic clock.
    """

    def __init__(
        self,
        shards: Callable[[], Sequence[ShardHealth] | None],
        *,
        max_age: float = 30.0,
        stall_after: float = 60.0,
        now: clock.Clock = clock.monotonic,
    ) -> None:
        self._shards, self._now = shards, now
        self._max_age, self._stall_after = max_age, stall_after
        self._beats: dict[str, Beat] = {}
        self._marks: dict[str, Mark] = {}

    def beat(self, task: str) -> None:
        """Tell that `task` is at work and got on just now."""
        self._beats[task] = Beat(self._now())

    def idle(self, task: str) -> None:
        """Tell that `task` waits for work, until its next beat."""
        self._beats[task] = Beat(self._now(), idle=True)

    def forget(self, task: str) -> None:
        """Tell that `task` ended in order; unknown tasks are fine."""
        self._beats.pop(task, None)

    def observe(self) -> None:
        """Look at the shards once; a stall is measured from look to look."""
        self._marks = mark(self._marks, self._shards() or (), self._now())

    def live(self) -> Verdict:
        """Return whether the tasks make progress."""
        return liveness(self._beats, self._now(), self._max_age)

    def ready(self) -> Verdict:
        """Return whether the assigned shards are served."""
        self.observe()
        return readiness(self._shards(), self._marks, self._now(), self._stall_after)


def application(health: Health, registry: CollectorRegistry) -> web.Application:
    """Return the web application; GET and HEAD of three paths, nothing else."""

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def livez(request: web.Request) -> web.Response:
        return answer("live", health.live())

    async def readyz(request: web.Request) -> web.Response:
        return answer("ready", health.ready())

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/livez", livez), web.get("/readyz", readyz)])
    return app


def answer(question: str, verdict: Verdict) -> web.Response:
    """Return 200, or 503 with the reasons, as JSON."""
    body = {
        "status": question if verdict.ok else f"not {question}",
        "reasons": [asdict(reason) for reason in verdict.reasons],
    }
    return web.Response(
        status=200 if verdict.ok else 503,
        text=json.dumps(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


@asynccontextmanager
async def serving(
    health: Health, registry: CollectorRegistry, *, host: str, port: int, every: float = 1.0
) -> AsyncIterator[None]:
    """Serve on `host`:`port` while inside; port 0 serves nothing.

    The event loop beats, and the shards are looked at, `every` so many seconds, asked or not.
    Raises ConfigError when the address cannot be used.
    """
    if port == 0:
        yield
        return
    # no access log: a probe every few seconds would drown what matters
    runner = web.AppRunner(application(health, registry), access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                f"http_host {host!r}, http_port {port}: {error.strerror}; set another, or 0 for no HTTP"
            ) from error
        pulse = asyncio.create_task(_pulse(health, every))
        try:
            yield
        finally:
            pulse.cancel()
            await asyncio.wait({pulse})
            if not pulse.cancelled():
                pulse.result()  # it ends of its own only by an error: that of `shards`
    finally:
        await runner.cleanup()


async def _pulse(health: Health, every: float) -> None:
    while True:
        health.beat(EVENT_LOOP)
        health.observe()
        await asyncio.sleep(every)
