"""Proto ⇄ use case for whom to write to: translation and nothing else."""

from __future__ import annotations

from typing import Any

import grpc

from services.billing.application import accounts
from services.billing.application.context import Context
from tollway.billing.v1 import recipient_pb2, recipient_pb2_grpc


class RecipientService(recipient_pb2_grpc.RecipientServiceServicer):
    def __init__(self, context: Context) -> None:
        self._context = context

    async def GetRecipient(  # noqa: N802 - the contract's name
        self, request: recipient_pb2.GetRecipientRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> recipient_pb2.GetRecipientResponse:
        found = await accounts.get_recipient(request.account_id, self._context)
        return recipient_pb2.GetRecipientResponse(recipient=found)
