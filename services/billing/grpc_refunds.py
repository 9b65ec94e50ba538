"""Proto ⇄ command for refunds: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing import events
from services.billing.application import refunds
from services.billing.application.context import Context
from services.billing.domain.refund import Refund, State
from services.billing.grpc_identity import actor_of
from tollway.billing.v1 import refund_pb2, refund_pb2_grpc

Rpc = grpc.aio.ServicerContext[Any, Any]

_STATES = {
    State.CANCELING: refund_pb2.REFUND_STATE_PENDING,
    State.COUNTING: refund_pb2.REFUND_STATE_PENDING,
    State.REFUNDING: refund_pb2.REFUND_STATE_PENDING,
    State.REFUNDED: refund_pb2.REFUND_STATE_REFUNDED,
    State.REFUSED: refund_pb2.REFUND_STATE_REFUSED,
}


class RefundService(refund_pb2_grpc.RefundServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def PreviewRefund(  # noqa: N802 - the contract's name
        self, request: refund_pb2.PreviewRefundRequest, context: Rpc
    ) -> refund_pb2.PreviewRefundResponse:
        offer = await refunds.preview_refund(request.account_id, self._context)
        return refund_pb2.PreviewRefundResponse(
            reason=offer.reason,
            message=offer.message,
            amount=offer.fee.amount if offer.fee else 0,
            currency=offer.fee.currency if offer.fee else "",
            window_end_time=events.timestamp(offer.window_end),
            used=offer.used,
            fewer_than=offer.fewer_than,
            refund=_message(offer.refund) if offer.refund else None,
        )

    async def CreateRefund(  # noqa: N802
        self, request: refund_pb2.CreateRefundRequest, context: Rpc
    ) -> refund_pb2.CreateRefundResponse:
        made = await refunds.create_refund(request.account_id, actor_of(request.actor), self._context)
        return refund_pb2.CreateRefundResponse(refund=_message(made))


def _message(refund: Refund) -> refund_pb2.Refund:
    message = refund_pb2.Refund(
        id=refund.id,
        account_id=refund.account_id,
        state=_STATES[refund.state],
        amount=refund.amount,
        currency=refund.currency,
        invoice_id=refund.invoice_id,
        subscription_id=refund.subscription_id,
        stripe_refund_id=refund.stripe_refund_id,
        create_time=events.timestamp(refund.create_time),
        finish_time=events.timestamp(refund.finish_time),
    )
    if refund.used is not None:
        message.used = refund.used
    return message
