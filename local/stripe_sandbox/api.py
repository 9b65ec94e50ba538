"""The API's front: authentication, parameters, idempotency, faults, one transaction per request, Stripe's envelopes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from dataclasses import dataclass, field
from typing import NoReturn

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from . import (  # noqa: F401 - importing a noun registers its routes
    API_VERSION,
    account,
    checkout,
    checkout_payment,
    coupons,
    customer_balance,
    customers,
    disputes,
    events,
    idempotency,
    ids,
    invoice_items,
    invoice_payments,
    invoice_preview,
    invoices,
    meter_events,
    meters,
    payment_intents,
    payment_methods,
    portal,
    prices,
    products,
    promotion_codes,
    refunds,
    setup_intents,
    sources,
    subscriptions,
    test_clocks,
    webhooks,
)
from .context import Context
from .errors import ApiError
from .faults import ApiFault
from .lists import render
from .params import Params, parse_form
from .routing import Route, routes
from .sandbox import Sandbox
from .store import encode

log = logging.getLogger("stripe_sandbox")


@dataclass
class _Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def _key_of(request: Request) -> str:
    """The secret key from Bearer or Basic. Raises 401."""
    header = request.headers.get("authorization", "")
    scheme, _, value = header.partition(" ")
    key = ""
    if scheme.lower() == "bearer":
        key = value.strip()
    elif scheme.lower() == "basic":
        try:
            key = base64.b64decode(value, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            key = ""
    if not key:
        raise ApiError(
            "You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer"
            " auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            status=401,
            executed=False,
        )
    if not key.startswith(("sk_test_", "rk_test_")):
        raise ApiError(f"Invalid API Key provided: {key[:8]}****", status=401, code="api_key_invalid", executed=False)
    return key


def _fault(status: int, *, executed: bool) -> ApiError:
    """A failure on Stripe's side. A 500 can be the request's stored answer; 429 and 503 never reached it."""
    if status == 429:
        return ApiError(
            "Too many requests hit the API too quickly. We recommend an exponential backoff of your requests.",
            status=429,
            code="rate_limit",
            executed=executed,
        )
    text = "An unknown error occurred while processing the request."
    return ApiError(text, status=status, kind="api_error", executed=executed)


def _fail(status: int, *, executed: bool) -> NoReturn:
    raise _fault(status, executed=executed)


class Api:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def __call__(self, request: Request) -> Response:
        request_id = ids.new("req")
        body = await request.body()
        faults = self._sandbox.faults
        key = request.headers.get("idempotency-key") if request.method == "POST" else None
        holds = False
        try:
            if key is not None:
                if key in self._sandbox.in_flight:
                    raise idempotency.busy(key)
                self._sandbox.in_flight.add(key)
                holds = True
            if faults.latency_ms:
                await asyncio.sleep(faults.latency_ms / 1000)
            _key_of(request)
            fault = faults.take_api_error(request.method, request.url.path)
            if fault is not None and fault.status == "hang" and not fault.after:
                await _until_gone(request)
                return Response(status_code=499)
            if fault is not None and fault.status == "cut" and not fault.after:
                return _Cut()
            answer = self._answer(request, body, request_id, key, fault)
            if fault is not None and fault.status == "cut":
                return _Cut()
            if faults.take_hang() or (fault is not None and fault.status == "hang"):
                await _until_gone(request)
            elif fault is not None and fault.should_retry is not None:
                answer.headers["Stripe-Should-Retry"] = str(fault.should_retry).lower()
        except ApiError as error:
            answer = _failed(error, request_id)
        finally:
            if holds and key is not None:
                self._sandbox.in_flight.discard(key)
        headers = {"Request-Id": request_id, "Stripe-Version": API_VERSION, **answer.headers}
        if key is not None:
            headers["Idempotency-Key"] = key
        return Response(answer.body, answer.status, headers, "application/json")

    def _answer(
        self, request: Request, body: bytes, request_id: str, key: str | None, fault: ApiFault | None
    ) -> _Answer:
        path = request.url.path
        print_ = idempotency.fingerprint(request.method, path, body) if key is not None else ""
        store = self._sandbox.store
        if key is not None:
            replay = idempotency.find(store, key, print_, path)
            if replay is not None:
                return _Answer(
                    replay.status, replay.body, {"Original-Request": replay.request_id, "Idempotent-Replayed": "true"}
                )
        status = fault.status if fault is not None else None
        try:
            if isinstance(status, int) and fault is not None and not fault.after:
                _fail(status, executed=status == 500)
            answer = self._execute(request, path, body, request_id, key, print_)
            if isinstance(status, int):
                # The work and its own answer, kept for the key, stand; only this answer is lost.
                _fail(status, executed=False)
        except ApiError as error:
            answer = _failed(error, request_id)
            if key is not None and error.executed:
                with store.transaction():
                    idempotency.keep(store, key, print_, answer.status, answer.body, request_id)
        except Exception:
            log.exception("%s %s failed", request.method, path)
            answer = _failed(_fault(500, executed=False), request_id)
        return answer

    def _execute(
        self, request: Request, path: str, body: bytes, request_id: str, key: str | None, print_: str
    ) -> _Answer:
        found = routes.find(request.method, path)
        if found is None:
            raise ApiError(
                f"Unrecognized request URL ({request.method}: {path}). Please see https://stripe.com/docs or we can"
                " help at https://support.stripe.com/.",
                status=404,
                executed=False,
            )
        route, values = found
        params = self._params(route, request, body)
        expand = params.pop("expand", None) or []

        def work(ctx: Context) -> _Answer:
            result = route.handler(ctx, params, **values)
            answer = _Answer(200, encode(render(ctx, result, expand)).encode())
            if key is not None:
                idempotency.keep(ctx.store, key, print_, answer.status, answer.body, request_id)
            return answer

        context = self._sandbox.context(request_id, key)
        if request.method == "GET" and route.path not in _READS_THAT_WRITE:
            return work(context)
        return self._sandbox.run(context, work)

    @staticmethod
    def _params(route: Route, request: Request, body: bytes) -> Params:
        try:
            form = body.decode()
        except UnicodeDecodeError:
            raise ApiError("Invalid request body: it must be UTF-8.", executed=False) from None
        if form and "json" in request.headers.get("content-type", ""):
            raise ApiError("Invalid request: send application/x-www-form-urlencoded.", executed=False)
        query = request.url.query
        raw = parse_form(f"{query}&{form}" if query and form else query or form)
        return route.check(raw)


# Reading `pm_card_visa` makes the card it stands for.
_READS_THAT_WRITE = {"/v1/payment_methods/{method}"}


def _failed(error: ApiError, request_id: str) -> _Answer:
    return _Answer(error.status, encode(error.body(request_id)).encode())


class _Cut(Response):
    """An answer that ends before its body: the server closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
