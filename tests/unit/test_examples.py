"""The examples do what the pages say: the scripts, the README's and the tutorial, on a real local stack."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import driftline
from driftline.cli.main import app
from driftline.config import load_settings
from driftline.stack.local import LocalStack

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
_INTRO = r"^(?:(<!-- not run -->|[^\n]*[Ss]ave as [^\n]*)\n+)?"
_BLOCK = re.compile(_INTRO + r"```(\w+)\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page, and the line that introduces it."""

    intro: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(intro or "", language, text) for intro, language, text in _BLOCK.findall(page.read_text())]


def run_script(path: Path) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        runpy.run_path(str(path), run_name="__main__")
    return out.getvalue()


def run_command(line: str) -> str:
    """Run `driftline …` or `python FILE` as a page shows it, and return what it printed."""
    program, *arguments = shlex.split(line)
    if program == "python":
        return run_script(Path(arguments[0]))
    assert program == "driftline", f"a page shows {line!r}, which this test cannot run"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (0, 1), result.output
    return result.stdout


def as_shown(shown: str, printed: str) -> bool:
    """Whether `printed` is what a page shows; … stands for anything in a line, or for any lines."""
    pattern = re.escape("\n".join(line.rstrip() for line in shown.strip().split("\n")))
    pattern = re.sub("^…\\\\?\n", "(?:.*\n)*", pattern + "\n", flags=re.M).replace("…", ".*")
    return (
        re.fullmatch(pattern, "\n".join(line.rstrip() for line in printed.strip().split("\n")) + "\n")
        is not None
    )


@contextlib.contextmanager
def stack_in(directory: Path) -> Iterator[None]:
    """What `driftline up` runs in `directory`, without its health port."""
    with contextlib.chdir(directory):
        settings = load_settings({"http_port": 0}, cwd=directory, environ={}).settings
        with LocalStack(settings):
            yield


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with stack_in(tmp_path_factory.mktemp("examples")):
        yield


@pytest.mark.usefixtures("stack")
def test_quickstart_trains_rows() -> None:
    assert run_script(EXAMPLES / "quickstart.py").split("\n")[-2] == "True"


def test_the_readme_shows_the_quickstart() -> None:
    shown = [block.text for block in blocks(ROOT / "README.md") if block.language in ("python", "text")]
    code, output = shown[-2:]
    assert (EXAMPLES / "quickstart.py").read_text().endswith(code)
    assert output == "[False False False] [ True  True  True]\nTrue\n"


@pytest.mark.usefixtures("stack")
def test_a_killed_trainer_that_resumes_gives_the_bits_of_one_that_was_not() -> None:
    run_script(EXAMPLES / "trainer_resume.py")

    example = runpy.run_path(str(EXAMPLES / "trainer_resume.py"))
    with driftline.connect() as client:
        table = client.table("resumed")
        stored = table.get(example["IDS"])
        expected = np.array(example["TARGETS"]) * 0
        expected[:] = initial_rows_of(table)
    for step in range(30):
        ids = example["batch_of"](step)
        expected[ids] -= np.float32(0.5) * (expected[ids] - example["TARGETS"][ids])

    assert stored.vectors.tobytes() == expected.tobytes()


def initial_rows_of(table: driftline.Table) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    from driftline.shard.numerics import initial_rows

    spec = table.spec
    return initial_rows(np.arange(100, dtype=np.uint64), spec.dim, spec.init.seed, spec.scale)


@pytest.mark.usefixtures("stack")
def test_inference_reads_many_rows_and_says_which_are_missing() -> None:
    said = run_script(EXAMPLES / "inference_async.py")

    assert "1000 rows, all found: True" in said
    assert "1 of 2 ids have no row, the first is 5000000" in said


@pytest.mark.usefixtures("stack")
@pytest.mark.parametrize(
    "page",
    [
        "how-to/trainer.md",
        "how-to/inference.md",
        "reference/redis-layout.md",
        "reference/cli.md",
    ],
)
def test_a_page_runs_as_it_is_shown(page: str) -> None:
    follow(ROOT / "docs" / page)


def test_the_tutorial_runs_as_it_is_shown(tmp_path: Path) -> None:
    with stack_in(tmp_path):
        follow(ROOT / "docs" / "tutorial.md")


def test_the_tutorial_on_versions_runs_as_it_is_shown(tmp_path: Path) -> None:
    with stack_in(tmp_path):
        follow(ROOT / "docs" / "tutorial-versions.md")


def test_the_page_on_exchange_runs_as_it_is_shown(tmp_path: Path) -> None:
    with stack_in(tmp_path):
        follow(ROOT / "docs" / "how-to" / "exchange.md")


def follow(page: Path) -> None:
    """Do what a page says, in order: save its files, run its commands, compare what they print."""
    for block in blocks(page):
        saved = re.search(r"[Ss]ave as `(\S+)`", block.intro)
        if saved is not None:
            Path(saved[1]).write_text(block.text)
        elif block.language == "console" and "not run" not in block.intro:
            for step in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
                command, _, shown = step.partition("\n")
                printed = run_command(command)
                assert as_shown(shown, printed), f"{page.name}: {command} printed\n{printed}"
