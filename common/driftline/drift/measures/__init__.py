"""Measures of change, one file each: definition, range, unit and source.

Invariant: `NODE_MEASURES` is the list of all measures per node; thresholds, tables and docs follow it.
"""

from driftline.drift.measures import (
    change_quantity,
    change_ratio,
    direction_coherence,
    jaccard,
    norm_ratio,
    offset_direction,
    offset_distance,
    rank_biased_overlap,
    relative_offset,
)
from driftline.drift.measures.base import Lists, Measure, Pair
from driftline.drift.measures.domain_auc import domain_auc
from driftline.drift.measures.linear_cka import linear_cka
from driftline.drift.measures.procrustes import residual as procrustes_residual
from driftline.drift.measures.procrustes import rotation

NODE_MEASURES: tuple[Measure, ...] = (
    change_quantity.MEASURE,
    change_ratio.MEASURE,
    jaccard.MEASURE,
    offset_direction.MEASURE,
    offset_distance.MEASURE,
    relative_offset.MEASURE,
    rank_biased_overlap.MEASURE,
    norm_ratio.MEASURE,
    direction_coherence.MEASURE,
)

__all__ = [
    "NODE_MEASURES",
    "Lists",
    "Measure",
    "Pair",
    "domain_auc",
    "linear_cka",
    "procrustes_residual",
    "rotation",
]
