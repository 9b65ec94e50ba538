"""The interceptor in a real grpc.aio server: what callers of each kind of method are told."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc.error_details_pb2 import ErrorInfo, QuotaFailure, RetryInfo
from grpc_status import rpc_status

from tests.unit.client.fakes import Service, Wired, allowed, refused, rpc_error
from tollway.client.grpc import QuotaInterceptor

AWAY = rpc_error(grpc.StatusCode.UNAVAILABLE)
KINDS = ["UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream"]


@dataclass
class Methods:
    """One method of each kind; each call that reaches it is remembered."""

    reached: list[str] = field(default_factory=list)

    async def one(self, request: Any, _: Any) -> StringValue:
        texts = [request.value] if isinstance(request, StringValue) else [each.value async for each in request]
        self.reached.extend(texts)
        return StringValue(value="+".join(texts))

    async def many(self, request: Any, context: Any) -> AsyncIterator[StringValue]:
        yield await self.one(request, context)

    def handlers(self) -> dict[str, Any]:
        codec = (StringValue.FromString, StringValue.SerializeToString)
        return {
            "UnaryUnary": grpc.unary_unary_rpc_method_handler(self.one, *codec),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(self.many, *codec),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(self.one, *codec),
            "StreamStream": grpc.stream_stream_rpc_method_handler(self.many, *codec),
        }


def account_of(details: grpc.HandlerCallDetails) -> str | None:
    found = dict(details.invocation_metadata or ()).get("x-account")
    return None if found is None else str(found)


@contextlib.asynccontextmanager
async def gated(service: Service, **options: Any) -> AsyncIterator[tuple[grpc.aio.Channel, Methods]]:
    methods = Methods()
    named = {"meter": "messages", "account": account_of, **options}
    server = grpc.aio.server(interceptors=[QuotaInterceptor(Wired(service, timeout_s=0.5), **named)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Methods", methods.handlers()),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel, methods
    finally:
        await server.stop(0)


def method(channel: Any, kind: str) -> Any:
    makers = {
        "UnaryUnary": channel.unary_unary,
        "UnaryStream": channel.unary_stream,
        "StreamUnary": channel.stream_unary,
        "StreamStream": channel.stream_stream,
    }
    return makers[kind](f"/test.Methods/{kind}", StringValue.SerializeToString, StringValue.FromString)


def about(account: str | None) -> tuple[tuple[str, str], ...]:
    return (("x-account", account),) if account is not None else ()


async def call(channel: Any, kind: str = "UnaryUnary", account: str | None = "acct_1") -> str:
    async def both() -> AsyncIterator[StringValue]:
        yield StringValue(value="x")
        yield StringValue(value="y")

    request: Any = both() if kind.startswith("Stream") else StringValue(value="x")
    began = method(channel, kind)(request, timeout=10, metadata=about(account))
    if kind.endswith("Stream"):
        return "".join([each.value async for each in began])
    return str((await began).value)


async def refusal(channel: Any, kind: str = "UnaryUnary") -> tuple[grpc.aio.AioRpcError, dict[str, Any]]:
    # A stream is refused before anything is written into it.
    request = () if kind.startswith("Stream") else (StringValue(value="x"),)
    began = method(channel, kind)(*request, timeout=10, metadata=about("acct_1"))
    error = grpc.aio.AioRpcError(await began.code(), None, await began.trailing_metadata(), str(await began.details()))
    status = rpc_status.from_call(error)  # raises if code or text differ from the details'
    details: dict[str, Any] = {}
    for packed in status.details if status is not None else ():
        for known in (ErrorInfo, QuotaFailure, RetryInfo):
            if packed.Is(known.DESCRIPTOR):
                details[known.__name__] = known.FromString(packed.value)
    return error, details


@pytest.mark.parametrize("kind", KINDS)
async def test_an_allowed_rpc_of_any_kind_is_handled_and_counted_once(kind: str) -> None:
    service = Service([allowed()])
    async with gated(service, amount=2) as (channel, methods):
        assert await call(channel, kind) == ("x+y" if kind.startswith("Stream") else "x")
    assert methods.reached
    assert [(each.account_id, each.meter, each.amount) for each in service.requests] == [("acct_1", "messages", 2)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_rpc_of_any_kind_ends_before_it_is_handled(kind: str) -> None:
    async with gated(Service([refused(retry_after=Duration(seconds=41))])) as (channel, methods):
        error, details = await refusal(channel, kind)
    assert methods.reached == []
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "The month's messages are used up."
    info = details["ErrorInfo"]
    assert (info.reason, info.domain) == ("MESSAGE_QUOTA_EXCEEDED", "tollway")
    assert dict(info.metadata) == {
        "reason": "message_quota_exceeded",
        "http_status": "402",
        "meter": "messages",
        "binding_limit": "messages_per_month",
        "tier": "free",
        "used": "100",
        "limit": "100",
        "remaining": "0",
        "billing_url": "https://pay.example/billing",
        "support_contact": "mailto:help@example.com",
    }
    (violation,) = details["QuotaFailure"].violations
    assert (violation.quota_metric, violation.quota_id, violation.quota_value) == (
        "messages",
        "messages_per_month",
        100,
    )
    assert violation.description == error.details()
    assert details["RetryInfo"].retry_delay.seconds == 41


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (402, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (403, grpc.StatusCode.PERMISSION_DENIED),
        (429, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (503, grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_the_catalogs_status_chooses_the_code(status: int, code: grpc.StatusCode) -> None:
    async with gated(Service([refused(status)])) as (channel, _):
        error, details = await refusal(channel)
    assert error.code() is code
    assert set(details) == {"ErrorInfo", "QuotaFailure"}  # nothing says when: time does not heal it


async def test_an_absent_quota_is_unavailable_with_a_time_to_come_back() -> None:
    async with gated(Service([AWAY])) as (channel, methods):
        error, details = await refusal(channel)
    assert (error.code(), methods.reached) == (grpc.StatusCode.UNAVAILABLE, [])
    assert details["ErrorInfo"].reason == "UNAVAILABLE"
    assert details["RetryInfo"].retry_delay.seconds == 1


async def test_by_policy_an_absent_quota_lets_through_and_says_so_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tollway.client"):
        async with gated(Service([AWAY]), on_unavailable="allow") as (channel, _):
            assert await call(channel) == "x"
    assert "messages by acct_1 passed without a decision" in caplog.text


async def test_an_rpc_of_no_account_and_an_unknown_method_are_not_counted() -> None:
    service = Service([refused()])
    async with gated(service) as (channel, _):
        assert await call(channel, account=None) == "x"
        nothing: Any = channel.unary_unary("/test.Methods/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await nothing(b"", metadata=(("x-account", "acct_1"),))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert service.requests == []


async def test_a_caller_may_be_an_account_with_the_key_that_it_came_with() -> None:
    service = Service([allowed()])
    async with gated(service, account=lambda _: ("acct_9", "key_7")) as (channel, _):
        assert await call(channel) == "x"
    assert [(each.account_id, each.key_id) for each in service.requests] == [("acct_9", "key_7")]


async def test_an_account_that_quota_does_not_know_is_denied() -> None:
    unknown = rpc_error(grpc.StatusCode.NOT_FOUND, "No.", ErrorInfo(reason="ACCOUNT_NOT_FOUND", domain="tollway"))
    async with gated(Service([unknown])) as (channel, _):
        error, details = await refusal(channel)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert details["ErrorInfo"].reason == "ACCOUNT_NOT_FOUND"


async def test_a_wrong_configuration_is_logged_and_tells_callers_nothing(caplog: pytest.LogCaptureFixture) -> None:
    wrong = rpc_error(
        grpc.StatusCode.UNAUTHENTICATED, "Secret words.", ErrorInfo(reason="RPC_TOKEN_REQUIRED", domain="tollway")
    )
    async with gated(Service([wrong]), on_unavailable="allow") as (channel, methods):
        error, details = await refusal(channel)
    assert (error.code(), details, methods.reached) == (grpc.StatusCode.INTERNAL, {}, [])
    assert "Secret" not in str(error.details())
    assert "no decision for /test.Methods/UnaryUnary" in caplog.text
