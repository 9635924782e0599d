"""Settings loaded from what a test hands in, and the complaint where they are wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from driftline.config import Loaded, load_settings
from driftline.errors import ConfigError

KEY = "ab" * 32


def load(
    cwd: Path,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    toml: str | None = None,
) -> Loaded:
    if toml is not None:
        (cwd / "driftline.toml").write_text(toml)
    return load_settings(flags or {}, cwd=cwd, environ=environ or {})


def complaint(
    cwd: Path,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    toml: str | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(cwd, flags, environ, toml)
    return str(caught.value)
