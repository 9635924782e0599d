"""Exact neighbours by comparing with every row: the oracle, and the exact method's engine.

Invariant: what is returned is exact in the distances of `metric.pairs`; the matrix product
only pre-selects, with a margin beyond its rounding error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from driftline.graph.lists import Lists, Places
from driftline.graph.metric import Floats
from driftline.graph.packing import EMPTY, Keys, merged, pack

_SPARE = 8  # pre-selected beyond the width: near-ties that the product may have in the wrong order


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
    """Return the nearest of `rows` and every (q, row) whose distance is within the bound of q."""
    keys, holders, entrants = [], [], []
    for part in lists.blocks(rows):
        near = lists.block(part)
        keys.append(_least(lists, part, near, width))
        margin = lists.tolerance(part)
        with np.errstate(invalid="ignore"):
            line, q = np.nonzero((near <= lists.bound[None, :] + margin[:, None]) & np.isfinite(near))
        found = lists.distances(q, part[line])
        inside = found <= lists.bound[q]
        holders.append(q[inside])
        entrants.append(pack(found[inside], part[line[inside]].astype(np.int32)))
    return Exact(
        np.concatenate([np.empty((0, width), np.uint64), *keys]),
        np.concatenate([np.empty(0, np.int64), *holders]),
        np.concatenate([np.empty(0, np.uint64), *entrants]),
    )


def _least(lists: Lists, rows: Places, near: Floats, width: int) -> Keys:
    take = min(width + _SPARE, near.shape[1])
    chosen = np.argpartition(near, take - 1, axis=1)[:, :take]
    return merged(lists.fan(rows, chosen.astype(np.int32)), width)
