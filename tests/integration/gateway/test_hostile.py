"""Bad input of every kind is a problem document that tells nothing of the inside."""

from __future__ import annotations

import asyncio
import json
import string

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import body
from gateway.routes import webhooks
from services.kit import errors
from tests.integration.gateway.conftest import Stack, standing
from tests.integration.gateway.test_routes import WHO, assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")
JSON = {"Content-Type": "application/json"}


async def signup(stack: Stack, content: bytes, **headers: str):
    return await stack.http.post("/v1/signup", content=content, headers={**JSON, **headers})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nope",
        b'{"email": NaN}',
        b'{"email": "a@b.c", "name": "x"} trailing',
        b"\xff\xfe{}",
        b'\xef\xbb\xbf{"email": "a@b.c", "name": "x"}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
    ],
    ids=["empty", "cut", "word", "nan", "trailing", "not-utf8", "bom", "deep-list", "deep-object"],
)
async def test_what_is_not_json_is_400(stack: Stack, content: bytes) -> None:
    assert_problem(await signup(stack, content), 400, "malformed_json")


async def test_a_key_said_twice_is_400(stack: Stack) -> None:
    answer = await signup(stack, b'{"email": "a@example.com", "name": "x", "email": "b@example.com"}')
    assert_problem(answer, 400, "duplicate_key")


@pytest.mark.parametrize("content", [b"null", b"[]", b'"text"', b"1", b"true"])
async def test_json_that_is_no_object_is_422(stack: Stack, content: bytes) -> None:
    assert_problem(await signup(stack, content), 422, "validation_failed")


@pytest.mark.parametrize("bad", ["a\x00b", "a\nb", "a\x1bb", "a\x7fb", "\x85", "\ud800"])
async def test_control_characters_and_broken_text_are_refused_by_name(stack: Stack, bad: str) -> None:
    answer = await signup(stack, json.dumps({"email": "ada@example.com", "name": bad}).encode())
    assert_problem(answer, 422, "validation_failed", field="name")
    assert stack.billing.fault.calls["CreateAccount"] == 0


async def test_a_member_whose_name_is_broken_text_is_refused(stack: Stack) -> None:
    answer = await signup(stack, b'{"email": "a@example.com", "name": "x", "\\ud800\\u0000": 1}')
    assert_problem(answer, 422, "validation_failed")


async def test_values_are_never_repeated_in_a_refusal(stack: Stack) -> None:
    answer = await stack.http.post("/v1/signup", json={"email": ["sk_live_secretsecretsecret"], "name": "x"})
    assert "sk_live" not in answer.text


async def test_a_body_over_64_kib_is_413_with_or_without_a_length(stack: Stack) -> None:
    large = json.dumps({**WHO, "name": "x" * 70_000}).encode()
    assert_problem(await signup(stack, large), 413, "body_too_large")

    async def chunks():
        for start in range(0, len(large), 8192):
            yield large[start : start + 8192]

    answer = await stack.http.post("/v1/signup", content=chunks(), headers=JSON)
    assert_problem(answer, 413, "body_too_large")
    assert (await stack.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16", "json", ""]
)
async def test_another_media_type_is_415(stack: Stack, content_type: str) -> None:
    answer = await stack.http.post(
        "/v1/signup", content=json.dumps(WHO).encode(), headers={"Content-Type": content_type}
    )
    assert_problem(answer, 415, "unsupported_media_type")


async def test_a_charset_of_utf_8_and_capitals_in_the_media_type_are_accepted(stack: Stack) -> None:
    answer = await signup(stack, json.dumps(WHO).encode(), **{"Content-Type": "Application/JSON; charset=UTF-8"})
    assert answer.status_code == 201


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/usage/", "/v1//usage", "/V1/usage", "/..%2f..%2fetc/passwd", "/%00"])
async def test_an_unknown_path_is_404_and_known_ones_are_exact(stack: Stack, path: str) -> None:
    answer = await stack.http.get(path)
    if path == "/":
        assert answer.status_code == 200
        return
    assert_problem(answer, 404, "route_not_found")


