"""What became of messages, for operators; and sending one again."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from services.kit.errors import InvalidArgument
from services.notify import domain, errors, events, ports
from services.notify.domain import State

MAX_PAGE = 500
DEFAULT_PAGE = 50
LONGEST_ID = 100
LONGEST_REQUEST_ID = 255
LONGEST_ACTOR = 200

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Resend:
    """`request_id`: a repeat with the same one changes nothing. `again`: also what was sent already."""

    message_id: str
    request_id: str
    actor: str
    again: bool = False


async def list_messages(
    bag: ports.Mailbag, *, account_id: str, state: State | None, page_size: int, page_token: str
) -> tuple[Sequence[ports.Message], str]:
    """A page, newest first, and the token of the next one (empty at the end). Raises `errors.BadPageToken`."""
    if account_id and not account_id.isprintable():
        return [], ""  # nobody's; PostgreSQL would not even take every such text
    size = min(page_size, MAX_PAGE) if page_size > 0 else DEFAULT_PAGE
    rows = await bag.page(account_id, state, size + 1, _read_token(page_token))
    following = _token(rows[size - 1].id) if len(rows) > size else ""
    return rows[:size], following


def _named(message_id: str) -> str:
    """Raises MessageNotFound for what no message is called, and no database might take."""
    if not message_id.startswith("msg_") or not message_id[4:].isalnum() or len(message_id) > LONGEST_ID:
        raise errors.MessageNotFound("There is no such message.")
    return message_id


def _token(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).decode().rstrip("=")


def _read_token(token: str) -> str | None:
    if not token:
        return None
    try:
        decoded = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        decoded = ""
    if not decoded.startswith("msg_") or not decoded[4:].isalnum() or _token(decoded) != token:
        raise errors.BadPageToken("This page token was not given by us.", field="page_token")
    return decoded


async def show(message_id: str, bag: ports.Mailbag) -> tuple[ports.Message, Sequence[ports.Resent]]:
    """A message and who sent it again when, the latest first. Raises `errors.MessageNotFound`."""
    kept = await bag.get(_named(message_id))
    return kept.message, await bag.resends(message_id)


async def resend(command: Resend, bag: ports.Mailbag, directory: ports.Directory) -> ports.Message:
    """Lets a message be sent again: to the address that the account has now, under the same Message-ID.

    Nothing changes when the request was made before or the message waits to be sent anyway.
    Raises `errors.MessageNotFound`, `AlreadySent` (unless `again`), `MessageErased`, `NothingToSend`, `NoRecipient`,
    and a transient error while billing cannot be asked for the address.
    """
    for field, value, longest in (
        ("request_id", command.request_id, LONGEST_REQUEST_ID),
        ("actor", command.actor, LONGEST_ACTOR),
    ):
        if not 1 <= len(value) <= longest or not value.isprintable():
            raise InvalidArgument(f"1 to {longest} printable characters are expected.", field=field)
    kept = await bag.get(_named(command.message_id))
    if kept.message.erased:
        raise errors.MessageErased("Its account was erased: neither address nor contents are kept.")
    notice = events.read(kept.event_type, kept.event_data, kept.recipient_data)
    if notice.needless:
        raise errors.NothingToSend(f"There is nothing to send: {notice.needless}.")
    if await bag.overtaken(notice.topic, notice.rank):
        raise errors.NothingToSend(f"There is nothing to send: {notice.overtaken}.")
    known = await directory.recipient(kept.message.account_id)
    address = domain.recipient_of(events.addressee(known)) if known is not None else ""
    address = address or kept.message.recipient or domain.recipient_of(notice.to)
    if not address:
        raise errors.NoRecipient("The account has no usable mail address: give it one first.")
    message = await bag.resend(command.message_id, command.request_id, command.actor, address, again=command.again)
    log.warning("message.resend", message=command.message_id, actor=command.actor, state=message.state.value)
    return message
