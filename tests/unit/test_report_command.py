"""`driftline report` on a store of versions in a directory."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from driftline.control import ControlTopic, VersionRejected
from driftline.errors import ConfigError, InputError, UnknownTableError, UnknownVersionError
from driftline.frames.headers import Keyring
from driftline.log import open_log
from tests.support.version_commands import GROUP, Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Two versions of items and users; three items moved, one was born, one ended."""
    made = Scene(tmp_path / "data", ("items", "users"))
    for table in ("items", "users"):
        made.live.upsert(range(1, 31), table)
    made.commit(figures={"auc": 0.5})
    made.live.upsert([1, 2, 3, 99])
    made.live.delete([30])
    made.live.upsert([7], "users")
    made.commit(figures={"auc": 0.6})
    return made


def page_of(scene: Scene, tmp_path: Path, *words: str) -> dict[str, object]:
    """Write a report, and return the data that is in it."""
    file = tmp_path / "report.html"
    assert scene.run("report", "--view", "pca", "--out", str(file), *words).exit_code == 0
    page = file.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="report">(.*?)</script>', page, re.S)
    found = json.loads(data)
    assert isinstance(found, dict)
    return found


def test_the_newest_version_is_compared_with_its_parent(scene: Scene, tmp_path: Path) -> None:
    found = page_of(scene, tmp_path)
    assert (found["before"], found["after"]) == ("V-R-1.0", "V-R-1.1")
    tables = found["tables"]
    assert isinstance(tables, list)
    assert [
        (
            each["table"],
            each["rows_before"],
            each["rows_after"],
            each["changed"],
            each["added"],
            each["removed"],
        )
        for each in tables
    ] == [("items", 30, 30, 3, 1, 1), ("users", 30, 30, 1, 0, 0)]


def test_it_says_what_it_wrote(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    (line,) = scene.lines("report", "--view", "pca", "--out", str(file), "--table", "items")
    assert re.fullmatch(rf"{file}: V-R-1\.0 -> V-R-1\.1; items: 29 of 30 rows; [\d.]+ MB", line)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "report.html"]


def test_other_versions_and_one_table_can_be_chosen(scene: Scene, tmp_path: Path) -> None:
    scene.live.upsert([5])
    scene.commit()
    found = page_of(scene, tmp_path, "--from", "V-R-1.0", "--to", "users@latest")
    assert (found["before"], found["after"]) == ("V-R-1.0", "V-R-1.2")
    tables = found["tables"]
    assert isinstance(tables, list)
    assert [each["table"] for each in tables] == ["users"]


def test_without_a_log_the_page_says_that_only_versions_are_shown(scene: Scene, tmp_path: Path) -> None:
    found = page_of(scene, tmp_path, "--log-url", f"local://{tmp_path / 'nowhere'}")
    notes, entries = found["notes"], found["timeline"]
    assert isinstance(notes, list)
    assert isinstance(entries, list)
    assert "only versions are shown" in notes[0]
    assert [each["title"] for each in entries] == ["V-R-1.0 committed", "V-R-1.1 committed"]


def test_what_the_control_topic_tells_is_on_the_page(scene: Scene, tmp_path: Path) -> None:
    url = f"local://{tmp_path / 'log'}"

    async def tell() -> None:
        async with open_log(url) as log:
            for group, reason in ((GROUP, "auc fell"), ("other", "not ours")):
                topic = ControlTopic(log, group, Keyring.parse("ab" * 32))
                await topic.create()
                await topic.tell(VersionRejected(7, "main", "R", reason))

    asyncio.run(tell())
    found = page_of(scene, tmp_path, "--log-url", url)
    entries = found["timeline"]
    assert isinstance(entries, list)
    assert found["notes"] == []
    assert [(each["title"], each["detail"]) for each in entries if each["kind"] == "rejected"] == [
        ("barrier 7 became no version", "auc fell")
    ]


def test_a_first_version_has_nothing_to_be_compared_with(scene: Scene, tmp_path: Path) -> None:
    found = page_of(scene, tmp_path, "--to", "V-R-1.0")
    assert found["tables"] == []
    assert "V-R-1.0 is the first of its line: there is nothing to compare it with." in str(found["notes"])


def test_domains_are_given_by_table(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "domains.csv"
    file.write_text(
        "id,domain\n" + "".join(f"{row},{'odd' if row % 2 else 'even'}\n" for row in range(1, 31))
    )
    found = page_of(scene, tmp_path, "--domains", f"items={file}")
    tables = found["tables"]
    assert isinstance(tables, list)
    assert {
        each["name"]: (each["before"], each["after"], each["changed"]) for each in tables[0]["domains"]
    } == {
        "odd": (15, 15, 2),
        "even": (15, 14, 1),
        "not in the file": (0, 1, 0),
    }
    assert tables[1]["domains"] == []


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("--to", "V-R-9.9"), UnknownVersionError, "V-R-9.9"),
        (("--table", "other"), UnknownTableError, "other"),
        (("--domains", "domains.csv"), InputError, "TABLE=FILE"),
        (("--domains", "items=missing.csv"), InputError, "missing.csv"),
        (("--view", "mds"), InputError, "one of pca, tsne, umap"),
        (("--out", "nowhere/report.html"), InputError, "does not exist"),
    ],
)
def test_mistakes_are_named(scene: Scene, words: tuple[str, ...], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=re.escape(said)):
        scene.run("report", *words)


def test_domains_of_a_table_that_is_not_compared_are_refused(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "domains.csv"
    file.write_text("1,a\n")
    with pytest.raises(InputError, match="domains of 'users'"):
        scene.run(
            "report", "--table", "items", "--domains", f"users={file}", "--out", str(tmp_path / "r.html")
        )


def test_more_tables_than_a_page_holds_are_to_be_chosen_from(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "data", ("a", "b", "c"))
    for _ in range(2):
        for table in ("a", "b", "c"):
            scene.live.upsert([1, 2], table)
        scene.commit()
    with pytest.raises(InputError, match="choose with --table"):
        scene.run("report", "--out", str(tmp_path / "r.html"))
    assert scene.run("report", "--out", str(tmp_path / "r.html"), "--table", "b").exit_code == 0


def test_a_store_without_versions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no versions"):
        Scene(tmp_path / "data").run("report", "--out", str(tmp_path / "r.html"))
