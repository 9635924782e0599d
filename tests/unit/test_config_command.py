"""`driftline config`: what it prints, what it refuses; and the page of settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from driftline.cli.config_command import app, read_flags
from driftline.config import Settings
from driftline.config.reference import fill
from driftline.errors import ConfigError
from driftline.frames.headers import Keyring
from tests.support.settings import KEY

DOCS = Path(__file__).parents[2] / "docs" / "reference"

# The command


def run(*words: str, environ: Mapping[str, str] | None = None) -> str:
    root = typer.Typer()
    root.add_typer(app, name="config")
    result = CliRunner().invoke(root, ["config", *words], env=dict(environ or {}), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in os.environ:
        if name.startswith("DRIFTLINE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_show_prints_value_and_source_of_every_setting(here: Path) -> None:
    (here / "driftline.toml").write_text('group = "g"\n')
    lines = run(
        "show", "--http-port", "1", environ={"DRIFTLINE_REDIS_URL": "redis://u:hunter2@h:1/0"}
    ).splitlines()
    shown = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}
    assert set(shown) == set(Settings.model_fields)
    assert shown["group"] == "g driftline.toml line 1"
    assert shown["http_port"] == "1 flag --http-port"
    assert shown["redis_url"] == "redis://u:***@h:1/0 environment DRIFTLINE_REDIS_URL"
    assert shown["key"] == "- default"


def test_show_can_print_json(here: Path) -> None:
    shown = json.loads(run("show", "--json", "--cache-bytes=1KiB", environ={"DRIFTLINE_KEY": KEY}))
    assert shown["file"] is None
    assert shown["settings"]["cache_bytes"] == {"value": 1024, "source": "flag", "place": "--cache-bytes"}
    assert shown["settings"]["key"] == {"value": "***", "source": "environment", "place": "DRIFTLINE_KEY"}


def test_path_prints_the_file_in_force(here: Path) -> None:
    (here / "driftline.toml").touch()
    assert run("path").strip() == str(here / "driftline.toml")


def test_new_key_prints_a_fresh_key_each_time(here: Path) -> None:
    keys = {run("new-key").strip() for _ in range(2)}
    assert len(keys) == 2
    for key in keys:
        Keyring.parse(key)


@pytest.mark.parametrize("words", [["group"], ["--group"], ["--key", KEY], [f"--key={KEY}"], ["--", "x"]])
def test_words_that_are_no_settings_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_flags(words)
    assert KEY not in str(caught.value)


# The page


def test_the_page_lists_what_there_is() -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    assert fill(page) == page, "run: python -m driftline.config.reference docs/reference/configuration.md"
    assert all(f"| `{name}` |" in page for name in Settings.model_fields)
