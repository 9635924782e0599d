"""A store of versions in a directory, and the commands on versions run on it in this process."""

from __future__ import annotations

import json
import time
from pathlib import Path

from typer.testing import CliRunner, Result

from driftline.cli.main import app
from driftline.versions import Manifest, Repository, group_url, open_repository, open_store
from tests.support.versioning import Live

GROUP = "default"


class Scene:
    """Live tables, and the versions made of them, in `data_dir`."""

    def __init__(self, data_dir: Path, tables: tuple[str, ...] = ("items",)) -> None:
        self.data_dir = data_dir
        self.age = 0.0  # seconds that what is committed from now on is old
        self.live = Live(tables)
        self.versions: list[Manifest] = []

    @property
    def repository(self) -> Repository:
        """Everything there is, with nothing cached."""
        store = open_store(group_url(None, GROUP, self.data_dir))
        return open_repository(store, GROUP, now=lambda: time.time() - self.age)

    def commit(self, **more: object) -> Manifest:
        """Commit what changed as the child of the last version, unless `parent` says otherwise."""
        parent = more.pop("parent", self.versions[-1] if self.versions else None)
        assert parent is None or isinstance(parent, Manifest)
        made = self.live.commit(self.repository, f"op-{len(self.versions)}", parent, **more)
        self.versions.append(made)
        return made

    def run(self, *words: str) -> Result:
        """Run a command on this store; errors of driftline are raised."""
        done = CliRunner().invoke(app, [*words, "--data-dir", str(self.data_dir)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    def lines(self, *words: str) -> list[str]:
        """Return what a command that succeeds prints."""
        done = self.run(*words)
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()

    def json(self, *words: str) -> object:
        """Return what a command that succeeds prints with --json."""
        return json.loads("\n".join(self.lines(*words, "--json")))
