"""Dead letters as an operator meets them: counted on /metrics; listed, shown, replayed, dropped by
`driftline dlq`."""

from __future__ import annotations

import asyncio
import itertools
import socket
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from driftline import Client, Options, Policy, Table, TableSpec, topics
from driftline.cli.main import app
from driftline.config import load_settings
from driftline.errors import InputError, UnknownTableError
from driftline.frames.events import BARRIER, Gradient, Op, Origin, Upsert, write_event
from driftline.frames.reasons import Reason
from driftline.ids import OPS_PRODUCER, producer_id, shard_of
from driftline.log import Outgoing, open_log
from driftline.stack.local import LocalStack
from tests.support.waiting import until

SHARDS, DIM = 2, 4
SOME = np.arange(4000, dtype=np.uint64)
MINE = SOME[shard_of(SOME, SHARDS) == 1][:4]
MANY = SOME[shard_of(SOME, SHARDS) == 1]
FOREIGN = SOME[shard_of(SOME, SHARDS) == 0][:4]
ONES = np.ones((4, DIM), np.float32)
CARELESS = producer_id("careless")

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Running:
    """A local stack with its metrics, and the command line in its directory."""

    options: Options
    environment: Mapping[str, str]
    port: int

    def cli(self, *arguments: str) -> tuple[int, str]:
        """Run `driftline dlq …`; return its status and output. Raises what `main` would put into words."""
        result = CliRunner().invoke(app, ["dlq", *arguments], env=dict(self.environment))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    def listed(self, table: str, *more: str) -> list[dict[str, object]]:
        letters = orjson.loads(self.cli("ls", table, "--json", *more)[1])
        assert isinstance(letters, list)
        return letters

    def counted(self, table: str) -> dict[str, int]:
        """Return what /metrics says of the table: dead letters by reason, and the other counters."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.labels.get("table") == table:
                    found[sample.labels.get("reason", sample.name)] += int(sample.value)
        return found

    def append(self, table: str, *values: bytes | Outgoing) -> int:
        """Write to shard 1's log as a producer that does not use the client would."""
        records = [value if isinstance(value, Outgoing) else Outgoing(value) for value in values]

        async def run() -> int:
            async with open_log(self.options.log_url) as log:
                return await log.append(topics.gradients(table), 1, records)

        return asyncio.run(run())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("stack")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = {"data_dir": directory, "log_url": f"local://{directory}/log", "http_port": port}
    settings = load_settings(flags, cwd=directory, environ={}).settings
    with LocalStack(settings) as stack:
        ends = stack.endpoints
        environment = {
            "DRIFTLINE_DATA_DIR": str(directory),
            "DRIFTLINE_LOG_URL": ends.log_url,
            "DRIFTLINE_REDIS_URL": ends.redis_url,
            "DRIFTLINE_KEY": ends.key,
        }
        yield Running(Options(ends.log_url, ends.redis_url, ends.group, ends.key), environment, port)


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    with Client(running.options) as connected:
        yield connected


@pytest.fixture
def table(client: Client) -> Table:
    name = f"t{next(_numbers)}"
    optimizer = {"kind": "sgd", "lr": 1.0}
    return client.create_table(
        TableSpec(name, DIM, "default", SHARDS, optimizer, policy=Policy(max_frame=8192))
    )


def gradient(table: str, seq: int, **changes: object) -> bytes:
    values: dict[str, object] = {"table": table, "shard": 1, "ids": MINE, "grads": ONES}
    return write_event(Gradient(origin=Origin(CARELESS, 0, seq), **(values | changes)))  # type: ignore[arg-type]


def rows(table: Table) -> list[list[float]]:
    found: list[list[float]] = table.get(MINE, read_your_writes=True).vectors.tolist()
    return found


def go_on(table: Table) -> None:
    """Push and read it back: everything in front has been judged then."""
    table.push(MINE, 0 * ONES)  # read back, it shows what is in front of it
    before = np.array(rows(table), np.float32)
    table.push(MINE, ONES)
    assert np.array_equal(np.array(rows(table), np.float32), before - 1)


