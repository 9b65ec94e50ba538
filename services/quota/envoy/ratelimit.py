"""`envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit`: limits under one status, Envoy's own way.

A descriptor names a `meter` and either an `account` or an `api_key` among its entries; other entries are ignored. Its
`hits_addend`, else the request's, else 1, are the units; 0 asks and counts nothing. A descriptor that is none is
INVALID_ARGUMENT, and a decision that cannot be made UNAVAILABLE: Envoy's `failure_mode_deny` says what happens then.
A key, an empty one too, or an account that does not exist is over its limit, which is none: it must not pass where
failures do.

Several descriptors are decided together: when one would refuse, none is counted. That is looked at before anything is
counted, so uses of others that come in between may still fill a limit after another one was counted. One descriptor
with a limit that spans several meters has no such gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import grpc

from services.kit import telemetry
from services.kit.clock import Clock
from services.kit.errors import InvalidArgument, NotFound, TollwayError
from services.quota import application
from services.quota.domain import Decision, Use
from services.quota.envoy.answers import MEDIA_TYPE, Answer, limit_headers, of_decision, of_error, sendable, tightest
from services.quota.errors import ApiKeyRefused
from services.quota.grpc_server import MOST_REQUESTS, to_use
from services.quota.ports import Decider, Directory, Keys
from tollway.envoy.ratelimit.v3 import rls_pb2 as pb
from tollway.envoy.ratelimit.v3 import rls_pb2_grpc
from tollway.quota.v1 import quota_pb2

FULL_NAME = pb.DESCRIPTOR.services_by_name["RateLimitService"].full_name
UINT32_MAX = 2**32 - 1


class RateLimitService(rls_pb2_grpc.RateLimitServiceServicer):
    def __init__(self, decider: Decider, directory: Directory, keys: Keys, clock: Clock, public_url: str) -> None:
        self._decider = decider
        self._directory = directory
        self._keys = keys
        self._clock = clock
        self._public_url = public_url

    async def ShouldRateLimit(  # noqa: N802
        self, request: pb.RateLimitRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.RateLimitResponse:
        count = len(request.descriptors)
        if not 1 <= count <= MOST_REQUESTS:
            raise InvalidArgument(f"A request holds 1 to {MOST_REQUESTS} descriptors.", field="descriptors")
        default = request.hits_addend or 1
        try:
            uses = await self._uses(request.descriptors, default)
            decisions = await self._consume(uses, context.time_remaining())
        except (ApiKeyRefused, NotFound) as error:
            return self._over([pb.RateLimitResponse.OVER_LIMIT] * count, of_error(error, self._public_url))
        return self._respond(uses, decisions)

    async def _uses(self, descriptors: Sequence[pb.RateLimitDescriptor], default: int) -> Sequence[Use]:
        if len(descriptors) == 1:  # Envoy's usual request: without a task for it
            return [await self._use(descriptors[0], default)]
        return await asyncio.gather(*(self._use(each, default) for each in descriptors))

    async def _use(self, descriptor: pb.RateLimitDescriptor, default: int) -> Use:
        entries = {entry.key: entry.value for entry in descriptor.entries}
        account_id, key_id, api_key = entries.get("account", ""), "", entries.get("api_key")
        if bool(account_id) == (api_key is not None) or not entries.get("meter"):
            raise InvalidArgument(
                "A descriptor needs an entry `meter`, and either `account` or `api_key`.", field="descriptors"
            )
        if api_key is not None:
            # The route may take it from the Authorization header as it is, which may be empty.
            scheme, _, credential = api_key.strip().rpartition(" ")
            if scheme.lower() not in {"", "bearer"}:
                raise ApiKeyRefused.malformed()
            owner = await self._keys.owner(credential)
            account_id, key_id = owner.account_id, owner.key_id
        amount = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else default
        # Envoy's field is unsigned: what it holds beyond the contract's int64 is refused by its name there.
        return to_use(
            quota_pb2.ConsumeRequest(
                account_id=account_id,
                meter=entries["meter"],
                amount=min(amount or 1, 2**63 - 1),
                dry_run=amount == 0,
                key_id=key_id,
            )
        )

    async def _consume(self, uses: Sequence[Use], time_left_s: float | None) -> list[Decision]:
        if len(uses) > 1:
            asked = await self._decide([replace(use, dry_run=True) for use in uses], time_left_s)
            if any(decision.refused for decision in asked):
                return asked
        return await self._decide(uses, time_left_s)

    async def _decide(self, uses: Sequence[Use], time_left_s: float | None) -> list[Decision]:
        decisions = []
        for outcome in await application.consume_batch(uses, self._decider, self._directory, time_left_s):
            if isinstance(outcome, TollwayError):
                raise outcome
            decisions.append(outcome)
        return decisions

    def _respond(self, uses: Sequence[Use], decisions: Sequence[Decision]) -> pb.RateLimitResponse:
        now = self._clock.now()
        for use, decision in zip(uses, decisions, strict=True):
            if decision.refused is not None:
                codes = [_code(each) for each in decisions]
                response = self._over(codes, of_decision(use.meter, decision, now))
                break
        else:
            telemetry.count("tollway_quota_rate_limit_total", 1, code="ok")
            # What several descriptors share is told once, as the last of them left it.
            states = {
                (use.account_id, use.key_id, state.name): state
                for use, decision in zip(uses, decisions, strict=True)
                for state in decision.limits
            }
            response = pb.RateLimitResponse(
                overall_code=pb.RateLimitResponse.OK,
                statuses=[pb.RateLimitResponse.DescriptorStatus(code=pb.RateLimitResponse.OK) for _ in decisions],
                response_headers_to_add=_headers(limit_headers(states.values(), now)),
                request_headers_to_add=_headers(
                    {"x-tollway-account-id": uses[0].account_id, "x-tollway-tier": decisions[0].tier}
                ),
            )
        for status, decision in zip(response.statuses, decisions, strict=True):
            _fill(status, decision, now)
        return response

    def _over(self, codes: Iterable[pb.RateLimitResponse.Code.ValueType], answer: Answer) -> pb.RateLimitResponse:
        telemetry.count("tollway_quota_rate_limit_total", 1, code="over_limit")
        fields = {**answer.headers, "Content-Type": MEDIA_TYPE, "Cache-Control": "no-store"}
        fields.pop("WWW-Authenticate", None)  # belongs to 401; which status this goes out under is Envoy's to say
        return pb.RateLimitResponse(
            overall_code=pb.RateLimitResponse.OVER_LIMIT,
            statuses=[pb.RateLimitResponse.DescriptorStatus(code=code) for code in codes],
            response_headers_to_add=_headers(fields),
            raw_body=answer.body(without_status=True).encode(),
        )


def _code(decision: Decision) -> pb.RateLimitResponse.Code.ValueType:
    return pb.RateLimitResponse.OK if decision.refused is None else pb.RateLimitResponse.OVER_LIMIT


def _fill(status: pb.RateLimitResponse.DescriptorStatus, decision: Decision, now: datetime) -> None:
    """The limit that refused, else the one with the least left."""
    refused = decision.refused
    binding = next((s for s in decision.limits if refused is not None and s.name == refused.limit), None)
    state = binding or tightest(decision.limits)
    if state is None or state.limit is None:
        # Nothing counts, or a switch or a gate refused, which has no number.
        status.limit_remaining = UINT32_MAX if refused is None else 0
        return
    status.current_limit.name = state.name
    status.current_limit.requests_per_unit = min(state.limit, UINT32_MAX)
    status.limit_remaining = min(state.remaining or 0, UINT32_MAX)
    if state.reset is not None:
        status.duration_until_reset.FromTimedelta(max(state.reset - now, timedelta(0)))


def _headers(headers: dict[str, str]) -> list[pb.HeaderValue]:
    return [pb.HeaderValue(key=name.lower(), value=value) for name, value in sendable(headers).items()]
