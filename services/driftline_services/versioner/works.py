"""What the versioner does with the store: seal, publish, rule, commit. Blocking; run in threads.

Invariant: everything here may be repeated, by this process or another, after a crash at any
point: a txn commits once, the first ruling on a cut is the one in force, and what became of a
cut is read from the store alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from driftline.errors import ObjectExistsError, ObjectMissingError, UnknownVersionError, VersionHeldError
from driftline.versions import (
    MAIN,
    Attachment,
    Draft,
    Manifest,
    PartManifest,
    PartSpec,
    Repository,
    TableManifest,
    VersionName,
    commit,
    drop_fragments,
    head,
    line,
    put_fragment,
    read_fragments,
    seal_part,
)
from driftline.versions.documents import checksum, read_plain, write_plain
from driftline.versions.gating import finite_figures
from driftline.versions.history import newest
from driftline_services.versioner.shards import ROLLBACK, Cut, ShardState, took_effect

RULINGS = "gates"
Shape = tuple[int, int]
Shard = tuple[str, int]


@dataclass(frozen=True, slots=True)
class TableAt:
    """A table as a cut finds it."""

    shards: int
    dim: int
    state_size: int
    schema: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a cut: a version, or none and why."""

    manifest: Manifest | None
    reason: str = ""
    gate: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a gate decided on a cut, for everybody and for good."""

    accepted: bool
    reason: str
    gate: Mapping[str, object]


def txn_of(op: int) -> str:
    """Return what the version of a barrier is committed by."""
    return f"op-{op}"


class Works:
    """One group's repository, as a versioner uses it."""

    def __init__(self, repository: Repository, writer: str, scenario: str) -> None:
        self.repository, self._writer, self._scenario = repository, writer, scenario

    # -- finding out

    def newest(self) -> Manifest | None:
        """Return the version that was cut last from the live tables, on whatever branch."""
        return newest(self.repository)

    def decided(self, cut: Cut) -> Decision | None:
        """Return what became of a cut, None while that is open."""
        ruling = self.ruling(cut.op)
        if ruling is not None and not ruling.accepted:
            return Decision(None, ruling.reason, ruling.gate)
        try:
            tip = head(self.repository, self.branch(cut))
        except UnknownVersionError as error:
            return Decision(None, str(error))
        if tip is None:
            return None
        for each in line(self.repository, tip):
            if each.op == cut.op:
                return Decision(each)
            if each.op < cut.op:
                break
        return (
            Decision(None, f"{tip.version} was cut later and went on without it") if tip.op > cut.op else None
        )

    def ruling(self, op: int) -> Ruling | None:
        """Return the gate's ruling on a cut, None while there is none."""
        key = f"{RULINGS}/{txn_of(op)}"
        try:
            body = read_plain(key, self.repository.store.get(key))
        except ObjectMissingError:
            return None
        gate = body.get("gate")
        return Ruling(
            body.get("accepted") is True,
            str(body.get("reason", "")),
            gate if isinstance(gate, dict) else {},
        )

    def branch(self, cut: Cut) -> str:
        """Return the branch that a cut's version goes to."""
        asked = cut.body.get("branch")
        return asked if isinstance(asked, str) and asked else cut.line.branch or MAIN

    def scenario(self, cut: Cut) -> str:
        """Return the scenario that a cut's version has."""
        asked = cut.body.get("scenario")
        return asked if isinstance(asked, str) and asked else cut.line.scenario or self._scenario

    def version(self, name: str) -> Manifest:
        """Return a version. Raises UnknownVersionError."""
        return self.repository.manifest(name)

    def parent(self, cut: Cut) -> Manifest | None:
        """Return the version that a cut's version continues."""
        return head(self.repository, self.branch(cut))

    # -- doing

    def seal(self, state: ShardState, cut: Cut) -> PartManifest:
        """Return the shard at the cut, its new objects stored. Raises DeltaError if rows are missing."""
        spec = PartSpec(state.table, state.shard, state.dim, state.state_size, txn_of(cut.op))
        changes = state.delta if len(state.delta) else None
        cache, put = self.repository.cache, self.repository.put
        part = seal_part(spec, state.base, changes, cut.place, cache, put)
        return replace(part, base=state.relogged_to)

    def publish(self, cut: Cut, parts: Mapping[Shard, PartManifest]) -> None:
        """Tell the other instances of our shards."""
        for (table, shard), part in parts.items():
            put_fragment(self.repository, txn_of(cut.op), table, shard, part)

    def gather(self, cut: Cut) -> dict[Shard, PartManifest]:
        """Return what has been published for a cut. Raises DeltaError if it is too old to be used."""
        return read_fragments(self.repository, txn_of(cut.op))

    def begin_again(self, cut: Cut) -> None:
        """Withdraw what has been published for a cut."""
        drop_fragments(self.repository, txn_of(cut.op))

    def rule(self, op: int, ruling: Ruling) -> Ruling:
        """Make a ruling, unless there is one; return the one in force."""
        body = {"accepted": ruling.accepted, "reason": ruling.reason, "gate": ruling.gate}
        with contextlib.suppress(ObjectExistsError):
            self.repository.store.create(f"{RULINGS}/{txn_of(op)}", write_plain(body))
        found = self.ruling(op)
        return found if found is not None else ruling

    def commit(
        self,
        cut: Cut,
        tables: Mapping[str, TableAt],
        parts: Mapping[Shard, PartManifest],
        gate: Mapping[str, object],
    ) -> Decision:
        """Commit the version of a cut whose shards are all sealed.

        Raises VersionRaceError when the branch has moved meanwhile, DeltaError when sealing has taken
        too long, ObjectStoreUnavailableError: then repeat it.
        """
        if cut.kind == ROLLBACK and not any(
            took_effect(Cut(cut.kind, cut.op, cut.body, part.place, cut.line)) for part in parts.values()
        ):
            return Decision(None, "the restore had no effect: it was made for another epoch")
        draft = self._draft(cut, tables, parts, gate)
        if isinstance(draft, str):
            return Decision(None, draft)
        try:
            manifest = commit(self.repository, draft)
        except VersionHeldError as error:  # it was committed, and removed since
            return Decision(None, str(error))
        return Decision(manifest, gate=gate)

    def tidy(self, cut: Cut) -> None:
        """Forget what was needed until the cut was decided."""
        drop_fragments(self.repository, txn_of(cut.op))
        infos = list(self.repository.store.list(RULINGS))
        old = [each.key for each in infos if _op_of(each.key) <= cut.op]
        if old:
            self.repository.store.delete(old)

    def _draft(
        self,
        cut: Cut,
        tables: Mapping[str, TableAt],
        parts: Mapping[Shard, PartManifest],
        gate: Mapping[str, object],
    ) -> Draft | str:
        body, parent = cut.body, self.parent(cut)
        base = str(body["version"]) if cut.kind == ROLLBACK else cut.line.base
        metadata = body.get("metadata")
        attachments = self._attachments(body.get("attachments"))
        if isinstance(attachments, str):
            return attachments
        manifests = {
            name: TableManifest(
                each.dim,
                each.state_size,
                each.schema,
                tuple(parts[name, shard] for shard in range(each.shards)),
            )
            for name, each in tables.items()
        }
        return Draft(
            txn=txn_of(cut.op),
            scenario=self.scenario(cut),
            tables=manifests,
            branch=self.branch(cut),
            parents=(parent.version,) if parent is not None else (),
            base="" if parent is not None and base == parent.version else base,
            new_run=body.get("run") == "new",
            op=cut.op,
            writer=self._writer,
            metadata=metadata if isinstance(metadata, Mapping) else {},
            figures=finite_figures(body.get("figures")),
            verdict={"gate": gate} if gate else {},
            attachments=attachments,
        )

    def _attachments(self, asked: object) -> dict[str, Attachment] | str:
        """Return the attachments that a barrier names, or which of them is missing."""
        found = {}
        for name, key in asked.items() if isinstance(asked, Mapping) else ():
            try:
                data = self.repository.store.get(str(key))
            except ObjectMissingError:
                return f"attachment {name!r}: there is no object {key!r}"
            found[str(name)] = Attachment(str(key), len(data), checksum(data))
        return found


def line_of(manifest: Manifest) -> tuple[str, str, str]:
    """Return branch, scenario and name of a version: the line that goes on from it."""
    return manifest.branch, VersionName.parse(manifest.version).scenario, manifest.version


def _op_of(key: str) -> int:
    number = key.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


__all__ = ["Decision", "Ruling", "TableAt", "Works", "line_of", "txn_of"]
