"""The customer portal's page: plan, card, invoices, cancel and resume. Every step is a plain form."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from . import challenges, customers, lifecycle, payment_methods, portal_change_page
from .context import Context
from .errors import ApiError
from .money import shown
from .page_kit import blank, card_errors, card_of, date, html, place, price_words, sticky, typed
from .portal_visit import Visit, done, ending
from .sandbox import Sandbox
from .store import Json

_STATES = {
    "active": ("Active", "good"),
    "trialing": ("Trial", "good"),
    "past_due": ("Past due", "bad"),
    "unpaid": ("Unpaid", "bad"),
    "paused": ("Paused", "plain"),
    "incomplete": ("Incomplete", "bad"),
}
NOTICES = {
    "canceled": "Your plan has been cancelled. It stays active until the end of the period.",
    "ended": "Your plan has been cancelled.",
    "resumed": "Your plan will renew as before.",
    "card": "Your card has been updated.",
    "changed": "Your plan has been changed.",
    "scheduled": "Your plan will change at the end of the period.",
    "card_failed": "Your bank did not confirm the card, so it was not saved.",
}


def _plan(sandbox: Sandbox, subscription: Json, features: Json) -> Json:
    items = subscription["items"]["data"]
    names = [(sandbox.store.get(item["price"]["product"]) or {}).get("name", "") for item in items]
    state, tone = _STATES[subscription["status"]]
    until = min(item["current_period_end"] for item in items)
    if ending(subscription):
        state, tone, when = "Cancels soon", "plain", f"Cancels on {date(subscription['cancel_at'])}."
    elif subscription["status"] == "trialing":
        when = f"Free until {date(subscription['trial_end'])}."
    elif subscription["status"] in ("active", "past_due"):
        when = f"Renews on {date(until)}."
    else:
        when = ""
    return {
        "id": subscription["id"],
        "name": " + ".join(names),
        "price": " + ".join(price_words(item["price"], item.get("quantity")) for item in items),
        "state": state,
        "tone": tone,
        "when": when,
        "can_resume": ending(subscription),
        "can_cancel": features["subscription_cancel"]["enabled"],
        "can_change": portal_change_page.can_change(subscription, features),
    }


def _first_page(visit: Visit, flow: Json) -> str | None:
    """Where a flow leads at once."""
    kind = flow["type"]
    if kind == "payment_method_update":
        return "card"
    wanted = flow[kind]["subscription"]
    if visit.subscription(wanted) is None:
        return None
    if kind == "subscription_update_confirm":
        return f"change/confirm?subscription={wanted}&price={flow[kind]['items'][0]['price']}"
    return f"{'cancel' if kind == 'subscription_cancel' else 'change'}?subscription={wanted}"


async def show(request: Request) -> Response:
    visit = Visit(request)
    if visit.refused is not None:
        return visit.refused
    flow = visit.session["flow"]
    if flow is not None and "at" not in request.query_params and "done" not in request.query_params:
        first = _first_page(visit, flow)
        if first is not None:
            return RedirectResponse(f"{visit.base}/{first}", 303)
    store = visit.sandbox.store
    method_id = visit.customer["invoice_settings"]["default_payment_method"]
    for subscription in visit.live():
        method_id = subscription["default_payment_method"] or method_id
    method = store.get(method_id, "payment_method") if method_id else None
    invoices = [
        {
            "date": date(invoice["created"]),
            "number": invoice["number"],
            "status": invoice["status"].capitalize(),
            "tone": {"paid": "good", "open": "bad"}.get(invoice["status"], "plain"),
            "amount": shown(invoice["total"], invoice["currency"]),
            "link": invoice["hosted_invoice_url"],
        }
        for invoice in reversed(store.all("invoice", customer=visit.customer["id"]))
        if invoice["hosted_invoice_url"]
    ]
    card = None
    if method is not None:
        shown_card = method["card"]
        expires = f"{shown_card['exp_month']:02d}/{shown_card['exp_year'] % 100:02d}"
        card = {"brand": shown_card["brand"].capitalize(), "last4": shown_card["last4"], "expires": expires}
    return html(
        visit.sandbox,
        "portal.html",
        **visit.common(),
        notice=NOTICES.get(request.query_params.get("done", ""), ""),
        subscriptions=[_plan(visit.sandbox, subscription, visit.features) for subscription in visit.live()],
        card=card,
        invoices=invoices,
    )


def _at_period_end(visit: Visit, subscription: Json) -> bool:
    return visit.features["subscription_cancel"]["mode"] == "at_period_end" and subscription["status"] in (
        "active",
        "trialing",
        "past_due",
    )


async def ask_cancel(request: Request) -> Response:
    visit = Visit(request)
    if visit.refused is not None:
        return visit.refused
    subscription = visit.subscription(request.query_params.get("subscription"))
    if subscription is None or not visit.features["subscription_cancel"]["enabled"]:
        return RedirectResponse(visit.base, 303)
    if _at_period_end(visit, subscription):
        until = max(item["current_period_end"] for item in subscription["items"]["data"])
        consequence = f"Your plan stays available until {date(until)} and is not renewed after that."
    else:
        consequence = "Your plan ends at once."
    plan = _plan(visit.sandbox, subscription, visit.features)
    return html(visit.sandbox, "portal_cancel.html", **visit.common(), sub=plan, consequence=consequence)


async def cancel(request: Request) -> Response:
    """Flexible billing sets `cancel_at` alone; classic sets the flag beside it, as Stripe's portal does."""
    visit = Visit(request)
    if visit.refused is not None:
        return visit.refused
    subscription = visit.subscription(str((await request.form()).get("subscription")))
    if subscription is None or not visit.features["subscription_cancel"]["enabled"]:
        return RedirectResponse(visit.base, 303)
    if not _at_period_end(visit, subscription):
        behavior = visit.features["subscription_cancel"]["proration_behavior"]

        def at_once(ctx: Context) -> None:
            lifecycle.close(
                ctx, subscription, prorate=behavior != "none", bill=behavior == "always_invoice", at_once=True
            )

        visit.sandbox.run(visit.sandbox.context(), at_once)
        return done(visit, "ended")
    if ending(subscription):
        return done(visit, "canceled")

    def work(ctx: Context) -> None:
        after = subscription | {
            "cancel_at": max(item["current_period_end"] for item in subscription["items"]["data"]),
            "cancel_at_period_end": subscription["billing_mode"]["type"] == "classic",
            "canceled_at": ctx.now_of(visit.customer),
            "cancellation_details": subscription["cancellation_details"] | {"reason": "cancellation_requested"},
        }
        ctx.save(after, "customer.subscription.updated", subscription)
        lifecycle.schedule(ctx, after)

    visit.sandbox.run(visit.sandbox.context(), work)
    return done(visit, "canceled")


