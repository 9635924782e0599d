"""What happened to a group, in order: from what its control topic tells and its store holds.

Invariant: an event that is told twice is shown once; a version is shown whether the topic still
tells of it or only the store; ticks and backups that followed each other with nothing worth a look
between them are one line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from driftline.control import (
    Alarm,
    AlarmAnswered,
    BackupTaken,
    ControlEvent,
    DriftVerdict,
    PersonNeeded,
    RecoveryEnded,
    RecoveryStep,
    RollbackDone,
    RollbackRefused,
    RollbackRequested,
    Told,
    VersionCommitted,
    VersionRejected,
)
from driftline.report.model import Entry
from driftline.report.words import told_facts
from driftline.versions import Manifest
from driftline.versions.wording import origin, size

MOST_ENTRIES = 400
_RUNS = frozenset({"verdict", "backup"})
_TONES = {"ok": "good", "warning": "warning", "deviating": "warning", "alarm": "bad"}


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened, oldest first."""

    entries: tuple[Entry, ...]
    left_out: int  # older ones


def once(told: Iterable[Told]) -> list[Told]:
    """Return each event once, as it was told first."""
    return list({each.id: each for each in reversed(list(told))}.values())[::-1]


def timeline(told: Iterable[Told], manifests: Iterable[Manifest], most: int = MOST_ENTRIES) -> Timeline:
    """Return the newest `most` entries of a group."""
    known = {each.version: each for each in manifests}
    entries, committed = [], set[str]()
    for each in once(told):
        if isinstance(each.event, VersionCommitted):
            committed.add(each.event.version)
        entry = entry_of(each, known)
        entries += [entry] if entry is not None else []
    entries += [_stored(each) for each in known.values() if each.version not in committed]
    entries.sort(key=lambda entry: entry.time)
    runs = _in_runs(entries)
    return Timeline(tuple(runs[-most:]), max(0, len(runs) - most))


def entry_of(told: Told, known: Mapping[str, Manifest]) -> Entry | None:
    """Return an event as an entry, None for one that only repeats a state."""
    make = _ENTRIES.get(told.event.TYPE)
    if make is None:
        return None
    entry = make(told.event)
    if isinstance(told.event, VersionCommitted) and told.event.version in known:
        entry = _stored(known[told.event.version])
    return replace(entry, time=told.time / 1000)


def _stored(manifest: Manifest) -> Entry:
    how = origin(manifest)
    changed = sum(part.changed for table in manifest.tables.values() for part in table.parts)
    words = [f"branch {manifest.branch}", f"{changed:,} rows stored", *told_facts(manifest.figures)]
    return Entry(
        manifest.created,
        "rollback" if how.startswith("rollback") else "version",
        "warning" if how.startswith("rollback") else "good",
        f"{manifest.version}: {how}" if how else f"{manifest.version} committed",
        ", ".join([*words, *told_facts(manifest.verdict)]),
        manifest.version,
    )


def _committed(event: ControlEvent) -> Entry:
    assert isinstance(event, VersionCommitted)
    words = [f"branch {event.branch}", f"{sum(event.changed.values()):,} rows stored"]
    return Entry(
        0,
        "version",
        "good",
        f"{event.version} committed",
        ", ".join([*words, *told_facts(event.gate), "no longer in the store"]),
    )


def _rejected(event: ControlEvent) -> Entry:
    assert isinstance(event, VersionRejected)
    words = ", ".join([event.reason, *told_facts(event.gate)])
    return Entry(0, "rejected", "warning", f"barrier {event.op} became no version", words)


def _backup(event: ControlEvent) -> Entry:
    assert isinstance(event, BackupTaken)
    held = "held" if event.held else "not held: larger than backups may be"
    words = f"the last: barrier {event.op}, {size(event.bytes)}, {event.instance}"
    return Entry(0, "backup", "plain" if event.held else "warning", f"backup {held}", words)


