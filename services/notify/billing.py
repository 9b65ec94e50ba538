"""Billing over gRPC: ports.Directory."""

from __future__ import annotations

from services.kit.errors import NotFound
from services.kit.rpc import Link
from tollway.billing.v1 import recipient_pb2, recipient_pb2_grpc


class BillingLink:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._stub = recipient_pb2_grpc.RecipientServiceStub(link.channel)

    async def recipient(self, account_id: str) -> recipient_pb2.Recipient | None:
        """See ports.Directory."""
        request = recipient_pb2.GetRecipientRequest(account_id=account_id)
        try:
            answer = await self._link.call(self._stub.GetRecipient, request)
        except NotFound:
            return None
        return answer.recipient
