"""Why a record is refused: the codes of dead letters, each with its meaning.

Invariant: a code never changes its meaning and is never reused: dead letters, metrics
and dashboards outlive a release. What is merely counted (a sequence number used before,
stale gradients, rows whose result is not finite) is no reason: it makes no dead letter.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """The code of a dead letter; `meaning` says it in words."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Reason:
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    # The bytes. None of these uses up its producer's sequence number.
    TRUNCATED = "truncated", "the bytes end before the frame does"
    UNDECODABLE = "undecodable", "not a frame: header, metadata or tensors break the format"
    SCHEMA = "schema", "a schema version that this release does not read"
    UNKNOWN_TYPE = "unknown_type", "a frame of a type that this release does not know"
    BAD_HEADER = (
        "bad_header",
        "a Kafka header whose name is not UTF-8, or is the one that marks such a record",
    )
    FORGED = (
        "forged",
        "a signature that is wrong or of another group, or an op that does not come from the router",
    )

    # Well-formed, but too large for the table, or (before decoding) for any.
    OVERSIZED = "oversized", "more bytes than the table's `max_frame`, or than any frame may have"

    # Where it was sent.
    UNKNOWN_TABLE = (
        "unknown_table",
        "a frame for another table than the one whose log it is in, or a message for none of the group",
    )
    WRONG_SHARD = "wrong_shard", "a frame for another shard than the one whose partition it is in"
    NO_SPEC = "no_spec", "a frame before the table's spec"

    # What the table's rules refuse.
    QUARANTINED = "quarantined", "its producer has been shut out"
    WRONG_DIM = "wrong_dim", "rows, gradients or states of another width than the table's"
    UNSORTED_IDS = "unsorted_ids", "ids that are not in rising order"
    DUPLICATE_IDS = "duplicate_ids", "the same id twice in one frame"
    FOREIGN_IDS = "foreign_ids", "ids that hash to another shard"
    NON_FINITE = "non_finite", "an upsert or a restore-rows with NaN or infinity"

    # Ingest.
    BAD_MESSAGE = "bad_message", "a message of the ingest topic whose keys, types or ids are wrong"

    # Ops.
    BAD_OP = "bad_op", "an op whose body makes no sense"
    REPLAYED_OP = (
        "replayed_op",
        "a request that is in the ops log already, or was signed for another place in it",
    )
    BAD_SPEC = "bad_spec", "a table spec that is wrong, or changes what is fixed for a table's life"
    NO_TOPIC = (
        "no_topic",
        "an op for a table whose gradients topic does not exist; the group's other tables have it",
    )
    UNSUPPORTED = (
        "unsupported",
        "an op that this release does not carry out, or a message of another type than JSON may have",
    )


def reference_table() -> str:
    """Return the table of docs/how-to/dead-letters.md, in Markdown."""
    rows = ["| reason | meaning |", "|---|---|"]
    rows += [f"| `{reason}` | {reason.meaning} |" for reason in Reason]
    return "\n".join(rows) + "\n"
