"""Running recall of the model and its baselines, over everything and over a rolling window.

Invariant: an event counts for all three rankers or for none. It counts when its item
had been seen before its batch (no ranker could have named it otherwise) and when it
lies beyond the warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall@k of the three rankers on the same events; None while there are none."""

    model: float | None
    popularity: float | None
    recency: float | None
    events: int  # counted


class Hits:
    """One flag per event and ranker for a stream of `events`, of which the first `warm_up` do not count."""

    def __init__(self, events: int, warm_up: int) -> None:
        self._flags = np.zeros((4, events), bool)  # counted, model, popularity, recency
        self._warm_up = warm_up
        self._end = 0

    def __len__(self) -> int:
        """Events recorded so far, counted or not."""
        return self._end

    def record(self, scored: Flags, model: Flags, popularity: Flags, recency: Flags) -> None:
        """Append a batch, all (b,)."""
        start, end = self._end, self._end + len(scored)
        self._flags[:, start:end] = (scored, model, popularity, recency)
        self._flags[0, start : max(start, min(end, self._warm_up))] = False
        self._end = end

    def overall(self) -> Recall:
        """Return the recall over all events that count."""
        return self._over(0)

    def rolling(self, window: int) -> Recall:
        """Return the recall over those of the last `window` events that count."""
        return self._over(max(0, self._end - window))

    def _over(self, start: int) -> Recall:
        counted, *rankers = self._flags[:, start : self._end]
        events = int(np.count_nonzero(counted))
        if not events:
            return Recall(None, None, None, 0)
        model, popularity, recency = (float(np.count_nonzero(r & counted)) / events for r in rankers)
        return Recall(model, popularity, recency, events)
