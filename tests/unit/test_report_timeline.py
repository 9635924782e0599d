"""Timeline, alarms, lineage and domains of a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from driftline.control import BackupTaken, RollbackDone, RollbackRequested, VersionCommitted, VersionRejected
from driftline.errors import InputError
from driftline.report import alarms, lineage, read_domains, timeline
from driftline.report.domains import OTHERS, Domains
from driftline.report.lineage import lanes
from tests.support.reports import events, manifest, told, verdict


def committed(version: str, op: int) -> VersionCommitted:
    return VersionCommitted(version, op, "main", "R", (), "", {"items": 5}, {"items": 3}, {"policy": "open"})


def test_events_are_in_order_with_versions_that_only_the_store_knows() -> None:
    older = manifest("V-R-1.0", created=1_600_000_000.0)
    found = timeline(
        told(committed("V-R-1.1", 4), VersionRejected(5, "main", "R", "auc fell")),
        [older, manifest("V-R-1.1", ("V-R-1.0",))],
    )
    assert [each.title for each in found.entries] == [
        "V-R-1.0 committed",
        "V-R-1.1 committed",
        "barrier 5 became no version",
    ]
    assert found.entries[2].detail == "auc fell"


def test_a_version_that_was_removed_is_told_of_nevertheless() -> None:
    (found,) = timeline(told(committed("V-R-1.1", 4)), []).entries
    assert found.detail == "branch main, 3 rows stored, policy open, no longer in the store"


def test_a_rollback_is_told_by_the_version_that_records_it() -> None:
    back = manifest("V-R-1.2", ("V-R-1.1",), base="V-R-1.0")
    (found,) = timeline([], [back]).entries
    assert (found.kind, found.title) == ("rollback", "V-R-1.2: rollback to V-R-1.0")


def test_an_event_that_is_told_twice_is_shown_once() -> None:
    twice = VersionRejected(5, "main", "R", "auc fell")
    assert len(timeline(told(twice, twice), []).entries) == 1


def test_ticks_that_passed_are_one_line_until_something_happens() -> None:
    healthy = [verdict(op, table=table) for op in range(1, 6) for table in ("items", "users")]
    found = timeline(told(*healthy, verdict(6, "deviating"), verdict(7), every=1.0), []).entries
    assert [(each.title, each.count) for each in found] == [
        ("items: ok", 5),
        ("users: ok", 5),
        ("items: deviating", 1),
        ("items: ok", 1),
    ]
    assert found[0].until == found[0].time + 8


def test_backups_and_rows_that_went_back_to_one() -> None:
    found = timeline(
        told(
            BackupTaken(5, "a", {"items": (0,)}, True, 1000),
            BackupTaken(6, "a", {"items": (0,)}, True, 2000),
            RollbackRequested("ab", "items", (1, 2), 5),
            RollbackDone("ab", "items", 5, (0,), 2, (), (7,)),
        ),
        [],
    ).entries
    assert [(each.title, each.count) for each in found] == [
        ("backup held", 2),
        ("2 rows of items to go back to backup 5", 1),
        ("2 rows of items went back to backup 5", 1),
    ]


def test_only_the_newest_entries_are_shown_and_the_rest_is_counted() -> None:
    found = timeline(told(*(VersionRejected(op, "main", "R", "no") for op in range(10))), [], most=3)
    assert [each.title for each in found.entries] == [f"barrier {op} became no version" for op in (7, 8, 9)]
    assert found.left_out == 7


def test_an_alarm_shows_the_figures_of_its_verdicts_and_what_became_of_it() -> None:
    (alarm,) = alarms(events())
    assert (alarm.number, alarm.table, alarm.rule, alarm.outcome) == (9, "items", "many_nodes", "restored")
    (judged,) = alarm.judged
    facts = {fact.name: fact.value for fact in judged.facts}
    assert (facts["r"], facts["threshold"], facts["shards"]) == ("3022", "1440", "2 of 2")
    assert (judged.nodes, judged.node_count) == (("3", "5"), 41)
    assert judged.channels == ({"name": "moved", "p": 0.001},)
    assert [line["largest norm"] for line in judged.producers] == [50.0, 0.6]
    assert [step.title for step in alarm.steps] == [
        "alarm 9, step 1: quarantined",
        "alarm 9 is over: restored",
    ]


def test_an_alarm_whose_verdicts_the_topic_has_forgotten_is_shown_without_them() -> None:
    left = [each for each in events() if each.event.TYPE != "verdict"]
    (alarm,) = alarms(left)
    assert alarm.judged == ()


def test_without_a_monitor_there_are_no_alarms() -> None:
    assert alarms(told(committed("V-R-1.1", 4))) == ()


def test_branches_have_lanes_of_their_own_that_are_used_again() -> None:
    tree = [("e", ["d"]), ("x", ["b"]), ("d", ["c", "b"]), ("c", ["a"]), ("b", ["a"]), ("a", [])]
    found = lanes(tree)
    assert (found["e"], found["d"], found["c"], found["a"]) == (0, 0, 0, 0)
    assert found["x"] == found["b"] == 1


def test_lineage_shows_rollbacks_labels_and_counts_what_is_left_out() -> None:
    versions = [
        manifest("V-R-1.2", ("V-R-1.1",), base="V-R-1.0"),
        manifest("V-R-1.1", ("V-R-1.0",), figures={"auc": 0.5}),
        manifest("V-R-1.0"),
    ]
    found = lineage(versions, {"V-R-1.2": ["main"]}, most=2)
    assert [(each.version, each.base, each.labels) for each in found.nodes] == [
        ("V-R-1.2", "V-R-1.0", ("main",)),
        ("V-R-1.1", "", ()),
    ]
    assert (found.left_out, found.lanes) == (1, 1)


def test_domains_are_read_with_or_without_a_heading(tmp_path: Path) -> None:
    file = tmp_path / "domains.csv"
    file.write_text('id,domain\n7,news\n\n3,"sport, indoor"\n')
    found = read_domains(file)
    assert found.ids.tolist() == [3, 7]
    assert [found.names[code] for code in found.codes] == ["sport, indoor", "news"]
    file.write_text("7,news\n")
    assert read_domains(file).names == ("news",)


@pytest.mark.parametrize("line", ["x,news", "-1,news", "7", "7,", f"{2**64},news", "7,news,more"])
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "domains.csv"
    file.write_text(f"1,a\n{line}\n")
    with pytest.raises(InputError, match="line 2"):
        read_domains(file)


def test_an_id_in_two_domains_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "domains.csv"
    file.write_text("1,a\n2,a\n1,b\n")
    with pytest.raises(InputError, match="line 3: id 1 is in 'a' and in 'b'"):
        read_domains(file)


def test_small_domains_are_shown_together() -> None:
    every = np.arange(10, dtype=np.uint64)
    codes = np.array([0, 1, 1, 1, 2, 2, 3, 3, 3, 3])
    found = Domains(every, codes, ("a", "b", "c", "d")).most(every, 2)
    assert found.names == ("d", "b", OTHERS)
    assert np.bincount(found.codes).tolist() == [4, 3, 3]
