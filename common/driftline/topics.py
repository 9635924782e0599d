"""Names of the topics that make up a deployment."""

from __future__ import annotations


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
