"""Record headers: CloudEvents attributes, and the signature of router frames.

Invariant: a frame counts as signed only if its `dl-mac` is the HMAC-SHA256 of
exactly its bytes under the key named by `dl-kid`; retired keys stay valid for
verification, because a replay must accept what was accepted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field

from driftline.errors import ConfigError

Headers = tuple[tuple[str, bytes], ...]

CONTENT_TYPE = b"application/vnd.driftline.frame"
KEY_ID, MAC = "dl-kid", "dl-mac"
REASON, MESSAGE = "dl-reason", "dl-message"  # of a dead letter
_KEY = re.compile(r"[0-9a-fA-F]{32,128}")


def cloud_event(kind: str, source: str, event_id: str) -> Headers:
    """Return the CloudEvents 1.0 attributes of a frame (Kafka binding, binary mode)."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_type", f"driftline.{kind}".encode()),
        ("ce_source", source.encode()),
        ("ce_id", event_id.encode()),
        ("content-type", CONTENT_TYPE),
    )


@dataclass(frozen=True, slots=True)
class Keyring:
    """The deployment's signing key and those it has retired."""

    current: bytes = field(repr=False)
    retired: tuple[bytes, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Return the keyring of a setting: hex keys separated by commas, the current one first.

        Raises ConfigError without repeating the secret.
        """
        keys = [part.strip() for part in text.split(",")]
        for place, key in enumerate(keys, 1):
            if not _KEY.fullmatch(key) or len(key) % 2:
                raise ConfigError(
                    f"key {place} of {len(keys)}: expected 32 to 128 hex digits, got {len(key)}"
                )
        current, *retired = (bytes.fromhex(key) for key in keys)
        return cls(current, tuple(retired))

    @property
    def key_id(self) -> str:
        """What a signature of the current key is known by; tells nothing of the key."""
        return _key_id(self.current).decode()

    def sign(self, frame: bytes) -> Headers:
        """Return the headers that prove `frame` comes from a holder of the current key."""
        return ((KEY_ID, _key_id(self.current)), (MAC, _mac(self.current, frame)))

    def verifies(self, frame: bytes, headers: Headers) -> bool:
        """Tell whether `headers` sign `frame` under any key of this deployment."""
        named = dict(headers)
        key_id, mac = named.get(KEY_ID), named.get(MAC)
        if key_id is None or mac is None:
            return False
        return any(
            hmac.compare_digest(_mac(key, frame), mac)
            for key in (self.current, *self.retired)
            if hmac.compare_digest(_key_id(key), key_id)
        )


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"driftline key id" + key).hexdigest()[:16].encode()


def _mac(key: bytes, frame: bytes) -> bytes:
    return hmac.new(key, frame, hashlib.sha256).hexdigest().encode()
