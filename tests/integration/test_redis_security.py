"""TLS, and the users of docs/how-to/redis-security.md: each can do its work and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from driftline.errors import ConfigError, StoreUnavailableError
from driftline.servers.local import HOST
from tests.integration.deployment import LOCAL, Deployment
from tests.integration.test_redis_servers import IDS, driftline
from tests.support.redis_variants import Authority, TlsRedis, TunedRedis, tell

pytestmark = pytest.mark.redis
PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/redis-security.md"
SECRETS = {role: f"secret-of-{role}" for role in ("service", "trainer", "reader", "auditor")}


def documented() -> dict[str, str]:
    """Return the ACL rules of the page by user."""
    found = re.findall(r"^user (\w+) (.*)$", PAGE.read_text(), re.MULTILINE)
    assert {name for name, _ in found} == {*SECRETS, "default"}
    return dict(found)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TunedRedis]:
    """A Redis with the users of the page; nobody gets in without a password."""
    directory = tmp_path_factory.mktemp("guarded")
    with TunedRedis(directory, {}, password="root") as server:
        client = redis.Redis(host=HOST, port=server.port)
        for name, rules in documented().items():
            if name != "default":
                words = rules.replace(f"{name.upper()}_PASSWORD", SECRETS[name]).split()
                tell(client, "ACL", "SETUSER", name, *words)
        tell(client, "ACL", "SETUSER", "default", "resetpass", ">root")
        yield server


def as_user(guarded: TunedRedis, name: str) -> str:
    return f"redis://{name}:{SECRETS[name]}@{HOST}:{guarded.port}/0"


@pytest.fixture
def service(guarded: TunedRedis, tmp_path: Path) -> Deployment:
    return Deployment(LOCAL, f"local://{tmp_path}/log", as_user(guarded, "service"), tmp_path)


def test_every_role_of_the_page_can_do_its_work(service: Deployment, guarded: TunedRedis) -> None:
    spec = service.spec()
    with service.worker():
        with service.client() as client:
            client.create_table(spec)
        with service.with_redis(as_user(guarded, "trainer")).client() as trainer:
            table = trainer.table(spec.name)
            table.push(IDS, np.ones((len(IDS), spec.dim)))
            assert table.get(IDS, read_your_writes=True).found.all()
        with service.with_redis(as_user(guarded, "reader")).client() as reader:
            assert reader.table(spec.name).get(IDS).found.all()
        auditor = service.with_redis(as_user(guarded, "auditor"))
        assert "MiB" in driftline(auditor, "shards", "ls", spec.name)
        assert auditor.audit(spec).ok


def test_a_shard_moves_by_the_rights_of_the_service(guarded: TunedRedis, tmp_path: Path) -> None:
    second = as_user(guarded, "service").replace("/0", "/1")  # another database stands for a server
    url = f"a={as_user(guarded, 'service')},b={second}"
    deployment = Deployment(LOCAL, f"local://{tmp_path}/log", url, tmp_path)
    spec = deployment.spec(shards=1)
    with deployment.worker(), deployment.client() as client:
        table = client.create_table(spec)
        table.push(IDS, np.ones((len(IDS), spec.dim)))
        assert "is on b" in driftline(deployment, "shards", "move", spec.name, "0", "b", "--wait")
        assert table.get(IDS, read_your_writes=True).found.all()
    assert deployment.audit(spec).ok


@pytest.mark.parametrize("role", ["trainer", "reader", "auditor"])
def test_only_the_service_can_write(guarded: TunedRedis, role: str) -> None:
    with redis.Redis.from_url(as_user(guarded, role)) as client:
        for command in (
            ("HSET", "dl:{t:0}:w", "next", "5"),
            ("DEL", "dl:{t:0}:v"),
            ("FLUSHALL",),
            ("CONFIG", "SET", "maxmemory", "1"),
            ("HGET", "other", "x"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                tell(client, *command)


def test_the_service_cannot_touch_other_keys_or_settings(guarded: TunedRedis) -> None:
    with redis.Redis.from_url(as_user(guarded, "service")) as client:
        for command in (
            ("SET", "other", "1"),
            ("FLUSHALL",),
            ("CONFIG", "SET", "maxmemory", "1"),
            ("KEYS", "*"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                tell(client, *command)


def test_an_aggregator_without_rights_to_write_says_so_and_ends(
    service: Deployment, guarded: TunedRedis
) -> None:
    spec = service.spec()
    with service.worker(), service.client() as client:
        client.create_table(spec)
    weak = service.with_redis(as_user(guarded, "reader"))
    with weak.worker("weak") as worker:
        assert not worker.process.wait_until(lambda: False, 60)
        assert "permissions" in worker.log
        assert SECRETS["reader"] not in worker.log


def test_a_wrong_password_is_named_and_not_shown(service: Deployment, guarded: TunedRedis) -> None:
    wrong = service.with_redis(f"redis://trainer:wr0ng-secret@{HOST}:{guarded.port}/0")
    with wrong.client() as client, pytest.raises(ConfigError, match="refuses the login") as raised:
        client.table("any")
    assert "wr0ng" not in str(raised.value)
    with wrong.worker("wrong") as worker:
        assert not worker.process.wait_until(lambda: False, 60)
        assert "refuses the login" in worker.log
        assert "wr0ng" not in worker.log


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsRedis]:
    directory = tmp_path_factory.mktemp("tls")
    with TlsRedis(directory / "redis", Authority.make(directory / "ca")) as server:
        yield server


def test_everything_works_over_tls(encrypted: TlsRedis, tmp_path: Path) -> None:
    deployment = Deployment(LOCAL, f"local://{tmp_path}/log", encrypted.url, tmp_path)
    spec = deployment.spec()
    with deployment.worker(), deployment.client() as client:
        table = client.create_table(spec)
        table.push(IDS, np.ones((len(IDS), spec.dim)))
        assert table.get(IDS, read_your_writes=True).found.all()
    assert deployment.audit(spec).ok


def test_a_server_whose_certificate_is_not_by_our_authority_is_not_talked_to(
    encrypted: TlsRedis, tmp_path: Path
) -> None:
    foreign = Authority.make(tmp_path / "foreign")
    url = f"rediss://{HOST}:{encrypted.port}/0?ssl_ca_certs={foreign.ca}"
    deployment = Deployment(LOCAL, f"local://{tmp_path}/log", url, tmp_path)
    with deployment.client() as client, pytest.raises(StoreUnavailableError, match="certificate"):
        client.table("any")
