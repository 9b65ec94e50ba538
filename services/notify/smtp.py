"""The way to the mail server. Its whole art is to know, after any failure, whether the message was taken."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from urllib.parse import unquote, urlsplit

import aiosmtplib
from aiosmtplib import SMTPDataError, SMTPException, SMTPRecipientRefused, SMTPResponseException, SMTPSenderRefused

from services.kit.config import LOOPBACK
from services.notify.errors import NotAccepted, OutcomeUnknown, Refused

COMMAND_TIMEOUT_S = 10.0  # connect, envelope: together they stay below storage.CLAIM in any healthy case
CONTENT_TIMEOUT_S = 60.0  # below storage.SENDING
# Answers about us, not about the message: not authenticated, wrong password, encryption wanted (RFC 4954).
# A wrong setting must not send every receipt to the dead letters.
_OUR_FAULT = frozenset({530, 534, 535, 538})


@dataclass(frozen=True)
class Server:
    """A mail server, from `smtp://user:password@host:port` or `smtps://…`."""

    host: str
    port: int
    user: str | None
    password: str | None
    tls: bool  # from the first byte
    start_tls: bool | None  # None: when the server offers it

    @classmethod
    def of(cls, url: str) -> Server:
        parts = urlsplit(url)
        host = parts.hostname or ""
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        tls = parts.scheme == "smtps"
        start_tls: bool | None
        if tls or (host in LOOPBACK and user is None):
            start_tls = False
        else:
            # A password never crosses a network in the clear, whatever the server says it can do.
            start_tls = True if user and host not in LOOPBACK else None
        return cls(host, parts.port or (465 if tls else 587 if user else 25), user, password, tls, start_tls)


class SmtpMailer:
    """Delivers each mail over a connection of its own; the envelope's sender is the mail's own."""

    def __init__(self, server: Server) -> None:
        self._server = server
        name = socket.gethostname()
        self._hostname = name if "." in name else ""
        self._partings: set[asyncio.Task[None]] = set()

    async def deliver(self, mail: EmailMessage, recipient: str, before_content: Callable[[], Awaitable[None]]) -> None:
        """See `ports.Mailer`."""
        sender = mail["From"].addresses[0]
        client = aiosmtplib.SMTP(
            hostname=self._server.host,
            port=self._server.port,
            username=self._server.user,
            password=self._server.password,
            use_tls=self._server.tls,
            start_tls=self._server.start_tls,
            # Given, or the library asks the name service for it, which may take seconds.
            local_hostname=self._hostname or sender.domain,
            timeout=COMMAND_TIMEOUT_S,
        )
        try:
            content = await self._envelope(client, mail, sender.addr_spec, recipient)
            await before_content()
            await _content(client, content)
        except BaseException:
            client.close()
            raise
        self._part(client)

    async def _envelope(self, client: aiosmtplib.SMTP, mail: EmailMessage, sender: str, recipient: str) -> bytes:
        """Everything up to the recipient's acceptance. Whatever fails here, nothing was taken."""
        try:
            try:
                await client.connect()
                await client.ehlo()
            except SMTPResponseException as error:
                # The server turns us away, or our password: the message is not at fault.
                raise NotAccepted(_said(error)) from error
            international = not recipient.isascii()
            if international and not client.supports_extension("smtputf8"):
                raise Refused("the mail server cannot take an address with letters beyond ASCII (SMTPUTF8)")
            content = mail.as_bytes(policy=SMTPUTF8 if international else SMTP)
            options = ["SMTPUTF8"] if international else []
            if client.supports_extension("size"):
                options.append(f"SIZE={len(content)}")
            encoding = "utf-8" if international else "ascii"
            # The same as in From, as DMARC's alignment wants it (RFC 7489, 3.1.2).
            await client.mail(sender, options=options, encoding=encoding)
            await client.rcpt(recipient, encoding=encoding)
        except (SMTPSenderRefused, SMTPRecipientRefused, SMTPResponseException) as error:
            raise _by_code(error) from error
        except (SMTPException, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            raise NotAccepted(f"no session with the mail server: {type(error).__name__}") from error
        return content

    def _part(self, client: aiosmtplib.SMTP) -> None:
        """Says goodbye without making anybody wait for it."""
        task = asyncio.create_task(_quit(client))
        self._partings.add(task)
        task.add_done_callback(self._partings.discard)

    async def close(self) -> None:
        if self._partings:
            await asyncio.wait(self._partings, timeout=2)


async def _content(client: aiosmtplib.SMTP, content: bytes) -> None:
    try:
        await client.data(content, timeout=CONTENT_TIMEOUT_S)
    except SMTPDataError as error:
        # An answer that is not 250 says that it was not taken (RFC 5321 §4.2.5).
        raise _by_code(error) from error
    except (SMTPException, OSError, TimeoutError) as error:
        raise OutcomeUnknown(f"the connection ended before the answer: {type(error).__name__}") from error


def _by_code(error: SMTPResponseException) -> NotAccepted | Refused:
    passing = error.code < 500 or error.code in _OUR_FAULT
    return NotAccepted(_said(error)) if passing else Refused(_said(error))


def _said(error: SMTPResponseException) -> str:
    text = " ".join(str(error.message).split())
    return f"the mail server answered {error.code} {text}"[:300]


async def _quit(client: aiosmtplib.SMTP) -> None:
    with contextlib.suppress(SMTPException, OSError, TimeoutError):
        await client.quit(timeout=2)
    client.close()
