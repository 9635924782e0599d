"""The key that signs what the router writes.

Invariant: of any number of processes that need the key of a local run at the same
moment, all get the same one; the file is never seen half-written, and only its
owner may read it. A deployment on Kafka spans machines, so there a key is handed
out by whoever deploys, never made up.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from driftline.config.settings import Settings
from driftline.errors import ConfigError
from driftline.frames.headers import Keyring
from driftline.log.address import KafkaAddress, parse_address

KEY_BYTES = 32  # as long as the digest of HMAC-SHA256 (RFC 2104, section 3)
KEY_NAME = "key"


def new_key() -> str:
    """Return a fresh random signing key, in hex."""
    return secrets.token_hex(KEY_BYTES)


def signing_key(settings: Settings) -> str:
    """Return the signing keys, hex, separated by commas; a local run makes one on first use.

    Order: `key`, `key_file`, `data_dir`/key. Raises ConfigError when a key file is missing,
    unreadable or malformed, and when a Kafka deployment has no key.
    """
    if settings.key is not None:
        return settings.key.get_secret_value()
    if settings.key_file is not None:
        return _read(settings.key_file, "key_file")
    if isinstance(parse_address(settings.log_url), KafkaAddress):
        raise ConfigError(
            f"log_url is {settings.log_url!r} and no signing key is set: make one with "
            "`driftline config new-key` and give every service the same, as DRIFTLINE_KEY "
            "or in a file named by DRIFTLINE_KEY_FILE"
        )
    path = settings.data_dir / KEY_NAME
    if not path.exists():
        _create(path)
    return _read(path, "signing key of this local run")


def _create(path: Path) -> None:
    """Make the key file unless another process is quicker; either way a whole one is there afterwards."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w") as file:
                file.write(new_key() + "\n")
                file.flush()
                os.fsync(descriptor)
            try:
                os.link(draft, path)  # unlike rename, fails when another process was quicker
            except FileExistsError:
                return
            _sync_directory(path.parent)
        finally:
            draft.unlink()
    except OSError as error:
        raise ConfigError(
            f"signing key {str(path)!r} cannot be made: {error}; set another data_dir"
        ) from error


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, what: str) -> str:
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        # a decoding error would quote the content
        reason = error.strerror if isinstance(error, OSError) else "not plain text"
        raise ConfigError(f"{what} {str(path)!r} cannot be read: {reason}") from None
    try:
        Keyring.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{what} {str(path)!r}: {error}") from None
    return text
