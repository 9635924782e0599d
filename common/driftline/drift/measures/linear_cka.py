"""Linear CKA: do two versions hold the same structure, whatever way they are turned and scaled?

Invariant: in [0, 1]; 1 for versions that differ by a rotation, a scale and a shift.
Source: Kornblith, Norouzi, Lee, Hinton, "Similarity of neural network representations revisited",
ICML 2019, eq. 3 in feature space.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Floats


def linear_cka(old: Floats, new: Floats) -> float:
    """Return |newᵀ·old|²_F ÷ (|oldᵀ·old|_F · |newᵀ·new|_F) of the centred rows; 1 if both are constant."""
    x = old.astype(np.float64) - old.mean(axis=0, dtype=np.float64)
    y = new.astype(np.float64) - new.mean(axis=0, dtype=np.float64)
    own = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    if own == 0:
        return 1.0 if not np.any(x) and not np.any(y) else 0.0
    return min(1.0, float(np.linalg.norm(y.T @ x) ** 2) / own)
