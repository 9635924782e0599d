"""What a recovery asks the ops log and the version store.

Invariant: an op that was asked for under a name is asked for once: a second call finds the first.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from driftline import topics
from driftline.client.aio import AsyncClient
from driftline.client.operations import Requested
from driftline.control import ControlTopic
from driftline.control.ledger import Case
from driftline.errors import InputError
from driftline.frames.events import Op, Origin
from driftline.ids import NAMESPACE
from driftline.ops.catalogue import Catalogue
from driftline.ops.requests import op_number
from driftline.versions import Manifest, check_version
from driftline.versions.history import ancestry, newest, read_all
from driftline_services.chassis.announcing import Announcer
from driftline_services.chassis.offload import Offload
from driftline_services.drift_monitor.choosing import Target


@dataclass(frozen=True, slots=True)
class Means:
    """What a recovery works with."""

    topic: ControlTopic
    announcer: Announcer
    catalogue: Catalogue
    client: AsyncClient
    offload: Offload
    timeout: float = 600.0  # of a restore


class Asking:
    """The ops log and the versions of one group, as a recovery uses them."""

    def __init__(self, means: Means) -> None:
        self._means = means

    @property
    def client(self) -> AsyncClient:
        """The client that asks."""
        return self._means.client

    async def ask(self, case: Case, what: str, kind: str, body: Mapping[str, object]) -> Requested:
        """Ask for an op of the group, once however often this is called; return the one that counts."""
        request, catalogue, client = request_of(case.alarm.alarm, what), self._means.catalogue, self.client
        await catalogue.catch_up()
        offset = catalogue.offset_of(request)
        if offset is None:
            op = Op(kind, client.group, 0, Origin(client.producer, 0, 0), body)
            await client.operations.ask_op(op, request)
            await catalogue.catch_up()
            offset = catalogue.offset_of(request)
        if offset is None:
            raise InputError(
                f"alarm {case.alarm.alarm}: {what} was asked for and is not in {topics.ops(client.group)}"
            )
        return Requested(op_number(offset), 0)

    async def tables(self) -> dict[str, int]:
        """Return the tables of the group and their numbers of shards."""
        await self._means.catalogue.catch_up()
        return {name: born.spec.shards for name, born in self._means.catalogue.tables.items()}

    # -- the store; blocking

    def targets(self) -> list[Target]:
        """Return the versions that the live tables go back to, newest first."""
        repository = self.client.repository
        tip = newest(repository)
        if tip is None:
            return []
        return [_target(each) for each in ancestry(read_all(repository), tip.version)]

    def check(self, version: str) -> str:
        """Return what is wrong with a version, nothing if it can be restored."""
        findings = check_version(self.client.repository, self.client.repository.manifest(version))
        return "; ".join(f"{each.code} {each.object}: {each.message}" for each in findings[:3])


def _target(manifest: Manifest) -> Target:
    gate = manifest.verdict.get("gate")
    judgements = gate.get("judgements") if isinstance(gate, Mapping) else None
    passed = any(
        isinstance(each, Mapping) and each.get("evaluator") == "drift" and each.get("status") == "passed"
        for each in (judgements if isinstance(judgements, list | tuple) else ())
    )
    copy = bool(manifest.base) and manifest.base not in manifest.parents
    return Target(manifest.version, manifest.op, passed, copy)


def request_of(alarm: int, what: str) -> bytes:
    """Return the id of a request that an alarm leads to: the same whoever makes it."""
    return uuid.uuid5(NAMESPACE, f"drift {alarm} {what}").bytes
