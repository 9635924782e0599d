"""Versions of embedding tables on object storage: deltas, committed atomically, readable by row.

`open_store` and `open_repository` give a `Repository`; `DeltaBuffer` collects row states,
`seal_part` makes a shard of the next version of them, `commit` commits it, `TableReader`
reads it. How it fits together: docs/explanation/versions.md.
"""

from driftline.versions.checking import Finding, check_version, fsck
from driftline.versions.collecting import Plan, collect, plan_collection, removable, retire
from driftline.versions.committing import Draft, commit, find_commit
from driftline.versions.compacting import Compacted, compact, plan_compaction
from driftline.versions.delta import DeltaBuffer
from driftline.versions.diffing import PartDiff, diff
from driftline.versions.explaining import Change, Explanation, blame, explain
from driftline.versions.footprint import Usage, usage
from driftline.versions.fragments import complete, drop_fragments, put_fragment, read_fragments
from driftline.versions.graphs import load_graph, store_graph
from driftline.versions.history import Weight, ancestry, in_order, labels_of, read_all, weigh
from driftline.versions.joining import Merge, TableMerge, merge, plan_merge
from driftline.versions.labels import (
    Pin,
    Resolved,
    branches,
    create_branch,
    deploy,
    deployments,
    head,
    line,
    pin,
    pins,
    remove_branch,
    remove_tag,
    resolve,
    set_tag,
    tags,
    undeploy,
    unpin,
)
from driftline.versions.manifest import MAIN, Attachment, Manifest, PartManifest, Place, TableManifest
from driftline.versions.merging import Resolver
from driftline.versions.naming import VersionName
from driftline.versions.obstores import open_store
from driftline.versions.opening import find_group, group_url, open_group
from driftline.versions.parts import Rows
from driftline.versions.partspec import PartSpec
from driftline.versions.probe import RaceResult, race_create_if_absent
from driftline.versions.reader import Found, TableReader
from driftline.versions.references import Reference, parse_reference
from driftline.versions.repository import Repository, open_repository
from driftline.versions.sealing import seal_part
from driftline.versions.stores import ObjectStore
from driftline.versions.tiers import check_exact, lossy_tier

__all__ = [
    "MAIN",
    "Attachment",
    "Change",
    "Compacted",
    "DeltaBuffer",
    "Draft",
    "Explanation",
    "Finding",
    "Found",
    "Manifest",
    "Merge",
    "ObjectStore",
    "PartDiff",
    "PartManifest",
    "PartSpec",
    "Pin",
    "Place",
    "Plan",
    "RaceResult",
    "Reference",
    "Repository",
    "Resolved",
    "Resolver",
    "Rows",
    "TableManifest",
    "TableMerge",
    "TableReader",
    "Usage",
    "VersionName",
    "Weight",
    "ancestry",
    "blame",
    "branches",
    "check_exact",
    "check_version",
    "collect",
    "commit",
    "compact",
    "complete",
    "create_branch",
    "deploy",
    "deployments",
    "diff",
    "drop_fragments",
    "explain",
    "find_commit",
    "find_group",
    "fsck",
    "group_url",
    "head",
    "in_order",
    "labels_of",
    "line",
    "load_graph",
    "lossy_tier",
    "merge",
    "open_group",
    "open_repository",
    "open_store",
    "parse_reference",
    "pin",
    "pins",
    "plan_collection",
    "plan_compaction",
    "plan_merge",
    "put_fragment",
    "race_create_if_absent",
    "read_all",
    "read_fragments",
    "removable",
    "remove_branch",
    "remove_tag",
    "resolve",
    "retire",
    "seal_part",
    "set_tag",
    "store_graph",
    "tags",
    "undeploy",
    "unpin",
    "usage",
    "weigh",
]
