"""Local neighbour similarity: Jaccard index of the two sets of neighbours.

Invariant: in [0, 1]; 1 if the sets are equal, 0 if they have nobody in common. It must be read
against the size of the step (see `relative_offset`): with an offset of .05, .3 and 1 times the
distance to the nearest neighbour, healthy movement gives .93, .68 and .33.
"""

from __future__ import annotations

from driftline.drift.measures.base import Doubles, Measure, Pair, ratio, shared


def jaccard(pair: Pair) -> Doubles:
    """Return |old ∩ new| / |old ∪ new|; 1 for two empty lists. (3,5,6) → (5,6,9): 1/2."""
    both = shared(pair.old_lists, pair.new_lists)
    return ratio(both, pair.old_lists.counts + pair.new_lists.counts - both, 1.0)


MEASURE = Measure(
    "jaccard",
    "|old ∩ new| ÷ |old ∪ new|",
    0,
    1,
    "share",
    "US 2025/0265235 A1, local neighbour similarity; Jaccard 1912",
    jaccard,
)
