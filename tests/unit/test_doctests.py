"""Every example in a docstring of the library gives what it shows."""

from __future__ import annotations

import contextlib
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import driftline
from driftline.frames.states import States
from driftline.ids import lsn
from driftline.notebook import Versions
from driftline.versions import (
    DeltaBuffer,
    Draft,
    Manifest,
    PartSpec,
    Place,
    Repository,
    TableManifest,
    commit,
    open_group,
    seal_part,
)

LIBRARY = Path(driftline.__file__).parent


def modules() -> list[str]:
    paths = [path for path in LIBRARY.rglob("*.py") if ">>> " in path.read_text()]
    names = [".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts) for path in paths]
    return sorted(name.removesuffix(".__init__") for name in names)


def add_version(
    repository: Repository, parent: Manifest | None, rows: dict[int, tuple[float, float]]
) -> Manifest:
    """Commit rows of a table of one shard as the next version."""
    before = parent.tables["items"].parts[0] if parent is not None else None
    born = before.rows if before is not None else 0
    offset = before.place.number("next") if before is not None else 0
    delta = DeltaBuffer(2, 1)
    ids = np.array(list(rows), np.uint64)
    ordinals = ids - np.uint64(7)  # ids 7, 8, 9 are born in this order
    delta.add(
        States(
            "items",
            0,
            ids,
            ordinals.astype(np.uint32),
            np.full(len(ids), lsn(1, offset), np.uint64),
            np.array(list(rows.values()), np.float32),
            np.zeros((len(ids), 1), np.float32),
            np.zeros(len(ids), np.uint8),
        )
    )
    place = Place({"next": offset + 1, "gen": 1, "rows": max(born, len(rows))}, {}, offset + 1)
    txn = f"example-{offset}"
    part = seal_part(PartSpec("items", 0, 2, 1, txn), before, delta, place, repository.cache, repository.put)
    table = TableManifest(2, 1, "", (part,))
    parents = (parent.version,) if parent is not None else ()
    return commit(repository, Draft(txn, "R", {"items": table}, parents=parents))


@pytest.fixture
def example(tmp_path: Path) -> Repository:
    repository = open_group(None, "default", tmp_path / ".driftline")
    first = add_version(repository, None, {7: (0.0, 0.0), 8: (1.0, 1.0), 9: (2.0, 2.0)})
    add_version(repository, first, {7: (3.0, 4.0)})
    return repository


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_give_what_they_show(name: str, example: Repository, tmp_path: Path) -> None:
    @contextlib.contextmanager
    def example_deployment() -> Iterator[None]:
        with contextlib.chdir(tmp_path):
            yield

    module = importlib.import_module(name)
    given = {
        "driftline": driftline,
        "example_versions": lambda: Versions(example),
        "example_deployment": example_deployment,
    }
    failed, tried = doctest.testmod(module, extraglobs=given)
    assert tried
    assert not failed
