"""Names of the topics that make up a deployment."""

from __future__ import annotations

DEFAULT_GROUP = "default"
DEFAULT_INGEST = "driftline"


def gradients(table: str) -> str:
    """The ordered log of everything that changes a table's rows; one partition per shard."""
    return f"{table}.gradients"


def updates(table: str) -> str:
    """Row states after each commit, and markers for ops that passed."""
    return f"{table}.updates"


def dead_letters(table: str) -> str:
    """Records that were refused, with reason and origin."""
    return f"{table}.dlq"


def ops(group: str) -> str:
    """Operations on all tables of a group, in one order."""
    return f"{group}.ops"


def refused_ops(group: str) -> str:
    """Records of the ops topic that were refused: unsigned, undecodable or senseless."""
    return f"{group}.ops.dlq"


def ingest(group: str) -> str:
    """JSON messages for the tables of a group; `driftline.ingest` for the group `default`.

    No group may be named `driftline`: it would share this topic with the default one.
    """
    return f"{DEFAULT_INGEST if group == DEFAULT_GROUP else group}.ingest"


def refused_ingest(group: str) -> str:
    """Messages of the ingest topic that were refused."""
    return f"{ingest(group)}.dlq"


def control() -> str:
    """What came of versions, backups and roll-backs, of all groups: the audit trail. One partition."""
    return "driftline.control"
