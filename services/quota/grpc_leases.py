"""Proto ⇄ use cases of tollway.quota.v1.LeaseService."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from services.kit.errors import InvalidArgument
from services.kit.ids import new_id
from services.quota import application
from services.quota.answers import to_lease, to_limit, to_message
from services.quota.domain import Acquire, Decision, Lease, Release, Renew, Settle
from services.quota.ports import Decider, Directory, Reading
from services.quota.requests import check_meter, check_text, check_units, to_duration
from tollway.quota.v1 import lease_pb2, lease_pb2_grpc

FULL_NAME = lease_pb2.DESCRIPTOR.services_by_name["LeaseService"].full_name

_Context = grpc.aio.ServicerContext[Any, Any]


class LeaseServicer(lease_pb2_grpc.LeaseServiceServicer):
    def __init__(self, decider: Decider, directory: Directory, new_uow: Callable[[], Reading]) -> None:
        self._asked = (decider, directory)
        self._directory = directory
        self._new_uow = new_uow

    async def Acquire(self, request: lease_pb2.AcquireRequest, context: _Context) -> lease_pb2.AcquireResponse:  # noqa: N802
        command = to_acquire(request)
        decision = await application.carry_out(command, Decision, *self._asked, context.time_remaining())
        return lease_pb2.AcquireResponse(decision=to_message(decision))

    async def Renew(self, request: lease_pb2.RenewRequest, context: _Context) -> lease_pb2.RenewResponse:  # noqa: N802
        _check(request.account_id, request.lease_id)
        duration = to_duration(request.duration) if request.HasField("duration") else None
        command = Renew(request.account_id, request.lease_id, duration)
        lease = await application.carry_out(command, Lease, *self._asked, context.time_remaining())
        return lease_pb2.RenewResponse(lease=to_lease(lease))

    async def Settle(self, request: lease_pb2.SettleRequest, context: _Context) -> lease_pb2.SettleResponse:  # noqa: N802
        _check(request.account_id, request.lease_id)
        check_units(request.amount, "amount", 0)
        command = Settle(request.account_id, request.lease_id, request.amount)
        decision = await application.carry_out(command, Decision, *self._asked, context.time_remaining())
        return lease_pb2.SettleResponse(limits=[to_limit(state) for state in decision.limits])

    async def Release(self, request: lease_pb2.ReleaseRequest, context: _Context) -> lease_pb2.ReleaseResponse:  # noqa: N802
        _check(request.account_id, request.lease_id)
        command = Release(request.account_id, request.lease_id)
        await application.carry_out(command, Lease, *self._asked, context.time_remaining())
        return lease_pb2.ReleaseResponse()

    async def ListLeases(self, request: lease_pb2.ListLeasesRequest, context: _Context) -> lease_pb2.ListLeasesResponse:  # noqa: N802
        check_text(request.account_id, "account_id")
        if request.meter:
            check_text(request.meter, "meter")
        if request.page_size < 0:
            raise InvalidArgument("page_size must not be negative.", field="page_size")
        leases, token = await application.list_leases(
            request.account_id,
            request.meter,
            request.page_size,
            request.page_token,
            self._new_uow,
            self._directory,
        )
        return lease_pb2.ListLeasesResponse(leases=[to_lease(lease) for lease in leases], next_page_token=token)


def to_acquire(request: lease_pb2.AcquireRequest) -> Acquire:
    """Raises InvalidArgument naming the field. What passes here can be stored."""
    check_text(request.account_id, "account_id")
    check_meter(request.meter)
    check_units(request.amount, "amount", 0)
    check_units(request.reserve, "reserve", 0)
    for name in ("request_id", "key_id", "subject"):
        if value := getattr(request, name):
            check_text(value, name)
    return Acquire(
        request.account_id,
        request.meter,
        request.amount,
        request.reserve,
        new_id("lease"),
        to_duration(request.duration) if request.HasField("duration") else None,
        request.request_id,
        request.key_id,
        request.subject,
    )


def _check(account_id: str, lease_id: str) -> None:
    check_text(account_id, "account_id")
    check_text(lease_id, "lease_id")
