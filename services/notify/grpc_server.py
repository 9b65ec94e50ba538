"""NotifyService: the contract's messages ⇄ the use cases."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.notify import application, ports
from services.notify.domain import State
from tollway.notify.v1 import notify_pb2 as pb
from tollway.notify.v1 import notify_pb2_grpc

FULL_NAME = pb.DESCRIPTOR.services_by_name["NotifyService"].full_name

_SHOWN = {
    State.PENDING: pb.MESSAGE_STATE_PENDING,
    State.SENDING: pb.MESSAGE_STATE_PENDING,
    State.SENT: pb.MESSAGE_STATE_SENT,
    State.DEAD: pb.MESSAGE_STATE_DEAD,
    State.UNKNOWN: pb.MESSAGE_STATE_UNKNOWN,
    State.SKIPPED: pb.MESSAGE_STATE_SKIPPED,
}
_ASKED = {value: state for state, value in _SHOWN.items() if state is not State.SENDING}


Rpc = grpc.aio.ServicerContext[Any, Any]


class NotifyServicer(notify_pb2_grpc.NotifyServiceServicer):
    """`wake` is called when a message waits to be sent."""

    def __init__(self, bag: ports.Mailbag, directory: ports.Directory, wake: Callable[[], None]) -> None:
        self._bag = bag
        self._directory = directory
        self._wake = wake

    async def ListMessages(  # noqa: N802 - the contract's name
        self, request: pb.ListMessagesRequest, context: Rpc
    ) -> pb.ListMessagesResponse:
        messages, following = await application.list_messages(
            self._bag,
            account_id=request.account_id,
            state=_ASKED.get(request.state),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListMessagesResponse(messages=[_to_proto(m) for m in messages], next_page_token=following)

    async def GetMessage(  # noqa: N802
        self, request: pb.GetMessageRequest, context: Rpc
    ) -> pb.GetMessageResponse:
        message, resends = await application.show(request.message_id, self._bag)
        told = [
            pb.Resend(
                actor=each.actor, previous_state=_SHOWN[each.previous_state], create_time=_stamp(each.create_time)
            )
            for each in resends
        ]
        return pb.GetMessageResponse(message=_to_proto(message), resends=told)

    async def ResendMessage(  # noqa: N802
        self, request: pb.ResendMessageRequest, context: Rpc
    ) -> pb.ResendMessageResponse:
        command = application.Resend(request.message_id, request.request_id, request.actor, request.again)
        message = await application.resend(command, self._bag, self._directory)
        self._wake()
        return pb.ResendMessageResponse(message=_to_proto(message))


def _to_proto(message: ports.Message) -> pb.Message:
    return pb.Message(
        id=message.id,
        account_id=message.account_id,
        kind=message.kind,
        subject_id=message.subject_id,
        recipient=message.recipient,
        state=_SHOWN[message.state],
        attempt_count=message.attempt_count,
        error=message.error,
        create_time=_stamp(message.create_time),
        send_time=_stamp(message.send_time),
        message_id=message.message_id,
        erased=message.erased,
    )


def _stamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
