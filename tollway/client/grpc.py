"""Gates a grpc.aio server behind its callers' plans.

quota = Quota("127.0.0.1:7102", token=os.environ["TOLLWAY_RPC_TOKEN"])
server = grpc.aio.server(interceptors=[QuotaInterceptor(quota, meter="requests", account=account_of)])
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.any_pb2 import Any as AnyProto
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from tollway.client.decision import Decision
from tollway.client.errors import DETAILS, DOMAIN
from tollway.client.gate import Account, Blocked, Gate, OnUnavailable
from tollway.client.quota import Quota

__all__ = ["QuotaInterceptor"]

log = logging.getLogger("tollway.client")

if TYPE_CHECKING:  # generic only there
    _Context = grpc.aio.ServicerContext[Any, Any]
    _Handler = grpc.RpcMethodHandler[Any, Any]
_CODES = {403: grpc.StatusCode.PERMISSION_DENIED, 503: grpc.StatusCode.UNAVAILABLE}


class QuotaInterceptor(grpc.aio.ServerInterceptor):
    """Counts `amount` units of `meter` before each RPC, unary or streaming, and ends it when refused.

    `account` finds the account's id in the call's details (method and metadata), as a function or a coroutine
    function; None lets the RPC through uncounted: for health checks, and for callers that the service itself turns
    away. For limits per API key it gives `(account_id, key_id)`: `return caller.account_id, caller.key_id`. Both must
    come from credentials that were checked.

    Refused: RESOURCE_EXHAUSTED, or PERMISSION_DENIED where the catalog says 403, or UNAVAILABLE where it says 503; with
    the catalog's sentence, ErrorInfo (the catalog's reason in capitals; `meter`, `used`, `limit`, `remaining`, … as
    metadata), QuotaFailure and, if waiting helps, RetryInfo. An account that quota does not know: PERMISSION_DENIED,
    ACCOUNT_NOT_FOUND. When quota cannot be asked in its client's `timeout_s`: UNAVAILABLE (`on_unavailable="deny"`), or
    the RPC passes and is logged (`"allow"`). A meter that the plan lacks, or a token that is not accepted, is logged
    and answered with INTERNAL: it is the operator's to mend.
    """

    def __init__(
        self,
        quota: Quota,
        *,
        meter: str,
        account: Callable[[grpc.HandlerCallDetails], Account],
        amount: int = 1,
        on_unavailable: OnUnavailable = "deny",
    ) -> None:
        self._account = account
        self._gate = Gate(quota, meter, amount, on_unavailable)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:  # no such method: nothing to count
            return None
        try:
            verdict = await self._gate.ask(self._account(handler_call_details))
        except Exception:
            # gRPC would send the exception's text to the caller.
            log.exception("no decision for %s", handler_call_details.method)
            return _ending(handler, grpc.StatusCode.INTERNAL, "Something went wrong on our side; it is in the log.", [])
        if verdict is None:
            return handler
        if isinstance(verdict, Blocked):
            details: list[Message] = [ErrorInfo(reason=_reason(verdict.reason), domain=DOMAIN)]
            details += _retry_info(verdict.retry_after)
        elif verdict.allowed:
            return handler
        else:
            details = _refusal(verdict, self._gate.meter)
        code = _CODES.get(verdict.http_status, grpc.StatusCode.RESOURCE_EXHAUSTED)
        return _ending(handler, code, verdict.detail, details)


def _refusal(decision: Decision, meter: str) -> list[Message]:
    binding = decision.binding
    facts = {
        "reason": decision.reason,
        "http_status": str(decision.http_status),
        "meter": meter,
        "binding_limit": decision.binding_limit,
        "tier": decision.tier,
        "billing_url": decision.billing_url,
        "support_contact": decision.support_contact,
    }
    violation = QuotaFailure.Violation(
        subject=f"meter:{meter}",
        description=decision.detail,
        api_service=DOMAIN,
        quota_metric=meter,
        quota_id=decision.binding_limit,
    )
    if binding is not None:
        facts["used"] = str(binding.used)
        if binding.limit is not None:
            facts |= {"limit": str(binding.limit), "remaining": str(binding.remaining or 0)}
            violation.quota_value = binding.limit
    shown = {name: value for name, value in facts.items() if value}
    return [
        ErrorInfo(reason=_reason(decision.reason), domain=DOMAIN, metadata=shown),
        QuotaFailure(violations=[violation]),
        *_retry_info(decision.retry_after),
    ]


def _retry_info(delay: timedelta | None) -> list[Message]:
    if delay is None:
        return []
    duration = Duration()
    duration.FromTimedelta(delay)
    return [RetryInfo(retry_delay=duration)]


def _reason(word: str) -> str:
    """UPPER_SNAKE_CASE, as google.rpc.ErrorInfo wants it."""
    return re.sub(r"[^A-Z0-9]+", "_", word.upper()).strip("_")


def _ending(handler: _Handler, code: grpc.StatusCode, message: str, details: list[Message]) -> _Handler:
    """A handler of the same kind as the real one, which ends the RPC before a message is read or parsed."""
    status = Status(code=code.value[0], message=message)
    for detail in details:
        packed = AnyProto()
        packed.Pack(detail)
        status.details.append(packed)
    trailing = ((DETAILS, status.SerializeToString()),) if details else ()

    async def end(_: Any, context: _Context) -> Any:
        await context.abort(code, message, trailing_metadata=trailing)

    async def end_stream(_: Any, context: _Context) -> AsyncIterator[Any]:
        await context.abort(code, message, trailing_metadata=trailing)
        yield  # never reached: it makes this a generator, which is what a streaming method is

    make: Any
    if handler.request_streaming:
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
    else:
        make = (
            grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
        )
    made: _Handler = make(end_stream if handler.response_streaming else end)
    return made
