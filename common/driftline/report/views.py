"""Both versions in two dimensions, in one system of coordinates [EM12].

Invariant: one map for both versions, after their common rotation was taken out, so a row that did
not move has the same place in both pictures, and what looks moved did move. Same rows, same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Reduce = Callable[[Doubles], Doubles]
"""(n, d) → (n, 2)."""

PCA, TSNE, UMAP = "pca", "tsne", "umap"
LEAST_FOR_NEIGHBOURS = 10
"""Rows below which t-SNE and UMAP have no neighbourhoods to keep."""
_FEW = 250
"""Rows up to which t-SNE is exact: the threads of Barnes-Hut wait for each other longer than it takes
(61 rows on a busy machine: 11 s against .3 s)."""


@dataclass(frozen=True, slots=True)
class Reduction:
    """A way to two dimensions."""

    name: str
    title: str
    package: str  # that must be installed; "" for none
    module: str  # as it is imported
    reduce: Reduce

    def missing(self, rows: int) -> str:
        """Return why it cannot be used on so many rows, '' where it can."""
        if self.package and find_spec(self.module) is None:
            return f"{self.package} is not installed: pip install 'driftline[views]'"
        if self.package and rows < LEAST_FOR_NEIGHBOURS:
            return f"{rows} rows are too few for it"
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """The same rows in both versions, (n, 2) each."""

    old: Floats
    new: Floats


def place(old: Floats, new: Floats, reduction: Reduction) -> Placed:
    """Return both pictures of the same rows (n, d); rows that are equal in both get one place.

    `new` has the common rotation taken out.
    """
    moved = (old != new).any(axis=1)
    rows = np.concatenate([old, new[moved]]).astype(np.float64)
    flat = reduction.reduce(rows).astype(np.float32)
    at_old = flat[: len(old)]
    at_new = at_old.copy()
    at_new[moved] = flat[len(old) :]
    return Placed(at_old, at_new)


def principal_components(rows: Doubles) -> Doubles:
    """Return the rows on the two directions of greatest variance, their signs fixed.

    Each direction points to where its largest component is positive. One-dimensional rows get a zero.
    """
    centred = rows - rows.mean(axis=0) if len(rows) else rows
    _, _, directions = np.linalg.svd(centred.T @ centred, hermitian=True)
    two = directions[:2]
    largest = np.take_along_axis(two, np.abs(two).argmax(axis=1)[:, None], axis=1)
    flat = centred @ (two * np.where(largest < 0, -1.0, 1.0)).T
    return np.asarray(np.pad(flat, ((0, 0), (0, 2 - flat.shape[1]))), np.float64)


def _tsne(rows: Doubles) -> Doubles:
    from sklearn.manifold import TSNE

    made = TSNE(
        n_components=2,
        perplexity=min(30.0, (len(rows) - 1) / 3),
        init=_start(rows),
        random_state=0,
        method="exact" if len(rows) <= _FEW else "barnes_hut",
    )
    return np.asarray(made.fit_transform(rows), np.float64)


def _umap(rows: Doubles) -> Doubles:
    import umap

    near = min(15, len(rows) - 1)
    made = umap.UMAP(n_components=2, n_neighbors=near, init=_start(rows), random_state=0, n_jobs=1)
    return np.asarray(made.fit_transform(rows), np.float64)


def _start(rows: Doubles) -> Floats:
    """Begin with the principal components, small: then the global arrangement means something.

    Source: Kobak, Linderman, "Initialization is critical", Nature Biotechnology 2021.
    """
    flat = principal_components(rows)
    return np.asarray(flat / max(float(flat[:, 0].std()), 1e-12) * 1e-4, np.float32)


REDUCTIONS: Mapping[str, Reduction] = {
    each.name: each
    for each in (
        Reduction(PCA, "PCA", "", "", principal_components),
        Reduction(TSNE, "t-SNE", "scikit-learn", "sklearn", _tsne),
        Reduction(UMAP, "UMAP", "umap-learn", "umap", _umap),
    )
}
