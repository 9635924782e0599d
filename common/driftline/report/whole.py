"""What holds of two versions as a whole, in words.

Invariant: the measures of `driftline.drift`, over rows that were chosen at random and are finite.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures import domain_auc, linear_cka, procrustes_residual
from driftline.drift.measures.base import Doubles, Floats
from driftline.drift.measures.procrustes import angle
from driftline.report.model import Fact

_SEED = 0


def whole_facts(before: Floats, after: Floats, turn: Doubles) -> tuple[Fact, ...]:
    """Return the measures of the same rows before and after; `turn` is their common rotation."""
    sound = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    old, new = before[sound], after[sound]
    if not len(old):
        return ()
    return (
        Fact("common rotation", f"{np.degrees(angle(turn)):.3g}°"),
        Fact("Procrustes residual", f"{procrustes_residual(old, new):.3g}"),
        Fact("linear CKA", f"{linear_cka(old, new):.4g}"),
        Fact("AUC of telling new rows from old", f"{domain_auc(old, new, _SEED):.3g}"),
    )
