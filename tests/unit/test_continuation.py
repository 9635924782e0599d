"""Does a log continue a position? One verdict, from values."""

from __future__ import annotations

import pytest

from driftline.log import Bounds, Record
from driftline.ops.continuation import Continuation, verdict
from driftline.shard.position import Position, fingerprint

LAST = Record(6, 1000, None, b"frame")
STANDS = Position(next=7, fp=fingerprint(LAST))


@pytest.mark.parametrize(
    ("position", "bounds", "last", "expected", "fits"),
    [
        (Position(), Bounds(0, 0), None, Continuation.CONTINUES, True),
        (Position(), Bounds(0, 9), None, Continuation.CONTINUES, True),
        (STANDS, Bounds(0, 7), LAST, Continuation.CONTINUES, True),
        (STANDS, Bounds(7, 9), None, Continuation.UNCHECKED, True),
        (STANDS, Bounds(0, 6), None, Continuation.ENDS_BEFORE, False),
        (STANDS, Bounds(8, 9), None, Continuation.BEGINS_BEHIND, False),
        (Position(), Bounds(3, 9), None, Continuation.BEGINS_BEHIND, False),
        (STANDS, Bounds(0, 9), Record(6, 1000, None, b"other"), Continuation.ANOTHER_LOG, False),
        (STANDS, Bounds(0, 9), Record(6, 1001, None, b"frame"), Continuation.ANOTHER_LOG, False),
        (STANDS, Bounds(0, 9), Record(7, 1000, None, b"frame"), Continuation.ANOTHER_LOG, False),
        (STANDS, Bounds(0, 9), None, Continuation.ANOTHER_LOG, False),
    ],
)
def test_the_verdict(
    position: Position, bounds: Bounds, last: Record | None, expected: Continuation, fits: bool
) -> None:
    found = verdict(position, bounds, last)
    assert (found, found.fits) == (expected, fits)
