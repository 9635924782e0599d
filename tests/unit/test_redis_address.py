from __future__ import annotations

import pytest

from driftline.errors import ConfigError
from driftline.rows.address import at_node, parse, redact, with_login_of, without_login


def test_one_url_is_one_server_named_by_its_place() -> None:
    assert parse("redis://u:p@host:7000/0").servers == {"host:7000": "redis://u:p@host:7000/0"}
    assert list(parse("redis://host").servers) == ["host:6379"]
    assert list(parse("redis://[::1]:6379/0").servers) == ["[::1]:6379"]
    assert list(parse("unix:///run/redis.sock").servers) == ["redis.sock"]


def test_several_are_in_order_of_their_names() -> None:
    address = parse("b=rediss://h2:1,a=redis://u:p,w@h1:2/3")  # a comma in a password is no separator
    assert address.servers == {"a": "redis://u:p,w@h1:2/3", "b": "rediss://h2:1"}
    assert list(address.servers) == ["a", "b"]


def test_a_cluster_is_given_by_some_of_its_nodes() -> None:
    address = parse("rediss+cluster://u:p@h1:1,h2:2/0?ssl_ca_certs=ca.pem")
    assert address.cluster == (
        "rediss://u:p@h1:1/0?ssl_ca_certs=ca.pem",
        "rediss://u:p@h2:2/0?ssl_ca_certs=ca.pem",
    )
    assert list(address.servers) == ["cluster"]


@pytest.mark.parametrize(
    "text",
    [
        "localhost:6379",
        "redis://",
        "redis://h1,redis://h1",
        "a=redis://h1,a=redis://h2",
        "=redis://h1",
        "cluster=redis://h1",
        "redis+cluster://h1:1/3",
        "redis+cluster://",
        "http://h",
        "a=redis://h1,b=http://h2",
    ],
)
def test_what_names_no_servers_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "redis://:hunter2/x@h1:port",
        "a=redis://u:hunter2@h1,b=redis://v:hunter2@h2",
        "redis+cluster://u:hunter2@h1:1,h2:x",
        "redis://u:hunter2@h1/0?ssl_password=hunter2",
        "redis://u@h1,b=http://v:hunter2@h2",
    ],
)
def test_no_message_shows_a_password(text: str) -> None:
    assert "hunter2" not in redact(text)
    try:
        parse(text)
    except ConfigError as error:
        assert "hunter2" not in str(error)  # noqa: PT017 - some of these are fine


def test_credentials_go_to_nodes_and_added_servers_and_nowhere_else() -> None:
    model = "rediss://u:p@h1:1/0?ssl_ca_certs=ca"
    assert at_node(model, "10.0.0.2", 7000) == "rediss://u:p@10.0.0.2:7000/0?ssl_ca_certs=ca"
    assert at_node(model, "::1", 7000) == "rediss://u:p@[::1]:7000/0?ssl_ca_certs=ca"
    assert without_login(model) == "rediss://h1:1/0"
    assert with_login_of("rediss://h9:9/2", model) == "rediss://u:p@h9:9/2?ssl_ca_certs=ca"
