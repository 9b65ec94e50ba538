"""What can go wrong between us and the mail server, by what is known afterwards."""

from __future__ import annotations

from services.kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound


class BadPageToken(InvalidArgument):
    reason = "BAD_PAGE_TOKEN"


class MessageNotFound(NotFound):
    reason = "MESSAGE_NOT_FOUND"


class AlreadySent(FailedPrecondition):
    """The mail server accepted it; sending it once more has to be asked for in so many words."""

    reason = "MESSAGE_ALREADY_SENT"


class MessageErased(FailedPrecondition):
    reason = "MESSAGE_ERASED"


class NothingToSend(FailedPrecondition):
    """It was never to be sent, or what it says is no longer so."""

    reason = "NOTHING_TO_SEND"


class NoRecipient(FailedPrecondition):
    reason = "NO_RECIPIENT"


class RequestIdReused(AlreadyExists):
    """The request id was used for another message."""

    reason = "IDEMPOTENCY_KEY_REUSED"


class DeliveryError(Exception):
    """Base: a message did not get through. The text is what operators read; it names no secret."""


class NotAccepted(DeliveryError):
    """The server certainly did not take it, for a passing reason: away, busy, 4xx. Trying again is safe."""


class Refused(DeliveryError):
    """The server will never take it: 5xx, or it cannot be written at all."""


class OutcomeUnknown(DeliveryError):
    """The content went out and no answer came back: it may or may not be delivered."""
