"""Names of versions and references to them."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import InputError, UnknownVersionError, VersionHeldError
from driftline.versions import Repository, branches, create_branch, resolve, set_tag
from driftline.versions.naming import VersionName, major_names, minor_names
from driftline.versions.references import Reference, checked_label, parse_reference, time_of
from tests.support.object_store_fake import FakeObjects
from tests.support.versioning import Clock, Live, opened


@pytest.mark.parametrize(
    ("parent", "scenario", "run", "name"),
    [
        (None, "R", "new", "V-R-1.0"),
        (None, "W", "new", "V-W-1.0"),
        ("V-R-1.0", "W", "new", "V-W-1.0"),  # from the fused line: the parent's major
        ("V-W-1.0", "N", "new", "V-N-2.0"),  # from a scenario to another: the parent's + 1
        ("V-W-1.0", "W", "new", "V-W-2.0"),  # same scenario, new run
        ("V-W-1.0", "W", "same", "V-W-1.1"),  # same run
        ("V-W-1.9", "W", "same", "V-W-1.10"),
        ("V-R-3.7", "W", "new", "V-W-3.0"),
        ("V-R-3.7", "R", "new", "V-R-4.0"),  # the fused line itself goes on
        ("V-R-3.7", "R", "same", "V-R-3.8"),
        ("V-N-2.4", "R", "new", "V-R-3.0"),  # back into the fused line
        ("V-C-2.4", "N", "new", "V-N-3.0"),
    ],
)
def test_a_name_follows_from_the_parents_and_the_scenario(
    parent: str | None, scenario: str, run: str, name: str
) -> None:
    before = VersionName.parse(parent) if parent is not None else None
    if run == "same":
        assert before is not None
        names = minor_names(before)
    else:
        names = major_names(before, scenario)

    assert str(next(names)) == name


def test_what_is_taken_is_left() -> None:
    assert [str(each) for each in islice(major_names(VersionName("R", 1, 4), "W"), 3)] == [
        "V-W-1.0",
        "V-W-2.0",
        "V-W-3.0",
    ]


@pytest.mark.parametrize(
    "text", ["", "V", "V-w-1.0", "V-W-1", "V-W-1.0 ", "V-W-01.0", "V-ABCDEFGHI-1.0", "V--1.0", "v-W-1.0"]
)
def test_other_texts_are_no_names(text: str) -> None:
    with pytest.raises(InputError):
        VersionName.parse(text)


@given(
    st.builds(
        VersionName,
        st.from_regex(r"[A-Z0-9]{1,8}", fullmatch=True),
        st.integers(0, 999_999_999),
        st.integers(0, 999_999_999),
    )
)
def test_names_read_back(name: VersionName) -> None:
    assert VersionName.parse(str(name)) == name


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("items@V-N-1.2", Reference("items", "V-N-1.2")),
        ("V-N-1.2", Reference(None, "V-N-1.2")),
        ("items@branch~2", Reference("items", "branch", 2)),
        ("branch~", Reference(None, "branch", 1)),
        ("V-N-1.2~1", Reference(None, "V-N-1.2", 1)),
        ("latest", Reference(None, "latest")),
        ("items@2026-11-21T10:00", Reference("items", "2026-11-21T10:00")),
        ("release-7.1", Reference(None, "release-7.1")),
    ],
)
def test_references(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize("text", ["", "@", "items@", "a@b@c", "a~b", "a~~", "~1", "a~1~2"])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"items@V-N-1\.2"):
        parse_reference(text)


@pytest.mark.parametrize("name", ["V-N-1.2", "latest", "2026-11-21", "a b", "a~1", "a/b", "", ".x", "a@b"])
def test_labels_cannot_be_mistaken_for_another_form(name: str) -> None:
    with pytest.raises((VersionHeldError, InputError)):
        checked_label("tag", name)


def test_times_are_utc_unless_they_say_otherwise() -> None:
    ten = datetime(2026, 11, 21, 10, tzinfo=UTC).timestamp()
    assert time_of("2026-11-21T10:00") == time_of("2026-11-21T11:00+01:00") == ten
    assert time_of("2026-11-21") == ten - 36_000
    assert time_of("release") is None
    with pytest.raises(InputError, match="write 2026"):
        time_of("2026-13-45")


@pytest.fixture
def repository() -> Repository:
    """main: V-R-1.0 to V-R-1.2, ten seconds apart; exp from V-R-1.0: V-W-1.0; release is V-R-1.1."""
    clock = Clock()
    repository = opened(FakeObjects(clock), clock)
    live = Live()
    first = version = live.commit(repository, "op-0", None)
    for number in (1, 2):
        clock.time += 10
        live.upsert([number])
        version = live.commit(repository, f"op-{number}", version)
    create_branch(repository, "exp", "V-R-1.0")
    Live().commit(repository, "op-9", first, branch="exp", scenario="W", base=first)
    set_tag(repository, "release", "V-R-1.1")
    return repository


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("V-R-1.1", "V-R-1.1"),
        ("items@V-R-1.1", "V-R-1.1"),
        ("latest", "V-R-1.2"),
        ("main", "V-R-1.2"),
        ("main~1", "V-R-1.1"),
        ("latest~2", "V-R-1.0"),
        ("exp", "V-W-1.0"),
        ("exp~1", "V-R-1.0"),
        ("release", "V-R-1.1"),
        ("items@release~", "V-R-1.0"),
    ],
)
def test_a_reference_names_a_version(repository: Repository, text: str, version: str) -> None:
    assert resolve(repository, text).manifest.version == version


def test_a_time_names_the_newest_version_of_main_at_that_time(repository: Repository) -> None:
    for seconds, version in [(0, "V-R-1.0"), (9, "V-R-1.0"), (10, "V-R-1.1"), (1e6, "V-R-1.2")]:
        moment = datetime.fromtimestamp(1_000_000 + seconds, UTC).isoformat()
        assert resolve(repository, moment).manifest.version == version
    with pytest.raises(UnknownVersionError, match="as old"):
        resolve(repository, "1970-01-02")


@pytest.mark.parametrize(
    ("text", "nearest"), [("V-R-1.7", "V-R-1"), ("relaese", "release"), ("exq", "exp"), ("lates", "latest")]
)
def test_an_unknown_reference_is_answered_with_the_nearest_names(
    repository: Repository, text: str, nearest: str
) -> None:
    with pytest.raises(UnknownVersionError) as caught:
        resolve(repository, text)

    assert nearest in str(caught.value)
    assert caught.value.nearest


def test_going_back_beyond_the_first_version_is_refused(repository: Repository) -> None:
    with pytest.raises(UnknownVersionError, match=r"V-R-1\.0 is the first"):
        resolve(repository, "main~3")


def test_branches_show_their_heads(repository: Repository) -> None:
    assert branches(repository) == {"main": "V-R-1.2", "exp": "V-W-1.0"}
