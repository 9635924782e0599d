"""A planted stream: users prefer clusters of items, both drift, and the truth is known.

Invariant: (n, seed) fixes every event. Each event is drawn from a distribution that
is known when it is drawn, so `best` says what ranking by the truth would have hit:
no model can be expected to do better.

What is planted, after what is seen in real streams of edits and of reading: activity
of users and attraction of items fall off as Zipf's law; a user has one cluster at a
time and now and then moves to another; within a cluster new items come up and old
ones fade; and some events go back to an item the user touched lately.
"""

from __future__ import annotations

from bisect import bisect
from collections import OrderedDict
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from driftline.demo.events import Events
from driftline.errors import InputError
from driftline.ids import splitmix64

_START = 1_700_000_000  # Unix seconds
_MEAN_GAP = 30.0  # seconds between events
_PERIODS = 200  # times that the clusters' items shift during a stream
_K = 20  # depth that `best` ranks to
_USER_SKEW, _CLUSTER_SKEW, _ITEM_SKEW = 0.8, 0.5, 0.5  # exponents of Zipf's law


@dataclass(frozen=True, slots=True)
class World:
    """The planted structure; the shares are probabilities per event."""

    users: int
    clusters: int
    live: int  # items of a cluster that draw attention at any time
    retired: int  # items of a cluster that are replaced in the course of the stream
    revisit: float = 0.15  # of one of the user's latest items
    stray: float = 0.1  # of an item of any cluster
    move: float = 1 / 200  # the user takes up another cluster
    memory: int = 10  # how many latest items a revisit chooses from

    @classmethod
    def of_size(cls, events: int) -> World:
        """Return a world for a stream of `events`: some 40 per user and 1,500 per cluster."""
        return cls(
            users=max(20, events // 40),
            clusters=max(4, min(60, events // 1_500)),
            live=40,
            retired=20,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Synthetic:
    """A planted stream and what ranking by the truth would have hit."""

    events: Events
    best: NDArray[np.bool_]  # (n,) item among the 20 likeliest, given all that is planted
    clusters: NDArray[np.int64]  # (n,) the user's cluster at the time

    def ceiling(self, warm_up: float) -> float:
        """Return the truth's recall@20 over the events beyond the warm-up whose item was seen before."""
        counted = np.ones(len(self.best), bool)
        counted[np.unique(self.events.items, return_index=True)[1]] = False
        counted[: int(len(counted) * warm_up)] = False
        return float(self.best[counted].mean()) if counted.any() else 0.0


def synthetic(n: int, seed: int, world: World | None = None) -> Synthetic:
    """Return a stream of `n` events drawn with `seed`.

    Raises InputError for n < 1.
    """
    if n < 1:
        raise InputError(f"a stream of {n} events: ask for at least one")
    world = world or World.of_size(n)
    rng = np.random.default_rng(seed)
    attraction = _attraction(world, rng)
    size = _zipf(world.clusters, _CLUSTER_SKEW)
    home = rng.choice(world.clusters, world.users, p=size)
    users = rng.choice(world.users, n, p=_zipf(world.users, _USER_SKEW)).tolist()
    place = rng.choice(world.clusters, n, p=size).tolist()
    kind, pick = rng.random(n).tolist(), rng.random(n).tolist()
    moves = (rng.random(n) < world.move).tolist()
    latest: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(world.users)]
    items, best, clusters = [0] * n, [False] * n, [0] * n
    period = _Period.at(0, attraction, world)
    for e, user in enumerate(users):
        if e * _PERIODS // n != period.number:
            period = _Period.at(e * _PERIODS // n, attraction, world)
        if moves[e]:
            home[user] = place[e]
        cluster, recent = int(home[user]), latest[user]
        if kind[e] < world.revisit and recent:
            item = list(recent)[int(pick[e] * len(recent))]
        else:
            strayed = kind[e] >= 1 - world.stray
            item = period.draw(place[e] if strayed else cluster, pick[e])
        items[e], clusters[e] = item, cluster
        best[e] = item in period.likeliest(cluster, recent, world)
        recent.pop(item, None)
        recent[item] = None
        if len(recent) > world.memory:
            recent.popitem(last=False)
    gaps = rng.exponential(_MEAN_GAP, n).astype(np.int64)
    events = Events(_START + np.cumsum(gaps), _ids(users, "users"), _ids(items, "items"))
    return Synthetic(events, np.array(best), np.array(clusters, np.int64))


def _ids(numbers: list[int], space: str) -> NDArray[np.uint64]:
    """Spread numbers over 64 bits, as ids in the wild are; users and items differently."""
    salt = {"users": 0, "items": 1 << 32}[space]
    return splitmix64(np.array(numbers, np.uint64) + np.uint64(salt))


def _zipf(n: int, exponent: float) -> NDArray[np.float64]:
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return np.asarray(weights / weights.sum(), np.float64)


def _attraction(world: World, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return how strongly each item draws, (clusters, items): Zipf's law, in an order drawn per cluster."""
    items = world.live + world.retired
    return rng.permuted(np.tile(_zipf(items, _ITEM_SKEW), (world.clusters, 1)), axis=1)


@dataclass(frozen=True, slots=True)
class _Period:
    """The item distribution of every cluster, constant for a while."""

    number: int
    weights: list[dict[int, float]]  # per cluster: live item -> probability
    items: list[list[int]]
    cumulated: list[list[float]]
    top: list[list[int]]  # per cluster: its likeliest items, the first first

    @classmethod
    def at(cls, number: int, attraction: NDArray[np.float64], world: World) -> _Period:
        oldest = number * world.retired // _PERIODS
        total = attraction.shape[1]
        weights, items, cumulated, top = [], [], [], []
        for cluster, row in enumerate(attraction):
            live = row[oldest : oldest + world.live] / row[oldest : oldest + world.live].sum()
            names = range(cluster * total + oldest, cluster * total + oldest + world.live)
            weights.append(dict(zip(names, live.tolist(), strict=True)))
            items.append(list(names))
            cumulated.append(list(accumulate(live.tolist())))
            top.append([names[i] for i in np.argsort(-live, kind="stable")[: 2 * _K].tolist()])
        return cls(number, weights, items, cumulated, top)

    def draw(self, cluster: int, uniform: float) -> int:
        names = self.items[cluster]
        return names[min(bisect(self.cumulated[cluster], uniform), len(names) - 1)]

    def likeliest(self, cluster: int, recent: OrderedDict[int, None], world: World) -> set[int]:
        """Return the 20 items a user of `cluster` with these `recent` items most probably touches next.

        An item of another cluster that was not touched lately gets at most stray/clusters
        of its weight: less than any of the cluster's first items, so it is left out.
        """
        again = world.revisit / len(recent) if recent else 0.0
        own = self.weights[cluster]
        chance = {item: own.get(item, 0.0) for item in (*self.top[cluster], *recent)}
        for item in chance:
            chance[item] *= 1 - world.stray - (world.revisit if recent else 0.0)
        for item in recent:
            chance[item] += again
        return set(sorted(chance, key=lambda item: -chance[item])[:_K])
