"""One try at one message."""

from __future__ import annotations

import structlog

from services.kit.failpoint import failpoint
from services.notify import domain, errors, events, ports

log = structlog.get_logger(__name__)


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
            notice = events.read(message.event_type, message.event_data, message.recipient_data)
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
