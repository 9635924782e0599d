"""What healthy training looks like: saved, loaded and frozen.

Invariant: a calibration only ever holds ticks that were settled, that is followed by
`settle_ticks` ticks without an alarm; frozen, it never changes. What was saved is loaded to the
same bits, or refused.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from driftline.drift import centring, cusum
from driftline.drift.centring import Centring
from driftline.drift.conformal import TAIL, Tails
from driftline.drift.measures.base import Doubles
from driftline.drift.scores import (
    CHANNELS,
    KEPT_STRATA,
    MOVED_STRATA,
    Curve,
    Scores,
    kept_strata,
    moved_strata,
)
from driftline.drift.settings import JudgeSettings
from driftline.errors import InputError

_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """One channel, fitted to the window."""

    centring: Centring
    residuals: Doubles  # (t,) ascending
    warning: float  # CUSUM level

    def p_value(self, residual: float) -> float:
        """Return the conformal p-value of a residual, upper tail, widened by a standard error.

        The plain one, (1 + beyond)/(n + 1), is right on average over calibrations. But one calibration
        serves thousands of ticks, and one that happens to lack large residuals would go on alarming.
        """
        beyond = len(self.residuals) - int(np.searchsorted(self.residuals, residual, side="left"))
        return min(1.0, (1 + beyond + sqrt(1 + beyond)) / (len(self.residuals) + 1))


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A tick on its way into the calibration."""

    tick: int
    rows: int
    statistics: Doubles | None
    scores: Scores


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Everything the judge knows of healthy ticks."""

    ticks: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # (t,) in the window
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))  # (t,) scored in each
    statistics: Doubles = field(default_factory=lambda: np.empty((0, len(CHANNELS))))  # (t, channels)
    moved: Tails = field(default_factory=lambda: Tails.empty(MOVED_STRATA))
    absolute: Tails = field(default_factory=lambda: Tails.empty(MOVED_STRATA))
    kept: Tails = field(default_factory=lambda: Tails.empty(KEPT_STRATA))
    learning: Curve = field(default_factory=Curve.empty)  # grows with each tick
    curve: Curve = field(default_factory=Curve.empty)  # in use since the last fit
    fits: tuple[Fit, ...] = ()  # per channel; none before there are enough ticks
    seen: int = 0  # ticks that ever entered
    frozen: bool = False

    @property
    def usual_step(self) -> float:
        """Median of the ticks' movement, of the learning rate's logarithm relieved."""
        return float(np.median(self.statistics[:, 0])) if len(self.statistics) else 0.0

    @property
    def usual_rows(self) -> float:
        """Median number of scored rows of a tick."""
        return float(np.median(self.rows)) if len(self.rows) else 0.0

    def with_tick(self, tick: Settled, settings: JudgeSettings) -> Calibration:
        """Return the calibration with a settled tick in it; itself if frozen."""
        if self.frozen:
            return self
        scores = tick.scores
        own, pooled = moved_strata(scores)
        moved = self.moved.with_scores(
            np.concatenate([own, pooled]), np.concatenate([scores.moved, scores.moved])
        )
        absolute = self.absolute.with_scores(
            np.concatenate([own, pooled]), np.concatenate([scores.absolute, scores.absolute])
        )
        own, pooled = kept_strata(scores)
        kept = self.kept.with_scores(
            np.concatenate([own, pooled]), np.concatenate([scores.losses, scores.losses])
        )
        grown = replace(
            self,
            moved=moved,
            absolute=absolute,
            kept=kept,
            learning=self.learning.with_nodes(scores.steps, scores.losses),
            seen=self.seen + 1,
        )
        # The first ticks only teach the curve that the statistics of later ones are read against.
        teaching = settings.least_ticks // 2
        if grown.seen == teaching:
            return replace(grown, curve=grown.learning)
        if tick.statistics is None or grown.seen < teaching:
            return grown
        keep = slice(-settings.window_ticks, None)
        grown = replace(
            grown,
            ticks=np.append(self.ticks, tick.tick)[keep],
            rows=np.append(self.rows, tick.rows)[keep],
            statistics=np.concatenate([self.statistics, tick.statistics[None]])[keep],
        )
        due = not self.fits or grown.seen % settings.refit_ticks == 0
        return grown.refitted(settings) if due and len(grown.ticks) >= settings.least_ticks else grown

    def refitted(self, settings: JudgeSettings) -> Calibration:
        """Return the calibration with its window fitted anew."""
        every = settings.warning_every_days * settings.ticks_per_day
        fits = []
        for channel in range(len(CHANNELS)):
            fit, rest = centring.fit(self.ticks, self.statistics[:, channel], settings.ticks_per_day)
            fits.append(Fit(fit, np.sort(rest), cusum.level(rest, every * len(CHANNELS))))
        return replace(self, fits=tuple(fits), curve=self.learning)

    def freeze(self) -> Calibration:
        """Return the calibration as it is, for good."""
        return replace(self, frozen=True)

    def thaw(self) -> Calibration:
        """Return the calibration free to learn."""
        return replace(self, frozen=False)

    def dump(self) -> bytes:
        """Return the calibration as bytes: an npz archive of plain arrays."""
        arrays: dict[str, NDArray[np.generic]] = {
            "ticks": self.ticks,
            "rows": self.rows,
            "statistics": self.statistics,
            "moved_counts": self.moved.counts,
            "moved_largest": self.moved.largest,
            "absolute_counts": self.absolute.counts,
            "absolute_largest": self.absolute.largest,
            "kept_counts": self.kept.counts,
            "kept_largest": self.kept.largest,
            "learning": np.stack([self.learning.counts, self.learning.steps, self.learning.losses]),
            "curve": np.stack([self.curve.counts, self.curve.steps, self.curve.losses]),
        }
        for channel, fit in zip(CHANNELS, self.fits, strict=False):
            arrays[f"{channel}_middle"] = fit.centring.middle
            arrays[f"{channel}_spread"] = fit.centring.spread
            arrays[f"{channel}_residuals"] = fit.residuals
            arrays[f"{channel}_numbers"] = np.array([fit.centring.phi, fit.centring.scale, fit.warning])
        about = {
            "format": _FORMAT,
            "seen": self.seen,
            "frozen": self.frozen,
            "channels": CHANNELS,
            "tail": TAIL,
        }
        out = io.BytesIO()
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                # A date of its own would make two dumps of one calibration differ.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as file:
                    np.lib.format.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
        return out.getvalue()

    @classmethod
    def load(cls, data: bytes) -> Calibration:
        """Return what `dump` gave. Raises InputError for anything else, or another release's channels."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
            about = json.loads(found["about"].tobytes())
            if (about["format"], tuple(about["channels"]), about["tail"]) != (_FORMAT, CHANNELS, TAIL):
                raise InputError(
                    f"calibration of format {about['format']} with channels {about['channels']}: this release"
                    f" reads format {_FORMAT} with {list(CHANNELS)}; calibrate anew"
                )
            fits = tuple(
                Fit(
                    Centring(
                        found[f"{channel}_middle"],
                        found[f"{channel}_spread"],
                        float(found[f"{channel}_numbers"][0]),
                        float(found[f"{channel}_numbers"][1]),
                    ),
                    found[f"{channel}_residuals"],
                    float(found[f"{channel}_numbers"][2]),
                )
                for channel in CHANNELS
                if f"{channel}_numbers" in found
            )
            return cls(
                found["ticks"],
                found["rows"],
                found["statistics"],
                Tails(found["moved_counts"], found["moved_largest"]),
                Tails(found["absolute_counts"], found["absolute_largest"]),
                Tails(found["kept_counts"], found["kept_largest"]),
                Curve(*found["learning"]),
                Curve(*found["curve"]),
                fits,
                int(about["seen"]),
                bool(about["frozen"]),
            )
        except (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"not a calibration: {error!r}; calibrate anew") from error
