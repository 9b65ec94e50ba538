"""Proto ⇄ use cases of tollway.quota.v1.GuardrailService."""

from __future__ import annotations

from typing import Any

import grpc

from services.kit.errors import InvalidArgument
from services.quota import application
from services.quota.answers import to_adjusted, to_limit
from services.quota.domain import AdjustAllowance, Adjusted, LimitState, SetCap
from services.quota.ports import Decider, Directory
from services.quota.requests import check_decimal, check_meter, check_text, check_units
from tollway.quota.v1 import guardrail_pb2, guardrail_pb2_grpc

FULL_NAME = guardrail_pb2.DESCRIPTOR.services_by_name["GuardrailService"].full_name

_Context = grpc.aio.ServicerContext[Any, Any]


class GuardrailServicer(guardrail_pb2_grpc.GuardrailServiceServicer):
    def __init__(self, decider: Decider, directory: Directory) -> None:
        self._asked = (decider, directory)

    async def SetCap(self, request: guardrail_pb2.SetCapRequest, context: _Context) -> guardrail_pb2.SetCapResponse:  # noqa: N802
        command = to_set_cap(request)
        state = await application.carry_out(command, LimitState, *self._asked, context.time_remaining())
        return guardrail_pb2.SetCapResponse(cap=to_limit(state))

    async def AdjustAllowance(  # noqa: N802
        self, request: guardrail_pb2.AdjustAllowanceRequest, context: _Context
    ) -> guardrail_pb2.AdjustAllowanceResponse:
        command = to_adjust_allowance(request)
        adjusted = await application.carry_out(command, Adjusted, *self._asked, context.time_remaining())
        return to_adjusted(adjusted)


def to_set_cap(request: guardrail_pb2.SetCapRequest) -> SetCap:
    """Raises InvalidArgument naming the field."""
    check_text(request.account_id, "account_id")
    check_meter(request.meter)
    command = SetCap(request.account_id, request.meter, auto_stop=request.auto_stop)
    kind = request.WhichOneof("cap")
    if kind == "limit":
        check_units(request.limit, "limit", 0)
        command.limit = request.limit
    elif kind == "overage_amount":
        check_decimal(request.overage_amount, "overage_amount")
        command.overage_amount = request.overage_amount
    return command


def to_adjust_allowance(request: guardrail_pb2.AdjustAllowanceRequest) -> AdjustAllowance:
    """Raises InvalidArgument naming the field."""
    check_text(request.account_id, "account_id")
    check_text(request.allowance, "allowance")
    if request.request_id:
        check_text(request.request_id, "request_id")
    change = request.WhichOneof("change")
    if change is None:
        raise InvalidArgument("Say what to do: set, add or remove.", field="change")
    amount = getattr(request, change)
    check_units(amount, change, 0 if change == "set" else 1)
    return AdjustAllowance(request.account_id, request.allowance, change, amount, request.request_id)
