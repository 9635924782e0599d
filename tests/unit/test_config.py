"""Settings: precedence, where a value came from, mistakes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from driftline.config import Settings
from driftline.config.loading import Source, SourceKind, line_of
from driftline.config.values import parse_size
from tests.support.settings import KEY, complaint, load

NAMES = ("group", "instance_id", "http_host")


"""Settings that take any word, so that values can be told apart by it."""


# Precedence and provenance


@given(
    flags=st.sets(st.sampled_from(NAMES)),
    variables=st.sets(st.sampled_from(NAMES)),
    keys=st.sets(st.sampled_from(NAMES)),
)
def test_the_strongest_source_that_has_a_setting_wins(
    flags: set[str], variables: set[str], keys: set[str]
) -> None:
    with TemporaryDirectory() as directory:
        loaded = load(
            Path(directory),
            dict.fromkeys(flags, "by-flag"),
            {f"DRIFTLINE_{name.upper()}": "by-environment" for name in variables},
            "".join(f'{name} = "by-file"\n' for name in keys),
        )
    for name in NAMES:
        default: object = Settings.model_fields[name].default
        holders = ((flags, "by-flag"), (variables, "by-environment"), (keys, "by-file"))
        expected = next((value for having, value in holders if name in having), default)
        assert getattr(loaded.settings, name) == expected
        if expected != default:
            assert f"by-{loaded.sources[name].kind}" == expected


def test_without_any_source_every_setting_has_its_default(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.settings == Settings()
    assert {source.kind for source in loaded.sources.values()} == {SourceKind.DEFAULT}
    assert loaded.file is None


def test_settings_alone_do_not_look_at_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLINE_GROUP", "other")
    assert Settings().group == "default"


def test_loading_looks_at_the_environment_handed_in_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIFTLINE_GROUP", "other")
    assert load(tmp_path).settings.group == "default"


def test_a_source_tells_its_place(tmp_path: Path) -> None:
    sources = load(
        tmp_path, {"http_host": "h"}, {"DRIFTLINE_REDIS_URL": "redis://h:1"}, '# mine\ngroup = "g"\n'
    ).sources
    assert str(sources["http_host"]) == "flag --http-host"
    assert str(sources["redis_url"]) == "environment DRIFTLINE_REDIS_URL"
    assert str(sources["group"]) == "driftline.toml line 2"
    assert str(sources["log_url"]) == "default"
    assert sources["http_host"] == Source(SourceKind.FLAG, "--http-host")


def test_a_flag_that_is_none_was_not_given(tmp_path: Path) -> None:
    assert load(tmp_path, {"group": None}, toml='group = "g"').settings.group == "g"


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    assert load(tmp_path, environ={"DRIFTLINE_HTTP_PORT": ""}).settings.http_port == 8321


@pytest.mark.parametrize("named_by", ["flag", "variable"])
def test_another_settings_file_can_be_named(tmp_path: Path, named_by: str) -> None:
    (tmp_path / "other.toml").write_text('group = "other"')
    flags = {"config": Path("other.toml")} if named_by == "flag" else {}
    environ = {"DRIFTLINE_CONFIG": "other.toml"} if named_by == "variable" else {}
    loaded = load(tmp_path, flags, environ, 'group = "here"')
    assert (loaded.settings.group, loaded.file) == ("other", tmp_path / "other.toml")


def test_a_named_settings_file_must_exist(tmp_path: Path) -> None:
    assert "gone.toml' (--config) does not exist" in complaint(tmp_path, {"config": "gone.toml"})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("group = 1", 1),
        ("\n\n  'group'=1", 3),
        ('key = """\ngroup = 2\n"""\ngroup = 1', 4),
        ("# group = 2\ngroups = 3\ngroup = 1", 3),
        ("a = [\n1]\n[group]\nx = 1", 3),
        ("group.x = 1", 1),
        ('"gr\\u006fup" = 1', None),
    ],
)
def test_the_line_of_a_key_is_where_it_is_set(text: str, line: int | None) -> None:
    assert line_of(text, "group") == line


# Values


@pytest.mark.parametrize(
    ("text", "size"),
    [("256MiB", 256 << 20), ("1 gb", 10**9), ("12", 12), ("512KiB", 512 << 10), ("7B", 7)],
)
def test_a_size_may_carry_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache_bytes", "1.5GiB"),
        ("cache_bytes", "12 parsecs"),
        ("cache_bytes", "-1"),
        ("cache_bytes", True),
        ("flush_bytes", 0),
        ("http_port", 65536),
        ("http_port", True),
        ("session_timeout_s", "0"),
        ("session_timeout_s", "nan"),
        ("log_level", "loud"),
        ("group", "a b"),
        ("group", "g" * 200),
        ("instance_id", ""),
        ("log_url", "kafka://"),
        ("log_url", "http://x"),
        ("redis_url", "localhost:6379"),
        ("redis_url", "redis://"),
        ("http_host", ""),
        ("key", "xyz"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    assert complaint(tmp_path, {name: value}).startswith(f"{name} = ")


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://u:p@h:1/2", "unix:///run/redis.sock", "redis://[::1]:6379/0"]
)
def test_redis_urls_of_every_kind_are_taken(tmp_path: Path, url: str) -> None:
    assert load(tmp_path, {"redis_url": url}).settings.redis_url == url


def test_the_home_directory_is_expanded(tmp_path: Path) -> None:
    assert load(tmp_path, toml='data_dir = "~/d"').settings.data_dir == Path.home() / "d"


def test_the_level_is_taken_in_any_case(tmp_path: Path) -> None:
    assert load(tmp_path, {"log_level": "DEBUG"}).settings.log_level == "debug"


# Mistakes


def test_a_mistake_names_key_value_and_place(tmp_path: Path) -> None:
    assert "http_port = 'x' (flag --http-port): " in complaint(tmp_path, {"http_port": "x"})
    assert "http_port = 'x' (environment DRIFTLINE_HTTP_PORT): " in complaint(
        tmp_path, environ={"DRIFTLINE_HTTP_PORT": "x"}
    )
    assert "http_port = 'x' (driftline.toml line 2): " in complaint(tmp_path, toml='\nhttp_port = "x"')


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    told = complaint(tmp_path, {"http_port": "x", "log_level": "loud"}, {"DRIFTLINE_X": "1"}, "zzz = 1")
    assert len(told.splitlines()) == 4


def test_unknown_names_get_a_suggestion(tmp_path: Path) -> None:
    assert "unknown flag --redis-ulr: did you mean --redis-url?" in complaint(tmp_path, {"redis_ulr": "x"})
    assert "DRIFTLINE_REDIS: did you mean DRIFTLINE_REDIS_URL?" in complaint(
        tmp_path, environ={"DRIFTLINE_REDIS": "x"}
    )
    assert "unknown key chache_bytes (driftline.toml line 1): did you mean cache_bytes?" in complaint(
        tmp_path, toml="chache_bytes = 1"
    )
    assert "lists the settings" in complaint(tmp_path, environ={"DRIFTLINE_QQQQ": "x"})


def test_a_variable_in_lower_case_is_a_mistake_not_ignored(tmp_path: Path) -> None:
    assert "did you mean DRIFTLINE_GROUP?" in complaint(tmp_path, environ={"DRIFTLINE_group": "g"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DRIFTLINE_TOOLS", "/opt/tools"),
        ("DRIFTLINE_TESTS_WITHOUT", "kafka"),
        ("DRIFTLINE_SERVICE_HOST", "10.0.0.1"),
        ("DRIFTLINE_GATEWAY_SERVICE_PORT_HTTP", "8321"),
        ("DRIFTLINE_PORT", "tcp://10.0.0.1:8321"),
        ("DRIFTLINE_GATEWAY_PORT_8321_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ],
)
def test_variables_of_tests_and_of_kubernetes_are_let_be(tmp_path: Path, name: str, value: str) -> None:
    assert load(tmp_path, environ={name: value}).settings == Settings()


def test_a_misspelt_port_is_not_taken_for_kubernetes(tmp_path: Path) -> None:
    assert "DRIFTLINE_HTTP_PORT?" in complaint(tmp_path, environ={"DRIFTLINE_HTP_PORT": "80"})


def test_text_without_quotes_is_told_to_stand_in_quotes_and_not_repeated(tmp_path: Path) -> None:
    told = complaint(tmp_path, toml=f'group = "a"\nkey = {KEY}\n')
    assert told.endswith('; line 2: text stands in quotes: key = "…"')
    assert KEY not in told


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    assert "settings file driftline.toml cannot be read: " in complaint(tmp_path, toml="group = ")
