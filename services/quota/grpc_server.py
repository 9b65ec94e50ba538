"""Proto ⇄ use cases of tollway.quota.v1: decisions, usage and kill switches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from services.kit.clock import Clock
from services.kit.errors import InvalidArgument, TollwayError
from services.quota import application, kill_switch
from services.quota.answers import to_allowance, to_limit, to_message, to_response, to_timestamp
from services.quota.domain import KillSwitch, Reversal, Reverse, Use
from services.quota.ports import Decider, Directory
from services.quota.requests import check_meter, check_text, check_units
from services.quota.storage import QuotaUnitOfWork
from tollway.quota.v1 import kill_switch_pb2, kill_switch_pb2_grpc, quota_pb2, quota_pb2_grpc

FULL_NAME = quota_pb2.DESCRIPTOR.services_by_name["QuotaService"].full_name
KILL_SWITCH_NAME = kill_switch_pb2.DESCRIPTOR.services_by_name["KillSwitchService"].full_name

MOST_REQUESTS = 1000
MOST_REASON = 300  # characters

_Context = grpc.aio.ServicerContext[Any, Any]


class QuotaServicer(quota_pb2_grpc.QuotaServiceServicer):
    def __init__(self, decider: Decider, directory: Directory, new_uow: Callable[[], QuotaUnitOfWork]) -> None:
        self._decider = decider
        self._directory = directory
        self._new_uow = new_uow

    async def Consume(self, request: quota_pb2.ConsumeRequest, context: _Context) -> quota_pb2.ConsumeResponse:  # noqa: N802
        use = to_use(request)
        decision = await application.consume(use, self._decider, self._directory, context.time_remaining())
        return to_response(decision)

    async def ConsumeBatch(  # noqa: N802
        self, request: quota_pb2.ConsumeBatchRequest, context: _Context
    ) -> quota_pb2.ConsumeBatchResponse:
        count = len(request.requests)
        if not 1 <= count <= MOST_REQUESTS:
            raise InvalidArgument(f"A batch holds 1 to {MOST_REQUESTS} requests.", field="requests")
        outcomes: list[application.Result | None] = [None] * count
        uses: list[Use] = []
        places: list[int] = []
        for place, item in enumerate(request.requests):
            try:
                uses.append(to_use(item))
                places.append(place)
            except InvalidArgument as error:
                outcomes[place] = error
        if uses:
            decided = await application.consume_batch(uses, self._decider, self._directory, context.time_remaining())
            for place, outcome in zip(places, decided, strict=True):
                outcomes[place] = outcome
        response = quota_pb2.ConsumeBatchResponse()
        for each in outcomes:
            assert each is not None  # noqa: S101 - a fault or decided
            _fill_result(response.results.add(), each)
        return response

    async def Reverse(self, request: quota_pb2.ReverseRequest, context: _Context) -> quota_pb2.ReverseResponse:  # noqa: N802
        check_text(request.account_id, "account_id")
        check_text(request.request_id, "request_id")
        reversal = await application.carry_out(
            Reverse(request.account_id, request.request_id),
            Reversal,
            self._decider,
            self._directory,
            context.time_remaining(),
        )
        return quota_pb2.ReverseResponse(meter=reversal.meter, amount=reversal.amount, replayed=reversal.replayed)

    async def GetUsage(self, request: quota_pb2.GetUsageRequest, context: _Context) -> quota_pb2.GetUsageResponse:  # noqa: N802
        check_text(request.account_id, "account_id")
        if request.key_id:
            check_text(request.key_id, "key_id")
        usage = await application.get_usage(request.account_id, request.key_id, self._new_uow, self._directory)
        return quota_pb2.GetUsageResponse(
            account_id=usage.account_id,
            tier=usage.tier,
            version=usage.version,
            meters=[_to_meter(meter) for meter in usage.meters],
            allowances=[to_allowance(state) for state in usage.allowances],
        )


class KillSwitchServicer(kill_switch_pb2_grpc.KillSwitchServiceServicer):
    def __init__(self, new_uow: Callable[[], QuotaUnitOfWork], clock: Clock) -> None:
        self._new_uow = new_uow
        self._clock = clock

    async def SetKillSwitch(  # noqa: N802
        self, request: kill_switch_pb2.SetKillSwitchRequest, context: _Context
    ) -> kill_switch_pb2.SetKillSwitchResponse:
        if request.meter:
            check_text(request.meter, "meter")
        if request.reason:
            check_text(request.reason, "reason", MOST_REASON)
        switch = await kill_switch.set_kill_switch(
            request.meter, request.enabled, request.reason, self._new_uow(), self._clock
        )
        return kill_switch_pb2.SetKillSwitchResponse(kill_switch=_to_switch(switch))

    async def GetKillSwitch(  # noqa: N802
        self, request: kill_switch_pb2.GetKillSwitchRequest, context: _Context
    ) -> kill_switch_pb2.GetKillSwitchResponse:
        switches = await kill_switch.list_kill_switches(self._new_uow())
        return kill_switch_pb2.GetKillSwitchResponse(kill_switches=[_to_switch(each) for each in switches])


def to_use(request: quota_pb2.ConsumeRequest) -> Use:
    """Raises InvalidArgument naming the field. What passes here can be stored."""
    account_id, key = request.account_id, request.request_id
    check_text(account_id, "account_id")
    check_meter(request.meter)
    check_units(request.amount, "amount", 1)
    if key:
        check_text(key, "request_id")
    if key_id := request.key_id:
        check_text(key_id, "key_id")
    return Use(account_id, request.meter, request.amount, key, request.dry_run, key_id)


def _fill_result(result: quota_pb2.ConsumeResult, outcome: application.Result) -> None:
    if not isinstance(outcome, TollwayError):
        result.decision.CopyFrom(to_message(outcome))
        return
    code: int = getattr(grpc.StatusCode, outcome.code).value[0]
    error = result.error
    error.code, error.reason, error.message, error.field = (
        code,
        outcome.error_reason,
        outcome.message,
        outcome.field,
    )


def _to_meter(meter: application.MeterUsage) -> quota_pb2.MeterUsage:
    tightest = None if meter.tightest is None else to_limit(meter.tightest)
    return quota_pb2.MeterUsage(
        meter=meter.meter,
        used=meter.used,
        limit=tightest.limit if tightest is not None else None,
        remaining=tightest.remaining if tightest is not None else None,
        reset_time=to_timestamp(meter.reset),
        limits=[to_limit(state) for state in meter.limits],
    )


def _to_switch(switch: KillSwitch) -> kill_switch_pb2.KillSwitch:
    return kill_switch_pb2.KillSwitch(
        meter=switch.meter,
        enabled=switch.enabled,
        reason=switch.reason,
        change_time=to_timestamp(switch.change_time),
    )