def _verdict(event: ControlEvent) -> Entry:
    assert isinstance(event, DriftVerdict)
    words = [f"barrier {event.op}", f"shards {len(event.shards)} of {event.of}"]
    words += [f"rule {event.rule}"] if event.rule else []
    words += [f"{event.node_count:,} deviating nodes"] if event.node_count else []
    words += [f"calls for {event.action}"] if event.action not in ("", "none") else []
    why = event.evidence.get("why")
    words += [str(why)] if why else []
    tone = _TONES.get(event.standing, "plain")
    return Entry(0, "verdict", tone, f"{event.table}: {event.standing}", ", ".join(words))


def _alarm(event: ControlEvent) -> Entry:
    assert isinstance(event, Alarm)
    title = f"alarm {event.alarm} on {event.table}, by {event.rule}"
    return Entry(0, "alarm", "bad", title, f"calls for {event.action} ({event.mode}); {event.why}")


def _answered(event: ControlEvent) -> Entry:
    assert isinstance(event, AlarmAnswered)
    return Entry(0, "person", "plain", f"alarm {event.alarm}: {event.answer} by {event.who}", event.why)


def _step(event: ControlEvent) -> Entry:
    assert isinstance(event, RecoveryStep)
    words = [f"by {event.who}", event.why, *told_facts(event.figures)]
    title = f"alarm {event.alarm}, step {event.number}: {event.step}"
    return Entry(0, "rollback", "plain", title, ", ".join(filter(None, words)))


def _ended(event: ControlEvent) -> Entry:
    assert isinstance(event, RecoveryEnded)
    words = [f"by {event.who}", event.why, *told_facts(event.figures)]
    words += [f"the group stands at {event.version}"] if event.version else []
    title = f"alarm {event.alarm} is over: {event.outcome}"
    tone = "warning" if event.outcome == "person" else "good"
    return Entry(0, "rollback", tone, title, ", ".join(filter(None, words)))


def _person(event: ControlEvent) -> Entry:
    assert isinstance(event, PersonNeeded)
    words = ", ".join([event.why, *told_facts(event.figures)])
    return Entry(0, "person", "bad", f"alarm {event.alarm}: a person is needed", words)


def _asked(event: ControlEvent) -> Entry:
    assert isinstance(event, RollbackRequested)
    title = f"{len(event.ids):,} rows of {event.table} to go back to backup {event.backup}"
    return Entry(0, "rollback", "warning", title, f"request {event.request}")


def _done(event: ControlEvent) -> Entry:
    assert isinstance(event, RollbackDone)
    title = f"{event.rows:,} rows of {event.table} went back to backup {event.backup}"
    words = f"request {event.request}, shards {', '.join(map(str, event.shards))}"
    absent = f", {len(event.absent):,} ids had no row then" if event.absent else ""
    return Entry(0, "rollback", "good", title, words + absent)


def _refused(event: ControlEvent) -> Entry:
    assert isinstance(event, RollbackRefused)
    return Entry(
        0, "rollback", "bad", "rows were not rolled back", f"{event.reason}; request {event.request}"
    )


def _in_runs(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries, with verdicts and backups that only repeat each other as one."""
    found: list[Entry] = []
    going: dict[tuple[str, str], int] = {}
    for entry in entries:
        key = (entry.kind, entry.title)
        if entry.kind not in _RUNS:
            going.clear()
        elif key in going:
            before = found[going[key]]
            found[going[key]] = replace(before, until=entry.time, count=before.count + 1, detail=entry.detail)
            continue
        else:
            if entry.tone not in ("good", "plain"):
                going.clear()
            going[key] = len(found)
        found.append(entry)
    return found


_ENTRIES: Mapping[str, Callable[[ControlEvent], Entry]] = {
    VersionCommitted.TYPE: _committed,
    VersionRejected.TYPE: _rejected,
    BackupTaken.TYPE: _backup,
    RollbackRequested.TYPE: _asked,
    RollbackDone.TYPE: _done,
    RollbackRefused.TYPE: _refused,
    DriftVerdict.TYPE: _verdict,
    Alarm.TYPE: _alarm,
    AlarmAnswered.TYPE: _answered,
    RecoveryStep.TYPE: _step,
    RecoveryEnded.TYPE: _ended,
    PersonNeeded.TYPE: _person,
}
