"""One table in two versions, measured for a page [EM7, EM12].

Invariant: pure over the rows of both versions; the measures of a node are those of `driftline.drift`,
over exact neighbours among `Chosen.pool`. Histograms are over the rows chosen at random alone: those
drawn because they moved farthest would bend them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from driftline.drift.measures import NODE_MEASURES, Lists, Pair, rotation
from driftline.drift.measures.base import Doubles, Floats, Ids
from driftline.graph.metric import Metric, unusable
from driftline.report.domains import MOST, Domains, spread
from driftline.report.model import (
    USUAL_NEIGHBOURS,
    Changes,
    DomainShare,
    Histogram,
    Measure,
    TableComparison,
    View,
)
from driftline.report.neighbours import Nearest, nearest
from driftline.report.packing import Named, column, packed_lists
from driftline.report.sampling import Chosen
from driftline.report.views import PCA, REDUCTIONS, Placed, Reduction, place
from driftline.report.whole import whole_facts

NEIGHBOUR_COUNTS = (5, 10, 15, 20)
METRICS = tuple(Metric)
FULL = "full"
BINS = 20
_BY_NAME = {measure.name: measure for measure in NODE_MEASURES}
_TITLES = {
    "change_quantity": "Neighbours changed",
    "change_ratio": "Share changed",
    "jaccard": "Local neighbour similarity",
    "offset_direction": "Offset direction",
    "offset_distance": "Offset distance",
}
"""The five measures of a node [EM7]."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A table of a version, as far as it was read; ids ascending."""

    version: str
    everything: Ids  # all live ids
    ids: Ids  # those that were read: `Chosen.pool`, as far as the version has them
    vectors: Floats  # (len(ids), d)


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """Rows in both versions whose vector or optimizer state differs."""

    ids: Ids  # farthest first
    distance: Floats  # Euclidean, of the vectors


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """The drawn rows, before and after."""

    ids: Ids
    at_old: NDArray[np.int64]  # place in the rows that were read
    at_new: NDArray[np.int64]
    sampled: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    before: Floats
    after: Floats  # with the common rotation taken out
    turn: Doubles


def compare_tables(
    table: str,
    old: Rows,
    new: Rows,
    moved: Moved,
    chosen: Chosen,
    domains: Domains | None = None,
    reductions: Collection[str] = tuple(REDUCTIONS),
) -> TableComparison:
    """Return all that a page shows of a table. `chosen.drawn` are rows of both versions.

    Of `reductions`, those whose packages are there are made; PCA always.
    """
    drawn = _drawn(old, new, chosen)
    width = max(NEIGHBOUR_COUNTS)
    near = {
        metric: (
            nearest(old.ids, old.vectors, drawn.at_old, width, metric),
            nearest(new.ids, new.vectors, drawn.at_new, width, metric),
        )
        for metric in METRICS
    }
    changes = {
        (count, metric): _neighbour_changes(
            _lists(sides[0], old.ids, count), _lists(sides[1], new.ids, count)
        )
        for metric, sides in near.items()
        for count in NEIGHBOUR_COUNTS
    }
    views, pictures = _views(drawn, {PCA, *reductions})
    named = Named.of([(old.ids, new.ids, *sides) for sides in near.values()], drawn.ids)
    alone = Pair(drawn.before, drawn.after, _NO_LISTS, _NO_LISTS, np.empty(0, np.float32))
    similar = changes[USUAL_NEIGHBOURS, METRICS[0]]["jaccard"]
    told = domains.most(np.union1d(old.everything, new.everything), MOST) if domains is not None else None
    bad = unusable(drawn.before, Metric.COSINE) | unusable(drawn.after, Metric.COSINE)
    return TableComparison(
        table=table,
        before=old.version,
        after=new.version,
        dim=old.vectors.shape[1],
        rows_before=len(old.everything),
        rows_after=len(new.everything),
        changed=len(moved.ids),
        added=len(np.setdiff1d(new.everything, old.everything, assume_unique=True)),
        removed=len(np.setdiff1d(old.everything, new.everything, assume_unique=True)),
        sampled=len(chosen.sample),
        farthest=len(chosen.drawn) - len(chosen.sample),
        pool=len(chosen.pool),
        left_out=int(bad.sum()),
        whole=whole_facts(drawn.before[drawn.sampled], drawn.after[drawn.sampled], drawn.turn),
        ids=column(drawn.ids),
        in_sample=column(drawn.sampled.astype(np.uint8)),
        moved=column(drawn.moved.astype(np.uint8)),
        direction=column(_BY_NAME["offset_direction"].of(alone).astype(np.float32)),
        distance=column(_BY_NAME["offset_distance"].of(alone).astype(np.float32)),
        domain=column(
            (told.of(drawn.ids) if told is not None else np.zeros(len(drawn.ids))).astype(np.uint8)
        ),
        domains=_shares(told, old, new, moved, drawn, similar) if told is not None else (),
        named=column(named.ids),
        drawn_of=column(named.drawn),
        measures=tuple(
            Measure(name, title, _BY_NAME[name].definition, _BY_NAME[name].unit)
            for name, title in _TITLES.items()
        ),
        neighbour_counts=NEIGHBOUR_COUNTS,
        metrics=tuple(metric.value for metric in METRICS),
        changes=tuple(
            Changes(
                count,
                metric.value,
                column(found["change_quantity"].astype(np.uint8)),
                column(found["change_ratio"].astype(np.float32)),
                column(found["jaccard"].astype(np.float32)),
            )
            for (count, metric), found in changes.items()
        ),
        lists=tuple(packed_lists(metric, named, old.ids, new.ids, *sides) for metric, sides in near.items()),
        histograms=(
            *(
                histogram(count, metric, FULL, found["jaccard"], drawn.sampled, drawn.moved)
                for (count, metric), found in changes.items()
            ),
            *_view_histograms(drawn, pictures),
        ),
        views=views,
    )


