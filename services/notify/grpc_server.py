"""NotifyService: the contract's messages ⇄ the use cases."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import TypeAlias

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


_Context: TypeAlias = "grpc.aio.ServicerContext[pb.ListMessagesRequest, Awaitable[pb.ListMessagesResponse]]"


class NotifyServicer(notify_pb2_grpc.NotifyServiceServicer):
    def __init__(self, bag: ports.Mailbag) -> None:
        self._bag = bag

    async def ListMessages(  # noqa: N802 - the contract's name
        self, request: pb.ListMessagesRequest, context: _Context
    ) -> pb.ListMessagesResponse:
        messages, following = await application.list_messages(
            self._bag,
            account_id=request.account_id,
            state=_ASKED.get(request.state),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return pb.ListMessagesResponse(messages=[_to_proto(m) for m in messages], next_page_token=following)


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
    )


def _stamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
