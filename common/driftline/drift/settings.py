"""What is promised, and what is tuned.

Invariant: every value is inside its range, or the settings do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from driftline.drift.thresholds import Thresholds
from driftline.errors import ConfigError


class Mode(StrEnum):
    """What becomes of an action."""

    OBSERVE = "observe"  # alarm only
    APPROVE = "approve"  # a person says yes first
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Hard limits: what no healthy tick does."""

    norm_factor: float = 8.0  # a known row that grows by this factor in one tick explodes
    known_after: int = 5  # updates before a row counts as known: a newborn row grows fast
    exploding_rows: int = 5  # so many exploding rows are needed ...
    exploding_share: float = 0.01  # ... and this share of the known ones
    largest_norm: float = 1e6
    largest_offset: float = 1e6


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How ticks are judged. Rates are per day, of node and tick actions together."""

    false_actions_per_day: float = 1 / 7
    ticks_per_day: float = 1440.0
    few_nodes: int = 20  # up to so many deviating nodes are rolled back alone, more take the table back
    window_days: float = 7.0  # ticks the tick statistics are calibrated by
    least_ticks: int = 100  # calibration ticks before the tick detector speaks
    refit_ticks: int = 60  # ticks between refits of centre, scale and autocorrelation
    settle_ticks: int = 60  # ticks that must pass without alarm before a tick enters the calibration
    cool_ticks: int = 30  # ticks after a rollback in which only the guard acts
    least_effect: float = (
        2.0  # a node deviates only if it moved by this factor more than the tick's median ...
    )
    least_loss: float = 0.3  # ... or kept this much less of its neighbourhood than others that moved as far
    warning_every_days: float = 1.0  # mean time between warnings in healthy training
    thresholds: Thresholds = field(default_factory=Thresholds)
    threshold_after: int = 0  # updates before a row is held to the thresholds: a newborn row moves fast
    guard: GuardSettings = field(default_factory=GuardSettings)
    mode: Mode = Mode.OBSERVE

    def __post_init__(self) -> None:
        positive = {
            "false_actions_per_day": self.false_actions_per_day,
            "ticks_per_day": self.ticks_per_day,
            "window_days": self.window_days,
            "warning_every_days": self.warning_every_days,
        }
        for name, value in positive.items():
            if not 0 < value < float("inf"):
                raise ConfigError(f"{name}={value}: must be positive and finite")
        if self.false_actions_per_day > self.ticks_per_day:
            raise ConfigError(
                f"false_actions_per_day={self.false_actions_per_day} is more than the {self.ticks_per_day:g}"
                " ticks of a day: promise less"
            )
        counts = {
            "few_nodes": (self.few_nodes, 0),
            "least_ticks": (self.least_ticks, 20),
            "refit_ticks": (self.refit_ticks, 1),
            "settle_ticks": (self.settle_ticks, 0),
            "cool_ticks": (self.cool_ticks, 0),
        }
        for name, (count, least) in counts.items():
            if count < least:
                raise ConfigError(f"{name}={count}: must be at least {least}")
        if self.least_effect < 1:
            raise ConfigError(f"least_effect={self.least_effect}: a factor, at least 1")
        if not 0 <= self.least_loss <= 1:
            raise ConfigError(f"least_loss={self.least_loss}: a share of the neighbourhood, from 0 to 1")

    @property
    def node_level(self) -> float:
        """Chance of a false node action per tick: half the promise."""
        return self.false_actions_per_day / 2 / self.ticks_per_day

    @property
    def ticks_per_alarm(self) -> float:
        """Ticks per tolerated false tick alarm, the detector's threshold: the other half."""
        return 2 * self.ticks_per_day / self.false_actions_per_day

    @property
    def window_ticks(self) -> int:
        """Ticks of the calibration window."""
        return max(self.least_ticks, round(self.window_days * self.ticks_per_day))
