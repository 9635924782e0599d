"""One step of online retrieval: score a minibatch, then learn from it, through two tables.

Invariant: every event of a minibatch is scored before any of it is learned from, and
by vectors that were read from the tables, so recall is prequential and what a
serving reader would have reached. Given a seed, a stream and the tables' rows, a
step is deterministic; random draws are keyed by (seed, step), not by history.

The model: score(u, i) = u[:-1] · i[:-1] + i[-1]; the item's last dimension is its
bias and the user's last one is unused. The loss is sampled softmax over the distinct
candidates of a step (the batch's own items, items of recent events, and the items
now ranked highest for these users). A candidate counts once however often it was
drawn, which is the correction for its sampling frequency: log(count) taken off
count equal terms leaves one.
Source: Bengio, Senécal, "Adaptive importance sampling to accelerate training of a
neural probabilistic language model", IEEE TNN 2008; hard negatives as in Xiong et
al., "Approximate nearest neighbor negative contrastive learning", ICLR 2021.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.demo.catalogue import UNSEEN, Catalogue, Slots, hardest, rank
from driftline.demo.tables import Floats, Ids, Settings, Table


@dataclass(frozen=True, slots=True)
class Gradients:
    """Loss of a minibatch and its derivatives; the loss is summed over events, not averaged."""

    loss: float
    users: Floats  # (b, d), one row per event
    items: Floats  # (c, d), one row per candidate


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did."""

    scored: NDArray[np.bool_]  # (b,) the item had been seen before this step
    hits: NDArray[np.bool_]  # (b,) it stood among the first k
    loss: float  # mean over the batch
    gradient_rows: int  # distinct (table, id) pairs that were sent a gradient


def with_constant(users: Floats) -> Floats:
    """Return user rows (n, d) with the last dimension set to one: it multiplies the item's bias."""
    rows = users.copy()
    rows[:, -1] = 1
    return rows


def softmax_gradients(users: Floats, items: Floats, positives: NDArray[np.int64]) -> Gradients:
    """Return loss and gradients of softmax over `items` (c, d) for events (b, d) whose item is `positives`.

    loss = sum over events of logsumexp(scores) - score of the positive; all in float32.
    """
    events = np.arange(len(users))
    x = with_constant(users)
    scores = x @ items.T
    scores -= scores.max(axis=1, keepdims=True)
    weights = np.exp(scores)
    total = weights.sum(axis=1)
    loss = float(np.sum(np.log(total) - scores[events, positives]))
    weights /= total[:, None]
    weights[events, positives] -= 1
    by_user = weights @ items
    by_user[:, -1] = 0  # the constant is not learned
    return Gradients(loss, by_user, weights.T @ x)


class Trainer:
    """Learns from a stream through two tables; keeps the catalogue and the recent events, nothing else."""

    def __init__(self, users: Table, items: Table, settings: Settings) -> None:
        self._users = users
        self._items = items
        self._settings = settings
        self._catalogue = Catalogue(settings.dims)
        self._recent = np.empty(0, np.int64)  # slots of the last `window` events, oldest first
        self._pushed: deque[Slots] = deque(maxlen=settings.reread)
        self._sweep = 0

    @property
    def catalogue(self) -> Catalogue:
        """Every item seen, with its vector as last read."""
        return self._catalogue

    def step(self, number: int, users: Ids, items: Ids) -> Step:
        """Score the events (users[i], items[i]), then push gradients from them under step `number`."""
        self._refresh()
        unique_users, of_user = np.unique(users, return_inverse=True)
        user_rows = self._users.get(unique_users)
        scores = with_constant(user_rows.vectors) @ self._catalogue.vectors.T
        ranking = rank(scores, of_user, self._catalogue.find(items))

        slots = self._admit(items)
        candidates = self._candidates(number, slots, scores)
        candidate_ids = self._catalogue.ids[candidates]
        # Read again although the catalogue has them: the gradients must come from the very
        # rows whose position goes with the push, or a restore in between would be overlooked.
        item_rows = self._items.get(candidate_ids)
        self._catalogue.refresh(candidates, item_rows.vectors)
        grads = softmax_gradients(
            user_rows.vectors[of_user],
            item_rows.vectors,
            np.searchsorted(candidates, slots),
        )
        self._users.push(users, grads.users, step=number, read=user_rows.read)
        self._items.push(candidate_ids, grads.items, step=number, read=item_rows.read)
        self._pushed.append(candidates)
        self._recent = np.concatenate([self._recent, slots])[-self._settings.window :]
        hits = ranking.scored & (ranking.ranks >= 1) & (ranking.ranks <= self._settings.k)
        return Step(
            ranking.scored,
            hits,
            grads.loss / len(users),
            len(unique_users) + len(candidate_ids),
        )

    def _refresh(self) -> None:
        """Read again what this trainer pushed lately, and a few others in turn: O(touched), not O(all)."""
        size = len(self._catalogue)
        if not size:
            return
        turn = (self._sweep + np.arange(min(self._settings.sweep, size))) % size
        self._sweep = (self._sweep + len(turn)) % size
        slots = np.unique(np.concatenate([turn, *self._pushed]))
        self._catalogue.refresh(slots, self._items.get(self._catalogue.ids[slots]).vectors)

    def _admit(self, items: Ids) -> Slots:
        """Give new items their slots, in order of appearance, and return the slot of every event."""
        new = list(dict.fromkeys(items[self._catalogue.find(items) == UNSEEN].tolist()))
        # Their vectors follow with the candidates' rows, of which they are part.
        self._catalogue.add(
            np.array(new, np.uint64),
            np.zeros((len(new), self._settings.dims), np.float32),
        )
        return self._catalogue.find(items)

    def _candidates(self, number: int, slots: Slots, scores: Floats) -> Slots:
        """Return the distinct slots of this step's softmax, ascending."""
        draws = np.empty(0, np.int64)
        if len(self._recent):
            rng = np.random.default_rng((self._settings.seed, number))
            draws = self._recent[rng.integers(0, len(self._recent), self._settings.negatives)]
        return np.unique(np.concatenate([slots, draws, hardest(scores, self._settings.hard_negatives)]))
