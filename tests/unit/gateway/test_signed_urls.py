"""Signed addresses: what was signed comes back whole, and nothing else is accepted."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.problems import Problem
from gateway.signed_urls import PATH, Grant, Signer
from tollway.quota.v1 import quota_pb2

BASE, SECRET = "https://api.example.com", "s" * 32
SIGNER = Signer(BASE, SECRET)
text = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1)
grants = st.builds(Grant, text, text, text, text, st.integers(0, 10**15 - 1))


def opened(url: str) -> tuple[str, dict[str, str]]:
    """What a server reads of an address: the object, decoded once, and the query."""
    parts = urlsplit(url)
    return unquote(parts.path.removeprefix(PATH)), dict(parse_qsl(parts.query, keep_blank_values=True))


@given(grants)
def test_what_was_signed_comes_back_whole(grant: Grant) -> None:
    assert SIGNER.verify(*opened(SIGNER.url(grant))) == grant


@given(grants, grants)
def test_no_address_opens_anything_else(grant: Grant, other: Grant) -> None:
    _, query = opened(SIGNER.url(grant))
    forged = {"account": other.account, "meter": other.meter, "lease": other.lease, "expires": str(other.expires)}
    for changed in (*({name: value} for name, value in forged.items()), forged):
        if all(query[name] == value for name, value in changed.items()):
            continue
        with pytest.raises(Problem, match="download_url_invalid"):
            SIGNER.verify(grant.object, query | changed)
    if other.object != grant.object:
        with pytest.raises(Problem, match="download_url_invalid"):
            SIGNER.verify(other.object, query)


@given(grants)
def test_another_installations_secret_signs_nothing_here(grant: Grant) -> None:
    with pytest.raises(Problem, match="download_url_invalid"):
        SIGNER.verify(*opened(Signer(BASE, "t" * 32).url(grant)))
    assert Signer(BASE, SECRET).verify(*opened(SIGNER.url(grant))) == grant, "every replica accepts it"


@given(st.integers(1, 10**10), st.integers(0, 999_999_999))
def test_an_address_lives_as_long_as_the_answer_that_carries_it_says(seconds: int, nanos: int) -> None:
    lease = quota_pb2.Lease(id="lease_1", meter="live_downloads")
    lease.expire_time.seconds, lease.expire_time.nanos = seconds, nanos
    grant = Grant.of(lease, "models/base.bin", "acct_1")
    assert (grant.object, grant.account, grant.meter, grant.lease) == (
        "models/base.bin",
        "acct_1",
        "live_downloads",
        "lease_1",
    )
    assert 0 <= grant.expires * 10**9 - (seconds * 10**9 + nanos) < 10**9


@pytest.mark.parametrize("expires", ["", "-1", "1.5", "١٢", "9" * 20, "x"])
def test_a_time_that_is_none_is_refused(expires: str) -> None:
    _, query = opened(SIGNER.url(Grant("a", "b", "c", "d", 1)))
    with pytest.raises(Problem, match="download_url_invalid"):
        SIGNER.verify("a", query | {"expires": expires})
