"""What the judge says of a tick, and the figures it says it from.

Invariant: a verdict can be read, stored and made again offline: it names the rule that spoke, the
onset, and every figure that went into it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

from driftline.drift.measures.base import Ids


class Standing(StrEnum):
    """What is known of a tick. Only OK says that the tick was judged and passed."""

    OK = "ok"
    CALIBRATING = "calibrating"  # not enough history to judge by
    WARNING = "warning"  # passed, but movement builds up
    DEVIATING = "deviating"  # a few nodes deviate
    ALARM = "alarm"
    COOLING = "cooling"  # shortly after an alarm or a rollback
    DEGRADED = "degraded"  # the graph's recall is too low to judge by
    INCOMPLETE = "incomplete"  # partitions are missing


class Rule(StrEnum):
    """Which rule spoke."""

    GUARD = "guard"
    MANY = "many_nodes"
    DETECTOR = "e_detector"
    THRESHOLDS = "thresholds"
    CONFORMAL = "conformal"
    CUSUM = "cusum"


class Action(StrEnum):
    """What the verdict proposes."""

    NONE = "none"
    NODE_ROLLBACK = "node_rollback"  # of the verdict's nodes
    FULL_ROLLBACK = "full_rollback"  # to the newest version that passed and is older than the onset


@dataclass(frozen=True, slots=True)
class Channel:
    """One tick statistic."""

    name: str
    value: float
    residual: float
    p: float
    e: float
    cusum: float
    warning: float  # level of the CUSUM


@dataclass(frozen=True, slots=True)
class Evidence:
    """The figures of a verdict."""

    rows: int  # judged
    deviating: int
    node_level: float  # promised chance of a false node action in a tick
    least_p: float  # of a node; 1 without nodes
    detectable_nodes: int  # so many nodes at least must deviate at once to be told, with this calibration
    calibration_ticks: int
    calibration_nodes: int
    r: float  # Shiryaev–Roberts statistic, mean over the channels
    threshold: float  # of r
    channels: tuple[Channel, ...]
    why: str = ""  # the guard's words, or what is missing


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """The judge's word on one tick."""

    tick: int
    standing: Standing
    rule: Rule | None
    action: Action
    nodes: Ids  # deviating, ascending
    onset: int | None  # tick at which the trouble is thought to have begun
    evidence: Evidence

    def to_json(self) -> dict[str, object]:
        """Return the verdict in plain values, as the control topic carries it."""
        return {
            "tick": self.tick,
            "standing": self.standing.value,
            "rule": None if self.rule is None else self.rule.value,
            "action": self.action.value,
            "nodes": self.nodes.tolist(),
            "onset": self.onset,
            "evidence": asdict(self.evidence),
        }
