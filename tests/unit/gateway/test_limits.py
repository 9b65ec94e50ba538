"""Limits as REST callers read them."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.headers import rate_limit
from gateway.limits import tightest, windows
from tollway.quota.v1 import quota_pb2 as pb

QUOTA = pb.LimitState(name="month", used=2, limit=10, remaining=8, kind=pb.LIMIT_KIND_QUOTA)
UNLIMITED = pb.LimitState(name="month", used=2, kind=pb.LIMIT_KIND_QUOTA)


class Noon:
    def now(self) -> datetime:
        return datetime(2026, 7, 1, 12, tzinfo=UTC)


def cap(*, auto_stop: bool) -> pb.LimitState:
    return pb.LimitState(name="cap", used=2, limit=1, remaining=0, kind=pb.LIMIT_KIND_CAP, auto_stop=auto_stop)


def test_a_cap_that_only_warns_is_neither_the_tightest_limit_nor_in_a_header() -> None:
    stopping, warning = cap(auto_stop=True), cap(auto_stop=False)
    assert tightest([QUOTA, warning]) is QUOTA
    assert tightest([warning, UNLIMITED]) is UNLIMITED
    assert tightest([warning]) is None
    assert tightest([QUOTA, stopping]) is stopping
    assert rate_limit(windows([QUOTA, warning], Noon())) == {
        "RateLimit-Policy": '"month";q=10',
        "RateLimit": '"month";r=8',
    }
    assert "cap" in rate_limit(windows([QUOTA, stopping], Noon()))["RateLimit"]
