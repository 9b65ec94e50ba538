"""The mail server: reachable, and it takes our password. No mail is sent."""

from __future__ import annotations

import contextlib

import aiosmtplib

from services.doctor.finding import Finding
from services.notify.settings import NotifySettings
from services.notify.smtp import Server

_CONNECT_S = 5.0


async def examine(settings: NotifySettings) -> Finding:
    server = Server.of(settings.smtp_url.get_secret_value())
    place = f"{server.host}:{server.port}"
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        username=server.user,
        password=server.password,
        use_tls=server.tls,
        start_tls=server.start_tls,
        local_hostname="localhost",
        timeout=_CONNECT_S,
    )
    try:
        await client.connect()
        await client.noop()
    except aiosmtplib.SMTPAuthenticationError as error:
        return Finding.fail(
            "mail server", f"{place} refuses us: {error.code}", "check the password in TOLLWAY_SMTP_URL"
        )
    except (aiosmtplib.SMTPException, OSError) as error:
        fix = "check TOLLWAY_SMTP_URL, that the server runs, and that this machine may reach its port"
        return Finding.fail("mail server", f"{place}: {type(error).__name__}", fix)
    finally:
        with contextlib.suppress(Exception):
            await client.quit()
    return Finding.ok("mail server", f"{place}, mails come from {settings.sender}")
