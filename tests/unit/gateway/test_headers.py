"""Headers with a grammar."""

# ruff: noqa: PT017 (both outcomes are right; which one is checked in each)

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth import bearer
from gateway.headers import Window, client_address, parse_idempotency_key, rate_limit
from gateway.problems import Problem
from gateway.settings import parse_networks

KEYS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=255)
ADDRESSES = st.ip_addresses().map(str)
PROXIES = parse_networks("10.0.0.0/8, ::1")


@given(KEYS)
def test_a_quoted_key_is_the_text_inside(key: str) -> None:
    quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert parse_idempotency_key([quoted]) == key


@given(KEYS.filter(lambda key: not re.search(r'[ "]', key)))
def test_a_bare_key_is_itself_and_the_same_as_quoted(key: str) -> None:
    assert parse_idempotency_key([key]) == key
    if "\\" not in key:
        assert parse_idempotency_key([f'"{key}"']) == key


@given(st.lists(st.text(max_size=300), min_size=1, max_size=2))
def test_any_header_is_a_sane_key_or_refused(values: list[str]) -> None:
    try:
        key = parse_idempotency_key(values)
    except Problem as problem:
        assert problem.status == 422
        return
    assert len(values) == 1
    assert 0 < len(key) <= 255
    assert key.isascii()
    assert key.isprintable()


def test_a_policy_tells_a_rates_window_and_what_counts_at_once() -> None:
    headers = rate_limit([Window("burst", 60, 59, 60, 60), Window("slots", 25, 24, None, concurrent=True)])
    assert headers == {
        "RateLimit-Policy": '"burst";q=60;w=60, "slots";q=25;qu="concurrent-requests"',
        "RateLimit": '"burst";r=59;t=60, "slots";r=24',
    }


def test_rate_limit_headers_follow_the_draft() -> None:
    headers = rate_limit([Window("daily", 1000, 50, 30), Window('odd"name', 5, 0, None)])
    assert headers == {
        "RateLimit-Policy": '"daily";q=1000, "odd\\"name";q=5',
        "RateLimit": '"daily";r=50;t=30, "odd\\"name";r=0',
    }
    assert rate_limit([]) == {}
    # A time that was rounded up may be a second longer than the window.
    assert rate_limit([Window("burst", 60, 56, 61, 60)])["RateLimit"] == '"burst";r=56;t=60'


def test_no_number_of_a_rate_limit_header_has_more_digits_than_a_field_holds() -> None:
    huge, most = 2**62, 999_999_999_999_999  # RFC 9651, section 3.3.1
    headers = rate_limit([Window("burst", huge, huge, 30, 60), Window("slots", huge, most, None, concurrent=True)])
    assert headers == {
        "RateLimit-Policy": f'"burst";q={most};w=60, "slots";q={most};qu="concurrent-requests"',
        "RateLimit": f'"burst";r={most};t=30, "slots";r={most}',
    }


@given(ADDRESSES, st.lists(ADDRESSES, max_size=3))
def test_a_peer_that_is_no_proxy_is_the_caller_whatever_it_claims(peer: str, claimed: list[str]) -> None:
    mapped = getattr(ip_address(peer), "ipv4_mapped", None) or ip_address(peer)
    if not any(mapped in network for network in PROXIES):
        assert client_address(peer, [", ".join(claimed)], PROXIES) == str(mapped)


@given(st.lists(st.text(max_size=20), max_size=3), ADDRESSES)
def test_what_a_caller_writes_left_of_the_proxys_entry_changes_nothing(claimed: list[str], caller: str) -> None:
    plain = client_address("10.0.0.1", [caller], ())
    assert plain == "10.0.0.1"
    mapped = getattr(ip_address(caller), "ipv4_mapped", None) or ip_address(caller)
    if not any(mapped in network for network in PROXIES):
        assert client_address("10.0.0.1", [*claimed, caller], PROXIES) == str(mapped)


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9:4711"], "203.0.113.9"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9, 10.1.1.1"], "203.0.113.9"),
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, unknown, 10.1.1.1"], "10.1.1.1"),
        (["10.2.2.2"], "10.2.2.2"),
        ([""], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_forwarded_addresses_are_read_from_the_right(forwarded: list[str], expected: str) -> None:
    assert client_address("10.0.0.1", forwarded, PROXIES) == expected


def test_a_wrong_network_is_named() -> None:
    with pytest.raises(ValueError, match=r"'10\.0\.0\.0/99' is neither"):
        parse_networks("127.0.0.1, 10.0.0.0/99")


@given(st.lists(st.text(max_size=40), max_size=2))
def test_any_authorization_is_one_credential_or_401(values: list[str]) -> None:
    try:
        credential = bearer(values)
    except Problem as problem:
        assert problem.status == 401
        assert "WWW-Authenticate" in problem.headers
        return
    assert credential
    assert " " not in credential


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_read_in_any_case(scheme: str) -> None:
    assert bearer([f"{scheme} sk_live_x"]) == "sk_live_x"
