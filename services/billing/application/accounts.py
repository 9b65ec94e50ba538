"""Signing up, and reading an account."""

from __future__ import annotations

import ipaddress
import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import timedelta

from email_validator import EmailNotValidError, validate_email

from services.billing import events
from services.billing.application import idempotency
from services.billing.application.context import Context
from services.billing.domain.api_key import new_key
from services.billing.domain.entitlement import new_account
from services.billing.errors import SignUpRateLimited
from services.billing.storage.accounts import Account, ApiKey
from services.kit.errors import InvalidArgument
from services.kit.failpoint import failpoint
from services.kit.ids import new_id
from tollway.billing.v1 import account_pb2

WINDOW = timedelta(hours=1)
_NAME = 100


@dataclass(frozen=True)
class CreateAccount:
    email: str
    name: str
    request_id: str = ""
    remote_address: str = ""


def checked_email(email: str) -> str:
    """The address in normal form. Raises InvalidArgument naming `email`."""
    try:
        found = validate_email(email, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError:
        raise InvalidArgument("An email address is expected, such as you@example.com.", field="email") from None
    return found.normalized


def checked_name(name: str) -> str:
    """The name without space around it. Raises InvalidArgument naming `name`."""
    name = name.strip()
    if not 1 <= len(name) <= _NAME:
        raise InvalidArgument(f"A name of 1 to {_NAME} characters is expected.", field="name")
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in name):
        raise InvalidArgument("A name has no control characters or line breaks.", field="name")
    return name


def slug_of(name: str) -> str:
    """Lower-case ASCII letters, digits and single hyphens, at most 40; `account` when nothing is left."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:40].strip("-") or "account"


async def create_account(command: CreateAccount, context: Context) -> account_pb2.CreateAccountResponse:
    """An account on the default tier with its first key: all in one commit, and once per `request_id`."""
    email, name = checked_email(command.email), checked_name(command.name)
    request_id = idempotency.checked_request_id(command.request_id)
    mark = idempotency.fingerprint(email, name)
    now = context.wall.now()
    async with context.unit_of_work() as uow:
        if request_id:
            earlier = await idempotency.find("sign_up", request_id, mark, uow, context.vault)
            if earlier is not None:
                return account_pb2.CreateAccountResponse.FromString(earlier)
        limited_address = "" if _is_local(command.remote_address, context) else command.remote_address
        by_email, by_address = await uow.sign_ups.since(email.lower(), limited_address, now - WINDOW)
        if by_email >= context.settings.signup_per_email or (
            limited_address and by_address >= context.settings.signup_per_address
        ):
            raise SignUpRateLimited("Too many sign-ups. Try again in an hour.", retry_after=WINDOW)
        await uow.sign_ups.note(email.lower(), limited_address, now)

        slug = slug_of(name)
        account = Account(new_id("acct"), slug, name, email, None, context.business.now())
        while not await uow.accounts.add(account):
            account = Account(account.id, f"{slug}-{secrets.token_hex(3)}", name, email, None, account.create_time)
        kind = context.catalog.first_key_kind
        secret = new_key(context.catalog.key_kinds[kind].prefix)
        key = ApiKey(
            new_id("key"), account.id, kind, "First key", secret.hash, secret.shown, create_time=account.create_time
        )
        await uow.keys.add(key)
        state = new_account(account.id, context.catalog)
        await uow.entitlements.add(state)
        changed = await uow.entitlements.now()
        uow.outbox.add(context.announcer.entitlements_changed(state, changed), account.id)
        uow.outbox.add(context.announcer.tier_changed(state, "", changed), account.id)
        uow.outbox.add(events.key_issued(key), account.id)
        response = account_pb2.CreateAccountResponse(account=account_message(account), api_key=secret.secret)
        if request_id:
            answer = response.SerializeToString()
            await idempotency.keep("sign_up", request_id, mark, answer, uow, context.vault, now)
        failpoint("billing.sign_up.before_commit")
        await uow.commit()
    failpoint("billing.sign_up.after_commit")
    return response


def _is_local(address: str, context: Context) -> bool:
    """Local mode is one machine: its own address is no stranger's."""
    if not context.settings.local or not address:
        return False
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


async def get_account(account_id: str, context: Context) -> Account:
    async with context.unit_of_work() as uow:
        return await uow.accounts.get(account_id)


def account_message(account: Account) -> account_pb2.Account:
    return account_pb2.Account(
        id=account.id,
        slug=account.slug,
        name=account.name,
        email=account.email,
        create_time=events.timestamp(account.create_time),
    )
