"""Selling: one open Checkout session per account, and the customer portal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from services.billing.application import customers, idempotency
from services.billing.application.context import Context
from services.billing.catalog import Price, Tier
from services.billing.domain.redirect import check_redirect, origin
from services.billing.errors import (
    AlreadySubscribed,
    ContactSales,
    NoCustomer,
    PriceNotPushed,
    StripeUnavailable,
    UnknownPrice,
    UnknownTier,
)
from services.billing.ports import NewSession, Session, StripeRetryable
from services.billing.storage import BillingUnitOfWork
from services.billing.storage.checkouts import CREATING, Checkout
from services.kit.errors import Aborted, InvalidArgument
from services.kit.failpoint import failpoint
from services.kit.ids import new_id

ROUNDS = 5  # how often a checkout that raced with another one starts over


@dataclass(frozen=True)
class CreateCheckout:
    account_id: str
    tier: str
    success_url: str = ""
    cancel_url: str = ""
    request_id: str = ""
    price_id: str = ""  # instead of the tier


async def create_checkout(command: CreateCheckout, context: Context) -> Session:
    """A page on which the account can buy the tier.

    Running it twice gives the same page; at once, too, because both work on the same row and its id is Stripe's
    idempotency key. Another tier first expires the page that was open. A process killed anywhere in between leaves a
    row that the next call goes on with.
    """
    tier_name, price = await _sold(command, context)
    success, cancel = _redirects(command, context)
    await _refuse_reused(command, context)
    customer_id = await customers.customer_of(command.account_id, context)
    for _ in range(ROUNDS):
        async with context.unit_of_work() as uow:
            await _refuse_subscribed(command.account_id, uow)
            wanted = Checkout(
                id=new_id("chk"),
                account_id=command.account_id,
                tier=tier_name,
                price_id=await _price(price, uow),
                success_url=success,
                cancel_url=cancel,
                state=CREATING,
                attempt=1,
                session_id=None,
                url=None,
                expire_time=None,
                create_time=context.business.now(),
                metered_price_ids=",".join(await metered_prices(tier_name, price, context, uow)),
            )
            standing = await uow.checkouts.unclosed(command.account_id)
            if standing is None:
                if not await uow.checkouts.add(wanted):
                    continue  # another call was faster: work with its row
                failpoint("billing.checkout.before_commit")
                await uow.commit()
                standing = wanted
        session = await _open(standing, customer_id, context)
        if session.status == "open":
            if standing.sells(wanted):
                return session
            session = await context.payments.expire_session(session.id)
        if session.status == "complete":
            await _refuse_just_paid(command.account_id, customer_id, context)
        await _close(standing, context)
    raise Aborted("Several checkouts for this account are being made at once. Try again.")


async def create_portal_session(account_id: str, return_url: str, context: Context) -> str:
    """The address of Stripe's portal for the account's customer."""
    back = _allowed(return_url, "return_url", context) if return_url else context.settings.public_url + "/"
    async with context.unit_of_work() as uow:
        account = await uow.accounts.get(account_id)
        configuration = await uow.prices.portal_configuration()
    if account.stripe_customer_id is None:
        raise NoCustomer("There is nothing to manage yet: check out first.")
    return await context.payments.create_portal_session(account.stripe_customer_id, back, configuration)


async def _sold(command: CreateCheckout, context: Context) -> tuple[str, Price]:
    """The tier and its price; of several prices the first, unless the command names one by its id."""
    if not command.price_id:
        return command.tier, sold_tier(command.tier, context).prices[0]
    if command.tier:
        raise InvalidArgument("A tier or a price is expected, not both.", field="price_id")
    async with context.unit_of_work() as uow:
        on_sale = await uow.prices.on_sale()
    for name, tier in context.catalog.tiers.items():
        for price in tier.prices:
            if not tier.grandfathered and on_sale.get(price.lookup_key) == command.price_id:
                return name, price
    # Ids that are somebody else's, of an older catalog, or of nobody read alike.
    raise UnknownPrice("Not a price that is on sale here; the price table has their ids.", field="price_id")


def sold_tier(name: str, context: Context) -> Tier:
    tier = context.catalog.tiers.get(name)
    if tier is not None and tier.contract:
        contact = context.catalog.product.contact
        raise ContactSales(
            f"The {tier.name} plan is made to measure: write to {contact.removeprefix('mailto:')}.",
            field="tier",
            contact=contact,
        )
    if tier is None or not tier.prices or tier.grandfathered:
        sold = [key for key, each in context.catalog.tiers.items() if each.prices and not each.grandfathered]
        raise UnknownTier(f"Not a plan that can be bought. Plans: {', '.join(sold)}.", field="tier")
    return tier


def _redirects(command: CreateCheckout, context: Context) -> tuple[str, str]:
    base = context.settings.public_url
    success = command.success_url and _allowed(command.success_url, "success_url", context)
    cancel = command.cancel_url and _allowed(command.cancel_url, "cancel_url", context)
    return success or f"{base}/checkout/success", cancel or f"{base}/checkout/canceled"


def _allowed(url: str, field: str, context: Context) -> str:
    origins = {origin(context.settings.public_url), *context.catalog.policies.redirect_origins}
    return check_redirect(url, field, origins)


async def _price(price: Price, uow: BillingUnitOfWork) -> str:
    price_id = (await uow.prices.on_sale()).get(price.lookup_key)
    if price_id is None:
        raise PriceNotPushed("The plans are not at Stripe yet. The operator has to push the catalog.")
    return price_id


async def metered_prices(name: str, price: Price, context: Context, uow: BillingUnitOfWork) -> list[str]:
    """The prices of units that the tier sells beside its base price."""
    on_sale = await uow.prices.on_sale()
    wanted = context.catalog.metered_prices(name, price)
    found = [on_sale.get(each.lookup_key) for each in wanted]
    if None in found:
        raise PriceNotPushed("The plans are not at Stripe yet. The operator has to push the catalog.")
    return [each for each in found if each is not None]


async def _refuse_subscribed(account_id: str, uow: BillingUnitOfWork) -> None:
    await uow.accounts.get(account_id, lock=True)
    if any(subscription.live for subscription in await uow.snapshots.subscriptions(account_id)):
        raise AlreadySubscribed("This account has a subscription: change it in the billing portal.")


async def _refuse_reused(command: CreateCheckout, context: Context) -> None:
    """The call is safe to repeat without a key; the key only must not stand for two different calls."""
    if not command.request_id:
        return
    scope, request_id = f"checkout {command.account_id}", idempotency.checked_request_id(command.request_id)
    mark = idempotency.fingerprint(command.tier or command.price_id, command.success_url, command.cancel_url)
    async with context.unit_of_work() as uow:
        if await idempotency.find(scope, request_id, mark, uow, context.vault) is None:
            await idempotency.keep(scope, request_id, mark, b"", uow, context.vault, context.wall.now())
            await uow.commit()


async def _refuse_just_paid(account_id: str, customer_id: str, context: Context) -> None:
    """A completed session that we know no live subscription of: its webhooks are late, or the subscription is over."""
    async with context.unit_of_work() as uow:
        await uow.marks.want(account_id)
        await uow.commit()
    context.marked()
    read = await context.payments.read(customer_id, [], want_last_paid=False)
    if any(subscription.live for subscription in read.subscriptions):
        raise AlreadySubscribed("A payment for this account has just gone through.")


async def _open(standing: Checkout, customer_id: str, context: Context) -> Session:
    """The row's session at Stripe as it is now: made if it was not made yet."""
    if standing.session_id is not None:
        return await context.payments.session(standing.session_id)
    policies = context.catalog.policies
    new = NewSession(
        key=f"{standing.id}:{standing.attempt}",
        account_id=standing.account_id,
        customer_id=customer_id,
        price_id=standing.price_id,
        metered_price_ids=tuple(filter(None, standing.metered_price_ids.split(","))),
        success_url=standing.success_url,
        cancel_url=standing.cancel_url,
        promotion_codes=policies.promotion_codes,
        trial_days=policies.trial_days,
        automatic_tax=policies.automatic_tax,
    )
    try:
        session = await context.payments.create_session(new)
    except StripeRetryable:
        async with context.unit_of_work() as uow:
            await uow.checkouts.next_attempt(standing.id, standing.attempt + 1)
            await uow.commit()
        raise StripeUnavailable(
            "Stripe does not answer right now. Nothing was bought; try again in a moment.",
            retry_after=timedelta(seconds=1),
        ) from None
    failpoint("billing.checkout.created")
    async with context.unit_of_work() as uow:
        await uow.checkouts.opened(standing.id, session.id, session.url, session.expire_time)
        await uow.commit()
    # Stripe replays the answer of the first call: the session may have moved on since.
    stale = standing.create_time < context.business.now() - timedelta(seconds=60)
    return await context.payments.session(session.id) if stale else session


async def _close(standing: Checkout, context: Context) -> None:
    async with context.unit_of_work() as uow:
        await uow.checkouts.close(standing.id)
        await uow.commit()
