"""Accounts for customers that subscribe at Stripe already. Again, or after a kill half-way, it makes no second one.

A customer is bound to its account for ever. What happened before is nobody's news: see `Account.import_time`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace

import structlog

from services.billing.application import audit
from services.billing.application.accounts import checked_email, open_account
from services.billing.application.context import Context
from services.billing.application.names import LONGEST, slug_of
from services.billing.domain.customer import Customer, Known, Outcome, Subscriber, SubscriberPage, Verdict, judge
from services.billing.domain.principal import Actor, Role
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.accounts import Account
from services.billing.storage.identity import User
from services.kit import telemetry
from services.kit.errors import InvalidArgument
from services.kit.failpoint import failpoint
from services.kit.ids import new_id

PAGE = 25  # subscriptions; with a few calls to Stripe each, a page takes seconds
MOST_LOOKED_AT = 5  # customers with one address, each a call or two to Stripe
_CUSTOMER = re.compile(r"cus_[A-Za-z0-9_]{1,200}")
_SUBSCRIPTION = re.compile(r"sub_[A-Za-z0-9_]{1,200}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ImportCustomers:
    actor: Actor
    dry_run: bool = False
    page_token: str = ""
    customer_id: str = ""
    account_id: str = ""
    separate: bool = False
    issuer: str = ""  # of the outside identities that customers' metadata names under `identity_key`
    identity_key: str = ""


@dataclass(frozen=True)
class Imported:
    customer: Customer
    verdict: Verdict
    unknown_price_ids: tuple[str, ...] = ()


async def import_customers(command: ImportCustomers, context: Context) -> tuple[list[Imported], str]:
    """The next ones, or the one that is named; and where to go on (empty: the end)."""
    _check(command)
    if command.customer_id:
        found = await context.payments.subscriber(command.customer_id)
        if found is None:
            gone = Verdict(Outcome.SKIPPED, "", "NO_SUCH_CUSTOMER", "Stripe has no such customer, or it was deleted.")
            return [Imported(Customer(command.customer_id, "", "", ""), gone)], ""
        page = SubscriberPage((found,), "")
    else:
        page = await context.payments.subscribers(command.page_token, PAGE)
    done = [await _one(each, command, context) for each in page.subscribers]
    if not command.dry_run:
        context.marked()
    return done, page.next_token


def _check(command: ImportCustomers) -> None:
    if command.customer_id and not _CUSTOMER.fullmatch(command.customer_id):
        raise InvalidArgument("A customer's id at Stripe is expected: cus_….", field="customer_id")
    if command.page_token and not _SUBSCRIPTION.fullmatch(command.page_token):
        raise InvalidArgument("This is no page token of ours.", field="page_token")
    if (command.account_id or command.separate) and not command.customer_id:
        raise InvalidArgument("One customer has to be named for that.", field="customer_id")
    if (
        bool(command.issuer) != bool(command.identity_key)
        or len(command.issuer) > 500
        or len(command.identity_key) > 40
    ):
        raise InvalidArgument("An issuer and the name of customers' metadata come together.", field="issuer")
    if command.account_id and command.separate:
        raise InvalidArgument("Either an account to bind it to, or one of its own.", field="account_id")


async def _one(subscriber: Subscriber, command: ImportCustomers, context: Context) -> Imported:
    customer = replace(subscriber.customer, email=_usable(subscriber.customer.email))
    subscriber = replace(subscriber, customer=customer)
    other = await _same_address(subscriber, command, context)
    async with context.unit_of_work() as uow:
        await uow.accounts.lock_imports()  # of two at once the second sees what the first made
        known = replace(await _known(customer, command, uow), email_customer_id=other)
        if command.account_id:
            verdict = await _bound(subscriber, known, command.account_id, uow)
        else:
            verdict = judge(subscriber, known, separate=command.separate)
        prices = {s.price_id: s.lookup_key for s in subscriber.live}
        sold = await uow.prices.tiers(prices)
        unknown = [p for p, key in prices.items() if p not in sold and not context.catalog.tier_of_lookup_key(key)]
        if verdict.outcome is Outcome.IMPORTED and not command.dry_run:
            verdict = replace(verdict, account_id=await _make(customer, verdict, command, uow, context))
            await uow.commit()
            failpoint("billing.import.committed")
    if not command.dry_run:
        telemetry.count("tollway_imports_total", 1, outcome=verdict.outcome)
        log.info("import.customer", customer=customer.id, outcome=verdict.outcome, reason=verdict.reason)
    return Imported(customer, verdict, tuple(unknown))


async def _known(customer: Customer, command: ImportCustomers, uow: BillingUnitOfWork) -> Known:
    identity = _identity(customer, command)
    theirs = None
    if identity:
        await uow.outside.lock(command.issuer, identity)  # it may be signing in for the first time just now
        theirs = await uow.outside.account(command.issuer, identity)
    bound = await uow.accounts.of_customer(customer.id)
    named = await uow.accounts.find(customer.account_id) if customer.account_id else None
    same = await uow.accounts.of_email(customer.email) if customer.email else None
    return Known(
        bound_account_id=bound.id if bound else "",
        named_account_id=named.id if named else "",
        named_has_other=named is not None and named.stripe_customer_id not in {None, customer.id},
        identity=identity,
        identity_account_id=theirs.id if theirs else "",
        identity_has_other=theirs is not None and theirs.stripe_customer_id not in {None, customer.id},
        email_account_id=same.id if same else "",
    )


async def _same_address(subscriber: Subscriber, command: ImportCustomers, context: Context) -> str:
    """Another customer that subscribes with the same address; asked only where the answer could matter."""
    customer = subscriber.customer
    if not customer.email or not subscriber.live or command.separate or command.account_id or command.issuer:
        return ""
    async with context.unit_of_work() as uow:
        if await uow.accounts.of_customer(customer.id) is not None:
            return ""
    others = [each for each in await context.payments.customers_with_email(customer.email) if each != customer.id]
    if len(others) > MOST_LOOKED_AT:
        return others[0]  # an address that stands for nobody
    for other_id in others:
        other = await context.payments.subscriber(other_id)
        if other is not None and other.live:
            return other_id
    return ""


async def _bound(subscriber: Subscriber, known: Known, account_id: str, uow: BillingUnitOfWork) -> Verdict:
    """An operator says whose it is."""
    account = await uow.accounts.get(account_id)
    if known.bound_account_id == account.id:
        return Verdict(Outcome.ALREADY_OURS, account.id)
    if account.stripe_customer_id is not None or account.erase_time is not None:
        raise InvalidArgument("This account has a customer of its own, or was erased.", field="account_id")
    if known.bound_account_id:
        raise InvalidArgument("This customer belongs to another account, for ever.", field="customer_id")
    return Verdict(Outcome.IMPORTED, account.id)


async def _make(
    customer: Customer, verdict: Verdict, command: ImportCustomers, uow: BillingUnitOfWork, context: Context
) -> str:
    now = context.business.now()
    if verdict.account_id:
        account_id = verdict.account_id
        # One that we made and a crash kept us from noting has no past elsewhere.
        since = None if account_id == customer.account_id else now
        await uow.accounts.bind(account_id, customer.id, since)
    else:
        name = _name(customer)
        new = Account(new_id("acct"), slug_of(name), name, customer.email, customer.id, now, import_time=now)
        account_id = (await open_account(new, uow, context)).id
        identity = _identity(customer, command)
        if identity and await uow.outside.account(command.issuer, identity) is None:
            await uow.outside.add(command.issuer, identity, account_id, now)
        if customer.email and not identity:
            # Whoever signs in by the address proves that the account is theirs.
            user = await uow.users.ensure(User(new_id("usr"), customer.email.lower(), None, now))
            await uow.memberships.add(account_id, user.id, Role.OWNER, now)
    await audit.record(uow, context, account_id, command.actor, "account.imported", customer.id)
    await uow.pushes.want(account_id)
    await uow.marks.want(account_id)
    return account_id


def _identity(customer: Customer, command: ImportCustomers) -> str | None:
    """Its external id; empty when its metadata holds none that could be one, None when it is not asked for."""
    if not command.issuer:
        return None
    found = customer.metadata.get(command.identity_key, "")
    return found if len(found) <= 255 and found.isprintable() else ""


def _usable(email: str) -> str:
    """In normal form; empty for what is no address."""
    try:
        return checked_email(email) if email else ""
    except InvalidArgument:
        return ""


def _name(customer: Customer) -> str:
    text = customer.name or customer.email.partition("@")[0]
    plain = "".join(" " if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} else c for c in text)
    return plain.strip()[:LONGEST].strip() or customer.id
