"""What can go wrong between us and the mail server, by what is known afterwards."""

from __future__ import annotations

from services.kit.errors import InvalidArgument


class BadPageToken(InvalidArgument):
    reason = "BAD_PAGE_TOKEN"


class DeliveryError(Exception):
    """Base: a message did not get through. The text is what operators read; it names no secret."""


class NotAccepted(DeliveryError):
    """The server certainly did not take it, for a passing reason: away, busy, 4xx. Trying again is safe."""


class Refused(DeliveryError):
    """The server will never take it: 5xx, or it cannot be written at all."""


class OutcomeUnknown(DeliveryError):
    """The content went out and no answer came back: it may or may not be delivered."""
