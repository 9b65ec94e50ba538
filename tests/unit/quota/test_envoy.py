"""Envoy's questions without Envoy: what is read from them, what is answered, and that the gateway says the same."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import UInt64Value
from hypothesis import given
from hypothesis import strategies as st

from gateway import problems as gateway_problems
from gateway.problem_types import KNOWN
from gateway.routes.usage import refusal as gateway_refusal
from services.kit import errors
from services.kit.errors import InvalidArgument
from services.quota.answers import to_message
from services.quota.domain import (
    Account,
    Decision,
    Kind,
    LimitState,
    Opened,
    Outcome,
    Period,
    Refusal,
    Refused,
    Use,
    settle,
)
from services.quota.envoy import answers, ext_authz, ratelimit
from services.quota.envoy.ext_authz import Authorization
from services.quota.envoy.ratelimit import RateLimitService
from services.quota.errors import (
    ApiKeyRefused,
    BillingUnavailable,
    CounterFull,
    Expired,
    GrantReversed,
    QueueFull,
    StoreUnavailable,
)
from services.quota.ports import KeyOwner
from tests.unit.quota.plans import NOW, account, limit, plan
from tollway.envoy.auth.v3 import external_auth_pb2 as auth_pb
from tollway.envoy.ratelimit.v3 import rls_pb2 as rls

URL = "https://api.example.com"


class FixedClock:
    def now(self) -> datetime:
        return NOW


class Lane:
    """ports.Decider over accounts in memory; it can be made to fail, or to say nothing."""

    def __init__(self, *accounts: Account) -> None:
        self.accounts = {each.id: each for each in accounts}
        self.granted: dict[Any, Any] = {}
        self.uses: list[Use] = []
        self.failure: errors.TollwayError | None = None
        self.silent = False

    async def decide(self, uses: Sequence[Use], time_left_s: float | None) -> list[Outcome]:
        if self.silent:
            await asyncio.Event().wait()
        if self.failure is not None:
            return [self.failure for _ in uses]
        self.uses.extend(uses)
        settled = settle(uses, Opened(NOW, self.accounts, self.granted), lambda: f"\x1f{len(self.granted)}")
        return settled.outcomes

    def used(self) -> int:
        """Units counted of all accounts and meters."""
        return sum(each.used(name, Period.MONTH) for each in self.accounts.values() for name in each.plan.meters)


class Nobody:
    async def learn(self, account_ids: Iterable[str]) -> set[str]:
        return set()


class Keys:
    async def owner(self, api_key: str) -> KeyOwner:
        if api_key == "away":
            raise BillingUnavailable
        if api_key == "gone":
            return KeyOwner("acct_gone", "key_gone", "live")
        if api_key != "good":
            raise ApiKeyRefused("This API key is not known.")
        return KeyOwner("acct_a", "key_a", "live")


class Call:
    """As much of a gRPC context as is asked for."""

    def __init__(self, left_s: float | None = None) -> None:
        self.left_s = left_s

    def time_remaining(self) -> float | None:
        return self.left_s


def parts(lane: Lane) -> tuple[Any, ...]:
    return lane, Nobody(), Keys(), FixedClock(), URL


def asked(
    headers: dict[str, str] | None = None, number: str = "17", path: str = "/v1/x?key=secret", **route: str
) -> auth_pb.CheckRequest:
    http = auth_pb.AttributeContext.HttpRequest(
        id=number, method="GET", path=path, headers={"authorization": "Bearer good"} if headers is None else headers
    )
    return auth_pb.CheckRequest(
        attributes=auth_pb.AttributeContext(
            request=auth_pb.AttributeContext.Request(http=http), context_extensions={"meter": "messages"} | route
        )
    )


async def check(lane: Lane, request: auth_pb.CheckRequest, left_s: float | None = None) -> auth_pb.CheckResponse:
    return await Authorization(*parts(lane)).Check(request, Call(left_s))  # type: ignore[arg-type]


def told(response: auth_pb.CheckResponse) -> tuple[int, str]:
    """Status and code; (200, "") when it passes."""
    if response.status.code == 0:
        assert response.HasField("ok_response")
        return 200, ""
    denied = response.denied_response
    document = json.loads(denied.body)
    assert document["status"] == denied.status.code
    return denied.status.code, document["code"]


async def test_a_pass_counts_what_the_route_says() -> None:
    lane = Lane(account(plan(limit(most=5))))
    assert told(await check(lane, asked(amount="3"))) == (200, "")
    assert told(await check(lane, asked(number="18", amount="3"))) == (402, "used_up")
    assert [use.amount for use in lane.uses] == [3, 3]


async def test_envoys_repeated_question_is_counted_once_and_another_request_is_not_free() -> None:
    lane = Lane(account(plan(limit(most=2))))
    same = {"authorization": "Bearer good", "x-request-id": "same", "idempotency-key": "same"}
    answers_ = [told(await check(lane, asked(same, number)))[0] for number in ("1", "1", "2", "3")]
    assert answers_ == [200, 200, 200, 402]


async def test_a_trusted_key_and_envoys_number_never_meet() -> None:
    lane = Lane(account(plan(limit(most=9))))
    await check(lane, asked(number="7"))
    await check(lane, asked({"authorization": "Bearer good", "idempotency-key": "7"}, trust_idempotency_key="true"))
    await check(lane, asked(number="8", trust_idempotency_key="true"))
    assert [use.key for use in lane.uses] == ["envoy:7", "client:7", "envoy:8"]


async def test_a_reused_key_for_another_amount_is_422() -> None:
    lane = Lane(account(plan(limit(most=9))))
    headers = {"authorization": "Bearer good", "idempotency-key": "k"}
    assert told(await check(lane, asked(headers, trust_idempotency_key="true")))[0] == 200
    again = await check(lane, asked(headers, trust_idempotency_key="true", amount="2"))
    assert told(again) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(
    "route",
    [{"meter": ""}, {"amount": "0"}, {"amount": "-1"}, {"amount": "1.5"}, {"amount": "²"}, {"amount": "9" * 40},
     {"amount": str(2**62 + 1)}, {"amount": ""}, {"meter": "nonsense"}],
)  # fmt: skip
async def test_a_route_that_says_nothing_usable_gives_nothing_away(route: dict[str, str]) -> None:
    lane = Lane(account(plan(limit())))
    assert told(await check(lane, asked(**route))) == (500, "route_misconfigured")
    assert lane.used() == 0


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "unauthenticated"),
        ({"authorization": ""}, "authorization_malformed"),
        ({"authorization": "Bearer"}, "authorization_malformed"),
        ({"authorization": "Bearer a b"}, "authorization_malformed"),
        ({"authorization": "Basic good"}, "authorization_malformed"),
        ({"authorization": "Bearer other"}, "api_key_unknown"),
    ],
)
async def test_credentials_that_are_none_are_401(headers: dict[str, str], code: str) -> None:
    response = await check(Lane(), asked(headers))
    assert told(response) == (401, code)
    fields = {each.header.key: each.header.value for each in response.denied_response.headers}
    assert ("error=" in fields["www-authenticate"]) is (code != "unauthenticated")


async def test_raw_headers_are_read_too_and_two_credentials_are_refused() -> None:
    lane = Lane(account(plan(limit())))
    request = asked({})
    headers = request.attributes.request.http.header_map.headers
    headers.add(key="Authorization", raw_value=b"Bearer good")
    assert told(await check(lane, request)) == (200, "")
    headers.add(key="authorization", raw_value=b"Bearer other")
    assert told(await check(lane, request)) == (401, "authorization_malformed")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (StoreUnavailable(), 503, "store_unavailable"),
        (QueueFull(), 503, "queue_full"),
        (errors.TollwayError("text that is nobody's business"), 500, "internal"),
    ],
)
async def test_what_stops_a_decision_is_told_as_a_status(failure: errors.TollwayError, status: int, code: str) -> None:
    lane = Lane(account(plan(limit())))
    lane.failure = failure
    response = await check(lane, asked())
    assert told(response) == (status, code)
    assert "nobody's business" not in response.denied_response.body
    fields = {each.header.key: each.header.value for each in response.denied_response.headers}
    assert ("retry-after" in fields) is (status == 503)


async def test_an_account_that_is_gone_and_a_billing_that_is_away() -> None:
    assert told(await check(Lane(), asked({"authorization": "Bearer gone"}))) == (403, "account_not_found")
    assert told(await check(Lane(), asked({"authorization": "Bearer away"}))) == (503, "billing_unavailable")


async def test_before_envoys_deadline_the_client_gets_an_answer() -> None:
    lane = Lane()
    lane.silent = True
    assert told(await check(lane, asked(), ext_authz.MARGIN_S + 0.02)) == (503, "deadline_exceeded")


async def test_a_document_names_the_path_and_never_the_query() -> None:
    body = json.loads((await check(Lane(), asked({}))).denied_response.body)
    assert body["instance"] == "/v1/x"


SECONDS = st.integers(0, 10**7)
STATES = st.builds(
    LimitState,
    name=st.sampled_from(["messages", "burst"]),
    used=st.integers(0, 2**40),
    limit=st.none() | st.integers(0, 2**40),
    reset=st.none() | SECONDS.map(lambda s: datetime(2026, 11, 22, tzinfo=UTC) + timedelta(seconds=s)),
)
REFUSED = st.builds(
    Refused,
    limit=st.sampled_from(["messages", "kill_switch"]),
    refusal=st.builds(
        Refusal,
        reason=st.just("used_up"),
        http_status=st.sampled_from([402, 403, 429, 503, 418]),
        detail=st.just("No."),
    ),
    billing_url=st.sampled_from(["", "https://pay.example"]),
    support_contact=st.sampled_from(["", "mailto:help@example.com"]),
    retry_after=st.none() | SECONDS.map(lambda s: timedelta(seconds=s, milliseconds=500)),
)


@given(STATES, REFUSED)
def test_a_refusal_reads_as_at_the_gateway(state: LimitState, refused: Refused) -> None:
    decision = Decision("pro", 3, [state], refused)
    ours = answers.of_decision("messages", decision, NOW)
    theirs = gateway_refusal("messages", to_message(decision), {}, refused.billing_url)
    assert json.loads(ours.body(instance="/x")) == theirs.document(URL, "/x")
    assert ours.headers.get("Retry-After") == theirs.headers.get("Retry-After")


@pytest.mark.parametrize("error", [ApiKeyRefused.malformed(), ApiKeyRefused("Unknown."), StoreUnavailable()])
def test_an_error_reads_as_at_the_gateway(error: errors.TollwayError) -> None:
    ours, theirs = answers.of_error(error, URL), gateway_problems.from_error(error)
    assert json.loads(ours.body(instance="/x")) == theirs.document(URL, "/x")
    assert ours.headers == theirs.headers


def test_titles_are_the_gateways() -> None:
    stops = [CounterFull("messages"), GrantReversed(), QueueFull(), StoreUnavailable(), BillingUnavailable(), Expired()]
    assert {error.error_reason.lower() for error in stops} <= answers.TITLES.keys()
    assert {code: KNOWN[code].title for code in answers.TITLES} == answers.TITLES


def descriptor(hits: int | None = None, **entries: str) -> rls.RateLimitDescriptor:
    found = rls.RateLimitDescriptor(
        entries=[rls.RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries.items()]
    )
    if hits is not None:
        found.hits_addend.CopyFrom(UInt64Value(value=hits))
    return found


async def limited(lane: Lane, *descriptors: rls.RateLimitDescriptor, hits: int = 0) -> rls.RateLimitResponse:
    request = rls.RateLimitRequest(domain="d", descriptors=descriptors, hits_addend=hits)
    return await RateLimitService(*parts(lane)).ShouldRateLimit(request, Call())  # type: ignore[arg-type]


@pytest.mark.parametrize(("own", "shared", "units"), [(None, 0, 1), (None, 3, 3), (2, 3, 2), (0, 3, 0)])
async def test_a_descriptors_hits_win_over_the_requests(own: int | None, shared: int, units: int) -> None:
    lane = Lane(account(plan(limit(most=10))))
    answer = await limited(lane, descriptor(own, account="acct_a", meter="messages"), hits=shared)
    assert answer.overall_code == rls.RateLimitResponse.OK
    assert lane.used() == units


async def test_a_key_may_come_as_the_authorization_header_has_it() -> None:
    lane = Lane(account(plan(limit(most=10))))
    for value in ("good", "Bearer good", "bearer good"):
        answer = await limited(lane, descriptor(api_key=value, meter="messages"))
        assert answer.overall_code == rls.RateLimitResponse.OK
    for value in ("Basic good", "other", "Bearer  ", "gone", "", " "):
        answer = await limited(lane, descriptor(api_key=value, meter="messages"))
        assert answer.overall_code == answer.statuses[0].code == rls.RateLimitResponse.OVER_LIMIT
    assert lane.used() == 3


async def test_a_status_tells_limit_left_and_reset() -> None:
    lane = Lane(account(plan(limit(most=2**40), limit("total", 3, meters=("messages", "calls")))))
    status = (await limited(lane, descriptor(account="acct_a", meter="messages"))).statuses[0]
    assert (status.current_limit.name, status.current_limit.requests_per_unit, status.limit_remaining) == (
        "total",
        3,
        2,
    )
    assert status.duration_until_reset.ToTimedelta() == datetime(2026, 12, 1, tzinfo=UTC) - NOW
    wide = Lane(account(plan(limit(most=2**40))))
    status = (await limited(wide, descriptor(account="acct_a", meter="messages"))).statuses[0]
    assert status.current_limit.requests_per_unit == status.limit_remaining == ratelimit.UINT32_MAX
    free = Lane(account(plan(limit(most=None))))
    status = (await limited(free, descriptor(account="acct_a", meter="messages"))).statuses[0]
    assert not status.HasField("current_limit")


async def test_of_several_descriptors_one_that_refuses_stops_all() -> None:
    roomy, full = account(plan(limit(most=10))), replace(account(plan(limit(most=0))), id="acct_b")
    lane = Lane(roomy, full)
    answer = await limited(
        lane, descriptor(account="acct_a", meter="messages"), descriptor(account="acct_b", meter="messages")
    )
    assert answer.overall_code == rls.RateLimitResponse.OVER_LIMIT
    assert [status.code for status in answer.statuses] == [rls.RateLimitResponse.OK, rls.RateLimitResponse.OVER_LIMIT]
    assert json.loads(answer.raw_body)["code"] == "used_up"
    assert lane.used() == 0
    answer = await limited(lane, *[descriptor(account="acct_a", meter=meter) for meter in ("messages", "calls")])
    assert (answer.overall_code, lane.used()) == (rls.RateLimitResponse.OK, 2)


async def test_a_limit_that_several_descriptors_share_stands_once_in_a_header_as_the_last_left_it() -> None:
    shared = limit("total", 30, meters=("messages", "calls"))
    lane = Lane(account(plan(limit(most=100), limit("calls", 50, meters=("calls",)), shared)))
    answer = await limited(lane, *[descriptor(account="acct_a", meter=meter) for meter in ("messages", "calls")])
    fields = {each.key: each.value for each in answer.response_headers_to_add}
    assert fields["ratelimit-policy"] == '"messages";q=100, "total";q=30, "calls";q=50'
    assert re.findall(r'"(\w+)";r=(\d+)', fields["ratelimit"]) == [("messages", "99"), ("total", "28"), ("calls", "49")]


async def test_two_accounts_limits_of_one_name_both_stand_in_a_header() -> None:
    lane = Lane(account(plan(limit(most=10))), replace(account(plan(limit(most=20))), id="acct_b"))
    answer = await limited(lane, *[descriptor(account=each, meter="messages") for each in ("acct_a", "acct_b")])
    fields = {each.key: each.value for each in answer.response_headers_to_add}
    assert re.findall(r'"(\w+)";r=(\d+)', fields["ratelimit"]) == [("messages", "9"), ("messages", "19")]


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [descriptor()],
        [descriptor(meter="messages")],
        [descriptor(account="acct_a")],
        [descriptor(account="", meter="messages")],
        [descriptor(account="acct_a", api_key="good", meter="messages")],
        [descriptor(account="acct_a", meter="nonsense")],
        [descriptor(2**64 - 1, account="acct_a", meter="messages")],
        [descriptor(account="a\x00b", meter="messages")],
    ],
)
async def test_what_is_no_descriptor_is_envoys_failure_mode(wrong: list[rls.RateLimitDescriptor]) -> None:
    lane = Lane(account(plan(limit())))
    with pytest.raises(InvalidArgument):
        await limited(lane, *wrong)
    assert lane.used() == 0


def test_what_cannot_refuse_a_use_is_neither_the_tightest_nor_a_warning_cap_in_a_header() -> None:
    quota = LimitState("month", 5, 10, None)
    slots = LimitState("slots", 25, 25, None, kind=Kind.CONCURRENCY)
    warning = LimitState("cap", 9, 3, None, kind=Kind.CAP, auto_stop=False)
    stopping = LimitState("cap", 2, 3, None, kind=Kind.CAP, auto_stop=True)
    assert answers.tightest([quota, slots, warning]) is quota
    assert answers.tightest([quota, slots, stopping]) is stopping
    assert "cap" not in answers.limit_headers([quota, warning], NOW)["RateLimit"]
    assert "cap" in answers.limit_headers([quota, stopping], NOW)["RateLimit"]
