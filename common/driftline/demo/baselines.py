"""What a model has to beat: the most popular items, and the user's own latest items.

Invariant: both are judged prequentially on the very events the model is judged on:
`score` looks at a batch with what was known before it, `learn` then takes it in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from driftline.demo.tables import Ids

_FIRST_CAPACITY = 1024


class Popularity:
    """Ranks items by events, where an event counts half after `half_life` further events."""

    def __init__(self, k: int, half_life: float) -> None:
        self._k = k
        self._keep = 0.5 ** (1 / half_life)
        self._slots: dict[int, int] = {}
        self._counts = np.zeros(_FIRST_CAPACITY)

    def top(self) -> set[int]:
        """Return the ids of the k most popular items; the one seen first wins a tie."""
        counts = self._counts[: len(self._slots)]
        if len(counts) <= self._k:
            return set(self._slots)
        threshold = np.partition(counts, -self._k)[-self._k]
        contenders = np.flatnonzero(counts >= threshold)
        first = contenders[np.argsort(-counts[contenders], kind="stable")][: self._k]
        ids = list(self._slots)
        return {ids[slot] for slot in first.tolist()}

    def score(self, users: Ids, items: Ids) -> NDArray[np.bool_]:
        """Return for each event (b,) whether its item is among the k most popular ones."""
        top = self.top()
        return np.fromiter((item in top for item in items.tolist()), np.bool_, len(items))

    def learn(self, users: Ids, items: Ids) -> None:
        """Count a batch; all its events are equally old."""
        for item in items.tolist():
            self._slots.setdefault(item, len(self._slots))
        while len(self._slots) > len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._counts[: len(self._slots)] *= self._keep ** len(items)
        np.add.at(self._counts, [self._slots[item] for item in items.tolist()], 1)


class Recency:
    """Ranks, for each user, the items of that user's own history, the latest first."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._latest: dict[int, dict[int, None]] = {}

    def top(self, user: int) -> list[int]:
        """Return the user's k latest distinct items, the latest first."""
        return list(reversed(self._latest.get(user, {})))

    def score(self, users: Ids, items: Ids) -> NDArray[np.bool_]:
        """Return for each event (b,) whether its item is among its user's k latest distinct ones."""
        pairs = zip(users.tolist(), items.tolist(), strict=True)
        return np.fromiter(
            (item in self._latest.get(user, ()) for user, item in pairs),
            np.bool_,
            len(users),
        )

    def learn(self, users: Ids, items: Ids) -> None:
        """Take in a batch, event by event."""
        for user, item in zip(users.tolist(), items.tolist(), strict=True):
            latest = self._latest.setdefault(user, {})
            latest.pop(item, None)
            latest[item] = None
            if len(latest) > self._k:
                del latest[next(iter(latest))]
