"""Fragments: a version that several instances write together, shard by shard.

Invariant: of each shard there is at most one fragment per txn, whoever was first; so
everybody who sees the set complete builds the same manifest, and the txn makes
sure that one of them commits it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from driftline.errors import DeltaError, ObjectExistsError
from driftline.versions.manifest import PartManifest, part_objects, read_part, write_part
from driftline.versions.repository import Repository
from driftline.versions.stores import checked_name, store_now

FOLDER = "frag"


def put_fragment(
    repository: Repository, txn: str, table: str, part: int, sealed: PartManifest
) -> PartManifest:
    """Publish a shard that was sealed for `txn`; return the one in force, which may be another's."""
    key = _key(txn, table, part)
    repository.put_held([ref.key for ref in part_objects(sealed)])
    try:
        repository.store.create(key, write_part(sealed))
    except ObjectExistsError:
        return read_part(key, repository.store.get(key))
    return sealed


def read_fragments(repository: Repository, txn: str) -> dict[tuple[str, int], PartManifest]:
    """Return what has been published for `txn`, by table and shard.

    Raises DeltaError if the oldest is older than half the grace period: its segments may be
    collected; `drop_fragments` and seal again.
    """
    infos = list(repository.store.list(f"{FOLDER}/{checked_name('txn', txn)}"))
    if infos and store_now(repository.store) - min(each.modified for each in infos) > repository.grace / 2:
        raise DeltaError(
            f"fragments of {txn} are older than {repository.grace / 2:.0f} s: drop and write them again"
        )
    found = {}
    for info in infos:
        _, _, table, part = info.key.split("/")
        found[table, int(part)] = read_part(info.key, repository.store.get(info.key))
    return found


def complete(
    fragments: Mapping[tuple[str, int], PartManifest], shards: Mapping[str, int]
) -> Mapping[str, Sequence[PartManifest]] | None:
    """Return the parts of each table in order of shards, None while one of them is missing."""
    wanted = {(table, part) for table, count in shards.items() for part in range(count)}
    if not wanted <= fragments.keys():
        return None
    return {table: [fragments[table, part] for part in range(count)] for table, count in shards.items()}


def drop_fragments(repository: Repository, txn: str) -> None:
    """Delete the fragments of `txn`: it was committed, or is begun again."""
    repository.store.delete([info.key for info in repository.store.list(f"{FOLDER}/{txn}")])


def _key(txn: str, table: str, part: int) -> str:
    return f"{FOLDER}/{checked_name('txn', txn)}/{table}/{part}"
