"""Where a shard that its log does not continue may begin, and what that costs. The one verdict on it.

Invariant: pure. The old generation goes on only where that gives the LSNs that were given out the
same states again; everything else is a new generation, and says which records are lost with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from driftline import topics
from driftline.ids import lsn
from driftline.log import Bounds
from driftline.ops.continuation import Continuation, Found
from driftline.shard.position import Position

_OFFSET_BITS = 48


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a shard that cannot go on."""

    position: Position  # as stored; a fresh one where nothing is
    found: Found  # how its log stands to that
    told: int = 0  # the LSN with which its updates end, 0: none is there

    @property
    def stored(self) -> bool:
        """Whether there is anything to go on from."""
        return holds_something(self.position)

    @property
    def given_out(self) -> int:
        """The greatest LSN that somebody may have seen."""
        return max(self.told, self.position.lsn - 1) if self.stored else self.told


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version as a start."""

    version: str
    place: Position  # of the shard when it was cut
    continuation: Continuation  # how the log stands to that


@dataclass(frozen=True, slots=True)
class Lost:
    """Records that no start brings back."""

    begin: int
    end: int | None  # None: nobody knows how many there were
    generation: int

    def words(self, table: str) -> str:
        """Say which they are."""
        topic = topics.gradients(table)
        if self.end is None:
            return f"what {topic} held from offset {self.begin} of generation {self.generation} on"
        return f"records [{self.begin}, {self.end}) of {topic}, {self.end - self.begin} in all"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a shard begins that is put back to a version."""

    generation: int
    next: int
    fp: str
    lost: Lost | None  # None: nothing, and the generation is the old one


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do with a shard that cannot go on: `version` None is its rows as they are stored."""

    version: str | None
    lost: Lost | None
    possible: bool = True  # False: there is nothing to begin from


def holds_something(position: Position) -> bool:
    """Tell whether a stored position is more than what the first owner of an empty Redis wrote."""
    return bool(position.spec) or position.next > 0


def start_from(evidence: Evidence, candidate: Candidate) -> Start:
    """Return where a shard begins that is put back to `candidate`."""
    place, bounds = candidate.place, evidence.found.bounds
    if _goes_on(evidence, candidate):
        return Start(place.gen, place.next, place.fp, None)
    generations = [place.gen, evidence.given_out >> _OFFSET_BITS]
    if evidence.stored:
        generations.append(evidence.position.gen)
    generation = max(generations) + 1
    if candidate.continuation is Continuation.CONTINUES:  # this log, which has lost its tail
        return Start(generation, place.next, place.fp, Lost(bounds.end, None, place.gen))
    return Start(generation, bounds.begin, "", _lost(evidence, candidate, bounds))


def advise(evidence: Evidence, newest: Candidate | None) -> Advice:
    """Return what loses least; `newest`: the newest version."""
    position, found = evidence.position, evidence.found
    if newest is not None:
        start = start_from(evidence, newest)
        if start.lost is None or not evidence.stored:
            return Advice(newest.version, start.lost)
        ahead = newest.place.gen == position.gen and newest.place.next > position.next
        if ahead and found.continuation is Continuation.BEGINS_BEHIND:
            return Advice(newest.version, start.lost)
    if not evidence.stored:
        return Advice(None, None, possible=False)
    if found.continuation is Continuation.BEGINS_BEHIND:
        return Advice(None, Lost(position.next, found.bounds.begin, position.gen))
    return Advice(None, None)


def _goes_on(evidence: Evidence, candidate: Candidate) -> bool:
    """Tell whether the log from the version on gives every LSN that was given out again, and no other."""
    place, found = candidate.place, evidence.found
    if not candidate.continuation.fits or found.continuation is Continuation.ANOTHER_LOG:
        return False
    if evidence.stored and evidence.position.gen != place.gen:
        return False
    return evidence.given_out < lsn(place.gen, found.bounds.end)


def _lost(evidence: Evidence, candidate: Candidate, bounds: Bounds) -> Lost:
    place = candidate.place
    known = evidence.given_out >> _OFFSET_BITS
    same = known in (0, place.gen) and candidate.continuation is Continuation.BEGINS_BEHIND
    return Lost(place.next, bounds.begin if same else None, place.gen)
