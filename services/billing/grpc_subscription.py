"""Proto ⇄ command for changes to a subscription: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing import events
from services.billing.application import subscriptions
from services.billing.application.context import Context
from services.billing.domain.plan_change import CounterChange
from services.billing.grpc_identity import actor_of
from services.kit.times import to_instant
from tollway.billing.v1 import subscription_pb2 as pb
from tollway.billing.v1 import subscription_pb2_grpc

Rpc = grpc.aio.ServicerContext[Any, Any]


class SubscriptionService(subscription_pb2_grpc.SubscriptionServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def PreviewChange(  # noqa: N802 - the contract's name
        self, request: pb.PreviewChangeRequest, context: Rpc
    ) -> pb.PreviewChangeResponse:
        found = await subscriptions.preview_change(request.account_id, request.tier, self._context)
        invoice = found.invoice
        return pb.PreviewChangeResponse(
            current_tier=found.current_tier,
            tier=found.tier,
            total=invoice.total,
            amount_due=invoice.amount_due,
            currency=invoice.currency,
            lines=[pb.PreviewLine(description=text, amount=amount) for text, amount in invoice.lines],
            proration_time=events.timestamp(found.proration_time),
            counters=[_counter(each) for each in found.counters],
        )

    async def ChangePlan(  # noqa: N802
        self, request: pb.ChangePlanRequest, context: Rpc
    ) -> pb.ChangePlanResponse:
        at = to_instant(request.proration_time, "proration_time") if request.HasField("proration_time") else None
        actor = actor_of(request.actor)
        state = await subscriptions.change_plan(request.account_id, request.tier, at, actor, self._context)
        return pb.ChangePlanResponse(tier=state.tier)

    async def CancelSubscription(  # noqa: N802
        self, request: pb.CancelSubscriptionRequest, context: Rpc
    ) -> pb.CancelSubscriptionResponse:
        actor = actor_of(request.actor)
        state = await subscriptions.set_cancellation(request.account_id, actor, self._context, cancel=True)
        return pb.CancelSubscriptionResponse(end_time=events.timestamp(state.period_end))

    async def ResumeSubscription(  # noqa: N802
        self, request: pb.ResumeSubscriptionRequest, context: Rpc
    ) -> pb.ResumeSubscriptionResponse:
        actor = actor_of(request.actor)
        await subscriptions.set_cancellation(request.account_id, actor, self._context, cancel=False)
        return pb.ResumeSubscriptionResponse()


def _counter(change: CounterChange) -> pb.CounterChange:
    message = pb.CounterChange(
        limit_name=change.limit,
        meters=change.meters,
        used=change.used,
        restarts=change.restarts,
        absent_before=change.before is None,
        absent_after=change.after is None,
    )
    if isinstance(change.before, int):
        message.limit_before = change.before
    if isinstance(change.after, int):
        message.limit_after = change.after
    return message
