"""What the doctor says of the object store of the versions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from driftline.config import load_settings
from driftline.doctor.checks import Patient, check_store
from driftline.doctor.objects import Space, StoreFacts, collect, judge
from driftline.doctor.roles import Role
from driftline.versions import RaceResult, open_store, retire
from driftline.versions import collect as collect_garbage
from tests.support.object_store_fake import FakeObjects
from tests.support.version_commands import GROUP, Scene

DAY = 86400.0
ATOMIC = RaceResult((1, 1), True)
ROOM = Space(9 << 30, 10 << 30)
WELL = StoreFacts("s3://bucket/default", ATOMIC, 0.0, ("versions", 1, GROUP), 3, 0, DAY, ROOM)


class Overwriting(FakeObjects):
    """A store without conditional writes: whoever writes last is believed, and all are told yes."""

    def create(self, key: str, data: bytes) -> None:
        self.objects.pop(key, None)
        super().create(key, data)


def severities(facts: StoreFacts) -> dict[str, str]:
    return {each.what: str(each.severity) for each in judge(facts, GROUP)}


def test_a_store_that_keeps_its_promises_is_well() -> None:
    assert set(severities(WELL).values()) == {"ok"}


@pytest.mark.parametrize(
    ("facts", "what", "severity"),
    [
        (replace(WELL, race=RaceResult((1, 2), True)), "create-if-absent", "fail"),
        (replace(WELL, race=RaceResult((1, 1), False)), "create-if-absent", "fail"),
        (replace(WELL, format=("versions", 2, GROUP)), "format", "fail"),
        (replace(WELL, format=("photos", 1, GROUP)), "format", "fail"),
        (replace(WELL, format=("versions", 1, "other")), "format", "fail"),
        (replace(WELL, damaged="object format.json is damaged"), "format", "fail"),
        (replace(WELL, format=None), "format", "ok"),
        (replace(WELL, ahead=-60.0), "clock", "warn"),
        (replace(WELL, space=Space(1 << 20, 10 << 30)), "space", "fail"),
        (replace(WELL, space=Space(1 << 30, 10 << 30)), "space", "warn"),
        (replace(WELL, collected=40 * DAY), "last collection", "warn"),
        (replace(WELL, collected=None, removed=2), "last collection", "warn"),
        (replace(WELL, collected=None), "last collection", "ok"),
    ],
)
def test_what_is_wrong_with_a_store_is_told(facts: StoreFacts, what: str, severity: str) -> None:
    found = severities(facts)
    assert found[what] == severity
    assert set(found.values()) <= {"ok", severity}


def test_every_trouble_names_the_way_out() -> None:
    bad = replace(
        WELL, race=RaceResult((8,), False), format=("photos", 1, GROUP), ahead=99.0, space=Space(0, 1)
    )
    assert all(each.remedy for each in judge(bad, GROUP) if each.severity != "ok")


def test_a_store_that_overwrites_is_found_out_by_racing_it() -> None:
    facts = collect(Overwriting(lambda: 5.0), lambda: 5.0)
    assert severities(facts)["create-if-absent"] == "fail"
    assert max(facts.race.winners) == 8


def test_looking_leaves_nothing_behind() -> None:
    store = FakeObjects(lambda: 5.0)
    assert severities(collect(store, lambda: 5.0))["create-if-absent"] == "ok"
    assert store.objects == {}


def test_versions_removals_and_collections_are_counted(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    for _ in range(3):
        scene.live.upsert([1])
        scene.commit()
    repository = scene.repository
    retire(repository, ["V-R-1.0"])
    assert severities(collect(repository.store, repository.now))["last collection"] == "warn"
    collect_garbage(repository)

    facts = collect(open_store(repository.store.url), repository.now)

    assert (facts.versions, facts.removed, facts.format) == (2, 1, ("versions", 1, GROUP))
    assert facts.collected == pytest.approx(0.0, abs=60)
    assert facts.space is not None
    assert severities(facts)["format"] == "ok"


def test_where_there_is_no_store_none_is_made(tmp_path: Path) -> None:
    loaded = load_settings({"data_dir": tmp_path / "data"}, cwd=tmp_path, environ={})
    (found,) = asyncio.run(check_store(Patient(loaded, Role.SERVICE)))
    assert found.severity == "ok"
    assert list(tmp_path.iterdir()) == []


async def test_only_services_write_versions(tmp_path: Path) -> None:
    loaded = load_settings({"data_dir": tmp_path}, cwd=tmp_path, environ={})
    assert await check_store(Patient(loaded, Role.TRAINER)) == []
