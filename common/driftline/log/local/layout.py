"""Where things lie under DIR, and how a topic comes into being.

    DIR/log/<topic>/topic.json            {"format": 1, "partitions": P}
    DIR/log/<topic>/heads                 P u64: next offsets, a hint (heads.py)
    DIR/log/<topic>/<partition>.sqlite    the records (store.py)
    DIR/groups/<consumer group>.sqlite    committed offsets, a hint (groups.py)
    DIR/members, DIR/own                  locks (members.py)

Invariant: a topic's directory appears whole, by one rename, and never changes its
partition count; of several creators one wins and the others compare.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from driftline.errors import PartitionCountError, StateError
from driftline.log.local import store
from driftline.log.local.heads import create_heads

FORMAT = 1
UNBORN = "+"  # not allowed in topic names: directories under construction


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as its directory describes it."""

    name: str
    partitions: int
    directory: Path

    def file(self, partition: int) -> Path:
        """Return the file of one partition."""
        return self.directory / f"{partition}.sqlite"

    @property
    def heads(self) -> Path:
        return self.directory / "heads"


def topics_directory(root: Path) -> Path:
    """Return the directory that holds one directory per topic."""
    return root / "log"


def find_topic(root: Path, name: str) -> Topic | None:
    """Return a topic, or None when there is none of that name."""
    directory = topics_directory(root) / name
    try:
        text = (directory / "topic.json").read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        described = json.loads(text)
        form, partitions = int(described["format"]), int(described["partitions"])
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{directory}/topic.json is damaged: {text[:80]!r}") from error
    if form != FORMAT:
        raise StateError(f"{directory}/topic.json has format {form}, this driftline reads {FORMAT}")
    return Topic(name, partitions, directory)


def list_topics(root: Path) -> dict[str, int]:
    """Return the partition count of every topic."""
    names = sorted(entry for entry in os.listdir(topics_directory(root)) if not entry.startswith(UNBORN))
    found = (find_topic(root, name) for name in names)
    return {topic.name: topic.partitions for topic in found if topic is not None}


def holds_log(root: Path) -> bool:
    """Return whether a log was begun in a directory."""
    return topics_directory(root).is_dir()


def nearest_log(root: Path) -> Path | None:
    """Return the log that was most likely meant by `root`, which holds none: the closest name beside it."""
    beside = root.absolute().parent
    if not beside.is_dir():
        return None
    logs = [each.name for each in beside.iterdir() if holds_log(each)]
    close = get_close_matches(root.name, logs, n=1) or (logs if len(logs) == 1 else [])
    return root.parent / close[0] if close else None


def create_topic(root: Path, name: str, partitions: int) -> Topic:
    """Return the topic, created unless it exists.

    Raises PartitionCountError when it exists with another count.
    """
    known = find_topic(root, name)
    if known is None:
        directory = topics_directory(root) / name
        unborn = topics_directory(root) / f"{UNBORN}{uuid.uuid4().hex}"
        unborn.mkdir()
        try:
            topic = Topic(name, partitions, unborn)
            for partition in range(partitions):
                store.create(topic.file(partition))
            create_heads(topic.heads, partitions)
            (unborn / "topic.json").write_text(json.dumps({"format": FORMAT, "partitions": partitions}))
            os.rename(unborn, directory)
            return Topic(name, partitions, directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            shutil.rmtree(unborn, ignore_errors=True)  # gone already if it was renamed
        known = find_topic(root, name)
        if known is None:
            raise StateError(f"{directory} is there but is not a topic: move it away")
    if known.partitions != partitions:
        raise PartitionCountError(
            f"topic {name!r} has {known.partitions} partitions, {partitions} asked for; "
            "the count is fixed for the life of a topic"
        )
    return known
