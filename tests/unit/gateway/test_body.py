"""Reading JSON: one document, one meaning."""

# ruff: noqa: PT017 (both outcomes are right; which one is checked in each)

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from gateway.body import Body, Text, checked, is_json, parse
from gateway.problems import Problem

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Thing(Body):
    amount: int = Field(1, ge=1, le=2**62)
    name: Text = "x"


@given(VALUES)
def test_every_json_document_is_read_as_the_standard_library_reads_it(value: object) -> None:
    assert parse(json.dumps(value).encode()) == json.loads(json.dumps(value))


@given(st.binary())
def test_any_bytes_are_read_or_refused_and_never_fail(raw: bytes) -> None:
    try:
        parse(raw)
    except Problem as problem:
        assert problem.status == 400


@given(st.text(min_size=1, max_size=5))
def test_a_key_said_twice_at_any_depth_is_refused(key: str) -> None:
    twice = f"{{{json.dumps(key)}: 1, {json.dumps(key)}: 1}}"
    for raw in (twice, f"[{twice}]", f'{{"a": {{"b": {twice}}}}}'):
        with pytest.raises(Problem) as refused:
            parse(raw.encode())
        assert refused.value.code == "duplicate_key"


@given(st.integers(1, 2**62))
def test_every_count_up_to_two_to_the_62_is_accepted(amount: int) -> None:
    assert checked(Thing, {"amount": amount}).amount == amount


@given(
    st.integers(max_value=0) | st.integers(min_value=2**62 + 1) | st.floats() | st.booleans() | st.text() | st.none()
)
def test_everything_else_is_refused_naming_the_field(amount: object) -> None:
    with pytest.raises(Problem) as refused:
        checked(Thing, {"amount": amount})
    assert refused.value.fields[0][0] == "amount"
    assert refused.value.status == 422


@given(st.text())
def test_text_is_accepted_exactly_when_it_has_no_control_character(text: str) -> None:
    control = any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text)
    try:
        assert checked(Thing, {"name": text}).name == text
        assert not control
    except Problem as problem:
        assert control
        assert problem.fields[0][0] == "name"


def test_a_flood_of_wrong_members_gets_a_short_answer() -> None:
    with pytest.raises(Problem) as refused:
        checked(Thing, {"x" * 1000 + str(number): 1 for number in range(100)})
    assert len(json.dumps(refused.value.document("", ""))) < 6_000


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/json", True),
        ("APPLICATION/JSON;charset=utf-8", True),
        ('application/json; charset="UTF-8"', True),
        ("application/merge-patch+json", True),
        ("application/json; charset=latin-1", False),
        ("text/json", False),
        ("application/jsonp", False),
        ("", False),
    ],
)
def test_json_is_told_from_other_media_types(content_type: str, expected: bool) -> None:
    assert is_json(content_type) is expected
