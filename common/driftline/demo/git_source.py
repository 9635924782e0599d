"""Events from the history of a git repository: an author edits a file.

Invariant: one event per (commit, file), oldest commit first; merges are left out and
a renamed file is a new item. The repository is only read.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from driftline.demo.events import Events, id_of
from driftline.errors import ConfigError, InputError

# With -z every commit is "\x01time\x02e-mail" NUL and, if it names files, "\n" before the
# first of them. No path of a work tree can hold \0, and one starting with \x01 would be the
# only confusion possible; the e-mail is told from a path by the \x02 as well.
_FORMAT = "--format=%x01%ct%x02%aE"
_LOG = (
    "log",
    "--reverse",
    "--no-merges",
    "--no-renames",
    "--no-ext-diff",
    "--name-only",
    "-z",
    _FORMAT,
)
_CHUNK = 1 << 16


def read_git(path: str | Path, limit: int | None = None) -> Events:
    """Return the history of the repository at `path` as events, its first `limit` ones if given.

    User: the author's e-mail address (through .mailmap); item: the path; both hashed
    (`driftline.demo.events.id_of`). Time: the commit's. `git log` is streamed, and ended as
    soon as `limit` is reached. Commits whose clock went back are sorted by time, stably.

    Raises ConfigError without a git binary, InputError for anything that is not a
    repository with at least one commit that edits a file.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"{path}: no such directory; give the path of a git repository")
    _require(path, ("rev-parse", "--git-dir"), "not a git repository")
    _require(
        path,
        ("rev-parse", "--verify", "--quiet", "HEAD^{commit}"),
        "the repository has no commits yet",
    )
    timestamps: list[int] = []
    users: list[int] = []
    items: list[int] = []
    with closing(_history(path)) as history:
        for when, email, name in islice(history, limit):
            timestamps.append(when)
            users.append(id_of(email))
            items.append(id_of(name))
    if not timestamps:
        raise InputError(f"{path}: no commit edits a file; use a repository with some history")
    return Events.by_time(timestamps, users, items)


def _command(path: Path, arguments: tuple[str, ...]) -> list[str]:
    # The user's own settings must not change the output.
    settings = ("-c", "log.showSignature=false", "-c", "diff.relative=false")
    return ["git", "-C", str(path), *settings, "--no-pager", *arguments]


def _start(path: Path, arguments: tuple[str, ...], errors: IO[bytes]) -> subprocess.Popen[bytes]:
    # GIT_DIR and its kin, set where a hook runs us, would win over -C.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.Popen(
            _command(path, arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,  # a file: a full pipe that nobody reads would stop git
            env={**environment, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise ConfigError("no git binary on PATH: install git, or use another source of events") from error


def _require(path: Path, arguments: tuple[str, ...], otherwise: str) -> None:
    with TemporaryFile() as errors:
        with _start(path, arguments, errors) as process:
            process.communicate()
        said = _said(errors)
    if process.returncode:
        raise InputError(f"{path}: {otherwise}" + (f" (git: {said})" if said else ""))


def _said(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read().decode(errors="replace").strip()


def _history(path: Path) -> Generator[tuple[int, str, str], None, None]:
    """Yield (commit time, author's e-mail, path), oldest first; ends git when closed early."""
    with TemporaryFile() as errors, _start(path, _LOG, errors) as process:
        assert process.stdout is not None
        try:
            yield from _parse(_fields(process.stdout))
        except GeneratorExit:
            process.kill()
            raise
        if process.wait():
            raise InputError(f"{path}: git log failed: {_said(errors)}")


def _fields(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the NUL-terminated fields of `stream`."""
    rest = b""
    while chunk := stream.read(_CHUNK):
        *fields, rest = (rest + chunk).split(b"\0")
        yield from fields
    if rest:
        yield rest


def _parse(fields: Iterator[bytes]) -> Iterator[tuple[int, str, str]]:
    when, email, first = 0, "", False
    for field in fields:
        text = field.decode("utf-8", "surrogateescape")
        if text.startswith("\x01") and "\x02" in text:
            time, email = text[1:].split("\x02", 1)
            when, first = int(time), True
        else:
            yield when, email, text[1:] if first else text
            first = False
