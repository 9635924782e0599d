"""Alarms with their evidence and what became of them, from what the control topic tells.

Invariant: an alarm shows the figures of the very verdicts it names; one of which the topic no longer
tells is left out, never made up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from driftline.control import (
    Alarm as AlarmEvent,
)
from driftline.control import (
    AlarmAnswered,
    DriftVerdict,
    PersonNeeded,
    RecoveryEnded,
    RecoveryStep,
    Told,
)
from driftline.report.model import Alarm, Fact, Judged
from driftline.report.timeline import entry_of, once
from driftline.report.words import facts_of

MOST_ALARMS = 40
_FEW = 20  # ids, producers and verdicts that an alarm shows

_Follows = AlarmAnswered | RecoveryStep | RecoveryEnded | PersonNeeded


def alarms(told: Iterable[Told], most: int = MOST_ALARMS) -> tuple[Alarm, ...]:
    """Return the newest `most` alarms, the newest first."""
    events = once(told)
    by_id = {each.id: each for each in events}
    following: dict[int, list[Told]] = {}
    for each in events:
        if isinstance(each.event, _Follows):
            following.setdefault(each.event.alarm, []).append(each)
    raised = [(each, each.event) for each in events if isinstance(each.event, AlarmEvent)]
    return tuple(
        _alarm(each, event, by_id, following.get(event.alarm, [])) for each, event in raised[::-1][:most]
    )


def _alarm(told: Told, event: AlarmEvent, by_id: Mapping[str, Told], following: Sequence[Told]) -> Alarm:
    named = (by_id[name] for name in event.verdicts if name in by_id)
    judged = tuple(
        _judged(each, each.event) for each in islice(named, _FEW) if isinstance(each.event, DriftVerdict)
    )
    nodes = sum(map(len, event.nodes.values()))
    facts = {
        "mode": event.mode,
        "onset": f"barrier {event.onset}" if event.onset else "not known",
        "goes back to": f"barrier {event.clean} or before" if event.clean else "not known",
        "deviating nodes": nodes,
        "verdicts": len(event.verdicts),
        "told by": event.instance,
    }
    ended = [each.event for each in following if isinstance(each.event, RecoveryEnded)]
    steps = [entry for each in following if (entry := entry_of(each, {})) is not None]
    return Alarm(
        event.alarm,
        told.time / 1000,
        event.table,
        event.rule,
        event.action,
        event.why,
        facts_of(facts),
        judged,
        tuple(steps),
        ended[-1].outcome if ended else "",
    )


def _judged(told: Told, event: DriftVerdict) -> Judged:
    plain = {name: value for name, value in event.evidence.items() if name != "channels"}
    facts = (
        Fact("shards", f"{len(event.shards)} of {event.of}"),
        Fact("barrier", str(event.op)),
        *facts_of(plain),
    )
    return Judged(
        told.time / 1000,
        event.table,
        event.standing,
        event.rule,
        facts,
        tuple(str(node) for node in event.nodes[:_FEW]),
        event.node_count,
        _lines(event.evidence.get("channels")),
        _producers(event.producers),
    )


def _lines(channels: object) -> tuple[Mapping[str, object], ...]:
    if not isinstance(channels, list | tuple):
        return ()
    return tuple(each for each in channels if isinstance(each, Mapping))


def _producers(producers: Mapping[str, object]) -> tuple[Mapping[str, object], ...]:
    """Return the producers whose largest gradient was largest."""
    lines: list[Mapping[str, object]] = []
    for name, figures in producers.items():
        if isinstance(figures, list | tuple) and len(figures) == 3:
            rows, mean, largest = figures
            lines.append({"producer": name, "rows": rows, "mean norm": mean, "largest norm": largest})
    lines.sort(key=lambda line: -_number(line["largest norm"]))
    return tuple(lines[:_FEW])


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("inf")