def test_each_kind_of_bad_input_is_counted_by_its_reason_and_the_rest_by_their_own_counters(
    running: Running, table: Table
) -> None:
    name = table.spec.name
    bad = {
        Reason.UNDECODABLE: b"\x10\0\0\0\0\0\0\0not JSON at all.",
        Reason.TRUNCATED: gradient(name, 1)[:-5],
        Reason.SCHEMA: gradient(name, 1).replace(b'"schema":"1"', b'"schema":"2"'),
        Reason.UNKNOWN_TYPE: gradient(name, 1).replace(b'"gradient"', b'"gradiemt"'),
        Reason.FORGED: write_event(Op(BARRIER, name, 1, Origin(OPS_PRODUCER, 0, 1 << 40), {})),
        Reason.OVERSIZED: gradient(name, 1, ids=MANY, grads=np.ones((len(MANY), DIM), np.float32)),
        Reason.UNKNOWN_TABLE: gradient("other", 2),
        Reason.WRONG_SHARD: gradient(name, 3, shard=0),
        Reason.WRONG_DIM: gradient(name, 4, grads=ONES[:, :3]),
        Reason.UNSORTED_IDS: gradient(name, 5, ids=MINE[::-1].copy()),
        Reason.DUPLICATE_IDS: gradient(name, 6, ids=MINE[[0, 0, 1, 2]]),
        Reason.FOREIGN_IDS: gradient(name, 7, ids=FOREIGN),
        Reason.NON_FINITE: write_event(
            Upsert(name, 1, Origin(CARELESS, 0, 8), MINE, ONES * np.float32("nan"))
        ),
    }
    for value in bad.values():
        running.append(name, value)
        go_on(table)
    before = running.counted(name)  # a router that starts anew repeats ops, which count as duplicates
    nan = ONES.copy()
    nan[0, 0] = np.nan
    running.append(name, gradient(name, 9), gradient(name, 9, grads=ONES * 7), gradient(name, 10, grads=nan))
    go_on(table)

    counted = running.counted(name)
    assert {reason: counted[reason] for reason in Reason if counted[reason]} == dict.fromkeys(bad, 1)
    more = Counter(counted)
    more.subtract(before)
    assert more["driftline_duplicate_frames_total"] == 1, "the second frame of one (producer, seq, shard)"
    assert more["driftline_nonfinite_rows_total"] == 1
    assert counted["driftline_owned_shards"] == SHARDS
    assert {letter["reason"] for letter in running.listed(name)} == set(map(str, bad))
    assert CARELESS.hex() in {letter["producer"] for letter in running.listed(name)}


def test_a_letter_is_listed_and_shown_with_all_that_is_known(running: Running, table: Table) -> None:
    name = table.spec.name
    frame = gradient(name, 1, grads=ONES[:, :3])
    offset = running.append(name, Outgoing(frame, None, (("traceparent", b"00-abc"),)))
    go_on(table)
    place = f"1:{offset}"
    (letter,) = running.listed(name)
    assert (letter["place"], letter["reason"], letter["size"]) == (place, "wrong_dim", len(frame))
    assert running.listed(name, "--reason", "forged") == []
    assert running.listed(name, "--since", "1h") == [letter]
    assert running.listed(name, "--since", "2999-01-01") == []
    line = running.cli("ls", name)[1]
    assert line.split("\t")[:2] == [place, "wrong_dim"]
    shown = running.cli("show", name, place)[1]
    for part in (
        "3 columns, the table has 4",
        "traceparent: 00-abc",
        "seq: 1",
        "grads F32[4, 3]",
        "00000000  ",
    ):
        assert part in shown, shown


