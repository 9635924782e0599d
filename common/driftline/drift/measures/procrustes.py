"""The rotation that two versions have in common, and what is left when it is taken out.

Invariant: `rotation` is orthogonal and minimises Σ|old_i·R − new_i|²; a table that was only turned
has residual 0. A rotation of the whole table changes no neighbour under any metric here, so it is
taken out before offsets are judged, and watched by itself.
Source: Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 1966.
"""

from __future__ import annotations

import numpy as np

from driftline.drift.measures.base import Doubles, Floats


def rotation(old: Floats, new: Floats) -> Doubles:
    """Return R (d, d) = U·Vᵀ of the singular value decomposition of oldᵀ·new; the identity without rows."""
    cross = old.astype(np.float64).T @ new.astype(np.float64)
    if not np.any(cross):
        return np.eye(cross.shape[0])
    left, size, right = np.linalg.svd(cross)
    turn = np.asarray(left @ right, np.float64)
    if size[-1] > size[0] * 1e-7:
        return turn
    # Fewer rows than dimensions leave a subspace free: the turn nearest to none is taken there.
    seen = size > size[0] * 1e-7
    free_left, free_right = left[:, ~seen], right[~seen].T
    inner, _, outer = np.linalg.svd(free_left.T @ free_right)
    return np.asarray(left[:, seen] @ right[seen] + free_left @ inner @ outer @ free_right.T, np.float64)


def angle(turn: Doubles) -> float:
    """Return the root mean square angle of a rotation, in radians: 0 for the identity."""
    return float(np.sqrt(np.mean(np.angle(np.linalg.eigvals(turn)) ** 2)))


def residual(old: Floats, new: Floats) -> float:
    """Return Σ|old_i·R − new_i|² ÷ Σ|new_i|²; 0 for a table that was only turned, 0 without rows."""
    rest = old.astype(np.float64) @ rotation(old, new) - new
    size = float(np.sum(new.astype(np.float64) ** 2))
    return float(np.sum(rest**2)) / size if size else 0.0
