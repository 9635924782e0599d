"""Judges clocks: of Redis, and of the log, against that of this machine.

Invariant: pure. No clock decides what is applied, so nothing here fails: clocks that
differ make ages and times wrong. Kafka has no way to ask for the time: the log's clock is
judged by its newest record, which shows only one that is ahead.
"""

from __future__ import annotations

from driftline.doctor.findings import Finding, ok, warn

MOST = 1.0
"""Seconds that clocks may differ; those of machines with NTP differ by hundredths."""
_REMEDY = "run NTP on both machines"


def judge_redis(server: str, ahead: float | None) -> Finding:
    """Return the finding on the clock of a Redis process; `ahead` of ours in seconds, None: not told."""
    area = f"redis {server}"
    if ahead is None:
        return warn(area, "clock", "not shown to this user", "allow TIME or INFO to compare clocks")
    if abs(ahead) > MOST:
        return warn(area, "clock", f"{_differs(ahead)} ours", _REMEDY)
    return ok(area, "clock", f"within {MOST:g} s of ours")


def judge_log(ahead: float | None) -> Finding:
    """Return the finding on the log's clock: by how many seconds its newest record is ahead of ours."""
    if ahead is None:
        return ok("log", "clock", "not known: no record to go by that this user may read")
    if ahead > MOST:
        return warn(
            "log",
            "clock",
            f"the newest record is {ahead:,.1f} s ahead of our clock",
            f"{_REMEDY}; producers are forgotten by the log's clock, which never goes back",
        )
    return ok("log", "clock", "no record is ahead of ours")


def _differs(ahead: float) -> str:
    return f"{abs(ahead):,.1f} s {'ahead of' if ahead > 0 else 'behind'}"
