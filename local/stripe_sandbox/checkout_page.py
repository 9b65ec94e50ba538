"""The page of a Checkout session, where a person pays or is declined."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from . import challenges, checkout_payment, checkout_totals, discounts, payment_methods, promotion_codes
from .context import Context
from .discounts import Offer
from .errors import ApiError, invalid
from .money import shown
from .page_kit import blank, card_errors, card_of, date, every, html, message, place, sticky, typed
from .sandbox import Sandbox
from .store import Json


def _closed(sandbox: Sandbox, session: Json | None) -> Response | None:
    if session is None or session["object"] != "checkout.session":
        return message(sandbox, "Page not found", "This link is not valid.", status=404)
    if session["status"] == "complete":
        return message(
            sandbox,
            "You're all done here",
            "This payment has already been made.",
            link=checkout_payment.success_address(session),
        )
    if session["status"] == "expired":
        text = "This checkout has timed out. Start again from the site you came from."
        return message(sandbox, "This link has expired", text, link=session["cancel_url"], status=410)
    return None


def _show(
    sandbox: Sandbox,
    session: Json,
    *,
    values: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
    problem: str = "",
    status: int = 200,
    code: str = "",
    code_error: str = "",
) -> Response:
    store = sandbox.store
    items = session["line_items"]["data"]
    customer = store.get(session["customer"]) if session["customer"] else None
    recurring = [item for item in items if item["price"]["recurring"]]
    trial_end = session["_data"].get("trial_end")
    currency = session["currency"]
    names = " and ".join(item["description"] for item in items)
    subscribing = session["mode"] == "subscription"
    standing = sum(item["amount_subtotal"] for item in recurring) if trial_end else session["amount_subtotal"]
    off = sum(item["amount_discount"] for item in items)
    lines = [
        {
            "name": item["description"],
            "detail": f"Qty {item['quantity']}" if (item["quantity"] or 1) > 1 else _about(sandbox, item),
            "amount": "Varies with usage" if item["quantity"] is None else shown(item["amount_subtotal"], currency),
            "every": every(item["price"]),
        }
        for item in items
    ]
    terms, trial = "", ""
    if subscribing:
        business = store.setting("business_name", "Sandbox")
        terms = (
            f"By confirming, you allow {business} to charge your card for this and future payments."
            " You can cancel at any time."
        )
    if trial_end:
        trial = f"Free until {date(trial_end)}, then {shown(standing, currency)} {every(recurring[0]['price'])}."
    return html(
        sandbox,
        "checkout.html",
        status,
        session=session,
        headline=f"{'Try' if trial_end else 'Subscribe to'} {names}"
        if subscribing
        else f"Pay {store.setting('business_name', 'Sandbox')}",
        total=shown(standing, currency),
        every=every(recurring[0]["price"]) if recurring else "",
        lines=lines,
        due=shown(session["amount_total"], currency),
        tax=shown(tax, currency) if (tax := session["total_details"]["amount_tax"]) else "",
        discount=_discount(sandbox, session, shown(-off, currency)) if session["discounts"] else None,
        takes_code=bool(session["allow_promotion_codes"]),
        code_error=code_error,
        code=code,
        trial=trial,
        known_email=(customer or {}).get("email") or session["customer_email"],
        values=values or blank(),
        errors=errors or blank(),
        problem=problem,
        action=("Start trial" if trial_end else "Subscribe")
        if subscribing
        else f"Pay {shown(session['amount_total'], currency)}",
        terms=terms,
    )


def _discount(sandbox: Sandbox, session: Json, amount: str) -> dict[str, str]:
    offer = checkout_totals.offers(sandbox.context(), session)[0]
    coupon = offer.coupon
    if coupon["percent_off"] is not None:
        words = f"{coupon['percent_off']:g}% off"
    else:
        words = f"{shown(coupon['amount_off'], coupon['currency'])} off"
    often = {"forever": "forever", "once": "once", "repeating": f"for {coupon['duration_in_months']} months"}
    return {
        "name": offer.code["code"] if offer.code else coupon["name"] or coupon["id"],
        "words": f"{words} {often[coupon['duration']]}" if session["mode"] == "subscription" else words,
        "amount": amount,
    }


def _about(sandbox: Sandbox, item: Json) -> str:
    product = sandbox.store.get(item["price"]["product"])
    return (product or {}).get("description") or ""


async def show(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.sandbox
    session = sandbox.store.get(request.path_params["session"])
    failed = request.query_params.get("failed") == "authentication"
    return _closed(sandbox, session) or _show(sandbox, session or {}, problem=challenges.FAILED if failed else "")


async def promotion(request: Request) -> Response:
    """Applies a promotion code, or takes it away with an empty one."""
    sandbox: Sandbox = request.app.state.sandbox
    code = str((await request.form()).get("promotionCode") or "").strip()[:500]
    session = sandbox.store.get(request.path_params["session"])
    closed = _closed(sandbox, session)
    if closed is not None or session is None:
        return closed or Response(status_code=404)

    def work(ctx: Context) -> None:
        session["discounts"] = [_redeemable(ctx, session, code).shown()] if code else []
        ctx.save(checkout_totals.reckon(ctx, session))

    if session["allow_promotion_codes"]:
        try:
            sandbox.run(sandbox.context(), work)
        except ApiError as error:
            fresh = sandbox.store.get(session["id"]) or session
            return _show(sandbox, fresh, code=code, code_error=error.message, status=422)
    return RedirectResponse(f"/c/pay/{session['id']}", 303)


def _redeemable(ctx: Context, session: Json, code: str) -> Offer:
    """The offer of a typed code. Raises invalid."""
    customer = ctx.store.get(session["customer"], "customer") if session["customer"] else None
    found = promotion_codes.by_code(ctx, code, customer)
    if found is None:
        raise invalid("This code is invalid.", "promotionCode")
    amount = sum(item["amount_subtotal"] for item in session["line_items"]["data"])
    return discounts.of_code(ctx, found, customer, amount=amount, currency=session["currency"], param="promotionCode")


async def pay(request: Request) -> Response:
    sandbox: Sandbox = request.app.state.sandbox
    values = typed(await request.form())
    session = sandbox.store.get(request.path_params["session"])
    closed = _closed(sandbox, session)
    if closed is not None or session is None:
        # A second click on "pay" arrives here after the first went through: it goes where the first went.
        if session is not None and session.get("status") == "complete":
            return RedirectResponse(checkout_payment.success_address(session), 303)
        return closed or Response(status_code=404)
    customer = sandbox.store.get(session["customer"]) if session["customer"] else None
    known = (customer or {}).get("email") or session["customer_email"]
    optional = session["payment_method_collection"] == "if_required" and not session["amount_total"]
    skip_card = optional and not values["cardNumber"]
    errors = blank() if skip_card and known else card_errors(values, needs_email=known is None)
    if skip_card:
        errors |= dict.fromkeys(("cardNumber", "cardExpiry", "cardCvc", "billingName"), "")
    if any(errors.values()):
        return _show(sandbox, session, values=sticky(values), errors=errors, status=422)
    email = known or values["email"]

    def work(ctx: Context) -> str:
        method = None if skip_card else card_of(ctx, values | {"email": email})
        name = values["billingName"] or None
        if method is not None and payment_methods.card_of(method).authenticates:
            return challenges.ask(ctx, "checkout", session["id"], method, email=email, name=name)
        done = checkout_payment.complete(ctx, session, method, email_address=email, name=name)
        return checkout_payment.success_address(done)

    try:
        address = sandbox.run(sandbox.context(), work)
    except ApiError as error:
        problem = place(error, errors)
        fresh = sandbox.store.get(session["id"]) or session
        return _show(sandbox, fresh, values=sticky(values), errors=errors, problem=problem, status=402)
    return RedirectResponse(address, 303)
