"""Use cases: believe an event, send what waits, list what became of it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence

import structlog

from services.kit import telemetry
from services.kit.failpoint import failpoint
from services.kit.inbox import Received
from services.notify import domain, errors, events, ports
from services.notify.domain import State
from services.notify.storage import NotifyUnitOfWork

MAX_PAGE = 500
DEFAULT_PAGE = 50

log = structlog.get_logger(__name__)


def message_id(kind: str, subject_id: str, mail_domain: str) -> str:
    """The Message-ID header: the same at every try, so that a mail client folds what a server delivers twice."""
    digest = hashlib.sha256(f"{kind}\0{subject_id}".encode()).hexdigest()[:32]
    return f"<{kind.replace('_', '-')}.{digest}@{mail_domain}>"


async def believe(event: Received, uow: NotifyUnitOfWork, *, mail_domain: str) -> bool:
    """Notes what is to be sent for an event. True when something waits to be sent now."""
    notice = events.to_notice(event.message)
    invoice = notice.invoice
    async with uow:
        if not await uow.inbox.accept(event):
            return False
        # Paid and failed of one invoice may arrive together: whichever is second sees the first.
        await uow.drafts.lock(invoice.id)
        paid = await uow.drafts.exists(domain.Receipt.kind, invoice.id)
        opening = domain.open_message(notice, already_paid=paid)
        draft = ports.Draft(
            account_id=invoice.account_id,
            kind=notice.kind,
            subject_id=invoice.id,
            opening=opening,
            message_id=message_id(notice.kind, invoice.id, mail_domain),
            event_type=event.type,
            event_data=event.message.SerializeToString(deterministic=True),
        )
        added = await uow.drafts.add(draft)
        if isinstance(notice, domain.Receipt):
            await uow.drafts.withdraw(domain.PaymentFailed.kind, invoice.id, "paid before this could be sent")
        await uow.commit()
    if added:
        log.info("message.noted", kind=notice.kind, invoice=invoice.id, state=opening.state.value)
        telemetry.count("tollway_messages_noted_total", 1, kind=notice.kind, state=opening.state.value)
    return added and opening.state is State.PENDING


class ClaimLapsed(Exception):
    """Another process has it now."""


async def send(message: ports.Claimed, bag: ports.Mailbag, write: ports.Writer, mailer: ports.Mailer) -> domain.Verdict:
    """One try at one message. Returns what the try leaves behind; the caller settles it.

    Raises what the database raises before the content went out: then nothing was sent, and it may be released.
    """

    async def before_content() -> None:
        if not await bag.mark_sending(message):
            raise ClaimLapsed
        failpoint("notify.sending")

    try:
        try:
            notice = events.read(message.event_type, message.event_data)
            mail = write(notice, recipient=message.recipient, message_id=message.message_id)
        except errors.DeliveryError:
            raise
        except Exception as error:
            log.exception("message.unwritable", message=message.id)
            raise errors.Refused(f"cannot be written: {type(error).__name__}") from error
        await mailer.deliver(mail, message.recipient, before_content)
    except errors.OutcomeUnknown as error:
        return domain.unknown(str(error))
    except errors.Refused as error:
        return domain.refused(str(error))
    except errors.NotAccepted as error:
        return domain.not_accepted(str(error), tries=message.tries, age=message.age)
    failpoint("notify.sent_unrecorded")
    return domain.SENT


async def list_messages(
    bag: ports.Mailbag, *, account_id: str, state: State | None, page_size: int, page_token: str
) -> tuple[Sequence[ports.Message], str]:
    """A page, newest first, and the token of the next one (empty at the end). Raises `errors.BadPageToken`."""
    size = min(page_size, MAX_PAGE) if page_size > 0 else DEFAULT_PAGE
    rows = await bag.page(account_id, state, size + 1, _read_token(page_token))
    following = _token(rows[size - 1].id) if len(rows) > size else ""
    return rows[:size], following


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
