"""The mail that lets a person in. Nothing of it is kept: its link is as good as a password while it lives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from math import ceil

from services.kit import telemetry
from services.kit.clock import Clock
from services.kit.errors import FailedPrecondition, InvalidArgument, Unavailable
from services.notify import errors, facts, ports
from services.notify.application import message_id
from services.notify.domain import Brand, usable_address
from services.notify.email import compose, sender_of
from services.notify.text import web_link

KIND = "sign_in"


@dataclass(frozen=True)
class SignInLink:
    """`url` with its token; `expire_time` is the wall clock's. The brand's words are the catalog's."""

    recipient: str
    url: str
    expire_time: datetime
    brand: Brand


class MailNotAccepted(Unavailable):
    """The mail server did not take it now."""

    reason = "MAIL_NOT_ACCEPTED"


class MailRefused(FailedPrecondition):
    """The mail server never will."""

    reason = "MAIL_REFUSED"


def write(link: SignInLink, *, sender: str, now: datetime) -> EmailMessage:
    """The mail, in HTML and text. The same link has the same Message-ID, whatever its try."""
    own = sender_of(link.brand, sender)
    shown = facts.of_brand(link.brand) | {
        "recipient": link.recipient,
        "url": link.url,
        "minutes": max(1, ceil((link.expire_time - now).total_seconds() / 60)),
    }
    return compose(
        KIND,
        shown,
        sender=own,
        recipient=link.recipient,
        message_id=message_id(KIND, link.url, sender.rsplit("@", 1)[1]),
    )


async def send_sign_in_link(link: SignInLink, mailer: ports.Mailer, *, sender: str, clock: Clock) -> None:
    """Hands it to the mail server, once. Raises InvalidArgument, MailNotAccepted, MailRefused."""
    if not usable_address(link.recipient):
        raise InvalidArgument("One plain mail address is expected.", field="recipient")
    if not web_link(link.url):
        raise InvalidArgument("An http or https address is expected.", field="url")
    mail = write(link, sender=sender, now=clock.now().astimezone(UTC))
    outcome = "failed"
    try:
        await mailer.deliver(mail, link.recipient, _nothing_first)
        outcome = "sent"
    except errors.Refused:
        outcome = "refused"
        raise MailRefused("The mail server refuses this mail.") from None
    except errors.DeliveryError:
        # Whether it was taken or not: the same link twice lets in the same person once.
        raise MailNotAccepted("The mail server did not take the mail.") from None
    finally:
        telemetry.count("tollway_sign_in_mails_total", 1, outcome=outcome)


async def _nothing_first() -> None:
    """Nothing is recorded before the content goes out."""
