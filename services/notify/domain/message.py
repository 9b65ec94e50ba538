"""How a message begins, and what follows from each try."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from services.notify.domain.notice import Addressee, Notice

# RFC 5321 §4.5.4.1: "the give-up time generally needs to be at least 4-5 days".
GIVE_UP_AFTER = timedelta(days=4)
RETRY_DELAYS = tuple(timedelta(seconds=s) for s in (1, 5, 30, 120, 600, 1800, 3600))

# Deliberately narrower than RFC 5321: no quoted local parts, no comments, no address literals. What it admits
# cannot end a header, start another, or name a second recipient.
_ADDRESS = re.compile(r"[^\s\x00-\x20\x7f()<>\[\]:;@\\,\"]{1,64}@(?=.{1,253}\Z)[\w-]+(?:\.[\w-]+)*", re.UNICODE)


class State(StrEnum):
    """Where a message stands. `sending` is between handing over and knowing; the rest are the contract's."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    DEAD = "dead"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Opening:
    """How a message begins: waiting to be sent, or skipped with the reason."""

    state: State
    recipient: str
    reason: str = ""


def usable_address(text: str) -> bool:
    """True for one plain mail address that is safe to put into a header and an envelope."""
    return len(text) <= 254 and text.isprintable() and _ADDRESS.fullmatch(text) is not None


def recipient_of(to: Addressee) -> str:
    """The account's contact address, else the one Stripe has for the customer (CONTRACT, "Mail"). May be empty."""
    for address in (to.contact_email.strip(), to.customer_email.strip()):
        if usable_address(address):
            return address
    return ""


def open_message(notice: Notice, *, overtaken: bool = False) -> Opening:
    """Decides whether there is anything to send. `overtaken`: a notice of its topic that says more came first."""
    recipient = recipient_of(notice.to)
    if notice.needless:
        return Opening(State.SKIPPED, recipient, notice.needless)
    if overtaken:
        return Opening(State.SKIPPED, recipient, notice.overtaken)
    if not recipient:
        return Opening(State.SKIPPED, "", "nobody to send it to: the account has no usable mail address")
    return Opening(State.PENDING, recipient)


@dataclass(frozen=True)
class Verdict:
    """What a try leaves behind. `retry_after` is set exactly when the state is pending."""

    state: State
    error: str = ""
    retry_after: timedelta | None = None


SENT = Verdict(State.SENT)


def unknown(error: str) -> Verdict:
    return Verdict(State.UNKNOWN, error)


def refused(error: str) -> Verdict:
    return Verdict(State.DEAD, error)


def not_accepted(error: str, *, tries: int, age: timedelta) -> Verdict:
    """After try number `tries` (from 1) of a message that is `age` old and is known not to have been taken."""
    if age >= GIVE_UP_AFTER:
        return Verdict(State.DEAD, f"gave up after {tries} tries: {error}")
    return Verdict(State.PENDING, error, RETRY_DELAYS[min(tries, len(RETRY_DELAYS)) - 1])
