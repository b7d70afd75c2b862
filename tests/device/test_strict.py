"""The strict JSON reader: every refusal, its path, and the promise that nothing but a BundleError comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hired_edge import strict
from hired_edge.errors import BundleError, InputError


@dataclass(frozen=True)
class Leaf:
    size: int
    scale: float

    def __post_init__(self) -> None:
        if self.size > 10:
            raise InputError(f"size is {self.size}", expected="at most 10", fix="shrink it")


@dataclass(frozen=True)
class Tree:
    name: str
    deep: bool
    window: int | None
    kind: Literal["a", 1]
    pair: tuple[int, str]
    leaves: tuple[Leaf, ...]
    table: dict[str, Leaf]


TREE = Tree("éa", True, None, "a", (1, "x"), (Leaf(1, 0.5),), {"b": Leaf(2, 1.0), "a": Leaf(3, 1e-30)})


def parsed() -> dict:
    data = strict.loads(strict.dumps(TREE))
    assert isinstance(data, dict)
    return data


def test_round_trip() -> None:
    assert strict.from_json(Tree, parsed()) == TREE


def test_text_is_ascii_ordered_and_ends_in_a_newline() -> None:
    text = strict.dumps(TREE)
    assert text.isascii()
    assert text.endswith("}\n")
    assert list(parsed()) == ["name", "deep", "window", "kind", "pair", "leaves", "table"]
    assert list(parsed()["table"]) == ["a", "b"]


def test_an_integer_is_a_float() -> None:
    leaf = strict.from_json(Leaf, {"size": 1, "scale": 2})
    assert leaf.scale == 2.0
    assert isinstance(leaf.scale, float)


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("name",), 3, "tree.name is 3"),
        (("name",), "\ud800", "tree.name holds half a character"),
        (("deep",), 1, "tree.deep is 1"),
        (("window",), True, "tree.window is True"),
        (("window",), "4", "tree.window is '4'"),
        (("window",), 1.0, "tree.window is 1.0"),
        (("window",), 2**63, "tree.window is an integer of 64 bits"),
        (("kind",), True, "tree.kind is True"),
        (("kind",), "c", "tree.kind is 'c'"),
        (("kind",), [], "tree.kind is a list"),
        (("pair",), [1], "tree.pair has 1 entries"),
        (("pair", 1), 2, "tree.pair[1] is 2"),
        (("leaves",), {}, "tree.leaves is an object"),
        (("leaves", 0, "size"), None, "tree.leaves[0].size is None"),
        (("leaves", 0, "scale"), True, "tree.leaves[0].scale is True"),
        (("leaves", 0, "scale"), float("inf"), "tree.leaves[0].scale is inf"),
        (("leaves", 0, "scale"), 10**400, "tree.leaves[0].scale is an integer of 1329 bits"),
        (("leaves", 0, "size"), 11, "tree.leaves[0]: size is 11"),
        (("table",), [], "tree.table is a list"),
        (("table", "a"), 1, "tree.table['a'] is 1"),
    ],
)
def test_wrong_values_are_refused_with_their_path(path: tuple, value: object, where: str) -> None:
    data = parsed()
    target = data
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(BundleError) as caught:
        strict.from_json(Tree, data, "tree")
    assert str(caught.value).startswith(where)
    assert "\n" not in str(caught.value)


def test_unknown_and_missing_keys_are_refused() -> None:
    extra = parsed()
    extra["leaves"][0]["colour\n"] = 1
    with pytest.raises(
        BundleError, match=r"^manifest.leaves\[0\] has an unknown key 'colour\\n'; expected only size, sc"
    ):
        strict.from_json(Tree, extra)
    fewer = parsed()
    del fewer["table"]["b"]["size"]
    with pytest.raises(BundleError, match=r"^manifest.table\['b'\].size is missing"):
        strict.from_json(Tree, fewer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a": 1, "a": 1}',
        '[{"b": {"a": 1, "a": 2}}]',
        "NaN",
        "[-Infinity]",
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
        '"\x01"',
        "\ufeff{}",
    ],
)
def test_text_that_is_not_strict_json(text: str) -> None:
    with pytest.raises(BundleError) as caught:
        strict.loads(text)
    assert "\n" not in str(caught.value)


def test_a_number_too_large_for_a_float_is_refused() -> None:
    data = strict.loads('{"size": 1, "scale": 1e999}')
    with pytest.raises(BundleError, match="scale is inf"):
        strict.from_json(Leaf, data)


def test_nan_is_never_written() -> None:
    with pytest.raises(BundleError, match="finite"):
        strict.dumps(Leaf(1, float("nan")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=200)
@given(data=JSON)
def test_any_data_is_read_or_refused(data: object) -> None:
    with pytest.raises(BundleError):
        strict.from_json(Tree, data)


@settings(deadline=None, max_examples=200)
@given(text=st.text(alphabet='{}[]",:0123456789.eE-+ NaItrufls\\\n"', max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    message = ""
    try:
        strict.loads(text)
    except BundleError as error:
        message = str(error)
    assert "\n" not in message


@dataclass(frozen=True)
class Grown:
    size: int
    colour: tuple[int, int] | None = strict.optional(None)


def test_a_field_that_came_later_is_left_out_where_it_says_nothing_new() -> None:
    assert strict.to_json(Grown(1)) == {"size": 1}
    assert strict.to_json(Grown(1, (2, 3))) == {"size": 1, "colour": [2, 3]}
    for grown in (Grown(1), Grown(1, (2, 3))):
        assert strict.from_json(Grown, strict.to_json(grown)) == grown
    with pytest.raises(BundleError, match=r"^manifest.colour has 1 entries; expected 2"):
        strict.from_json(Grown, {"size": 1, "colour": [2]})
    with pytest.raises(BundleError, match=r"^manifest.size is missing"):
        strict.from_json(Grown, {"colour": None})
