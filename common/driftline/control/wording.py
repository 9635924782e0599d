"""Drift in words: one line per event, for people who watch.

Invariant: pure; a line says what happened, to what, by which rule, and the figures it was decided by.
"""

from __future__ import annotations

from driftline.control.drift_events import (
    Alarm,
    AlarmAnswered,
    DriftVerdict,
    PersonNeeded,
    RecoveryEnded,
    RecoveryStep,
)
from driftline.control.events import ControlEvent

_SHOWN = 5


def in_words(event: ControlEvent) -> str | None:
    """Return one line on an event of drift, None for any other.

    Examples
    --------
    >>> in_words(RecoveryEnded(9, "restored", "host-1", "all shards stand at it", "V-R-1.0"))
    'alarm 9 is dealt with: restored V-R-1.0, all shards stand at it (host-1)'
    """
    return _verdict(event) if isinstance(event, DriftVerdict) else _alarm(event)


def _alarm(event: ControlEvent) -> str | None:
    said: str | None = None
    match event:
        case Alarm():
            nodes = sum(map(len, event.nodes.values()))
            said = (
                f"ALARM {event.alarm}: {event.action} called for by {event.rule}, {event.why}; since op "
                f"{event.onset}, clean up to {event.clean or 'nobody knows where'}, {nodes} rows named "
                f"({event.mode}, {event.instance})"
            )
        case AlarmAnswered():
            said = f"alarm {event.alarm}: {event.who} says {event.answer}{_because(event.why)}"
        case RecoveryStep():
            said = (
                f"alarm {event.alarm}: step {event.number}, {event.step}{_because(event.why)} ({event.who})"
            )
        case PersonNeeded():
            said = f"alarm {event.alarm}: A PERSON IS NEEDED: {event.why}"
        case RecoveryEnded():
            what = ", ".join(filter(None, (f"{event.outcome} {event.version}".strip(), event.why)))
            said = f"alarm {event.alarm} is dealt with: {what} ({event.who})"
    return said


def _verdict(verdict: DriftVerdict) -> str:
    evidence = verdict.evidence
    part = "" if len(verdict.shards) == verdict.of else f" ({len(verdict.shards)} of {verdict.of} shards)"
    said = [f"{verdict.table}{part} at op {verdict.op}: {verdict.standing}"]
    if verdict.rule:
        said.append(f"by {verdict.rule}")
    if verdict.onset:
        said.append(f"since op {verdict.onset}")
    said.append(f"{_count(evidence.get('rows'))} rows judged")
    if verdict.node_count:
        named = ", ".join(map(str, verdict.nodes[:_SHOWN]))
        more = ", …" if verdict.node_count > _SHOWN else ""
        said.append(f"{verdict.node_count:,} deviate: {named}{more}")
    r, threshold = evidence.get("r"), evidence.get("threshold")
    if isinstance(r, int | float) and isinstance(threshold, int | float):
        said.append(f"e-statistic {r:.3g} of {threshold:.3g}")
    said.append(f"{_count(evidence.get('calibration_ticks'))} ticks of calibration")
    if evidence.get("why"):
        said.append(str(evidence["why"]))
    return ", ".join(said)


def _because(why: str) -> str:
    return f": {why}" if why else ""


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"
