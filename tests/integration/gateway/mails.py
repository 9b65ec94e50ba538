"""notify in a few lines, obeying the contract in protos/."""

# ruff: noqa: N802 (gRPC's method names)

from __future__ import annotations

from typing import Any

from services.kit import errors
from tests.integration.gateway.fakes import Fault
from tollway.notify.v1 import notify_pb2 as pb
from tollway.notify.v1.notify_pb2_grpc import NotifyServiceServicer


class Notify(NotifyServiceServicer):
    def __init__(self) -> None:
        self.fault = Fault()
        self.messages: dict[str, pb.Message] = {}

    def add(self, number: int, state: pb.MessageState.ValueType = pb.MESSAGE_STATE_SENT) -> pb.Message:
        message = pb.Message(
            id=f"msg_{number:032x}",
            account_id="acct_1",
            kind="receipt",
            subject_id=f"in_{number}",
            recipient="ada@example.com",
            state=state,
            attempt_count=1,
            error="the mail server answered 550" if state == pb.MESSAGE_STATE_DEAD else "",
            message_id=f"<receipt.{number}@example.com>",
        )
        message.create_time.FromJsonString("2026-04-01T00:00:00Z")
        if state == pb.MESSAGE_STATE_SENT:
            message.send_time.FromJsonString("2026-04-01T00:00:01Z")
        self.messages[message.id] = message
        return message

    async def ListMessages(self, request: Any, context: Any) -> pb.ListMessagesResponse:
        await self.fault.enter("ListMessages", request)
        found = [m for m in self.messages.values() if request.state in {0, m.state}]
        return pb.ListMessagesResponse(messages=found, next_page_token="next" if len(found) > 2 else "")

    def _known(self, message_id: str) -> pb.Message:
        if message_id not in self.messages:
            raise errors.NotFound("There is no such message.", reason="MESSAGE_NOT_FOUND")
        return self.messages[message_id]

    async def GetMessage(self, request: Any, context: Any) -> pb.GetMessageResponse:
        await self.fault.enter("GetMessage", request)
        resend = pb.Resend(actor="operator", previous_state=pb.MESSAGE_STATE_DEAD)
        resend.create_time.FromJsonString("2026-04-02T00:00:00Z")
        return pb.GetMessageResponse(message=self._known(request.message_id), resends=[resend])

    async def ResendMessage(self, request: Any, context: Any) -> pb.ResendMessageResponse:
        await self.fault.enter("ResendMessage", request)
        message = self._known(request.message_id)
        if message.state == pb.MESSAGE_STATE_SENT and not request.again:
            raise errors.FailedPrecondition("It was accepted.", reason="MESSAGE_ALREADY_SENT")
        message.state = pb.MESSAGE_STATE_PENDING
        return pb.ResendMessageResponse(message=message)
