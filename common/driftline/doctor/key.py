"""The signing key: whether there is one, where, and who can read it.

Invariant: a key is never made, shown, or kept; only whether it can be parsed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from driftline.config import Settings
from driftline.config.keys import KEY_NAME
from driftline.doctor.findings import Finding, fail, ok, warn
from driftline.doctor.roles import Role
from driftline.errors import ConfigError
from driftline.frames.headers import Keyring
from driftline.log.address import LocalAddress, parse_address

HOLDERS = (Role.SERVICE, Role.OPERATOR, Role.AUDITOR)
_MAKE = (
    "`driftline config new-key`; give every service and operator the same, in a file named by "
    "DRIFTLINE_KEY_FILE"
)


@dataclass(frozen=True, slots=True)
class Key:
    """Where the key would be read from, and what is there."""

    setting: str | None  # "key", "key_file", None: the local run's own
    path: Path | None
    present: bool
    made_when_missing: bool
    mode: int = 0  # permission bits of the file
    wrong: str | None = None  # why it cannot be used


def look(settings: Settings) -> Key:
    """Return what there is of the key that the settings name."""
    if settings.key is not None:
        return Key("key", None, present=True, made_when_missing=False)  # checked with the settings
    local = isinstance(parse_address(settings.log_url), LocalAddress)
    if settings.key_file is None and not local:
        return Key(None, None, present=False, made_when_missing=False)
    path = settings.key_file if settings.key_file is not None else settings.data_dir / KEY_NAME
    setting = "key_file" if settings.key_file is not None else None
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        Keyring.parse(path.read_text("ascii").strip())
    except FileNotFoundError:
        return Key(setting, path, present=False, made_when_missing=setting is None)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not plain text"
        return Key(setting, path, present=True, made_when_missing=False, wrong=reason)
    except ConfigError as error:  # does not repeat the secret
        return Key(setting, path, True, False, mode, str(error))
    return Key(setting, path, True, False, mode)


def judge(key: Key, role: Role) -> Iterator[Finding]:
    """Yield the findings on the key."""
    if role not in HOLDERS:
        if key.setting is not None:
            yield warn(
                "key",
                "presence",
                f"set, and role {role} does not need it",
                "take it away: whoever has it can change tables",
            )
        else:
            yield ok("key", "presence", f"not needed by role {role}")
        return
    where = str(key.path) if key.path is not None else f"setting {key.setting}"
    if not key.present:
        if key.made_when_missing:
            yield ok("key", "presence", f"{where} is made on first use")
        else:
            yield fail("key", "presence", f"{where} is not there" if key.path else "none is set", _MAKE)
        return
    if key.wrong is not None:
        yield fail("key", "content", f"{where}: {key.wrong}", f"restore it, or for a new deployment {_MAKE}")
        return
    yield ok("key", "presence", where)
    if key.mode & 0o077:
        yield warn("key", "permissions", f"{where} has mode {key.mode:03o}", f"chmod 600 {where}")
    elif key.path is not None:
        yield ok("key", "permissions", f"{key.mode:03o}")
