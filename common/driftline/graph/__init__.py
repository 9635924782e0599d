"""A graph of nearest neighbours that stays right while rows move, come and go.

Invariant: pure; no log, no clock, no network. `KnnGraph` is the one way in, for all methods.
"""

from driftline.graph.audit import Audit, AuditSettings, Recall
from driftline.graph.cells import CellSettings
from driftline.graph.g2 import G2Settings
from driftline.graph.knn import GraphSettings, KnnGraph
from driftline.graph.methods import MethodName
from driftline.graph.metric import Metric, unusable
from driftline.graph.propose import IndexSettings, ProposerName
from driftline.graph.results import (
    BORN,
    CAUSES,
    MOVED,
    NEIGHBOUR_MOVED,
    PUT,
    REMOVED,
    RESTORED,
    GraphTick,
    Neighbours,
)
from driftline.graph.snapshot import Snapshot, SnapshotDelta, snapshot_of

__all__ = [
    "BORN",
    "CAUSES",
    "MOVED",
    "NEIGHBOUR_MOVED",
    "PUT",
    "REMOVED",
    "RESTORED",
    "Audit",
    "AuditSettings",
    "CellSettings",
    "G2Settings",
    "GraphSettings",
    "GraphTick",
    "IndexSettings",
    "KnnGraph",
    "MethodName",
    "Metric",
    "Neighbours",
    "ProposerName",
    "Recall",
    "Snapshot",
    "SnapshotDelta",
    "snapshot_of",
    "unusable",
]
