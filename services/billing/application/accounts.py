"""Signing up, and reading an account."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import timedelta

from email_validator import EmailNotValidError, validate_email

from services.billing import events
from services.billing.application import audit, idempotency
from services.billing.application.context import Context
from services.billing.application.keys import add_key
from services.billing.application.names import add_with_free_slug, checked_name, slug_of
from services.billing.domain.entitlement import new_account
from services.billing.domain.principal import Actor, ActorKind, Role
from services.billing.errors import SignUpRateLimited
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.billing.storage.identity import User
from services.kit.errors import InvalidArgument
from services.kit.failpoint import failpoint
from services.kit.ids import new_id
from tollway.billing.v1 import account_pb2, recipient_pb2

WINDOW = timedelta(hours=1)


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
        limited_address = "" if is_local(command.remote_address, context) else command.remote_address
        by_email, by_address = await uow.sign_ups.since(email.lower(), limited_address, now - WINDOW)
        if by_email >= context.settings.signup_per_email or (
            limited_address and by_address >= context.settings.signup_per_address
        ):
            raise SignUpRateLimited("Too many sign-ups. Try again in an hour.", retry_after=WINDOW)
        await uow.sign_ups.note(email.lower(), limited_address, now)

        created = context.business.now()
        account = await open_account(Account(new_id("acct"), slug_of(name), name, email, None, created), uow, context)
        # The address is not verified: whoever signs in by it later proves that the account is theirs.
        user = await uow.users.ensure(User(new_id("usr"), email.lower(), None, created))
        await uow.memberships.add(account.id, user.id, Role.OWNER, created)
        key, secret = await add_key(account.id, context.catalog.first_key_kind, "First key", user.id, uow, context)
        actor = Actor(ActorKind.SYSTEM, "sign_up")
        await audit.record(uow, context, account.id, actor, "account.created", account.id, slug=account.slug)
        await audit.record(uow, context, account.id, actor, "key.issued", key.id, kind=key.kind, name=key.name)
        response = account_pb2.CreateAccountResponse(account=account_message(account), api_key=secret)
        if request_id:
            answer = response.SerializeToString()
            await idempotency.keep("sign_up", request_id, mark, answer, uow, context.vault, now)
        failpoint("billing.sign_up.before_commit")
        await uow.commit()
    failpoint("billing.sign_up.after_commit")
    return response


async def open_account(account: Account, uow: BillingUnitOfWork, context: Context) -> Account:
    """Adds the account, under a free slug, on the default tier, and announces what it is entitled to."""
    added = await add_with_free_slug(account, uow)
    state = new_account(added.id, context.catalog)
    await uow.entitlements.add(state)
    changed = await uow.entitlements.now()
    uow.outbox.add(context.announcer.entitlements_changed(state, changed), added.id)
    uow.outbox.add(context.announcer.tier_changed(state, "", changed), added.id)
    return added


def is_local(address: str, context: Context) -> bool:
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


async def addressed(account: Account, uow: BillingUnitOfWork) -> Account:
    """With the address that Stripe has, for one of an outside identity, which has none of its own."""
    if account.email or account.stripe_customer_id is None:
        return account
    return replace(account, email=await uow.snapshots.customer_email(account.id))


async def get_recipient(account_id: str, context: Context) -> recipient_pb2.Recipient:
    """Whom to write to about the account, in whose name. Raises AccountNotFound."""
    async with context.unit_of_work() as uow:
        account = await addressed(await uow.accounts.get(account_id), uow)
        state = await uow.entitlements.get(account_id)
    return context.announcer.recipient(account, state)