async def test_another_method_is_405_and_lists_those_that_work(stack: Stack) -> None:
    answer = await stack.http.delete("/v1/usage")
    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert_problem(await stack.http.request("BREW", "/healthz"), 405, "method_not_allowed")


async def test_head_is_get_without_the_body(stack: Stack) -> None:
    answer = await stack.http.head("/v1/plans")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len((await stack.http.get("/v1/plans")).content)


@pytest.mark.parametrize("value", ["", '""', '"a', 'a"b', "x" * 256, "a b", '"a\\b"', '"a";x=1'])
async def test_a_wrong_idempotency_key_is_refused_by_name(stack: Stack, value: str) -> None:
    answer = await stack.http.post("/v1/signup", json=WHO, headers={"Idempotency-Key": value})
    assert_problem(answer, 422, "idempotency_key_invalid", field="Idempotency-Key")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "unauthenticated"),
        ("", "authorization_malformed"),
        ("Bearer", "authorization_malformed"),
        ("Basic c2s6", "authorization_malformed"),
        ("Bearer a b", "authorization_malformed"),
        ("sk_live_abcdefghijklmnop", "authorization_malformed"),
        ("Bearer sk", "api_key_malformed"),
        ("Bearer " + "k" * 5000, "api_key_malformed"),
        ("Bearer sk_live_'; DROP TABLE--", "authorization_malformed"),
        ("Bearer sk_live_';DROPTABLE--", "api_key_malformed"),
        ("Bearer sk_live_unknownunknownunknown", "api_key_unknown"),
    ],
)
async def test_bad_credentials_are_401_with_a_challenge(stack: Stack, value: str | None, code: str) -> None:
    answer = await stack.http.get("/v1/billing", headers={} if value is None else {"Authorization": value})
    assert_problem(answer, 401, code)
    assert answer.headers["www-authenticate"].startswith('Bearer realm="tollway"')
    assert ("error=" in answer.headers["www-authenticate"]) is (value is not None)
    if value and len(value) > 12:
        assert value[7:] not in answer.text


async def test_two_authorization_headers_are_refused(stack: Stack) -> None:
    _, auth = stack.account()
    both = [("Authorization", auth["Authorization"]), ("Authorization", "Bearer sk_live_other_other_other")]
    assert_problem(await stack.http.get("/v1/billing", headers=both), 401, "authorization_malformed")


async def test_credentials_are_asked_before_the_body_is_read(stack: Stack) -> None:
    answer = await stack.http.post("/v1/usage", content=b"{", headers=JSON)
    assert_problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("SELECT secret FROM /srv/app/main.py"), 500, "internal"),
        (errors.TollwayError("SELECT secret"), 500, "internal"),
        (errors.Unauthenticated("wrong token", reason="RPC_TOKEN_REQUIRED"), 500, "internal"),
        (errors.Aborted("Under way."), 409, "aborted"),
        (errors.NotFound("No such account.", reason="ACCOUNT_NOT_FOUND"), 404, "account_not_found"),
        (errors.Unavailable("Stripe did not answer.", reason="STRIPE_UNAVAILABLE"), 503, "stripe_unavailable"),
        (errors.DeadlineExceeded("It took too long."), 504, "deadline_exceeded"),
    ],
)
async def test_what_a_service_raises_becomes_a_problem_without_its_inside(
    stack: Stack, error: Exception, status: int, code: str
) -> None:
    _, auth = stack.account()
    stack.billing.fault.errors["GetBilling"] = error
    answer = await stack.http.get("/v1/billing", headers=auth)
    assert_problem(answer, status, code)
    assert "SELECT" not in answer.text
    assert ".py" not in answer.text
    assert ("retry-after" in answer.headers) is (status in {503, 504})


async def test_a_failure_of_our_own_code_is_500_and_is_logged_without_being_told(stack: Stack) -> None:
    account_id, auth = stack.account()
    stack.billing.states[account_id].default_tier = False
    stack.billing.states[account_id].current_period_end.seconds = 2**60  # no calendar has that year
    with structlog.testing.capture_logs() as logged:
        answer = await stack.http.get("/v1/billing", headers=auth)
    body = assert_problem(answer, 500, "internal")
    assert set(body) == {"type", "title", "status", "detail", "instance", "code", "request_id"}
    failure, line = logged
    assert (failure["event"], failure["exc_info"]) == ("request.failed", True)
    assert (line["status"], line["error"], line["account_id"]) == (500, "OverflowError", account_id)


