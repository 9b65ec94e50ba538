"""Signing in a program: it shows a code, a person approves it, the program gets a session of that person's, once.

The codes' rows hold hashes: of the device code SHA-256, as of keys; of the short user code a keyed one, which nobody
can search without the installation's secret. Times are the wall clock's.
"""

from __future__ import annotations

import secrets
import unicodedata
from dataclasses import dataclass
from datetime import timedelta

from services.billing.application import accounts, audit, key_sessions, sessions
from services.billing.application.context import Context
from services.billing.domain import device_login as domain
from services.billing.domain.api_key import NewKey, hash_key, kind_of, new_key
from services.billing.domain.device_login import DeviceLogin, Outcome
from services.billing.domain.principal import Actor, ActorKind
from services.billing.errors import (
    AccountNotFound,
    ApiKeyMalformed,
    DeviceCodeRateLimited,
    DeviceLoginNotFound,
    DeviceLoginRateLimited,
)
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.billing.storage.identity import Session
from services.kit.errors import InvalidArgument
from services.kit.failpoint import failpoint
from services.kit.ids import new_id

PREFIX = "dvc_"
WINDOW = timedelta(hours=1)
MISSES = 20  # wrong codes a person may type in that time, of 20^8
KEPT = timedelta(days=1)
_LOCAL_INTERVAL = timedelta(seconds=1)  # one person on one machine
_NAME = 100


@dataclass(frozen=True)
class Begun:
    device_code: str
    user_code: str
    interval: timedelta


@dataclass(frozen=True)
class Granted:
    session: Session
    token: str
    account: Account


async def begin(client_name: str, remote_address: str, context: Context) -> Begun:
    """A device code for the program and a user code for the person. Raises DeviceLoginRateLimited."""
    name = _checked_client(client_name)
    now = context.wall.now()
    address = "" if accounts.is_local(remote_address, context) else remote_address
    interval = _LOCAL_INTERVAL if context.settings.local else domain.INTERVAL
    async with context.unit_of_work() as uow:
        if address and await uow.device_logins.begun(address, now - WINDOW) >= context.settings.logins_per_address:
            raise DeviceLoginRateLimited("Too many logins were begun. Try again in an hour.", retry_after=WINDOW)
        login = DeviceLogin(new_id("dev"), name, address or remote_address, now, now + domain.LIFE, interval)
        code, user_code = await _add(login, uow, context)
        await uow.commit()
    return Begun(code.secret, user_code, interval)


async def _add(login: DeviceLogin, uow: BillingUnitOfWork, context: Context) -> tuple[NewKey, str]:
    while True:
        code = new_key(PREFIX)
        user_code = domain.user_code(secrets.randbelow(len(domain.ALPHABET) ** 8))
        if await uow.device_logins.add(login, code.hash, context.vault.mark(user_code)):
            return code, user_code


async def look(user_code: str, session_token: str, context: Context) -> tuple[DeviceLogin, str]:
    """The login and its code as it was shown, for the person who is asked to approve it.

    Raises DeviceLoginNotFound, and DeviceCodeRateLimited after too many wrong codes.
    """
    session = await key_sessions.person(session_token, context)
    async with context.unit_of_work() as uow:
        login, code = await _typed(user_code, session, uow, context)
    return login, code


async def approve(user_code: str, session_token: str, slug: str, context: Context) -> tuple[DeviceLogin, str]:
    """Raises AccountNotFound for an account that the person has no part in, and what `look` raises."""
    session = await key_sessions.person(session_token, context)
    now = context.wall.now()
    async with context.unit_of_work() as uow:
        login, code = await _typed(user_code, session, uow, context)
        account = await uow.accounts.by_slug(slug)
        if await uow.memberships.role(account.id, session.user.id) is None:
            raise AccountNotFound("There is no such account.")
        approved = domain.approve(login, session.user.id, account.id, now)
        if approved is not login:
            await uow.device_logins.save(approved)
            actor = Actor(ActorKind.SESSION, session.user.id)
            client = approved.client_name
            await audit.record(uow, context, account.id, actor, "device_login.approved", approved.id, client=client)
            await uow.commit()
    return approved, code


async def deny(user_code: str, session_token: str, context: Context) -> tuple[DeviceLogin, str]:
    session = await key_sessions.person(session_token, context)
    async with context.unit_of_work() as uow:
        login, code = await _typed(user_code, session, uow, context)
        denied = domain.deny(login, session.user.id, context.wall.now())
        await uow.device_logins.save(denied)
        await uow.commit()
    return denied, code


async def _typed(user_code: str, session: Session, uow: BillingUnitOfWork, context: Context) -> tuple[DeviceLogin, str]:
    now = context.wall.now()
    if await uow.device_logins.misses(session.user.id, now - WINDOW) >= MISSES:
        raise DeviceCodeRateLimited("Too many wrong codes. Try again in an hour.", retry_after=WINDOW)
    code = domain.normal_code(user_code)
    found = await uow.device_logins.by_user_code(context.vault.mark(code)) if code else None
    try:
        return domain.visible(found, session.user.id, now), code or ""
    except DeviceLoginNotFound:
        # Counted although nothing else comes of it: who guesses codes runs out of guesses (RFC 8628, section 5.1).
        await uow.device_logins.miss(session.user.id, now)
        await uow.commit()
        raise


async def poll(device_code: str, context: Context) -> Granted:
    """The session, when it was approved: its token comes once. Raises DeviceLoginRefused with RFC 8628's reason."""
    unknown = domain.refusal(Outcome.USED, domain.INTERVAL)
    try:
        kind_of(device_code, {PREFIX: "device code"})
    except ApiKeyMalformed:
        raise unknown from None
    now = context.wall.now()
    async with context.unit_of_work() as uow:
        login = await uow.device_logins.by_device(hash_key(device_code))
        if login is None:
            raise unknown
        polled, outcome = domain.poll(login, now)
        await uow.device_logins.save(polled)
        if outcome is not Outcome.GRANTED:
            await uow.commit()
            raise domain.refusal(outcome, polled.interval)
        user = await uow.users.get(str(polled.user_id))
        account = await uow.accounts.get(str(polled.account_id))
        session, token = await sessions.open_session(user, now, uow)
        failpoint("billing.device_login.before_commit")
        await uow.commit()
    return Granted(session, token, account)


def _checked_client(name: str) -> str:
    name = name.strip()
    if len(name) > _NAME or any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in name):
        raise InvalidArgument(f"At most {_NAME} printable characters are expected.", field="client_name")
    return name or "A program"
