"""Gates: who passes, who fails, and that silence is never a pass; when barriers are due."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from driftline.errors import ConfigError
from driftline.versions.gating import Candidate, Judgement, Outcome, Status, Unanswered
from driftline_services.versioner.gates import Gates, parse_gates
from driftline_services.versioner.triggers import DAY, Rules, Stand, due, latest_daily

PARENT = {"loss": 0.5, "auc": 0.8}


def candidate(**figures: float) -> Candidate:
    return Candidate("g", 7, "main", "N", figures, {}, "V-N-1.0", PARENT, {"items": 9}, {"items": 2})


def judged(text: str, one: Candidate, unanswered: Unanswered = Unanswered.STORE) -> Outcome:
    gates = Gates(parse_gates(text, lambda url: url), unanswered, 0.5)
    outcome = asyncio.run(gates.judge(one))
    assert outcome is not None
    return outcome


def say_yes(one: Candidate) -> bool:
    return one.figures["loss"] < 1


async def measure(one: Candidate) -> Judgement:
    return Judgement("", Status.FAILED, "worse on held-out items", {"recall": 0.25})


async def hang(one: Candidate) -> Judgement:
    await asyncio.Event().wait()
    raise AssertionError("never")


@pytest.mark.parametrize(
    ("gate", "value", "passes"),
    [
        ("figure:loss:lower:0.1", {"loss": 0.6}, True),
        ("figure:loss:lower:0.1", {"loss": 0.61}, False),
        ("figure:loss:lower:10%", {"loss": 0.56}, False),
        ("figure:auc:higher:0.05", {"auc": 0.76}, True),
        ("figure:auc:higher:0.05", {"auc": 0.74}, False),
    ],
)
def test_a_figure_may_be_worse_than_the_parents_by_its_tolerance(
    gate: str, value: dict[str, float], passes: bool
) -> None:
    outcome = judged(gate, candidate(**value))
    assert outcome.accepted == passes
    assert outcome.judgements[0].status is (Status.PASSED if passes else Status.FAILED)


@pytest.mark.parametrize("unanswered", Unanswered)
@pytest.mark.parametrize(
    "gate",
    [
        "figure:loss:lower:0.1",  # not reported
        "figure:novel:lower:0.1",  # the parent has none
        f"call:{__name__}.say_yes",  # raises KeyError
        f"call:{__name__}.hang",
        "http://127.0.0.1:9/hook",  # nobody answers
    ],
)
def test_what_was_not_compared_is_not_evaluated_and_the_policy_decides(
    gate: str, unanswered: Unanswered
) -> None:
    outcome = judged(gate, candidate(novel=1.0), unanswered)
    assert outcome.judgements[0].status is Status.NOT_EVALUATED
    assert outcome.judgements[0].reason
    assert outcome.accepted == (unanswered is Unanswered.STORE)
    assert outcome.to_json()["unanswered"] == unanswered


def test_a_function_judges_and_one_failure_rejects() -> None:
    outcome = judged(f"call:{__name__}.say_yes call:{__name__}.measure", candidate(loss=0.1))
    assert [each.status for each in outcome.judgements] == [Status.PASSED, Status.FAILED]
    assert not outcome.accepted
    assert "worse on held-out items" in outcome.reason
    assert outcome.judgements[1].figures == {"recall": 0.25}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"status": "passed", "figures": {"lift": 0.1}}, Status.PASSED),
        ({"status": "failed", "reason": "A/B"}, Status.FAILED),
        ({"verdict": "fine"}, Status.NOT_EVALUATED),
    ],
)
def test_a_service_judges_over_http(answer: dict[str, object], status: Status) -> None:
    async def run() -> Outcome:
        async def hook(request: web.Request) -> web.Response:
            assert (await request.json())["op"] == 7
            return web.json_response(answer)

        app = web.Application()
        app.add_routes([web.post("/hook", hook)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            gates = Gates(parse_gates(f"http://127.0.0.1:{port}/hook", lambda url: url), timeout=10.0)
            outcome = await gates.judge(candidate(loss=0.1))
            assert outcome is not None
            return outcome
        finally:
            await runner.cleanup()

    assert asyncio.run(run()).judgements[0].status is status


def test_a_function_that_does_not_exist_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        parse_gates("call:nowhere.at_all", lambda url: url)


def test_nothing_is_due_while_nothing_has_changed() -> None:
    rules = Rules(version_every=1.0, version_bytes=1, daily_at=0.0, backup_every=1.0)
    assert due(rules, Stand(0.0, 0.0, 0, False), 10 * DAY) is None


@pytest.mark.parametrize(
    ("rules", "now", "expected"),
    [
        (Rules(version_every=60.0), 59.0, None),
        (Rules(version_every=60.0), 60.0, ("version", "time")),
        (Rules(version_bytes=100), 1.0, ("version", "amount")),
        (Rules(version_bytes=101), 1.0, None),
        (Rules(daily_at=3600.0), 3599.0, None),
        (Rules(daily_at=3600.0), 3601.0, ("version", "daily")),
        (Rules(backup_every=60.0), 61.0, ("backup", "time")),
        (Rules(version_every=60.0, backup_every=60.0), 61.0, ("version", "time")),
    ],
)
def test_a_barrier_is_due_by_time_by_amount_or_by_day(
    rules: Rules, now: float, expected: tuple[str, str] | None
) -> None:
    assert due(rules, Stand(0.0, 0.0, 100, True), now) == expected


def test_the_daily_moment_is_the_last_one_that_has_passed() -> None:
    assert latest_daily(3600.0, 5 * DAY + 3600.0) == 5 * DAY + 3600.0
    assert latest_daily(3600.0, 5 * DAY + 3599.0) == 4 * DAY + 3600.0
