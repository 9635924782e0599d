"""E-values, and the Shiryaev–Roberts detector made of them.

Invariant: if each e-value has mean at most 1 given the ticks before (p-values that are
super-uniform given the past), the mean time to a false alarm at R ≥ A is at least A ticks,
whatever the distribution of the data.
Sources: Vovk, Wang, "E-values: calibration, combination and applications", Annals of Statistics
2021 (power calibrators, averages); Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework
for sequential change detection", NEJSDS 2023.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_POWERS = np.array([0.1, 0.2, 0.3, 0.5, 0.7, 0.9])


def power_mixture(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over ε of ε·p^(ε−1), for p in (0, 1], any shape: an e-value for each p-value."""
    return np.asarray((_POWERS * np.asarray(p)[..., None] ** (_POWERS - 1)).mean(axis=-1), np.float64)


def shiryaev_roberts(before: NDArray[np.float64], e: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return R = e·(1 + R before), elementwise: one detector each. Their mean is a detector too.

    Held below 1e300, where it has long alarmed.
    """
    return np.minimum(e * (1 + before), 1e300)
