"""Proto ⇄ command for reconciliation and Stripe's events: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing import events
from services.billing.application import metering, reconcile
from services.billing.application.context import Context
from services.billing.domain.metering import UsageTotal
from services.billing.storage.webhooks import StoredEvent
from tollway.billing.v1 import reconcile_pb2 as pb
from tollway.billing.v1 import reconcile_pb2_grpc

Rpc = grpc.aio.ServicerContext[Any, Any]


class ReconcileService(reconcile_pb2_grpc.ReconcileServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def Reconcile(  # noqa: N802 - the contract's name
        self, request: pb.ReconcileRequest, context: Rpc
    ) -> pb.ReconcileResponse:
        report = await reconcile.reconcile(
            request.account_id, request.page_token, self._context, dry_run=request.dry_run
        )
        return pb.ReconcileResponse(
            drifts=[pb.Drift(**vars(each)) for each in report.drifts],
            accounts=report.accounts,
            missed_events=report.missed_events,
            busy=report.busy,
            next_page_token=report.next_token,
        )

    async def ListStripeEvents(  # noqa: N802
        self, request: pb.ListStripeEventsRequest, context: Rpc
    ) -> pb.ListStripeEventsResponse:
        found = await reconcile.list_events(request.status, request.account_id, request.page_size, self._context)
        return pb.ListStripeEventsResponse(events=[_event(each) for each in found])

    async def GetStripeEvent(  # noqa: N802
        self, request: pb.GetStripeEventRequest, context: Rpc
    ) -> pb.GetStripeEventResponse:
        event, payload = await reconcile.get_event(request.event_id, self._context)
        return pb.GetStripeEventResponse(event=_event(event), payload=payload.decode(errors="replace"))

    async def ReplayStripeEvent(  # noqa: N802
        self, request: pb.ReplayStripeEventRequest, context: Rpc
    ) -> pb.ReplayStripeEventResponse:
        await reconcile.replay(request.event_id, self._context)
        return pb.ReplayStripeEventResponse()

    async def ListLateUsage(  # noqa: N802
        self, request: pb.ListLateUsageRequest, context: Rpc
    ) -> pb.ListLateUsageResponse:
        found = await metering.list_late(request.account_id, self._context)
        return pb.ListLateUsageResponse(usage=[_late(each) for each in found])


def _late(total: UsageTotal) -> pb.LateUsage:
    return pb.LateUsage(
        account_id=total.account_id,
        meter=total.meter,
        period_start=events.timestamp(total.period_start),
        period_end=events.timestamp(total.period_end),
        used=total.used,
        sent=total.sent,
        record_time=events.timestamp(total.record_time),
    )


def _event(event: StoredEvent) -> pb.StripeEvent:
    return pb.StripeEvent(
        id=event.id,
        type=event.type,
        account_id=event.account_id or "",
        customer_id=event.customer_id,
        status=event.status,
        create_time=events.timestamp(event.create_time),
        receive_time=events.timestamp(event.receive_time),
    )
