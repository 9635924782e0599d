"""Where a shard may begin that its log does not continue, and what is lost: one verdict, from values."""

from __future__ import annotations

import pytest

from driftline.ids import lsn
from driftline.log import Bounds
from driftline.ops.continuation import Continuation, Found
from driftline.ops.starting import Advice, Candidate, Evidence, Lost, Start, advise, start_from
from driftline.shard.position import Position

EMPTY = Position()
SPEC = '{"stored": true}'


def stored(following: int, gen: int = 1) -> Position:
    return Position(next=following, gen=gen, spec=SPEC, fp="here")


def evidence(position: Position, continuation: Continuation, bounds: Bounds, told: int = 0) -> Evidence:
    return Evidence(position, Found(continuation, bounds), told)


def version(following: int, continuation: Continuation, gen: int = 1) -> Candidate:
    return Candidate("N1", Position(next=following, gen=gen, fp="cut"), continuation)


OVERTAKEN = evidence(stored(30), Continuation.BEGINS_BEHIND, Bounds(50, 90), lsn(1, 29))
WIPED = evidence(EMPTY, Continuation.BEGINS_BEHIND, Bounds(50, 90), lsn(1, 79))
AT_60 = version(60, Continuation.CONTINUES)
AT_40 = version(40, Continuation.BEGINS_BEHIND)
AT_20 = version(20, Continuation.BEGINS_BEHIND)


@pytest.mark.parametrize(
    ("seen", "newest", "expected"),
    [
        (WIPED, AT_60, Advice("N1", None)),
        (WIPED, version(50, Continuation.UNCHECKED), Advice("N1", None)),
        (WIPED, AT_40, Advice("N1", Lost(40, 50, 1))),
        (WIPED, None, Advice(None, None, possible=False)),
        (OVERTAKEN, AT_60, Advice("N1", None)),  # a Redis that went back
        (OVERTAKEN, AT_40, Advice("N1", Lost(40, 50, 1))),  # likewise: the version has more than Redis
        (OVERTAKEN, AT_20, Advice(None, Lost(30, 50, 1))),
        (OVERTAKEN, None, Advice(None, Lost(30, 50, 1))),
        (evidence(stored(95), Continuation.ENDS_BEFORE, Bounds(0, 90)), AT_60, Advice(None, None)),
        (evidence(stored(80), Continuation.ANOTHER_LOG, Bounds(0, 90)), AT_60, Advice(None, None)),
    ],
    ids=[
        "empty, the log holds all behind the version",
        "empty, the log begins with what is behind the version",
        "empty, records between are gone",
        "empty, no version",
        "behind, the log holds all behind the version",
        "behind the version, records between are gone",
        "overtaken, the version is older than Redis",
        "overtaken, no version",
        "the tail is lost, Redis has it",
        "another log, Redis has more than any version",
    ],
)
def test_the_start_that_loses_least_is_named(
    seen: Evidence, newest: Candidate | None, expected: Advice
) -> None:
    assert advise(seen, newest) == expected


@pytest.mark.parametrize(
    ("seen", "candidate", "expected"),
    [
        (WIPED, AT_60, Start(1, 60, "cut", None)),
        (WIPED, AT_40, Start(2, 50, "", Lost(40, 50, 1))),
        (
            evidence(EMPTY, Continuation.CONTINUES, Bounds(0, 70), lsn(1, 79)),
            AT_60,
            Start(2, 60, "cut", Lost(70, None, 1)),
        ),
        (
            evidence(EMPTY, Continuation.BEGINS_BEHIND, Bounds(50, 90), lsn(3, 55)),
            version(50, Continuation.UNCHECKED),
            Start(4, 50, "", Lost(50, None, 1)),
        ),
        (
            evidence(stored(95, gen=2), Continuation.ENDS_BEFORE, Bounds(0, 90)),
            version(60, Continuation.ANOTHER_LOG),
            Start(3, 0, "", Lost(60, None, 1)),
        ),
        (
            evidence(stored(80), Continuation.ANOTHER_LOG, Bounds(0, 90)),
            AT_60,
            Start(2, 60, "cut", Lost(90, None, 1)),
        ),
    ],
    ids=[
        "the log gives every LSN again: the generation goes on",
        "records are gone: a new generation",
        "readers have seen LSNs that this log has not given out yet",
        "readers have seen a later generation",
        "another log",
        "a tail that was lost and written anew",
    ],
)
def test_a_generation_goes_on_only_where_it_gives_the_same_states_again(
    seen: Evidence, candidate: Candidate, expected: Start
) -> None:
    assert start_from(seen, candidate) == expected


def test_what_is_lost_is_named_with_its_topic() -> None:
    assert Lost(40, 50, 1).words("clicks") == "records [40, 50) of clicks.gradients, 10 in all"
    assert "from offset 70 of generation 2" in Lost(70, None, 2).words("clicks")
