"""The pages say what is so: links lead somewhere, tests that are named exist, lists are complete.

`python -m tests.unit.test_docs` rewrites what is generated, between `<!-- generated: … -->`
and `<!-- end -->`.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from driftline import errors
from driftline.cli.main import app
from driftline.frames import reasons
from driftline.frames.events import Gradient, Origin, read_event, write_event
from driftline.ids import lsn, shard_of, splitmix64
from tests import guarantees

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "DEVELOP.md", *DOCS.rglob("*.md")])
CLI, FRAMES = DOCS / "reference" / "cli.md", DOCS / "reference" / "frames.md"
GUARANTEE = DOCS / "explanation" / "delivery-guarantee.md"
_GENERATED = re.compile(r"(<!-- generated: ([\w\- ]+) -->\n).*?(<!-- end -->)", re.S)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_TEST = re.compile(r"tests/[\w/]+\.py(?:::(\w+))?")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, no punctuation, hyphens for blanks."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_pages_and_headings_that_exist(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{name_of(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_tests_that_are_named_exist(page: Path) -> None:
    for named in _TEST.finditer(page.read_text()):
        file = ROOT / named[0].partition("::")[0]
        assert file.is_file(), f"{name_of(page)} names {named[0]}"
        if named[1]:
            functions = (node for node in ast.walk(ast.parse(file.read_text())))
            defined = {
                node.name for node in functions if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            }
            assert named[1] in defined, f"{name_of(page)} names {named[0]}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_can_be_reached(page: Path) -> None:
    linked = {
        (other.parent / target.partition("#")[0]).resolve()
        for other in PAGES
        for target in _LINK.findall(prose(other))
        if "://" not in target and target[0] != "#"
    }
    assert page in linked | {ROOT / "README.md"}


@pytest.mark.parametrize("page", [CLI, FRAMES], ids=name_of)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    assert fill(page.read_text()) == page.read_text(), "run python -m tests.unit.test_docs"


def test_every_command_has_its_section() -> None:
    sections = re.findall(r"^## `driftline ([\w\- ]+)`$", CLI.read_text(), flags=re.M)
    assert sections == [path for path, _ in commands()]


def test_every_error_is_in_the_reference_with_its_code_and_base() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| `([\w.]+)` \| ([^|]+) \|", (DOCS / "reference/errors.md").read_text(), re.M
    )

    assert sorted(rows) == sorted(
        (each.__name__, each.code, ", ".join(f"`{base.__name__}`" for base in each.__bases__))
        for each in error_classes()
    )


def test_every_error_code_has_an_entry_in_the_operators_guide() -> None:
    guide = (DOCS / "how-to/operate.md").read_text().partition("## Errors by code")[2]
    groups = {"driftline", "retry"}  # never raised themselves
    listed = re.findall(r"`([\w.]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", guide, re.M)))

    assert sorted(listed) == sorted({each.code for each in error_classes()} - groups)


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    explained = re.findall(r"^\| `([\w\-]+)` \| .+ \|$", (DOCS / "dependencies.md").read_text(), re.M)

    assert sorted(explained) == sorted(re.split(r"[\[<>=;~ ]", each)[0] for each in required)


def test_every_design_note_is_in_the_index() -> None:
    notes = {path.name for path in (DOCS / "design-notes").glob("*.md")} - {"README.md"}
    assert notes == set(re.findall(r"\(([\w\-]+\.md)\)", (DOCS / "design-notes" / "README.md").read_text()))


def test_the_plain_producer_writes_the_librarys_bytes() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", FRAMES.read_text(), re.S)
    page: dict[str, object] = {}
    exec(code, page)  # noqa: S102 - our own page
    call = re.search(r"`(gradient_frame\(.*\))` is (\d+)\s+bytes", FRAMES.read_text(), re.S)
    assert call is not None
    event = Gradient(
        "items",
        1,
        Origin(bytes(range(16)), 0, 3 << 16),
        np.array([7, 42], np.uint64),
        np.array([[0.5, -1.0], [0.25, 2.0]], np.float32),
        lsn(1, 5),
    )

    frame = eval(call[1], page)  # noqa: S307

    assert frame == write_event(event)
    assert len(frame) == int(call[2])
    assert read_event(frame, limit=1 << 20).origin == event.origin
    assert f"begins with `{frame[:8].hex()}`" in FRAMES.read_text().replace("\n", " ")


def test_the_vectors_of_the_sharding_function_are_right() -> None:
    rows = re.findall(r"^\| (\d+) \| `([0-9A-F]{16})` \| (\d) \| (\d) \|$", FRAMES.read_text(), re.M)
    ids = np.array([int(row[0]) for row in rows], np.uint64)

    assert [int(row[1], 16) for row in rows] == splitmix64(ids).tolist()
    assert [[int(row[2]), int(row[3])] for row in rows] == np.stack(
        [shard_of(ids, 2), shard_of(ids, 8)], 1
    ).tolist()


def test_picture_is_legible_in_light_and_dark() -> None:
    for picture in (DOCS / "images").glob("*.svg"):
        assert "prefers-color-scheme: dark" in picture.read_text()
        assert "<title" in picture.read_text()


def error_classes() -> list[type[errors.DriftlineError]]:
    classes = (each for _, each in inspect.getmembers(errors, inspect.isclass))
    return [each for each in classes if issubclass(each, errors.DriftlineError)]


def commands() -> Iterator[tuple[str, TyperCommand]]:
    """All commands with their paths, in the order of `driftline --help`."""
    yield from _below("", typer.main.get_command(app))


def _below(path: str, command: object) -> Iterator[tuple[str, TyperCommand]]:
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from _below(f"{path} {name}", child)
    else:
        assert isinstance(command, TyperCommand)
        yield path.strip(), command


def options_table(command: TyperCommand) -> str:
    """Arguments and options of a command, in Markdown."""
    rows = ["| argument or option | default | meaning |", "|---|---|---|"]
    for each in command.params:
        shown = f"`{(each.metavar or each.name or '').upper()}`"
        if each.param_type_name == "option":
            shown = ", ".join(f"`{name}`" for name in each.opts)
        default = "" if each.default in (None, False) else f"`{each.default}`"
        meaning = " ".join((getattr(each, "help", None) or "").split())
        rows.append(f"| {shown} | {'required' if each.required else default} | {meaning} |")
    return "\n".join(rows) + "\n" if command.params else "No options.\n"


def fill(page: str) -> str:
    """Return a page with its generated parts replaced."""
    tables = {f"options {path}": options_table(command) for path, command in commands()}
    tables["reasons"] = reasons.reference_table()
    tables["guarantees"] = guarantees.table()
    return _GENERATED.sub(lambda part: part[1] + tables[part[2]] + part[3], page)


if __name__ == "__main__":
    for generated in (CLI, FRAMES, GUARANTEE):
        generated.write_text(fill(generated.read_text()))
