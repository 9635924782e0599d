"""A request counts once: judged from the ops log alone, within its span."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import FrameError
from driftline.frames.events import BARRIER, Op, Origin
from driftline.ops.requests import Asked
from driftline.ops.window import SPAN, RequestWindow
from tests.support.samples import P

OP = Op(BARRIER, "default", 0, Origin(P, 0, 0), {})


def asked(request: int, behind: int) -> Asked:
    return Asked(OP, request.to_bytes(16), behind)


def refused(window: RequestWindow, request: int, behind: int, offset: int) -> bool:
    try:
        window.check(asked(request, behind), offset)
    except FrameError as error:
        return error.reason == "replayed_op"
    return False


def test_a_request_counts_the_first_time_only() -> None:
    window = RequestWindow()
    assert not refused(window, 1, 0, 0)
    assert refused(window, 1, 0, 1)
    assert not refused(window, 2, 2, 2)


def test_a_router_that_tries_again_gets_the_same_verdict() -> None:
    window = RequestWindow()
    assert [refused(window, 1, 0, 0) for _ in range(2)] == [False, False]
    assert [refused(window, 1, 0, 1) for _ in range(2)] == [True, True]


def test_a_request_is_good_for_a_span_of_the_log() -> None:
    assert not refused(RequestWindow(), 1, 7, 7 + SPAN)
    assert refused(RequestWindow(), 1, 7, 8 + SPAN)


def test_a_request_of_a_longer_log_is_of_another_one() -> None:
    assert refused(RequestWindow(), 1, 8, 7)


LOGS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3 * SPAN), st.integers(1, SPAN)), max_size=40)


@given(LOGS, st.data())
def test_the_verdict_does_not_depend_on_where_reading_began(
    steps: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    log: list[tuple[int, int, int]] = []  # request, behind, offset
    offset = 0
    for request, behind, gap in steps:
        offset += gap
        log.append((request, behind, offset))
    whole = RequestWindow()
    verdicts = [refused(whole, *each) for each in log]
    start = data.draw(st.integers(0, offset + 1))
    late = RequestWindow()
    for each, verdict in zip(log, verdicts, strict=True):
        if each[2] < start - SPAN:
            continue
        found = refused(late, *each)
        assert each[2] < start or found == verdict


def test_no_more_than_a_span_is_remembered() -> None:
    window = RequestWindow()
    for offset in range(3 * SPAN):
        window.check(asked(offset, offset), offset)
    assert len(window._first) <= SPAN + 1
    with pytest.raises(FrameError):
        window.check(asked(2 * SPAN, 2 * SPAN), 3 * SPAN)
