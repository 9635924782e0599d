"""The picture of a graph of versions, case by case."""

from __future__ import annotations

import pytest

from driftline.versions.drawing import Node, dot, drawn


def picture(*nodes: Node) -> list[str]:
    return [f"{line} {name}".rstrip() for line, name in drawn(nodes)]


def test_a_line_is_a_column() -> None:
    assert picture(Node("c", ("b",)), Node("b", ("a",)), Node("a")) == ["* c", "* b", "* a"]


def test_branches_meet_where_they_begin() -> None:
    nodes = (Node("d", ("b",)), Node("c", ("b",)), Node("b", ("a",)), Node("a"))
    assert picture(*nodes) == ["* d", "| * c", "|/", "* b", "* a"]


def test_a_branch_of_several_versions_keeps_its_lane() -> None:
    nodes = (Node("e", ("c",)), Node("d", ("b",)), Node("c", ("a",)), Node("b", ("a",)), Node("a"))
    assert picture(*nodes) == ["* e", "| * d", "* | c", "| * b", "|/", "* a"]


def test_three_branches_from_one_version() -> None:
    nodes = (Node("d", ("a",)), Node("c", ("a",)), Node("b", ("a",)), Node("a"))
    assert picture(*nodes) == ["* d", "| * c", "| | * b", "|_|/", "|/", "* a"]


def test_a_merge_shows_both_parents() -> None:
    nodes = (Node("d", ("b", "c")), Node("c", ("a",)), Node("b", ("a",)), Node("a"))
    assert picture(*nodes) == ["* d", "|\\", "| * c", "* | b", "|/", "* a"]


def test_what_is_left_out_has_no_lane() -> None:
    assert picture(Node("c", ("b",)), Node("x", ("w",))) == ["* c", "* x"]


def test_lines_of_another_root_go_on_beside() -> None:
    nodes = (Node("c", ("a",)), Node("z", ("y",)), Node("a"), Node("y"))
    assert picture(*nodes) == ["* c", "| * z", "* | a", "  * y"]


@pytest.mark.parametrize(
    "text", ["digraph versions {", '  "b" -> "a";', '  "c" -> "a" [style=dashed, label=rollback];']
)
def test_dot_has_an_arrow_for_each_parent_and_each_rollback(text: str) -> None:
    nodes = (Node("c", ("b",), "a"), Node("b", ("a",), "a", ("main",)), Node("a"))
    lines = list(dot(nodes, {"a": "5 rows"}))
    assert text in lines
    assert '  "a" [label="a\\n5 rows"];' in lines
