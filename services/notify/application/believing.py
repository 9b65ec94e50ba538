"""What follows from an event: a message to be sent, or an account to be forgotten."""

from __future__ import annotations

import hashlib

import structlog

from services.kit import telemetry
from services.kit.inbox import Received
from services.notify import domain, events, ports
from services.notify.domain import State
from services.notify.storage import NotifyUnitOfWork
from tollway.billing.v1.recipient_pb2 import Recipient

log = structlog.get_logger(__name__)


def message_id(kind: str, subject_id: str, mail_domain: str) -> str:
    """The Message-ID header: the same at every try, so that a mail client folds what a server delivers twice."""
    digest = hashlib.sha256(f"{kind}\0{subject_id}".encode()).hexdigest()[:32]
    return f"<{kind.replace('_', '-')}.{digest}@{mail_domain}>"


async def believe(event: Received, uow: NotifyUnitOfWork, directory: ports.Directory, *, mail_domain: str) -> bool:
    """Notes what is to be sent for an event. True when something waits to be sent now."""
    account_id = events.account_of(event.message)
    recipient: Recipient | None = Recipient()
    if isinstance(event.message, events.WITHOUT_ADDRESS):
        recipient = await directory.recipient(account_id)
    if recipient is None:
        log.warning("event.about_nobody", type=event.type, account=account_id)
        return False
    notice = events.to_notice(event.message, recipient)
    async with uow:
        if not await uow.inbox.accept(event):
            return False
        # Paid and failed of one invoice may arrive together: whichever is second sees the first.
        if not await uow.drafts.lock(account_id, notice.topic):
            await uow.commit()
            return False
        opening = domain.open_message(notice, overtaken=await uow.drafts.overtaken(notice.topic, notice.rank))
        draft = ports.Draft(
            account_id=account_id,
            kind=notice.kind,
            subject_id=notice.subject_id,
            topic=notice.topic,
            rank=notice.rank,
            opening=opening,
            message_id=message_id(notice.kind, notice.subject_id, mail_domain),
            event_type=event.type,
            event_data=event.message.SerializeToString(deterministic=True),
            recipient_data=recipient.SerializeToString(deterministic=True),
        )
        added = await uow.drafts.add(draft)
        await uow.drafts.withdraw(notice.topic, notice.rank, notice.overtaken)
        await uow.commit()
    if added:
        log.info("message.noted", kind=notice.kind, subject=notice.subject_id, state=opening.state.value)
        telemetry.count("tollway_messages_noted_total", 1, kind=notice.kind, state=opening.state.value)
    return added and opening.state is State.PENDING


async def forget(event: Received, account_id: str, uow: NotifyUnitOfWork) -> None:
    """Erases what is kept of an account's people: addresses, names and contents. What was sent when stays known."""
    async with uow:
        if not await uow.inbox.accept(event):
            return
        count = await uow.drafts.erase(account_id)
        await uow.commit()
    log.info("account.forgotten", account=account_id, messages=count)