def test_a_frame_refused_as_too_large_is_replayed_once_the_table_takes_it(
    running: Running, client: Client, table: Table
) -> None:
    spec = table.spec
    grads = np.ones((len(MANY), DIM), np.float32)
    offset = running.append(spec.name, gradient(spec.name, 1, ids=MANY, grads=grads))
    go_on(table)
    place = f"1:{offset}"

    status, told = running.cli("replay", spec.name, place, "--wait")
    assert status == 1
    assert "refused: oversized" in told
    (again,) = running.listed(spec.name)
    assert again["place"] != place, "the frame that was published again is a letter of its own"

    roomy = TableSpec(
        spec.name, DIM, spec.group, SHARDS, spec.optimizer, spec.init, Policy(max_frame=1 << 20)
    )
    client.create_table(roomy)
    before = np.array(rows(table), np.float32)
    status, told = running.cli("replay", spec.name, "--reason", "oversized", "--wait")
    assert (status, told.splitlines()[-1]) == (0, "1 of 1 replayed"), told
    assert told.splitlines()[0].endswith("taken")
    assert np.array_equal(np.array(rows(table), np.float32), before - 1)
    assert running.listed(spec.name) == []
    assert [letter["status"] for letter in running.listed(spec.name, "--all")] == ["replayed", "replayed"]


def test_what_does_not_decode_cannot_be_replayed_only_dropped(running: Running, table: Table) -> None:
    name = table.spec.name
    offset = running.append(name, b"junk")
    go_on(table)
    status, told = running.cli("replay", name, "--all")
    assert status == 1
    assert "not replayed: it does not decode: truncated" in told
    assert len(running.listed(name)) == 1
    assert running.cli("drop", name, f"1:{offset}") == (0, "1 of 1 dropped\n")
    assert running.listed(name) == []
    assert running.cli("drop", name, f"1:{offset}")[0] == 1
    assert [letter["status"] for letter in running.listed(name, "--all")] == ["dropped"]


def test_mistakes_are_named(running: Running, table: Table) -> None:
    name = table.spec.name
    with pytest.raises(UnknownTableError, match="'nobody'"):
        running.cli("ls", "nobody")
    with pytest.raises(InputError, match="one of them"):
        running.cli("replay", name)
    with pytest.raises(InputError, match="one of them"):
        running.cli("drop", name, "1:2", "--all")
    with pytest.raises(InputError, match="no reason"):
        running.cli("ls", name, "--reason", "bad")
    with pytest.raises(InputError, match="no dead letter 1:77"):
        running.cli("show", name, "1:77")


def test_requests_and_messages_that_were_refused_are_listed_shown_and_dropped(
    running: Running, client: Client, table: Table
) -> None:
    async def run() -> int:
        async with open_log(running.options.log_url) as log:
            await log.append(topics.ops("default"), 0, [Outgoing(b"junk")])
            return await log.append(topics.ingest("default"), 2, [Outgoing(b"{}")])

    offset = asyncio.run(run())
    for source, reason in (("default.ops", "truncated"), ("driftline.ingest", "bad_message")):
        until(lambda name=source: bool(running.listed(name)), "it is refused", seconds=20)  # type: ignore[misc]
        (letter,) = running.listed(source)
        place = str(letter["place"])
        assert letter["reason"] == reason
        assert f"dead letter {place} of {source}: open" in running.cli("show", source, place)[1]
        status, told = running.cli("replay", source, place)
        assert status == 1
        assert "not replayed: " in told
        assert running.cli("drop", source, place) == (0, "1 of 1 dropped\n")
        assert running.listed(source) == []
    assert place == f"2:{offset}"


def test_a_table_that_is_not_there_is_answered_with_those_of_like_names(
    running: Running, table: Table
) -> None:
    name = table.spec.name
    for wrong, near in ((f"{name}x", name), ("defaultops", "default.ops"), ("ingest", "driftline.ingest")):
        with pytest.raises(UnknownTableError, match=f"did you mean .*{near}"):
            running.cli("ls", wrong)
