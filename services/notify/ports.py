"""What the use cases need from outside: a place for messages, a writer of mails, a way to send them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Protocol

from services.notify.domain import Notice, Opening, State, Verdict
from tollway.billing.v1.recipient_pb2 import Recipient


@dataclass(frozen=True)
class Message:
    """A message as it stands."""

    id: str
    account_id: str
    kind: str
    subject_id: str
    recipient: str
    state: State
    attempt_count: int
    error: str
    message_id: str
    create_time: datetime
    send_time: datetime | None
    erased: bool


@dataclass(frozen=True)
class Kept:
    """A message with what it is written from."""

    message: Message
    event_type: str
    event_data: bytes
    recipient_data: bytes


@dataclass(frozen=True)
class Resent:
    """That somebody had a message sent again."""

    actor: str
    previous_state: State
    create_time: datetime


@dataclass(frozen=True)
class Draft:
    """A new message: about `subject_id`, from the event that will be read again when it is sent. `topic`, `rank`: see
    `domain.Notice`. `recipient_data` is billing's Recipient, when the event itself carries no address.
    """

    account_id: str
    kind: str
    subject_id: str
    topic: str
    rank: int
    opening: Opening
    message_id: str
    event_type: str
    event_data: bytes
    recipient_data: bytes


@dataclass(frozen=True)
class Claimed:
    """A message that is ours to send until the claim lapses."""

    id: str
    claim: str
    recipient: str
    message_id: str
    event_type: str
    event_data: bytes
    recipient_data: bytes
    tries: int  # this one included
    age: timedelta


class Drafts(Protocol):
    """Messages within the transaction that believes an event."""

    async def lock(self, account_id: str, topic: str) -> bool:
        """Holds other events about the same thing back until this transaction ends. False when the account's personal
        data was erased: nothing of it may be kept any more.
        """
        ...

    async def overtaken(self, topic: str, rank: int) -> bool:
        """Whether there is a message of the topic with a higher rank."""
        ...

    async def add(self, draft: Draft) -> bool:
        """False when there is one of this kind about this subject already; then nothing changes."""
        ...

    async def withdraw(self, topic: str, rank: int, reason: str) -> None:
        """What still waits of the topic with a lower rank is skipped; what is on its way right now is not tried again
        should that fail.
        """
        ...

    async def erase(self, account_id: str) -> int:
        """Forgets addresses, names and contents of the account's messages, now and from now on; how many it had."""
        ...


class Directory(Protocol):
    async def recipient(self, account_id: str) -> Recipient | None:
        """Whom to write to about the account, as billing has it now; None when it knows no such account.

        Raises a transient error while billing cannot be asked.
        """
        ...


class Mailbag(Protocol):
    """Messages as the sender sees them. Each call is a transaction of its own, committed when it returns."""

    async def claim(self, limit: int) -> Sequence[Claimed]: ...

    async def mark_sending(self, message: Claimed) -> bool:
        """False when the claim lapsed and it is no longer ours."""
        ...

    async def settle(self, message: Claimed, verdict: Verdict) -> None: ...

    async def release(self, message: Claimed) -> None:
        """Gives it back untried: it certainly was not handed over."""
        ...

    async def expire(self) -> int:
        """Turns what was left in `sending` by a process that died into `unknown`; how many."""
        ...

    async def get(self, message_id: str) -> Kept:
        """Raises `errors.MessageNotFound`."""
        ...

    async def overtaken(self, topic: str, rank: int) -> bool:
        """See `Drafts.overtaken`."""
        ...

    async def resends(self, message_id: str) -> Sequence[Resent]:
        """The latest first."""
        ...

    async def resend(self, message_id: str, request_id: str, actor: str, recipient: str, *, again: bool) -> Message:
        """Makes it wait again and notes who did; as it is then. See `application.resend`."""
        ...

    async def page(self, account_id: str, state: State | None, limit: int, before: str | None) -> Sequence[Message]:
        """Newest first, those older than the message `before`."""
        ...


class Writer(Protocol):
    def __call__(self, notice: Notice, *, recipient: str, message_id: str) -> EmailMessage:
        """The mail. Raises `errors.Refused` when it cannot be written."""
        ...


class Mailer(Protocol):
    async def deliver(self, mail: EmailMessage, recipient: str, before_content: Callable[[], Awaitable[None]]) -> None:
        """Hands the mail over. Awaits `before_content` once the server has taken the envelope, before any content.

        Returns once the server has accepted it. Raises `errors.NotAccepted`, `Refused` or `OutcomeUnknown`;
        what `before_content` raises passes through, and nothing was sent then.
        """
        ...
