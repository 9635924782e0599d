"""Two requests of Kafka's protocol that aiokafka lacks: what may I do, and which release are you?

Invariant: both only read, and asking for a topic never creates it. Metadata v8 (KIP-430)
tells which operations the ACLs leave to whoever asks; ApiVersions v3 (KIP-584) tells the
features of a cluster, whose `metadata.version` rises with each release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO

from aiokafka.protocol.api import Request, RequestStruct, Response, ResponseHeader_v0
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
    UnsignedVarInt32,
)

NOT_TOLD = -(1 << 31)
"""Operations that the broker did not tell."""

_OPERATIONS: Mapping[int, str] = {
    3: "Read",
    4: "Write",
    5: "Create",
    6: "Delete",
    7: "Alter",
    8: "Describe",
    10: "DescribeConfigs",
    11: "AlterConfigs",
}
_SUPPORTED = 0  # tag of ApiVersionsResponse v3
METADATA_VERSION = "metadata.version"
# First level of each release, from org.apache.kafka.server.common.MetadataVersion of 4.3.
_RELEASES = (
    *((7, "3.3"), (8, "3.4"), (9, "3.5"), (12, "3.6"), (15, "3.7"), (20, "3.8"), (21, "3.9")),
    *((22, "4.0"), (26, "4.1"), (28, "4.2"), (30, "4.3")),
)


def operations(bits: int) -> frozenset[str] | None:
    """Return the operations in a bit field of the protocol, None when the broker did not tell.

    Examples
    --------
    >>> sorted(operations(1 << 3 | 1 << 8))
    ['Describe', 'Read']
    """
    if bits == NOT_TOLD:
        return None
    return frozenset(name for bit, name in _OPERATIONS.items() if bits >> bit & 1)


def release(level: int) -> str:
    """Return the release of Kafka whose newest `metadata.version` is `level`, as far as known.

    Examples
    --------
    >>> release(25), release(30), release(0), release(99)
    ('4.0', '4.3', 'older than 3.3', 'newer than 4.3')
    """
    known = [name for first, name in _RELEASES if level >= first]
    if not known:
        return f"older than {_RELEASES[0][1]}"
    newest, name = _RELEASES[-1]
    return known[-1] if level <= newest else f"newer than {name}"


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("authorized_operations", Int32),
            ),
        ),
        ("cluster_authorized_operations", Int32),
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class Rights(Request[_MetadataStruct]):  # type: ignore[misc]
    """Asks for topics and what this user may do with them; None: all that this user may see."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str] | None) -> None:
        self._topics = None if topics is None else list(topics)

    def build(self, request_struct_class: type[_MetadataStruct]) -> _MetadataStruct:
        return request_struct_class(self._topics, False, True, True)


class _ApiVersionsResponse(Response):  # type: ignore[misc]
    API_KEY = 18
    API_VERSION = 3
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "api_keys",
            CompactArray(
                ("api_key", Int16), ("min_version", Int16), ("max_version", Int16), ("tags", TaggedFields)
            ),
        ),
        ("throttle_time_ms", Int32),
        ("tags", TaggedFields),
    )


class _ApiVersionsStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 18
    API_VERSION = 3
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _ApiVersionsResponse
    SCHEMA = Schema(
        ("client_software_name", CompactString("utf-8")),
        ("client_software_version", CompactString("utf-8")),
        ("tags", TaggedFields),
    )

    def parse_response_header(self, read_buffer: BytesIO | bytes) -> ResponseHeader_v0:
        # the one flexible response with a plain header: a client may not know yet what the broker speaks
        return ResponseHeader_v0.decode(read_buffer)


class Features(Request[_ApiVersionsStruct]):  # type: ignore[misc]
    """Asks a broker which features it supports."""

    API_KEY = 18

    def build(self, request_struct_class: type[_ApiVersionsStruct]) -> _ApiVersionsStruct:
        return request_struct_class("driftline", "doctor", {})


def supported_level(tags: Mapping[int, bytes]) -> int | None:
    """Return the newest `metadata.version` in the tags of an answer to `Features`; None: there is none."""
    if _SUPPORTED not in tags:
        return None
    data = BytesIO(tags[_SUPPORTED])
    for _ in range(UnsignedVarInt32.decode(data) - 1):
        name = CompactString("utf-8").decode(data)
        Int16.decode(data)
        newest = int(Int16.decode(data))
        TaggedFields.decode(data)
        if name == METADATA_VERSION:
            return newest
    return None
