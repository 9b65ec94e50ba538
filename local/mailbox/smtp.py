"""The SMTP side: takes every mail for everybody, unless it was told to refuse some."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from local.mailbox.store import Store

_LARGEST = 25 * 1024 * 1024


@dataclass
class Faults:
    """The next `next` mails (at stage `data`) or recipients (at stage `rcpt`) are refused with code `reject`."""

    reject: int = 451
    next: int = 0
    stage: str = "data"

    def take(self, stage: str) -> str | None:
        """The refusal that is due now, if one is."""
        if self.next <= 0 or stage != self.stage:
            return None
        self.next -= 1
        return f"{self.reject} refused, as the mailbox was told to"


class Handler:
    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if (refusal := self._faults.take("rcpt")) is not None:
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if (refusal := self._faults.take("data")) is not None:
            return refusal
        raw = envelope.content
        data = raw if isinstance(raw, bytes) else str(raw or "").encode()
        return f"250 OK kept as {self._store.add(envelope.mail_from or '', envelope.rcpt_tos, data)}"


async def serve(host: str, port: int, store: Store, faults: Faults) -> asyncio.Server:
    """Starts listening. Any user and password are right."""
    handler = Handler(store, faults)

    def connection() -> SMTP:
        return SMTP(
            handler,
            data_size_limit=_LARGEST,
            enable_SMTPUTF8=True,
            ident="tollway mailbox",
            auth_require_tls=False,
            authenticator=lambda *_: AuthResult(success=True),
        )

    return await asyncio.get_running_loop().create_server(connection, host, port)
