"""What became of mails, and having one sent again. For operators."""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from gateway.auth import Operator
from gateway.backend import Services
from gateway.body import Body, json_body
from gateway.headers import IdempotencyKey
from gateway.operations import OPERATOR, operation
from gateway.paging import PageQuery, paged
from gateway.times import rfc3339
from tollway.notify.v1 import notify_pb2 as pb

router = APIRouter(prefix="/v1/operator/messages", tags=["operator"])
_PRIVATE = {"Cache-Control": "no-store"}
_STATES = {
    name.removeprefix("MESSAGE_STATE_").lower(): number
    for name, number in pb.MessageState.items()
    if number != pb.MESSAGE_STATE_UNSPECIFIED
}

_State = Literal["pending", "sent", "dead", "unknown", "skipped"]


class Message(BaseModel):
    id: str = Field(examples=["msg_019ab0c4d5e67f8899aabbccddeeff00"])
    account_id: str = Field(examples=["acct_019ab0c4d5e67f8899aabbccddeeff00"])
    kind: str = Field(examples=["receipt"])
    about: str = Field(description="An invoice, a refund, a limit and its period, ….", examples=["in_1TxYz"])
    recipient: str = Field(description="Empty: nobody, or erased.", examples=["ada@example.com"])
    state: str = Field(description="pending, sent, dead, unknown or skipped", examples=["sent"])
    attempts: int = Field(examples=[1])
    error: str | None = Field(description="Why it is not sent.", examples=[None])
    message_id: str = Field(
        description="Its Message-ID header, the same at every try.", examples=["<receipt.0123456789abcdef@example.com>"]
    )
    erased: bool = Field(description="Its account was erased: neither address nor contents are kept.", examples=[False])
    created_at: str = Field(examples=["2026-04-01T00:00:00Z"])
    sent_at: str | None = Field(examples=["2026-04-01T00:00:00Z"])


class Messages(BaseModel):
    messages: list[Message]
    next_page_token: str | None = Field(description="null: this is the last page.", examples=[None])


class Resent(BaseModel):
    actor: str = Field(examples=["operator"])
    previous_state: str = Field(description="How the message stood.", examples=["dead"])
    created_at: str = Field(examples=["2026-04-01T00:00:00Z"])


class ShownMessage(Message):
    resends: list[Resent] = Field(description="Who had it sent again, the latest first.")


class ResendBody(Body):
    again: bool = Field(False, description="Also what the mail server has accepted.", examples=[False])


@router.get("", summary="List mails", **paged(operation("bad_page_token", "validation_failed", credentials=OPERATOR)))
async def list_messages(
    operator: Operator,
    page: PageQuery,
    backend: Services,
    response: Response,
    state: Annotated[_State | None, Query()] = None,
    account_id: Annotated[str, Query(max_length=100)] = "",
) -> Messages:
    """Newest first."""
    asked = pb.ListMessagesRequest(account_id=account_id, page_size=page.size, page_token=page.token)
    if state is not None:
        asked.state = _STATES[state]
    answer = await backend.notify.call(backend.messages.ListMessages, asked)
    response.headers.update(_PRIVATE)
    found = [Message(**_message(each)) for each in answer.messages]
    return Messages(messages=found, next_page_token=answer.next_page_token or None)


@router.get("/{message_id}", summary="Show a mail", **operation("message_not_found", credentials=OPERATOR))
async def show_message(operator: Operator, message_id: str, backend: Services, response: Response) -> ShownMessage:
    """With who had it sent again."""
    answer = await backend.notify.call(backend.messages.GetMessage, pb.GetMessageRequest(message_id=message_id[:100]))
    response.headers.update(_PRIVATE)
    resends = [
        Resent(actor=each.actor, previous_state=_state(each.previous_state), created_at=rfc3339(each.create_time))
        for each in answer.resends
    ]
    return ShownMessage(**_message(answer.message), resends=resends)


@router.post(
    "/{message_id}/resend",
    summary="Send a mail again",
    **operation(
        "message_not_found",
        "message_already_sent",
        "message_erased",
        "nothing_to_send",
        "no_recipient",
        body=ResendBody,
        idempotent=True,
        credentials=OPERATOR,
    ),
)
async def resend_message(
    operator: Operator,
    message_id: str,
    body: Annotated[ResendBody, Depends(json_body(ResendBody))],
    backend: Services,
    key: IdempotencyKey,
    response: Response,
) -> Message:
    """To the address that the account has now. A repeat with the same Idempotency-Key changes nothing, nor does asking
    for what waits to be sent anyway."""
    asked = pb.ResendMessageRequest(
        message_id=message_id[:100], request_id=key or uuid.uuid4().hex, actor=operator.actor.id, again=body.again
    )
    answer = await backend.notify.call(backend.messages.ResendMessage, asked, timeout_s=15.0)
    response.headers.update(_PRIVATE)
    return Message(**_message(answer.message))


def _state(state: pb.MessageState.ValueType) -> str:
    return pb.MessageState.Name(state).removeprefix("MESSAGE_STATE_").lower()


def _message(message: pb.Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "account_id": message.account_id,
        "kind": message.kind,
        "about": message.subject_id,
        "recipient": message.recipient,
        "state": _state(message.state),
        "attempts": message.attempt_count,
        "error": message.error or None,
        "message_id": message.message_id,
        "erased": message.erased,
        "created_at": rfc3339(message.create_time),
        "sent_at": rfc3339(message.send_time) if message.HasField("send_time") else None,
    }
