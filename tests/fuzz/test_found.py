"""What damaged frames have brought to light, kept as examples."""

from __future__ import annotations

import struct

import numpy as np
import orjson
import pytest

from driftline.errors import FrameError
from driftline.frames.events import Gradient, Op, Origin, read_event, write_event
from driftline.frames.headers import KEY_ID
from driftline.frames.reasons import Reason
from driftline.frames.tensors import decode
from driftline.ids import OPS_PRODUCER
from driftline.log.base import Record
from driftline.shard.machine import Shard
from driftline.shard.screen import MAX_FRAME
from tests.simulation.random_log import KEYRING

IDS = struct.pack("<Q", 5)
ENTRY = '{"dtype":"U64","shape":[1],"data_offsets":[0,8]}'
GRADIENT = write_event(
    Gradient("t", 0, Origin(bytes(16), 0, 1), np.zeros(1, np.uint64), np.ones((1, 2), np.float32))
)


def frame(header: str) -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + IDS


@pytest.mark.parametrize("place", ["dtype", "shape", "data_offsets"])
def test_a_header_nested_a_thousand_deep_is_refused_not_a_crash_of_the_shard(place: str) -> None:
    entry = {"dtype": '"U64"', "shape": "[1]", "data_offsets": "[0,8]"} | {place: "[" * 1000 + "]" * 1000}
    text = ",".join(f'"{name}":{value}' for name, value in entry.items())
    with pytest.raises(FrameError) as refused:
        decode(frame(f'{{"__metadata__":{{}},"ids":{{{text}}}}}'), limit=MAX_FRAME)
    assert refused.value.reason is Reason.UNDECODABLE
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "header",
    [
        f'{{"__metadata__":{{}},"ids":{ENTRY},"ids":{ENTRY}}}',
        f'{{"__metadata__":{{}},"ids":{ENTRY},"\\u0069ds":{ENTRY}}}',
        f'{{"__metadata__":{{}},"ids":{{"shape":[2],{ENTRY[1:]}}}',
        f'{{"__metadata__":{{}},"__metadata__":{{}},"ids":{ENTRY}}}',
        f'{{"__metadata__":{{"a":"1","a":"2"}},"ids":{ENTRY}}}',
        f'{{"__metadata__":{{"\\"":"\\\\","a":"1","a":"2"}},"ids":{ENTRY}}}',
        f'{{"__metadata__":{{}},"ids":[[]],"ids":{ENTRY}}}',
    ],
)
def test_a_header_that_names_something_twice_is_refused(header: str) -> None:
    assert len(orjson.loads(header)) == 2, "which the parser alone would let pass"
    with pytest.raises(FrameError, match="twice"):
        decode(frame(header), limit=MAX_FRAME)


@pytest.mark.parametrize("text", ['"', "\\", '\\"', '":{"', "\u00e9\u2028", "\\u0022"])
def test_quotes_and_backslashes_in_metadata_are_no_names(text: str) -> None:
    header = orjson.dumps({"__metadata__": {text: text, "b": text}, "ids": orjson.Fragment(ENTRY)}).decode()
    assert decode(frame(header), limit=MAX_FRAME).metadata == {text: text, "b": text}


def test_a_signed_op_whose_body_nests_too_deep_to_be_stored_is_refused() -> None:
    shallow = write_event(Op("barrier", "t", 0, Origin(OPS_PRODUCER, 0, 1), {"a": 1}))
    deep = orjson.dumps(orjson.dumps({"a": 1}).decode())
    assert deep in shallow
    header = shallow[8:].replace(deep, orjson.dumps('{"a":' * 300 + "1" + "}" * 300)).rstrip()
    with pytest.raises(FrameError) as refused:
        read_event(struct.pack("<Q", len(header)) + header, limit=MAX_FRAME)
    assert refused.value.reason is Reason.UNDECODABLE


def test_half_a_signature_is_a_wrong_one() -> None:
    shard = Shard("t", 0, KEYRING)
    plan = shard.screen([Record(0, 1, None, GRADIENT, ((KEY_ID, b"x"),))])
    assert [each.reason for each in plan.rejected] == [Reason.FORGED]
    assert not shard.position.producers, "and it uses up no seq"
