"""The golden frames that clients in other languages check themselves against."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

from driftline.frames.events import GRADIENT, OPS
from driftline.frames.headers import Keyring
from tests.golden.frames import PATH, Case, cases, described, read, render
from tests.support.frame_decoder import plain_decode

GOLDEN = json.loads(PATH.read_text())


def bits(value: object) -> dict[str, object]:
    def plain(item: object) -> object:
        return item.tobytes() if isinstance(item, np.ndarray | np.float32) else item

    found = {field.name: getattr(value, field.name) for field in fields(value)}  # type: ignore[arg-type]
    found |= found.get("tensors", {})
    return {name: plain(item) for name, item in found.items() if name != "tensors"}


def test_this_release_writes_the_golden_frames() -> None:
    assert render() == PATH.read_text()


def test_every_type_of_frame_has_a_golden_one() -> None:
    types = {frame["metadata"]["type"] for frame in GOLDEN["frames"]}
    assert types == OPS | {GRADIENT, "upsert", "delete", "state"}


@pytest.mark.parametrize("case", [c for c in cases() if c.as_dtype == "F32"], ids=lambda case: case.name)
def test_a_golden_frame_reads_as_the_value_it_stands_for(case: Case) -> None:
    (entry,) = [frame for frame in GOLDEN["frames"] if frame["name"] == case.name]
    assert bits(read(bytes.fromhex(entry["hex"]))) == bits(case.value)


@pytest.mark.parametrize("entry", GOLDEN["frames"], ids=lambda entry: entry["name"])
def test_the_description_in_the_file_is_that_of_an_independent_decoder(entry: dict[str, object]) -> None:
    frame = bytes.fromhex(str(entry["hex"]))
    plain = plain_decode(frame)
    assert plain is not None
    assert plain[0] == entry["metadata"]
    assert described(frame)["tensors"] == entry["tensors"]


def test_the_golden_signature_verifies() -> None:
    signature = GOLDEN["signature"]
    (entry,) = [frame for frame in GOLDEN["frames"] if frame["name"] == signature["frame"]]
    headers = tuple((name, value.encode()) for name, value in signature["headers"].items())
    assert Keyring.parse(signature["key"]).verifies(bytes.fromhex(entry["hex"]), headers)
