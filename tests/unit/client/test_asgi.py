"""What the middleware does with a request, held against the gateway's own answers."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from gateway.problems import Problem
from gateway.routes.usage import refusal
from tests.unit.client.fakes import Service, Wired, allowed, refused, rpc_error
from tollway.client import InvalidArgument, QuotaError, Unauthenticated
from tollway.client.asgi import QuotaMiddleware
from tollway.quota.v1 import quota_pb2 as pb

AWAY = rpc_error(grpc.StatusCode.UNAVAILABLE)


class App:
    """Answers 200 and remembers what came."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"yes")]})
            await send({"type": "http.response.body", "body": b"done"})


def account_of(scope: Any) -> str | None:
    found = dict(scope["headers"]).get(b"x-account")
    return found.decode("latin-1") if found is not None else None


async def get(service: Service, caller: str | None = "acct_1", **options: Any) -> tuple[httpx.Response, App]:
    app = App()
    named = {"meter": "messages", "account": account_of, **options}
    wrapped: Any = QuotaMiddleware(app, Wired(service, timeout_s=0.5), **named)
    headers = {"x-account": caller} if caller is not None else {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://service") as client:
        return await client.get("/things/ä b?q=1", headers=headers), app


async def test_an_allowed_request_reaches_the_app_and_carries_the_limits() -> None:
    reset = Timestamp()
    reset.FromDatetime(datetime.now(UTC) + timedelta(seconds=100))
    limits = [
        pb.LimitState(name='odd "näme"', used=1, limit=10, remaining=9, reset_time=reset),
        pb.LimitState(name="for_life", used=1, limit=50, remaining=49),
        pb.LimitState(name="unlimited", used=1),
    ]
    service = Service([allowed(limits=limits)])
    answer, app = await get(service, amount=3)
    assert (answer.status_code, answer.text, answer.headers["x-app"]) == (200, "done", "yes")
    assert answer.headers["ratelimit-policy"] == r'"odd \"n?me\"";q=10, "for_life";q=50'
    state, life = answer.headers["ratelimit"].split(", ")
    assert state in {rf'"odd \"n?me\"";r=9;t={left}' for left in (99, 100)}
    assert life == '"for_life";r=49'
    assert len(app.scopes) == 1
    asked = service.requests[0]
    assert (asked.account_id, asked.meter, asked.amount) == ("acct_1", "messages", 3)


@pytest.mark.parametrize("status", [402, 403, 429, 503])
async def test_a_refusal_is_the_gateways_problem_document(status: int) -> None:
    reset = Timestamp(seconds=4_000_000_000, nanos=5_000)
    response = refused(status, retry_after=Duration(seconds=41, nanos=1_000))
    response.decision.limits[0].reset_time.CopyFrom(reset)
    answer, app = await get(Service([response]))
    assert app.scopes == []
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    headers: dict[str, str] = {}
    theirs: Problem = refusal("messages", response.decision, headers, response.decision.refusal.billing_url)
    assert answer.json() == theirs.document("https://gateway.example", "/things/%C3%A4%20b")
    assert answer.headers["retry-after"] == headers["Retry-After"] == "42"
    assert answer.headers["ratelimit-policy"] == '"messages_per_month";q=100'


async def test_without_a_time_that_heals_it_a_refusal_names_none() -> None:
    answer, _ = await get(Service([refused()]))
    assert "retry-after" not in answer.headers
    assert answer.json()["resets_at"] is None


async def test_an_absent_quota_denies_with_503() -> None:
    answer, app = await get(Service([AWAY]))
    assert app.scopes == []
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["status"], answer.json()["reason"]) == (503, "unavailable")


async def test_by_policy_an_absent_quota_lets_through_and_says_so_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tollway.client"):
        answer, app = await get(Service([AWAY]), on_unavailable="allow")
    assert (answer.status_code, len(app.scopes)) == (200, 1)
    assert "messages by acct_1 passed without a decision" in caplog.text


async def test_the_policy_does_not_soften_a_refusal() -> None:
    answer, app = await get(Service([refused()]), on_unavailable="allow")
    assert (answer.status_code, app.scopes) == (402, [])


async def test_a_request_of_no_account_passes_uncounted() -> None:
    service = Service([refused()])
    answer, app = await get(service, caller=None)
    assert (answer.status_code, len(app.scopes), service.requests) == (200, 1, [])


async def test_an_account_may_be_looked_up_asynchronously() -> None:
    async def looked_up(_: Any) -> str:
        return "acct_9"

    async def nobody(_: Any) -> None:
        return None

    service = Service([allowed()])
    for find in (looked_up, nobody):
        answer, _ = await get(service, account=find)
        assert answer.status_code == 200
    assert [request.account_id for request in service.requests] == ["acct_9"]