async def resume(request: Request) -> Response:
    visit = Visit(request)
    if visit.refused is not None:
        return visit.refused
    subscription = visit.subscription(str((await request.form()).get("subscription")))
    if subscription is None or not ending(subscription):
        return RedirectResponse(visit.base, 303)

    def work(ctx: Context) -> None:
        after = subscription | {
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": None,
            "cancellation_details": subscription["cancellation_details"] | {"reason": None},
        }
        ctx.save(after, "customer.subscription.updated", subscription)
        lifecycle.schedule(ctx, after)

    visit.sandbox.run(visit.sandbox.context(), work)
    return done(visit, "resumed")


async def ask_card(request: Request) -> Response:
    visit = Visit(request)
    if visit.refused is not None:
        return visit.refused
    return html(visit.sandbox, "portal_card.html", **visit.common(), values=blank(), errors=blank(), problem="")


async def save_card(request: Request) -> Response:
    """A new default card; what is owed is tried with it at once."""
    visit = Visit(request)
    if visit.refused is not None:
        return visit.refused
    values = typed(await request.form())
    errors = card_errors(values, needs_email=False)
    problem = ""

    def work(ctx: Context) -> str | None:
        method = card_of(ctx, values)
        if payment_methods.card_of(method).authenticates:
            return challenges.ask(ctx, "portal_card", visit.customer["id"], method, back=visit.base)
        customers.use_card(ctx, visit.customer, method)
        return None

    if not any(errors.values()):
        try:
            challenge = visit.sandbox.run(visit.sandbox.context(), work)
            return done(visit, "card") if challenge is None else RedirectResponse(challenge, 303)
        except ApiError as error:
            problem = place(error, errors)
    shown_again = sticky(values)
    return html(
        visit.sandbox, "portal_card.html", 422, **visit.common(), values=shown_again, errors=errors, problem=problem
    )