def histogram(
    count: int,
    metric: Metric,
    space: str,
    similarity: Doubles,
    sampled: NDArray[np.bool_],
    moved: NDArray[np.bool_],
) -> Histogram:
    """Return how the similarity (n,) of the sampled rows is spread over [0, 1]; NaN is in no bin."""
    counted = sampled & np.isfinite(similarity)
    shown, still = (
        tuple(int(each) for each in np.histogram(similarity[counted & kind], BINS, (0.0, 1.0))[0])
        for kind in (moved, ~moved)
    )
    values = similarity[counted]
    mean, median = (float(values.mean()), float(np.median(values))) if len(values) else (0.0, 0.0)
    return Histogram(count, metric.value, space, shown, still, mean, median)


def _drawn(old: Rows, new: Rows, chosen: Chosen) -> _Drawn:
    both, at_old, at_new = np.intersect1d(old.ids, new.ids, assume_unique=True, return_indices=True)
    before, after = old.vectors[at_old], new.vectors[at_new]
    moved = (before != after).any(axis=1)
    sound = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    dims = before.shape[1]
    turn = rotation(before[sound], after[sound]) if (moved & sound).any() else np.eye(dims)
    at = np.searchsorted(both, chosen.drawn)
    here_before, here_after, here_moved = before[at], after[at], moved[at]
    with np.errstate(invalid="ignore", over="ignore"):
        straight = (here_after.astype(np.float64) @ turn.T).astype(np.float32)
    straight[~here_moved] = here_before[~here_moved]
    return _Drawn(
        chosen.drawn,
        at_old[at],
        at_new[at],
        np.isin(chosen.drawn, chosen.sample, assume_unique=True),
        here_moved,
        here_before,
        straight,
        turn,
    )


def _lists(near: Nearest, ids: Ids, count: int) -> Lists:
    listed = near.listed[:, :count]
    if not len(ids):
        return Lists(np.zeros(listed.shape, np.uint64), listed)
    return Lists(np.where(listed, ids[near.places[:, :count]], np.uint64(0)), listed)


def _neighbour_changes(old: Lists, new: Lists) -> dict[str, Doubles]:
    pair = Pair(_NO_ROWS, _NO_ROWS, old, new, np.empty(0, np.float32))
    return {name: _BY_NAME[name].of(pair) for name in ("change_quantity", "change_ratio", "jaccard")}


def _views(drawn: _Drawn, wanted: Collection[str]) -> tuple[tuple[View, ...], dict[str, Placed]]:
    """Return the views, and the pictures of those that can be chosen."""
    sound = np.asarray(np.isfinite(drawn.before).all(axis=1) & np.isfinite(drawn.after).all(axis=1), np.bool_)
    views, pictures = [], {}
    for reduction in REDUCTIONS.values():
        reason = reduction.missing(int(sound.sum()))
        if reduction.name not in wanted:
            reason = f"it was not asked for: --view {reduction.name}"
        if reason:
            views.append(View(reduction.name, reduction.title, reason))
            continue
        placed = pictures[reduction.name] = _placed(drawn, sound, reduction)
        views.append(
            View(reduction.name, reduction.title, "", column(placed.old), column(placed.new)),
        )
    return tuple(views), pictures


def _placed(drawn: _Drawn, sound: NDArray[np.bool_], reduction: Reduction) -> Placed:
    found = place(drawn.before[sound], drawn.after[sound], reduction)
    full = np.full((2, len(drawn.ids), 2), np.nan, np.float32)
    full[0, sound], full[1, sound] = found.old, found.new
    return Placed(full[0], full[1])


def _view_histograms(drawn: _Drawn, pictures: dict[str, Placed]) -> Iterator[Histogram]:
    """Yield the histograms of neighbours in a picture, where only drawn rows are."""
    every = np.arange(len(drawn.ids))
    width = max(NEIGHBOUR_COUNTS)
    for name, flat in pictures.items():
        for metric in METRICS:
            sides = [nearest(drawn.ids, each, every, width, metric) for each in (flat.old, flat.new)]
            for count in NEIGHBOUR_COUNTS:
                found = _neighbour_changes(*(_lists(side, drawn.ids, count) for side in sides))
                yield histogram(count, metric, name, found["jaccard"], drawn.sampled, drawn.moved)


def _shares(
    domains: Domains, old: Rows, new: Rows, moved: Moved, drawn: _Drawn, similarity: Doubles
) -> tuple[DomainShare, ...]:
    found = spread(domains, old.everything, new.everything, moved.ids)
    of_moved, of_drawn = domains.of(moved.ids), domains.of(drawn.ids)
    shares = []
    for code, each in enumerate(found):
        offsets = moved.distance[of_moved == code]
        similar = similarity[(of_drawn == code) & drawn.sampled]
        shares.append(
            DomainShare(
                each.name,
                each.before,
                each.after,
                each.changed,
                each.added,
                each.removed,
                int((of_drawn == code).sum()),
                float(offsets.mean(dtype=np.float64)) if len(offsets) else None,
                float(similar.mean()) if len(similar) else None,
            )
        )
    return tuple(shares)


_NO_ROWS = np.empty((0, 0), np.float32)
_NO_LISTS = Lists(np.empty((0, 0), np.uint64), np.empty((0, 0), np.bool_))
