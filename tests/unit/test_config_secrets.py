"""Settings: what is printed and complained of shows no secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.config import Settings, redact_url
from driftline.errors import ConfigError
from tests.support.settings import KEY, load

# Secrets


@pytest.mark.parametrize(
    ("flags", "environ", "toml"),
    [
        ({"redis_url": "bad://u:hunter2@h"}, {}, ""),
        ({"redis_url": "bad://u:a@b/hunter2@h"}, {}, ""),
        ({}, {"DRIFTLINE_KEY": "hunter2"}, ""),
        ({}, {"DRIFTLINE_KYE": "hunter2"}, ""),
        ({}, {}, 'keys = "hunter2"'),
        ({"log_url": "kafka://u:hunter2@h:9092"}, {}, ""),
    ],
)
def test_a_mistake_shows_no_secret(
    tmp_path: Path, flags: dict[str, object], environ: dict[str, str], toml: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, flags, environ, toml)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None  # a chained validation error would be printed with it


def test_printed_settings_show_no_secret() -> None:
    settings = Settings.model_validate({"key": KEY, "redis_url": "redis://u:hunter2@h:1/0"})
    assert KEY not in repr(settings) + str(settings)
    assert "hunter2" not in repr(settings) + str(settings)


_WORD = st.text(
    st.characters(codec="ascii", exclude_characters="\n", categories=["L", "N", "P", "S"]), min_size=1
)


@given(password=_WORD)
def test_a_password_in_a_url_is_never_shown(password: str) -> None:
    secret = f"<{password}>"
    assert secret not in redact_url(f"redis://user:{secret}@host:6379/0")


def test_a_url_without_a_password_is_shown_as_it_is() -> None:
    assert redact_url("redis://host:6379/0?db=1") == "redis://host:6379/0?db=1"
