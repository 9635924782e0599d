"""URLs, limits and the header codec of the log: the pure parts."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import ConfigError, StateError
from driftline.log import KafkaAddress, LocalAddress, Outgoing, open_log, parse_address, record_size, split
from driftline.log.local.codec import decode_headers, encode_headers

HEADERS = st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=40))).map(tuple)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("local://run", LocalAddress(Path("run"))),
        ("local://a/b.c", LocalAddress(Path("a/b.c"))),
        ("local:///var/lib/driftline", LocalAddress(Path("/var/lib/driftline"))),
        ("kafka://k", KafkaAddress(("k:9092",))),
        ("kafka://k1:1,k2:65535", KafkaAddress(("k1:1", "k2:65535"))),
        ("kafka://[::1]:9092", KafkaAddress(("[::1]:9092",))),
        ("kafka://[::1]", KafkaAddress(("[::1]:9092",))),
    ],
)
def test_a_url_names_one_log(url: str, address: LocalAddress | KafkaAddress) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "run",
        "local://",
        "memory://x",
        "kafka://",
        "kafka://a,,b",
        "kafka://a:x",
        "kafka://a:0",
        "kafka://a/b",
    ],
)
def test_any_other_url_is_a_configuration_error_that_names_it(url: str) -> None:
    with pytest.raises(ConfigError, match="log URL") as caught:
        open_log(url)
    assert repr(url) in str(caught.value)


@given(HEADERS)
def test_headers_come_back_as_they_went(headers: tuple[tuple[str, bytes], ...]) -> None:
    assert decode_headers(encode_headers(headers)) == headers


@given(HEADERS.filter(bool), st.data())
def test_a_headers_blob_cut_short_is_refused_or_a_prefix(
    headers: tuple[tuple[str, bytes], ...], data: st.DataObject
) -> None:
    blob = encode_headers(headers) or b""
    cut = blob[: data.draw(st.integers(0, len(blob) - 1))]
    with contextlib.suppress(StateError):
        decoded = decode_headers(cut)
        assert decoded == headers[: len(decoded)]


@given(st.lists(st.binary(max_size=300)), st.integers(1, 1000))
def test_split_keeps_order_and_bounds(payloads: list[bytes], max_bytes: int) -> None:
    records = [Outgoing(value) for value in payloads]
    batches = list(split(records, max_bytes))
    assert [record for batch in batches for record in batch] == records
    assert all(len(batch) == 1 or sum(map(record_size, batch)) <= max_bytes for batch in batches)