async def test_a_caller_may_be_an_account_with_the_key_that_it_came_with() -> None:
    async def looked_up(_: Any) -> tuple[str, str]:
        return "acct_9", "key_7"

    service = Service([allowed()])
    for find in (looked_up, lambda _: ("acct_9", "key_7"), lambda _: "acct_9"):
        await get(service, account=find)
    asked = [(request.account_id, request.key_id) for request in service.requests]
    assert asked == [("acct_9", "key_7"), ("acct_9", "key_7"), ("acct_9", "")]


async def test_a_cap_that_only_warns_is_no_limit_in_the_headers() -> None:
    limits = [
        pb.LimitState(name="month", used=2, limit=10, remaining=8),
        pb.LimitState(name="warned", used=2, limit=1, kind=pb.LIMIT_KIND_CAP),
        pb.LimitState(name="stopped", used=2, limit=3, remaining=1, kind=pb.LIMIT_KIND_CAP, auto_stop=True),
    ]
    answer, _ = await get(Service([allowed(limits=limits)]))
    assert answer.headers["ratelimit-policy"] == '"month";q=10, "stopped";q=3'
    assert answer.headers["ratelimit"] == '"month";r=8, "stopped";r=1'


async def test_numbers_in_the_headers_have_at_most_the_digits_that_a_parser_takes() -> None:
    limits = [pb.LimitState(name="month", used=2, limit=2**62, remaining=2**62 - 2)]
    answer, _ = await get(Service([allowed(limits=limits)]))
    assert answer.headers["ratelimit-policy"] == '"month";q=999999999999999'
    assert answer.headers["ratelimit"] == '"month";r=999999999999999'


async def test_a_rate_is_free_again_within_its_window_whatever_was_rounded_up() -> None:
    burst = pb.LimitState(name="burst", kind=pb.LIMIT_KIND_RATE, used=4, limit=60, remaining=56)
    burst.window.FromSeconds(60)
    burst.reset_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=60.9))
    answer, _ = await get(Service([allowed(limits=[burst])]))
    assert answer.headers["ratelimit"] == '"burst";r=56;t=60'


UNKNOWN = rpc_error(
    grpc.StatusCode.NOT_FOUND, "There is no such account.", ErrorInfo(reason="ACCOUNT_NOT_FOUND", domain="tollway")
)
MALFORMED = rpc_error(
    grpc.StatusCode.INVALID_ARGUMENT,
    "account_id must have 1 to 255 characters.",
    ErrorInfo(reason="INVALID_ARGUMENT", domain="tollway"),
    BadRequest(field_violations=[BadRequest.FieldViolation(field="account_id")]),
)


@pytest.mark.parametrize("error", [UNKNOWN, MALFORMED])
async def test_an_account_that_quota_does_not_know_gets_403(error: Exception) -> None:
    answer, app = await get(Service([error]))
    assert (answer.status_code, answer.json()["reason"], app.scopes) == (403, "account_not_found", [])


@pytest.mark.parametrize(
    ("code", "kind"),
    [(grpc.StatusCode.UNAUTHENTICATED, Unauthenticated), (grpc.StatusCode.INVALID_ARGUMENT, InvalidArgument)],
)
async def test_a_wrong_configuration_is_loud_even_when_absence_is_allowed(
    code: grpc.StatusCode, kind: type[QuotaError]
) -> None:
    with pytest.raises(kind):
        await get(Service([rpc_error(code)]), on_unavailable="allow")


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_what_is_not_http_passes_untouched(kind: str) -> None:
    service, app = Service([refused()]), App()
    scope: dict[str, Any] = {"type": kind, "headers": [(b"x-account", b"acct_1")]}

    async def receive() -> Any:
        return {}

    async def send(_: Any) -> None:
        return None

    await QuotaMiddleware(app, Wired(service), meter="messages", account=account_of)(scope, receive, send)
    assert app.scopes[0] is scope
    assert service.requests == []


def test_a_policy_that_does_not_exist_is_refused_at_once() -> None:
    policy: Any = "maybe"
    with pytest.raises(ValueError, match="on_unavailable"):
        QuotaMiddleware(App(), Wired(Service([])), meter="m", account=account_of, on_unavailable=policy)


async def test_a_repeated_idempotency_key_of_the_caller_is_a_new_use() -> None:
    service = Service([allowed()])
    wrapped: Any = QuotaMiddleware(App(), Wired(service), meter="messages", account=account_of)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(wrapped), base_url="http://service") as client:
        for _ in range(2):
            await client.post("/", headers={"x-account": "acct_1", "idempotency-key": json.dumps("same")})
    assert len({request.request_id for request in service.requests}) == 2
