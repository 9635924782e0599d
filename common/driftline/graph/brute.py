"""Exact neighbours by comparing with every row: the oracle, and the exact method's engine.

Invariant: what is returned is exact in the distances of `metric.pairs`; the matrix product
only pre-selects, with a margin beyond its rounding error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftline.graph import metric as metrics
from driftline.graph.lists import INFINITE, Lists, Places
from driftline.graph.metric import Floats, Metric
from driftline.graph.packing import EMPTY, Keys, distances_of, grouped, merged, pack, slots_of

_SPARE = 8  # pre-selected beyond the width: near-ties that the product may have in the wrong order
_LINES, _TILE = 128, 8_192  # rows × slots compared at a time: 4 MiB of distances
_SAMPLE = 2_048  # rows that bound what is near
_LARGEST = np.finfo(np.float32).max  # beyond it is nobody: dead slots are at infinity


@dataclass(frozen=True, slots=True)
class Exact:
    """Exact lists of some rows, and the pairs by which they enter other lists."""

    keys: Keys  # (n, width)
    holders: Places  # (e,) rows q ...
    entrants: Keys  # (e,) ... that this row (as a key) enters: its distance is within q's bound


def nearest(lists: Lists, rows: Places, width: int) -> Keys:
    """Return the `width` nearest rows (n, width) of each of `rows`, sorted, padded with EMPTY."""
    out = np.full((len(rows), width), EMPTY)
    done = 0
    for part in lists.blocks(rows):
        out[done : done + len(part)] = _least(lists, part, lists.block(part), width)
        done += len(part)
    return out


def nearest_and_entrants(lists: Lists, rows: Places, width: int) -> Exact:
    """Return the nearest of `rows` and every (q, row) whose distance is within the bound of q.

    The row's list as it was, or a sample of all rows, bounds what can be among its nearest. So two
    comparisons per pair decide, and nothing is partitioned: at 50,000 rows 20 µs per row instead of 280,
    beside 75 for the product. Tiles of rows × slots keep the scratch small and in the cache.
    """
    keys = np.full((len(rows), width), EMPTY)
    holders, entrants = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    margins = lists.tolerance(rows)
    live = np.flatnonzero(lists.alive)
    sample = live[:: max(1, len(live) // _SAMPLE)]
    for start in range(0, len(rows), _LINES):
        part, margin = rows[start : start + _LINES], margins[start : start + _LINES]
        reach = _reach(lists, part, sample, margin, width)[:, None]
        widest = margin.max(initial=0)
        lines, others = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for first in range(0, len(lists.alive), _TILE):
            slots = slice(first, first + _TILE)
            gaps = _gaps(lists, part, slots)
            line, q = _within(gaps, reach, part, first)
            lines.append(line)
            others.append(q)
            limit = np.where(lists.alive[slots], np.minimum(lists.bound[slots] + widest, _LARGEST), -_LARGEST)
            line, q = _within(gaps, limit, part, first)
            found = lists.distances(q, part[line])
            inside = found <= lists.bound[q]
            holders.append(q[inside])
            entrants.append(pack(found[inside], part[line[inside]].astype(np.int32)))
        line, q = np.concatenate(lines), np.concatenate(others)
        at, table = grouped(line, lists.measured(part[line], q), width)
        keys[start + at, : table.shape[1]] = table
    return Exact(keys, np.concatenate(holders), np.concatenate(entrants))


def _reach(lists: Lists, rows: Places, sample: Places, margin: Floats, width: int) -> Floats:
    """Return by which gap (n,) the `width` nearest of each row are surely found."""
    known = np.sort(lists.fan(rows, slots_of(lists.keys[rows])), axis=1)
    reach = distances_of(known[:, width - 1]) if known.shape[1] >= width else np.full(len(rows), INFINITE)
    if len(sample) > width:
        # A row that jumped is far from whom it knew.
        gaps = metrics.block(lists.vectors[rows], lists.vectors[sample], lists.squares[sample], lists.metric)
        gaps[sample[None, :] == rows[:, None]] = INFINITE
        reach = np.minimum(reach, np.partition(gaps, width - 1, axis=1)[:, width - 1] + margin)
    return np.asarray(np.minimum(reach + margin, _LARGEST), np.float32)


def _gaps(lists: Lists, rows: Places, slots: slice) -> Floats:
    gaps = metrics.block(lists.vectors[rows], lists.vectors[slots], lists.squares[slots], lists.metric)
    if lists.metric is Metric.INNER_PRODUCT:  # under the others a dead slot's square is infinite
        gaps[:, ~lists.alive[slots]] = INFINITE
    return gaps


def _within(gaps: Floats, limit: Floats, rows: Places, first: int) -> tuple[Places, Places]:
    """Return (line, slot) where a gap is within the limit, but for a row and itself.

    The flat way: `np.nonzero` of two dimensions takes 40 times as long.
    """
    line, place = np.divmod(np.flatnonzero(gaps <= limit), gaps.shape[1])
    other = first + place != rows[line]
    return line[other], first + place[other]


def _least(lists: Lists, rows: Places, near: Floats, width: int) -> Keys:
    take = min(width + _SPARE, near.shape[1])
    chosen = np.argpartition(near, take - 1, axis=1)[:, :take]
    return merged(lists.fan(rows, chosen.astype(np.int32)), width)
