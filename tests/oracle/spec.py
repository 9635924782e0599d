"""The table spec that a `spec` op carries.

Invariant: architecture.md: "What decides acceptance (limits, dims, policies) is
part of the table spec and changes only by an op". A spec this module cannot read
is a rejected op, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.oracle.optimizers import STEPS, Constants, State, constants, initial_state


@dataclass(frozen=True, slots=True)
class Spec:
    """A table's rules, as they stand after the last spec op."""

    name: str
    group: str
    dim: int
    shards: int
    optimizer: str
    constants: Constants
    seed: int
    scale: float
    max_frame: int
    without_read_pos: str
    producer_ttl_ms: int
    machine_version: int

    @property
    def newborn_state(self) -> State:
        return initial_state(self.optimizer, self.dim)

    def shape(self) -> tuple[object, ...]:
        """Return what rows already stored rest on: a later spec must not change it."""
        return self.name, self.group, self.dim, self.shards, self.optimizer, self.seed, self.scale


def parse(body: Mapping[str, object]) -> Spec:
    """Read the whole spec; raise ValueError naming the key that is missing or wrong."""
    optimizer, init, policy = (_object(body, key) for key in ("optimizer", "init", "policy"))
    kind = _text(optimizer, "kind")
    if kind not in STEPS:
        raise ValueError(f"optimizer.kind is {kind!r}")
    if body.get("dtype", "f32") != "f32":
        raise ValueError(f"dtype is {body['dtype']!r}; only f32 is known")
    without = policy.get("without_read_pos", "apply")
    if without not in ("apply", "drop"):
        raise ValueError(f"policy.without_read_pos is {without!r}")
    machine_version = _count(body, "machine_version")
    if machine_version != 1:
        raise ValueError(f"machine_version is {machine_version}; this oracle computes 1")
    scale = init.get("scale")
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise ValueError(f"init.scale is {scale!r}")
    return Spec(
        name=_text(body, "name"),
        group=_text(body, "group"),
        dim=_count(body, "dim"),
        shards=_count(body, "shards"),
        optimizer=kind,
        constants=constants(optimizer),
        seed=_integer(init, "seed"),
        scale=float(scale),
        max_frame=_count(policy, "max_frame", 1 << 20),
        without_read_pos=str(without),
        producer_ttl_ms=_count(policy, "producer_ttl_ms", 604_800_000),
        machine_version=machine_version,
    )


def _object(body: Mapping[str, object], key: str) -> Mapping[str, object]:
    found = body.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{key} is {found!r}, not an object")
    return found


def _text(body: Mapping[str, object], key: str) -> str:
    found = body.get(key)
    if not isinstance(found, str):
        raise ValueError(f"{key} is {found!r}, not a string")
    return found


def _integer(body: Mapping[str, object], key: str, default: int | None = None) -> int:
    found = body.get(key, default)
    if isinstance(found, bool) or not isinstance(found, int):
        raise ValueError(f"{key} is {found!r}, not an integer")
    return found


def _count(body: Mapping[str, object], key: str, default: int | None = None) -> int:
    found = _integer(body, key, default)
    if found < 1:
        raise ValueError(f"{key} is {found}, not at least 1")
    return found
