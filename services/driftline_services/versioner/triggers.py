"""When a barrier is due: by time, by the amount of changes, once a day.

Invariant: pure but for `Requester`. Nothing is due while nothing has changed; what was asked for
is not asked for again before it has been cut, or has had its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from driftline import clock, topics
from driftline.errors import DriftlineError
from driftline.frames.events import BARRIER
from driftline.log import Log
from driftline.ops.requests import Signer, op_number
from driftline_services.versioner.shards import BACKUP, VERSION

_logger = logging.getLogger(__name__)
DAY = 86_400.0
_LOOK = 1.0
_LOOKS = 5  # looks in the time between two backups, or they would come late by half of it
_PATIENCE = 60.0  # until a barrier that was asked for and has not come is asked for again


@dataclass(frozen=True, slots=True)
class Rules:
    """What barriers are asked for by themselves."""

    version_every: float | None = None  # seconds
    version_bytes: int | None = None
    daily_at: float | None = None  # seconds after midnight, UTC
    backup_every: float | None = None


@dataclass(frozen=True, slots=True)
class Stand:
    """What has happened so far; times are seconds since the epoch."""

    version_at: float  # of the last version, or the start
    backup_at: float  # of the last backup or version
    changed_bytes: int  # since the last version, over all shards
    changed_since_backup: bool


def due(rules: Rules, stand: Stand, now: float) -> tuple[str, str] | None:
    """Return kind and cause of the barrier that is due, None if none is.

    Examples
    --------
    >>> due(Rules(version_every=60.0), Stand(0.0, 0.0, 1, True), 61.0)
    ('version', 'time')
    >>> due(Rules(version_every=60.0), Stand(0.0, 0.0, 0, False), 61.0) is None
    True
    """
    if stand.changed_bytes > 0:
        if rules.daily_at is not None and stand.version_at < latest_daily(rules.daily_at, now):
            return VERSION, "daily"
        if rules.version_every is not None and now - stand.version_at >= rules.version_every:
            return VERSION, "time"
        if rules.version_bytes is not None and stand.changed_bytes >= rules.version_bytes:
            return VERSION, "amount"
    if (
        rules.backup_every is not None
        and stand.changed_since_backup
        and now - stand.backup_at >= rules.backup_every
    ):
        return BACKUP, "time"
    return None


def latest_daily(daily_at: float, now: float) -> float:
    """Return the last moment at or before `now` that is `daily_at` seconds into a UTC day."""
    today = now - now % DAY + daily_at
    return today if today <= now else today - DAY


def seconds_of(time_of_day: str | None) -> float | None:
    """Return the seconds after midnight of 'HH:MM'; None for None and 'off'.

    Examples
    --------
    >>> seconds_of("01:30")
    5400.0
    """
    if time_of_day is None or time_of_day == "off":
        return None
    hours, _, minutes = time_of_day.partition(":")
    return float(int(hours) * 3600 + int(minutes) * 60)


class Requester:
    """Asks for the barriers that are due, while this instance leads.

    `stand` is None while it does not; `settled` tells the last op of each kind that was cut.
    """

    def __init__(
        self,
        log: Log,
        signer: Signer,
        rules: Rules,
        stand: Callable[[], Stand | None],
        cut: Callable[[], int],
        now: clock.Clock = clock.system,
    ) -> None:
        self._log, self._signer, self._rules = log, signer, rules
        self._stand, self._cut, self._now = stand, cut, now
        self._asked: tuple[int, float] | None = None  # op, when
        self.requested: dict[str, int] = {}  # by cause

    async def run(self) -> None:
        """Ask for what is due, for ever."""
        while True:
            try:
                await self.look()
            except DriftlineError as error:
                _logger.warning("a barrier that is due could not be asked for: %s", error)
            await asyncio.sleep(min(_LOOK, (self._rules.backup_every or DAY) / _LOOKS))

    async def look(self) -> None:
        """Ask for what is due now."""
        now, stand = self._now(), self._stand()
        if self._asked is not None and self._cut() < self._asked[0] and now - self._asked[1] < _PATIENCE:
            return
        found = due(self._rules, stand, now) if stand is not None else None
        if found is None:
            return
        kind, cause = found
        body: Mapping[str, object] = {"kind": kind, "metadata": {"trigger": cause}}
        topic = topics.ops(self._signer.group)
        bounds = await self._log.bounds(topic, 0)
        record = self._signer.request(BARRIER, self._signer.group, body, bounds.end)
        number = op_number(await self._log.append(topic, 0, [record]))
        self._asked = number, now
        self.requested[cause] = self.requested.get(cause, 0) + 1
        _logger.info("asked for a %s, op %d, by %s", kind, number, cause)
