"""Gates an ASGI service (FastAPI, Starlette, Litestar, Quart, Django, …) behind its callers' plans.

quota = Quota("127.0.0.1:7102", token=os.environ["TOLLWAY_RPC_TOKEN"])
app = QuotaMiddleware(app, quota, meter="requests", account=account_of)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tollway.client import problem
from tollway.client.gate import Account, Blocked, Gate, OnUnavailable
from tollway.client.quota import Quota

__all__ = ["QuotaMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class QuotaMiddleware:
    """Counts `amount` units of `meter` before each HTTP request reaches `app`, and answers itself when refused.

    `account` finds the account's id in the ASGI scope, as a function or a coroutine function; None lets the request
    through uncounted: for health checks, and for callers that `app` itself turns away. For limits per API key it gives
    `(account_id, key_id)`: `return caller.account_id, caller.key_id`. Both must come from credentials that were
    checked, never from a header that the caller may write.

    Refused: an `application/problem+json` answer with the decision's status (402, 403, 429 or 503), `reason`, `used`,
    `limit`, `remaining`, `resets_at`, and the headers RateLimit-Policy, RateLimit and, if waiting helps, Retry-After.
    Allowed: `app` answers, and the RateLimit headers are added. An account that quota does not know gets 403
    `account_not_found`. When quota cannot be asked in its client's `timeout_s`: 503 (`on_unavailable="deny"`), or the
    request passes and is logged (`"allow"`). A meter that the plan lacks, or a token that is not accepted, raises: it
    is the operator's to mend. Lifespan and WebSocket pass untouched.
    """

    def __init__(
        self,
        app: Application,
        quota: Quota,
        *,
        meter: str,
        account: Callable[[Scope], Account],
        amount: int = 1,
        on_unavailable: OnUnavailable = "deny",
    ) -> None:
        self._app = app
        self._account = account
        self._gate = Gate(quota, meter, amount, on_unavailable)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        verdict = await self._gate.ask(self._account(scope))
        if verdict is None:
            await self._app(scope, receive, send)
        elif isinstance(verdict, Blocked):
            await _answer(send, *problem.blocked(verdict, scope["path"]))
        elif not verdict.allowed:
            await _answer(send, *problem.refusal(verdict, self._gate.meter, scope["path"]))
        else:
            await self._app(scope, receive, _adding(_raw(problem.rate_limit(verdict.limits)), send))


def _adding(headers: list[tuple[bytes, bytes]], send: Send) -> Send:
    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        await send(message)

    return adding


def _raw(headers: problem.Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers]


async def _answer(send: Send, document: dict[str, Any], headers: problem.Headers) -> None:
    content = problem.body(document)
    own = [
        ("Content-Type", problem.MEDIA_TYPE),
        ("Content-Length", str(len(content))),
        ("Cache-Control", "no-store"),
    ]
    await send({"type": "http.response.start", "status": document["status"], "headers": _raw(own + headers)})
    await send({"type": "http.response.body", "body": content})
