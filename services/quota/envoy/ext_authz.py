"""`envoy.service.auth.v3.Authorization/Check`: an API key's request either passes, counted, or is told why not.

The operator writes what the route uses into its `context_extensions`:

- `meter`: what is counted. A route without it is refused with 500, because letting it pass would give it away.
- `amount`: units per request, 1 unless said.
- `trust_idempotency_key`: `true` makes the client's Idempotency-Key the use's own, so that a client's retry is counted
  once. A repeat passes uncounted for 48 hours, so only an upstream that itself answers a repeat from what it has stored
  may trust it; `x-tollway-replayed: true` tells it. Otherwise a client could use everything with one key for ever.

Unless the client's key is trusted, Envoy's own number of the request names the use: another one for every request,
whatever the client sends (`x-request-id` may come from the client), and the same when Envoy repeats its question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpc
import structlog

from services.kit import telemetry
from services.kit.clock import Clock
from services.kit.database import is_transient
from services.kit.errors import DeadlineExceeded, TollwayError
from services.kit.http_fields import idempotency_key
from services.quota import application
from services.quota.domain import Use
from services.quota.envoy.answers import MEDIA_TYPE, Answer, limit_headers, of_decision, of_error, refused, sendable
from services.quota.errors import KeyReused, StoreUnavailable, UnknownMeter
from services.quota.ports import Decider, Directory, Keys
from tollway.envoy.auth.v3 import external_auth_pb2 as pb
from tollway.envoy.auth.v3 import external_auth_pb2_grpc

FULL_NAME = pb.DESCRIPTOR.services_by_name["Authorization"].full_name
MOST_UNITS = 2**62
MOST_CHARACTERS = 255  # of a use's key
MARGIN_S = 0.2  # before Envoy's deadline, so that what the client gets is our answer

_CODES = {401: grpc.StatusCode.UNAUTHENTICATED, 503: grpc.StatusCode.UNAVAILABLE}
_OVERWRITE = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD

log = structlog.get_logger(__name__)


class _Stop(Exception):
    """The request does not pass."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class Authorization(external_auth_pb2_grpc.AuthorizationServicer):
    def __init__(self, decider: Decider, directory: Directory, keys: Keys, clock: Clock, public_url: str) -> None:
        self._decider = decider
        self._directory = directory
        self._keys = keys
        self._clock = clock
        self._public_url = public_url

    async def Check(  # noqa: N802
        self, request: pb.CheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.CheckResponse:
        """Answers every request that it understands: an RPC error would be Envoy's failure mode, not ours."""
        http = request.attributes.request.http
        headers = _Headers(http)
        left = context.time_remaining()
        if left is not None:
            left = max(0.0, left - MARGIN_S)
        try:
            async with asyncio.timeout(left):
                response = await self._decide(request, headers, left)
        except TimeoutError:
            detail = "There was no answer in time, and it is not known whether the use was counted. Try again."
            late = DeadlineExceeded(detail)
            response = _denied(of_error(late, self._public_url), http.path, headers)
        except _Stop as stop:
            response = _denied(stop.answer, http.path, headers)
        except TollwayError as error:
            response = _denied(of_error(error, self._public_url), http.path, headers)
        except Exception as error:
            if not is_transient(error):
                raise
            log.warning("ext_authz.unavailable", error=type(error).__name__)
            response = _denied(of_error(StoreUnavailable(), self._public_url), http.path, headers)
        telemetry.count("tollway_quota_ext_authz_total", 1, status=str(response.denied_response.status.code or 200))
        return response

    async def _decide(self, request: pb.CheckRequest, headers: _Headers, time_left_s: float | None) -> pb.CheckResponse:
        route = request.attributes.context_extensions
        meter, amount = self._route(route)
        owner = await self._keys.owner(self._credential(headers))
        key = self._use_key(route, request.attributes.request.http.id, headers)
        use = Use(owner.account_id, meter, amount, key, key_id=owner.key_id)
        try:
            decision = await application.consume(use, self._decider, self._directory, time_left_s)
        except UnknownMeter:
            log.error("ext_authz.route", problem="the plan has no such meter", meter=meter, account=owner.account_id)
            raise self._misconfigured() from None
        except KeyReused:
            detail = "This Idempotency-Key was used with another request. Use a new one."
            raise self._stop("idempotency_key_reused", detail, 422) from None
        now = self._clock.now()
        if decision.refused is not None:
            raise _Stop(of_decision(meter, decision, now))
        told = pb.OkHttpResponse(
            headers=_options(
                {
                    "x-tollway-account-id": owner.account_id,
                    "x-tollway-key-id": owner.key_id,
                    "x-tollway-key-kind": owner.kind,
                    "x-tollway-tier": decision.tier,
                    # Always there: what a client sends under this name must not reach the upstream.
                    "x-tollway-replayed": "true" if decision.replayed else "false",
                }
            ),
            response_headers_to_add=_options(limit_headers(decision.limits, now)),
        )
        return pb.CheckResponse(status=pb.Status(code=0), ok_response=told)

    def _route(self, route: Mapping[str, str]) -> tuple[str, int]:
        """The meter and the amount that the operator wrote at the route."""
        meter, amount = route.get("meter", ""), route.get("amount", "1")
        if not meter or not (amount.isascii() and amount.isdigit() and 1 <= int(amount[:20]) <= MOST_UNITS):
            log.error("ext_authz.route", problem="no meter, or no amount from 1 to 2^62", meter=meter, amount=amount)
            raise self._misconfigured()
        return meter, int(amount)

    def _credential(self, headers: _Headers) -> str:
        values = headers.all("authorization")
        if not values:
            raise self._stop("unauthenticated", "Send your API key: Authorization: Bearer <key>", 401)
        scheme, _, credential = values[0].partition(" ")
        credential = credential.strip()
        if len(values) > 1 or scheme.lower() != "bearer" or not credential or " " in credential:
            detail = "Send one header of the form: Authorization: Bearer <key>"
            raise self._stop("authorization_malformed", detail, 401)
        return credential

    def _use_key(self, route: Mapping[str, str], request_number: str, headers: _Headers) -> str:
        """The use's idempotency key; the prefixes keep a client's keys and Envoy's numbers apart."""
        if route.get("trust_idempotency_key", "").lower() == "true":
            key = idempotency_key(headers.all("idempotency-key"))
            if key is None or len(key) > MOST_CHARACTERS - 7:
                detail = f"Send 1 to {MOST_CHARACTERS - 7} printable ASCII characters, once, bare or quoted."
                raise self._stop("idempotency_key_invalid", detail, 422)
            if key:
                return f"client:{key}"
        return f"envoy:{request_number[:200]}" if request_number.isprintable() and request_number else ""

    def _stop(self, code: str, detail: str, status: int) -> _Stop:
        return _Stop(refused(code, detail, status=status, public_url=self._public_url))

    def _misconfigured(self) -> _Stop:
        return self._stop("route_misconfigured", "The operator has not set up this route's meter correctly.", 500)


class _Headers:
    """The request's headers, in whichever of its two forms Envoy sends them."""

    def __init__(self, http: pb.AttributeContext.HttpRequest) -> None:
        self._joined = http.headers
        self._raw = http.header_map.headers

    def all(self, name: str) -> list[str]:
        """The values of a header, by its lower-case name. Several come joined by commas in Envoy's first form."""
        if self._raw:
            found = [each for each in self._raw if each.key.lower() == name]
            return [each.raw_value.decode("latin-1") or each.value for each in found]
        return [self._joined[name]] if name in self._joined else []


def _denied(answer: Answer, path: str, headers: _Headers) -> pb.CheckResponse:
    request_id = next(iter(headers.all("x-request-id")), "")[:128]
    fields = {**answer.headers, "Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"}
    code = _CODES.get(answer.status, grpc.StatusCode.PERMISSION_DENIED)
    return pb.CheckResponse(
        status=pb.Status(code=code.value[0], message=answer.members["code"]),
        denied_response=pb.DeniedHttpResponse(
            status=pb.HttpStatus(code=answer.status),
            headers=_options(fields),
            body=answer.body(instance=path, request_id=request_id),
        ),
    )


def _options(headers: Mapping[str, str]) -> list[pb.HeaderValueOption]:
    return [
        pb.HeaderValueOption(header=pb.HeaderValue(key=name.lower(), value=value), append_action=_OVERWRITE)
        for name, value in sendable(headers).items()
    ]