async def test_a_sane_request_id_is_kept_and_another_replaced(stack: Stack) -> None:
    kept = await stack.http.get("/healthz", headers={"X-Request-Id": "order-4711.a_b"})
    assert kept.headers["x-request-id"] == "order-4711.a_b"
    for bad in ("", "a b", "x" * 129, "<script>", "a,b"):
        made = (await stack.http.get("/healthz", headers={"X-Request-Id": bad})).headers["x-request-id"]
        assert made.startswith("req_")


async def test_a_webhook_that_billing_does_not_store_in_time_is_503(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "INGEST_S", 0.2)
    stack.billing.fault.delays["IngestWebhook"] = 60
    answer = await stack.http.post("/webhooks/stripe", content=b"{}", headers={"Stripe-Signature": "t=1,v1=good"})
    assert_problem(answer, 503, "unavailable")


async def test_a_body_that_does_not_come_is_408(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "READ_S", 0.2)
    answer = await raw(
        stack,
        b"POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    )
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"code":"body_timeout"' in answer


async def raw(stack: Stack, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad\x00Name: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000,
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
    ids=["tls", "nul", "large-head", "not-ascii", "negative-length", "two-lengths", "no-host", "bad-chunk"],
)
async def test_bytes_that_are_no_http_are_400_and_a_problem_too(stack: Stack, request_bytes: bytes) -> None:
    head, _, body = (await raw(stack, request_bytes)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "malformed_http"


async def test_a_caller_who_leaves_in_the_middle_of_the_body_is_no_failure_of_ours(stack: Stack) -> None:
    with structlog.testing.capture_logs() as logged:
        _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
        head = b"POST /v1/signup HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        writer.write(head)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with asyncio.timeout(10):
            while not any(line["route"] == "/v1/signup" for line in logged):
                await stack.http.get("/healthz")
    assert [(line["status"], line["log_level"]) for line in logged if line["route"] == "/v1/signup"] == [(499, "info")]


PRINTABLE = st.text(max_size=40) | st.sampled_from(["a@example.com", "messages", "pro", "sk_live_" + "a" * 33])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | PRINTABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PRINTABLE, inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(
    st.sampled_from(["email", "name", "meter", "amount", "tier", "success_url", "cancel_url", "return_url"])
    | PRINTABLE,
    VALUES,
    max_size=4,
)
HEADER = st.text(string.printable.strip(), max_size=30)
ROUTES = st.sampled_from(
    [
        "/v1/signup",
        "/v1/auth/token",
        "/v1/usage",
        "/v1/billing/checkout",
        "/v1/billing/portal",
        "/webhooks/stripe",
    ]
)


async def test_no_request_whatever_gets_a_500_or_an_undocumented_answer() -> None:
    async with standing() as stack:
        _, auth = stack.account()
        described = (await stack.http.get("/openapi.json")).json()["paths"]
        loop = asyncio.get_running_loop()

        @settings(
            max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.nested_given]
        )
        @given(
            route=ROUTES,
            content=BODIES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=200),
            authenticated=st.booleans(),
            key=st.none() | HEADER,
            signature=st.none() | HEADER,
        )
        def fuzz(route: str, content: bytes, authenticated: bool, key: str | None, signature: str | None) -> None:
            headers = {**JSON, **(auth if authenticated else {})}
            if key is not None:
                headers["Idempotency-Key"] = key
            if signature is not None:
                headers["Stripe-Signature"] = signature
            sent = stack.http.post(route, content=content, headers=headers)
            answer = asyncio.run_coroutine_threadsafe(sent, loop).result(30)
            assert answer.status_code < 500, answer.text
            assert str(answer.status_code) in described[route]["post"]["responses"]
            if answer.status_code >= 400:
                assert answer.json()["code"]
                assert answer.headers["content-type"] == "application/problem+json"

        await asyncio.to_thread(fuzz)
