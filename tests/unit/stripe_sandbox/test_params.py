"""Stripe's form encoding."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.stripe_sandbox.errors import ApiError
from local.stripe_sandbox.params import array, boolean, checked, integer, metadata, parse_form, record, text

_NAMES = st.text("abcdefgh_", min_size=1, max_size=6)
_TREES = st.dictionaries(
    _NAMES,
    st.recursive(
        st.text(max_size=10),
        lambda inner: st.lists(inner, min_size=1, max_size=4) | st.dictionaries(_NAMES, inner, min_size=1, max_size=4),
        max_leaves=8,
    ),
    max_size=4,
)


def _encoded(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _encoded(inner, f"{name}[{key}]" if name else key)]
    if isinstance(value, list):
        return [pair for i, inner in enumerate(value) for pair in _encoded(inner, f"{name}[{i}]")]
    return [(name, value)]


# Drawing trees takes a while on a busy machine, which says nothing about them.
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(_TREES)
def test_parsing_undoes_the_encoding_of_any_tree(tree: dict[str, Any]) -> None:
    assert parse_form(urlencode(_encoded(tree))) == tree


@pytest.mark.parametrize(
    ("form", "tree"),
    [
        ("a[]=1&a[]=2", {"a": ["1", "2"]}),
        (
            "items[][price]=p&items[][quantity]=2&items[][price]=q",
            {"items": [{"price": "p", "quantity": "2"}, {"price": "q"}]},
        ),
        ("a[10]=k&a[9]=j", {"a": ["j", "k"]}),
        ("name=%C3%BC&empty=", {"name": "ü", "empty": ""}),
    ],
)
def test_the_forms_of_the_command_line_are_understood(form: str, tree: dict[str, Any]) -> None:
    assert parse_form(form) == tree


@pytest.mark.parametrize("form", ["a[b=1", "[a]=1", "a]=1", "a=1&a[b]=2"])
def test_a_name_that_cannot_be_is_refused(form: str) -> None:
    with pytest.raises(ApiError):
        parse_form(form)


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_body_makes_the_parser_fail_otherwise(name: str, value: str) -> None:
    with contextlib.suppress(ApiError):
        parse_form(f"{name}={value}")


def test_an_unknown_name_deep_inside_is_named_in_full() -> None:
    fields = {"items": array(record({"price": text}))}
    with pytest.raises(ApiError) as caught:
        checked({"items": [{"price": "p"}, {"prize": "q"}]}, fields)
    assert (caught.value.code, caught.value.param) == ("parameter_unknown", "items[1][prize]")


def test_an_empty_string_unsets() -> None:
    fields = {"n": integer, "b": boolean, "t": text, "m": metadata}
    assert checked({"n": "", "b": "", "t": "", "m": ""}, fields) == {"n": None, "b": None, "t": None, "m": None}
