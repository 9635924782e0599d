"""Signatures: only exactly the signed bytes, under a key of the deployment, count as signed."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.errors import ConfigError
from driftline.frames.headers import KEY_ID, MAC, Keyring, cloud_event
from tests.oracle.wire import signed

OLD, NEW = "aa" * 16, "bb" * 32


@given(st.binary(max_size=50))
def test_a_signed_frame_verifies_and_is_an_hmac_sha256_of_its_bytes(frame: bytes) -> None:
    keyring = Keyring.parse(NEW)
    headers = keyring.sign(frame)
    assert keyring.verifies(frame, headers)
    assert dict(headers)[MAC] == hmac.new(bytes.fromhex(NEW), frame, hashlib.sha256).hexdigest().encode()


@given(st.binary(min_size=1, max_size=50), st.data())
def test_any_changed_byte_breaks_the_signature(frame: bytes, data: st.DataObject) -> None:
    keyring = Keyring.parse(NEW)
    at, flip = data.draw(st.integers(0, len(frame) - 1)), data.draw(st.integers(1, 255))
    forged = frame[:at] + bytes([frame[at] ^ flip]) + frame[at + 1 :]
    assert not keyring.verifies(forged, keyring.sign(frame))


def test_a_retired_key_verifies_what_it_signed_and_signs_nothing_new() -> None:
    before, after = Keyring.parse(OLD), Keyring.parse(f"{NEW}, {OLD}")
    assert after.verifies(b"frame", before.sign(b"frame"))
    assert not before.verifies(b"frame", after.sign(b"frame"))


def test_a_signature_under_another_key_id_does_not_count() -> None:
    keyring = Keyring.parse(f"{NEW},{OLD}")
    key_id = dict(Keyring.parse(OLD).sign(b"frame"))[KEY_ID]
    mac = dict(Keyring.parse(NEW).sign(b"frame"))[MAC]
    assert not keyring.verifies(b"frame", ((KEY_ID, key_id), (MAC, mac)))


@pytest.mark.parametrize("kept", [KEY_ID, MAC])
def test_half_a_signature_is_none(kept: str) -> None:
    keyring = Keyring.parse(NEW)
    headers = tuple(item for item in keyring.sign(b"frame") if item[0] == kept)
    assert not keyring.verifies(b"frame", headers)
    assert not keyring.verifies(b"frame", ())


def test_the_oracle_verifies_what_the_keyring_signs() -> None:
    headers = Keyring.parse(NEW).sign(b"frame")
    key_id = dict(headers)[KEY_ID].decode()
    assert signed(b"frame", headers, {key_id: bytes.fromhex(NEW)}) is True


@pytest.mark.parametrize("text", ["", "xyz", "ab" * 15, "ab" * 65, "a" * 33, f"{NEW},", f"{NEW},secret"])
def test_a_malformed_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Keyring.parse(text)
    assert text.strip() not in str(caught.value) or not text
    assert "secret" not in str(caught.value)


def test_a_keyring_does_not_show_its_keys() -> None:
    keyring = Keyring.parse(f"{NEW},{OLD}")
    assert repr(keyring) == "Keyring()"


def test_cloud_event_attributes_follow_the_kafka_binding() -> None:
    assert dict(cloud_event("gradient", "producer/ab", "1/2/3")) == {
        "ce_specversion": b"1.0",
        "ce_type": b"driftline.gradient",
        "ce_source": b"producer/ab",
        "ce_id": b"1/2/3",
        "content-type": b"application/vnd.driftline.frame",
    }
