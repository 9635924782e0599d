"""Neighbour graphs stored beside the versions they belong to [EM1, EM6].

Invariant: what `load_graph` returns is, to the bit, what `store_graph` was given, or an error names
the object. A version has at most one graph per table; it is stored after the version was committed,
whole or as a delta onto the graph of the version before, and never changes. Nothing in a manifest
points here: the key says all that a collection must know. In

    graphs/<table>/<base>/<depth>-<version>

`base` is the version at the foot of the chain, whose graph is whole (depth 0). A graph needs those of
less depth in its folder and no other; a collection keeps them all, up to the deepest of a live version.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from driftline.errors import DamagedObjectError, FrameError, InputError, ObjectExistsError
from driftline.frames.tensors import decode as decode_frame
from driftline.frames.tensors import encode as encode_frame
from driftline.graph.snapshot import Snapshot, SnapshotDelta, decode, delta_of
from driftline.versions.documents import checksum, pack, unpack
from driftline.versions.naming import is_version_name
from driftline.versions.repository import Repository

FOLDER = "graphs"
_DEEPEST = 16  # deltas that a load lays on one another
_LARGEST = 1 << 36


@dataclass(frozen=True, slots=True, order=True)
class GraphKey:
    """Where a graph is."""

    table: str
    base: str
    depth: int
    version: str

    def __str__(self) -> str:
        return f"{FOLDER}/{self.table}/{self.base}/{self.depth:02d}-{self.version}"

    @classmethod
    def parse(cls, key: str) -> GraphKey | None:
        """Return what `key` says, None if it is not the key of a graph."""
        parts = key.split("/")
        depth, _, version = parts[-1].partition("-")
        if len(parts) != 4 or parts[0] != FOLDER or not depth.isdigit() or not is_version_name(version):
            return None
        return cls(parts[1], parts[2], int(depth), version)


def store_graph(repository: Repository, version: str, table: str, graph: Snapshot) -> int:
    """Store the graph of a table of a committed version; return the bytes it took, 0 if it was there.

    It is a delta onto the graph of the version's parent where that is stored, of the same K and metric,
    and less than half as large as the whole. Raises UnknownVersionError, UnknownTableError, and
    InputError if the graph has more rows than the version.
    """
    manifest = repository.manifest(version)
    rows = manifest.table(table).rows
    if len(graph.ids) > rows:  # fewer may be: rows of zeros or NaN have no place in a graph
        raise InputError(
            f"a graph of {len(graph.ids)} rows for {table} of {version}, which has {rows}: take the"
            " snapshot of the graph as it was at the version's barrier"
        )
    known = _keys(repository, table)
    if version in known:
        return 0
    metadata, tensors = graph.encode()
    proof = {"version": version, "sum": _sum(graph)}
    key, data = GraphKey(table, version, 0, version), pack(encode_frame(metadata | proof, tensors))
    parent = known.get(manifest.parent or "")
    # A removed version's graph may go at any time: what is stored now must not rest on it.
    alive = parent is not None and repository.store.head(f"versions/{parent.version}/tomb") is None
    if parent is not None and alive and parent.depth < _DEEPEST:
        below = _load(repository, parent)
        if below.metric is graph.metric and below.width == graph.width <= 255:
            metadata, tensors = delta_of(below, graph).encode()
            onto = {"onto": parent.version}
            delta = pack(encode_frame(metadata | proof | onto, tensors))
            if 2 * len(delta) < len(data):
                key, data = GraphKey(table, parent.base, parent.depth + 1, version), delta
    try:
        repository.store.create(str(key), data)
    except ObjectExistsError:
        return 0  # stored by somebody else at the same moment
    return len(data)


def load_graph(repository: Repository, version: str, table: str) -> Snapshot | None:
    """Return the stored graph of a table of a version, None if none was stored.

    Raises UnknownVersionError, UnknownTableError, DamagedObjectError and ObjectMissingError: a graph can
    be made anew from the version's rows.
    """
    repository.manifest(version).table(table)
    found = _keys(repository, table).get(version)
    return None if found is None else _load(repository, found)


def needed_graphs(objects: Iterable[str], alive: Iterable[str]) -> set[str]:
    """Return the keys among `objects` of graphs that the versions in `alive` need."""
    versions, graphs = set(alive), [key for each in objects if (key := GraphKey.parse(each)) is not None]
    deepest: dict[tuple[str, str], int] = {}
    for key in graphs:
        if key.version in versions:
            chain = (key.table, key.base)
            deepest[chain] = max(key.depth, deepest.get(chain, 0))
    return {str(key) for key in graphs if key.depth <= deepest.get((key.table, key.base), -1)}


def check_graph(repository: Repository, key: str) -> None:
    """Read a stored graph whole. Raises DamagedObjectError, ObjectMissingError."""
    found = GraphKey.parse(key)
    if found is not None:
        _load(repository, found)


def _keys(repository: Repository, table: str) -> dict[str, GraphKey]:
    keys = [GraphKey.parse(info.key) for info in repository.store.list(f"{FOLDER}/{table}")]
    # Two who store at once may choose differently; both are right, the least deep one is read.
    return {key.version: key for key in sorted((each for each in keys if each), key=lambda k: -k.depth)}


def _load(repository: Repository, key: GraphKey) -> Snapshot:
    """Read down to the whole graph, then lay the deltas on it."""
    deltas: list[tuple[str, SnapshotDelta, str]] = []
    at = key
    while True:
        name = str(at)
        data = unpack(name, repository.store.get(name))
        try:
            frame = decode_frame(data, limit=_LARGEST)
            part = decode(frame.metadata, dict(frame.tensors))
        except (FrameError, InputError) as error:
            raise DamagedObjectError(name, "its content", "a graph", str(error)) from error
        proof = frame.metadata.get("sum", "")
        if isinstance(part, Snapshot):
            break
        deltas.append((name, part, proof))
        at = GraphKey(key.table, key.base, at.depth - 1, frame.metadata.get("onto", ""))
        if at.depth < 0:
            raise DamagedObjectError(name, "its depth", "a whole graph at depth 0", "a delta")
    whole = _proven(name, part, proof)
    for name, delta, proof in reversed(deltas):
        try:
            whole = _proven(name, delta.onto(whole), proof)
        except (InputError, IndexError) as error:
            raise DamagedObjectError(
                name, "its parent", "the graph it was made against", str(error)
            ) from error
    return whole


def _proven(key: str, graph: Snapshot, proof: str) -> Snapshot:
    if _sum(graph) != proof:
        raise DamagedObjectError(key, "the checksum of its graph", proof, _sum(graph))
    return graph


def _sum(graph: Snapshot) -> str:
    head = f"{graph.metric.value} {graph.width} ".encode()
    return checksum(head + graph.ids.tobytes() + graph.neighbours.tobytes())
