"""The table spec: what is refused, what may change, and its JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from driftline.errors import ConfigError
from driftline.shard.spec import Init, Policy, TableSpec
from tests.support.samples import TABLE


def test_a_spec_reads_back_from_its_json() -> None:
    assert TableSpec.from_json(orjson.loads(orjson.dumps(TABLE.to_json()))) == TABLE


def test_defaults_fill_what_json_leaves_out() -> None:
    assert TableSpec.from_json({"name": "items", "dim": 8}) == TableSpec("items", 8)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"name": ""}, "table name"),
        ({"name": "a/b"}, "table name 'a/b'"),
        ({"name": "-a"}, "table name"),
        ({"name": "a" * 101}, "table name"),
        ({"name": None}, "table name None"),
        ({"group": 5}, "group 5"),
        ({"group": "a b"}, "group 'a b'"),
        ({"dim": 0}, "dim = 0"),
        ({"dim": 8193}, "dim = 8193"),
        ({"dim": 2.0}, "dim = 2.0"),
        ({"dim": True}, "dim = True"),
        ({"shards": 0}, "shards = 0"),
        ({"shards": 4097}, "shards = 4097"),
        ({"dtype": "f16"}, "'f16'"),
        ({"machine_version": 0}, "machine_version"),
        ({"machine_version": 2}, "machine_version"),
        ({"init": {"seed": -1}}, "init.seed"),
        ({"init": {"scale": -1}}, "init.scale"),
        ({"init": {"scale": "x"}}, "init.scale"),
        ({"init": {"scale": float("nan")}}, "init.scale"),
        ({"init": {"sigma": 1}}, "sigma"),
        ({"init": 5}, "spec"),
        ({"init": None}, "spec"),
        ({"policy": {"max_frame": 4095}}, "max_frame"),
        ({"policy": {"max_frame": (8 << 20) + 1}}, "max_frame"),
        ({"policy": {"producer_ttl_ms": 999}}, "producer_ttl_ms"),
        ({"policy": {"without_read_pos": "maybe"}}, "without_read_pos 'maybe'"),
        ({"policy": []}, "spec"),
        ({"optimizer": "sgd"}, "'sgd'"),
        ({"optimizer": ["sgd"]}, "sgd"),
        ({"optimizer": None}, "None"),
        ({"optimizer": {"kind": "sgd", "speed": 1}}, "speed"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_spec_is_refused_naming_what_is_wrong(body: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TableSpec.from_json({"name": "items", "dim": 4} | body)
    assert names in str(caught.value)


@pytest.mark.parametrize("missing", ["name", "dim"])
def test_name_and_dimension_must_be_given(missing: str) -> None:
    body = {key: value for key, value in {"name": "items", "dim": 4}.items() if key != missing}
    with pytest.raises(ConfigError, match=missing):
        TableSpec.from_json(body)


def test_frames_must_be_able_to_hold_a_row() -> None:
    with pytest.raises(ConfigError, match="one row"):
        TableSpec("items", 8192, policy=Policy(max_frame=4096))
    TableSpec("items", 8192, policy=Policy(max_frame=1 << 16))
    with pytest.raises(ConfigError, match="one row"):  # adam's state is twice as wide as the row
        TableSpec("items", 8192, optimizer={"kind": "adam"}, policy=Policy(max_frame=1 << 16))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"name": "users"}, "name"),
        ({"group": "other"}, "group"),
        ({"dim": 3}, "dim"),
        ({"shards": 4}, "shards"),
        ({"init": Init(seed=2, scale=0.1)}, "init"),
        ({"optimizer": {"kind": "adagrad"}}, "optimizer kind"),
    ],
)
def test_what_is_fixed_for_the_life_of_a_table_may_not_change(change: dict[str, Any], names: str) -> None:
    refused = TABLE.change_refused(replace(TABLE, **change))
    assert refused is not None
    assert refused.startswith(names)


@pytest.mark.parametrize(
    "change",
    [{}, {"optimizer": {"kind": "sgd", "lr": 0.1}}, {"policy": Policy(without_read_pos="drop")}],
)
def test_policies_and_constants_may_change(change: dict[str, Any]) -> None:
    assert TABLE.change_refused(replace(TABLE, **change)) is None


def test_the_state_size_is_that_of_the_optimizer() -> None:
    assert TABLE.state_size == 0
    assert replace(TABLE, optimizer={"kind": "adam"}).state_size == 2 * TABLE.dim + 2
    assert TABLE.make_optimizer().lr == 0.5
    assert TABLE.scale.dtype == "float32"
