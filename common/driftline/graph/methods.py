"""The ways to keep a neighbour graph while rows change, behind one protocol.

Invariant: a method reads vectors and liveness, and writes lists; who is who, checking and
measuring are the business of `KnnGraph`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from driftline.graph.lists import Places
from driftline.graph.renew import Touched


class MethodName(StrEnum):
    """The methods by name."""

    AUTO = "auto"  # exact up to 20,000 rows, else g2
    G2 = "g2"  # cells or HNSW propose, the graph repairs
    EXACT = "exact"  # every changed row against every row
    M_ORDER = "m_order"  # the patent's rule alone


class Method(Protocol):
    """Keeps the lists of a `Lists`."""

    name: MethodName

    def build(self) -> None:
        """Make every list from nothing."""
        ...

    def adopt(self) -> None:
        """Take the lists as they are, loaded from a snapshot."""
        ...

    def tick(self, changed: Places, removed: Places) -> Touched:
        """Renew lists after rows changed (vectors are written) and were removed (slots are cleared)."""
        ...

    def repair(self) -> None:
        """Make every list anew from fresh candidates: the audit found too low a recall."""
        ...

    def close(self) -> None:
        """Let go of threads."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held beyond the lists, as far as they can be counted."""
        ...
