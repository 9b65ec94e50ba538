"""Coming in: by a link that is mailed, once, to the browser that asked for it; or by an API key.

Links and sessions lie hashed in the database. Times are the wall clock's.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

import structlog

from services.billing.application import auth, key_sessions, sessions
from services.billing.application.accounts import checked_email, is_local
from services.billing.application.context import Context
from services.billing.domain.api_key import hash_key, kind_of, new_key
from services.billing.errors import ApiKeyMalformed, SignInLinkInvalid, SignInLinkOtherBrowser, SignInRateLimited
from services.billing.ports import SignInLink
from services.billing.storage.identity import Session, User
from services.billing.storage.sign_in import KeySession, Link
from services.kit import telemetry
from services.kit.errors import InvalidArgument, TollwayError, Unavailable
from services.kit.failpoint import failpoint
from services.kit.ids import new_id

PREFIX = "sil_"
LIFE = timedelta(minutes=15)
WINDOW = timedelta(hours=1)
KEPT = timedelta(days=1)
_BROWSER = re.compile(r"[A-Za-z0-9_-]{16,128}")
_PAUSES_S = (1.0, 3.0, 10.0, 30.0)  # between tries at the mail

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class RequestLink:
    email: str
    browser_token: str
    remote_address: str = ""


async def request_link(command: RequestLink, context: Context) -> datetime:
    """Has a link mailed, if the address is a member's; returns when it ends. Raises SignInRateLimited.

    Who has the address shows neither in the answer nor in how long it takes: the link is made after it. A process
    killed in between mails nothing; the person asks again.
    """
    email = checked_email(command.email).lower()
    browser = _browser_hash(command.browser_token)
    await _note_attempt(email, command.remote_address, context)
    context.later(_mail_link(email, browser, context))
    return context.wall.now() + LIFE


async def check_link(token: str, browser_token: str, context: Context) -> User:
    """Whom the link would let in. Changes nothing. Raises SignInLinkInvalid, SignInLinkOtherBrowser."""
    async with context.unit_of_work() as uow:
        return _checked(await uow.sign_in_links.find(_link_hash(token)), browser_token, context.wall.now()).user


async def sign_in_with_link(token: str, browser_token: str, context: Context) -> tuple[Session, str]:
    """A session of the person's, whose address is verified from now on. Once per link, whoever tries at once."""
    now = context.wall.now()
    async with context.unit_of_work() as uow:
        link = _checked(await uow.sign_in_links.find(_link_hash(token)), browser_token, now)
        if not await uow.sign_in_links.use(link.id, now):
            raise _invalid()
        opened = await sessions.open_session(link.user, now, uow)
        failpoint("billing.sign_in.before_commit")
        await uow.commit()
    telemetry.count("tollway_sign_ins_total", 1, by="link")
    return opened


async def sign_in_with_key(api_key: str, remote_address: str, context: Context) -> tuple[KeySession, str]:
    """A session that may do what the key may. Raises as `auth.authenticate`, and SignInRateLimited."""
    await _note_attempt("", remote_address, context)
    opened = await key_sessions.open_key_session(await auth.authenticate(api_key, context), context)
    telemetry.count("tollway_sign_ins_total", 1, by="key")
    return opened


async def _note_attempt(email: str, remote_address: str, context: Context) -> None:
    now = context.wall.now()
    address = "" if is_local(remote_address, context) else remote_address
    async with context.unit_of_work() as uow:
        by_email, by_address = await uow.sign_in_attempts.since(email, address, now - WINDOW)
        if (email and by_email >= context.settings.sign_in_per_email) or (
            address and by_address >= context.settings.sign_in_per_address
        ):
            raise SignInRateLimited("Too many tries to sign in. Try again in an hour.", retry_after=WINDOW)
        await uow.sign_in_attempts.note(email, address, now)
        await uow.commit()


async def _mail_link(email: str, browser: bytes, context: Context) -> None:
    now = context.wall.now()
    token = new_key(PREFIX)
    async with context.unit_of_work() as uow:
        user = await uow.users.by_email(email)
        if user is None or not await uow.memberships.of_user(user.id, 1):
            return
        await uow.sign_in_links.add(Link(new_id("sil"), user, browser, now, now + LIFE, None), token.hash)
        await uow.commit()
    url = f"{context.settings.public_url}/dash/sign-in/link?{urlencode({'token': token.secret})}"
    link = SignInLink(user.email, url, now + LIFE, context.announcer.brand())
    for pause_s in (*_PAUSES_S, None):
        try:
            await context.sign_in_mail.send(link)
        except Unavailable as error:
            if pause_s is None:
                log.error("sign_in.not_mailed", user=user.id, reason=error.error_reason)
                return
            await asyncio.sleep(pause_s)  # backoff between attempts: there is nothing to await
        except TollwayError as error:
            log.error("sign_in.not_mailed", user=user.id, reason=error.error_reason)
            return
        else:
            return


def _checked(link: Link | None, browser_token: str, now: datetime) -> Link:
    if link is None or link.use_time is not None or link.expire_time <= now:
        raise _invalid()
    if not _BROWSER.fullmatch(browser_token) or link.browser_hash != _browser_hash(browser_token):
        raise SignInLinkOtherBrowser("This link was asked for in another browser. Open it there, or ask for a new one.")
    return link


def _invalid() -> SignInLinkInvalid:
    return SignInLinkInvalid("This link has been used, or its time is over. Ask for a new one.")


def _link_hash(token: str) -> bytes:
    """Raises SignInLinkInvalid for a malformed one, without reading the database."""
    try:
        kind_of(token, {PREFIX: "link"})
    except ApiKeyMalformed:
        raise _invalid() from None
    return hash_key(token)


def _browser_hash(browser_token: str) -> bytes:
    if not _BROWSER.fullmatch(browser_token):
        raise InvalidArgument("16 to 128 letters, digits, `-` or `_` are expected.", field="browser_token")
    return hashlib.sha256(browser_token.encode()).digest()
