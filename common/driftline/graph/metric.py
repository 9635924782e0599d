"""Distances between rows, in the form the graph computes with.

Invariant: the distance of two rows has the same bits whichever function of this module
computed it, in which order and among how many others, except for `block`, whose matrix
product rounds differently and which therefore only pre-selects.

Cosine is the squared Euclidean distance of unit vectors, halved: by differences it keeps
its precision for rows that almost coincide, where 1 - cos would cancel.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from driftline.errors import InputError

Floats = NDArray[np.float32]
Ids = NDArray[np.uint64]

LARGEST_NORM = 1e18
"""Squares of anything larger leave float32."""
_AT_ONCE = 4096  # rows divided at a time: quotients are float64 for a moment


class Metric(StrEnum):
    """What makes two rows near."""

    COSINE = "cosine"  # 1 - cos(x, y), in [0, 2]
    L2 = "l2"  # Euclidean, in [0, inf)
    INNER_PRODUCT = (
        "inner_product"  # -(x · y): the largest product is nearest; not a metric in the strict sense
    )


def unusable(vectors: Floats, metric: Metric) -> NDArray[np.bool_]:
    """Return which rows (n,) have no place in a graph.

    Those with NaN or infinity, with a norm beyond LARGEST_NORM, and under cosine those of length zero.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    bad = ~(norms <= LARGEST_NORM)
    return np.asarray(bad | (norms == 0) if metric is Metric.COSINE else bad, np.bool_)


def prepare(ids: Ids, vectors: Floats, metric: Metric) -> Floats:
    """Return the rows as the graph keeps them: unit vectors under cosine, else as they are.

    Raises InputError that names the first rows which `unusable` finds.
    """
    bad = np.flatnonzero(unusable(vectors, metric))
    if len(bad):
        first = bad[0]
        kind = "a vector of length zero" if not np.any(vectors[first]) else "a vector with NaN or infinity"
        if np.all(np.isfinite(vectors[first])) and np.any(vectors[first]):
            kind = f"a vector longer than {LARGEST_NORM:g}"
        raise InputError(
            f"row {ids[first]} is {kind}, which has no neighbours under {metric.value}"
            f" ({len(bad)} such rows of {len(ids)}): leave them out (driftline.graph.unusable finds them)"
        )
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    if metric is not Metric.COSINE:
        return rows
    unit = np.empty_like(rows)
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        norms = np.sqrt(np.einsum("nd,nd->n", part, part, dtype=np.float64))
        unit[start : start + _AT_ONCE] = part / norms[:, None]
    return unit


def pairs(x: Floats, y: Floats, metric: Metric) -> Floats:
    """Return the inner distance (n,) of rows x[i], y[i]; squared under l2 and cosine."""
    if metric is Metric.INNER_PRODUCT:
        # Adding zero turns -0 into +0, which would sort differently.
        return np.asarray(-np.einsum("nd,nd->n", x, y) + np.float32(0), np.float32)
    gap = x - y
    return np.asarray(np.einsum("nd,nd->n", gap, gap), np.float32)


def fans(x: Floats, y: Floats, metric: Metric) -> Floats:
    """Return the inner distance (n, c) of x[i] (n, d) to each of y[i] (n, c, d)."""
    count, width, dims = y.shape
    return pairs(
        np.repeat(x, width, axis=0) if width != 1 else x, y.reshape(count * width, dims), metric
    ).reshape(count, width)


def squares(x: Floats) -> Floats:
    """Return |x|² of each row (n,)."""
    return np.asarray(np.einsum("nd,nd->n", x, x), np.float32)


def block(x: Floats, y: Floats, y_squares: Floats, metric: Metric) -> Floats:
    """Return the inner distance (n, m) of all pairs, by a matrix product: near, but not to the last bits."""
    product: Floats = np.asarray(x @ y.T, np.float32)
    if metric is Metric.INNER_PRODUCT:
        return np.asarray(np.negative(product, out=product), np.float32)
    product *= -2
    product += squares(x)[:, None]
    product += y_squares[None, :]
    return product


def slack(x_squares: Floats, y_square: float, metric: Metric) -> Floats:
    """Return by how much (n,) `block` may be off for rows of these squared norms."""
    scale = (
        np.sqrt(x_squares * np.float32(y_square)) if metric is Metric.INNER_PRODUCT else x_squares + y_square
    )
    return np.asarray(scale * np.float32(4e-6), np.float32)


def outward(inner: Floats, metric: Metric) -> Floats:
    """Return distances as their users know them: Euclidean, 1 - cos, or minus the inner product."""
    if metric is Metric.L2:
        return np.sqrt(inner)
    return inner * np.float32(0.5) if metric is Metric.COSINE else inner
