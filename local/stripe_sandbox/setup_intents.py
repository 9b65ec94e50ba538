"""Setup intents: saving a card for later without charging it."""

from __future__ import annotations

from . import challenges, ids
from .context import Context
from .errors import ApiError, invalid
from .fields import apply
from .lists import Condition, equals, page
from .params import anything, array, boolean, choice, metadata, record, text, url
from .payment_methods import attach, card_of, resolve
from .routing import get, listing, post
from .store import Json, public

_SHARED = {"customer": text, "description": text, "metadata": metadata, "payment_method": text}


@post(
    "/v1/setup_intents",
    {
        **_SHARED,
        "automatic_payment_methods": record({"enabled": boolean, "allow_redirects": choice("always", "never")}),
        "confirm": boolean,
        "mandate_data": anything,
        "payment_method_options": anything,
        "payment_method_types": array(text),
        "return_url": url,
        "usage": choice("off_session", "on_session"),
    },
)
def create(ctx: Context, params: Json) -> Json:
    customer = params.get("customer")
    if customer:
        ctx.need(customer, "customer", param="customer")
    intent_id = ids.new("seti")
    intent: Json = {
        "id": intent_id,
        "object": "setup_intent",
        "application": None,
        "automatic_payment_methods": params.get("automatic_payment_methods"),
        "cancellation_reason": None,
        "client_secret": f"{intent_id}_secret_{ids.new('s')[2:]}",
        "created": ctx.now_of(customer),
        "customer": customer,
        "customer_account": None,
        "description": params.get("description"),
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": params.get("metadata") or {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {"card": {"mandate_options": None, "request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": params.get("usage") or "off_session",
    }
    if params.get("payment_method"):
        intent["payment_method"] = resolve(ctx, params["payment_method"], param="payment_method")["id"]
        intent["status"] = "requires_confirmation"
    ctx.create(intent, "setup_intent.created")
    return _confirm(ctx, intent, params) if params.get("confirm") else intent


def _confirm(ctx: Context, intent: Json, params: Json) -> Json:
    if intent["payment_method"] is None:
        raise _unexpected(intent, "confirm")
    method = ctx.need(intent["payment_method"], "payment_method")
    intent["_return_url"] = params.get("return_url")
    if card_of(method).authenticates and not method.get("_set_up"):
        intent |= {
            "status": "requires_action",
            "next_action": challenges.next_action(ctx, "setup_intent", intent, method),
        }
        return ctx.save(intent, "setup_intent.requires_action")
    return finish(ctx, intent, method, passed=True)


def finish(ctx: Context, intent: Json, method: Json, *, passed: bool) -> Json:
    """Saves the card to the intent's customer, or tells why not. Raises card_error when the card refuses."""
    if intent["status"] == "succeeded":
        return intent
    refusal: ApiError | None = None
    if not passed:
        refusal = invalid(challenges.FAILED, code="setup_intent_authentication_failure")
    else:
        card = card_of(method)
        refusal = None if card.attaches else card.refusal(on_session=True)
    if refusal is None:
        if intent["customer"]:
            attach(ctx, method["id"], ctx.need(intent["customer"], "customer"))
        intent |= {
            "status": "succeeded",
            "next_action": None,
            "last_setup_error": None,
            "payment_method": method["id"],
        }
        return ctx.save(intent, "setup_intent.succeeded")
    error = {key: value for key, value in refusal.body(None)["error"].items() if key != "param"}
    intent |= {
        "status": "requires_payment_method",
        "next_action": None,
        "last_setup_error": error | {"payment_method": public(method)},
        "payment_method": None,
    }
    ctx.save(intent, "setup_intent.setup_failed")
    if passed:
        refusal.keep = True
        raise refusal
    return intent


def _unexpected(intent: Json, verb: str) -> ApiError:
    return invalid(
        f"You cannot {verb} this SetupIntent because it has a status of {intent['status']}.",
        code="setup_intent_unexpected_state",
    )


@post("/v1/setup_intents/{intent}/confirm", {"payment_method": text, "return_url": url, "mandate_data": anything})
def confirm(ctx: Context, params: Json, intent: str) -> Json:
    found = ctx.need(intent, "setup_intent")
    if found["status"] in ("succeeded", "canceled"):
        raise _unexpected(found, "confirm")
    if params.get("payment_method"):
        found["payment_method"] = resolve(ctx, params["payment_method"], param="payment_method")["id"]
    return _confirm(ctx, found, params)


@post("/v1/setup_intents/{intent}/cancel", {"cancellation_reason": text})
def cancel(ctx: Context, params: Json, intent: str) -> Json:
    found = ctx.need(intent, "setup_intent")
    if found["status"] in ("succeeded", "canceled"):
        raise _unexpected(found, "cancel")
    found |= {
        "status": "canceled",
        "cancellation_reason": params.get("cancellation_reason"),
        "next_action": None,
    }
    return ctx.save(found, "setup_intent.canceled")


@post("/v1/setup_intents/{intent}", _SHARED)
def update(ctx: Context, params: Json, intent: str) -> Json:
    found = apply(ctx.need(intent, "setup_intent"), params, ("customer", "description"))
    if params.get("payment_method"):
        found["payment_method"] = resolve(ctx, params["payment_method"], param="payment_method")["id"]
        found["status"] = "requires_confirmation"
    return ctx.save(found)


@get("/v1/setup_intents/{intent}", {"client_secret": text})
def retrieve(ctx: Context, params: Json, intent: str) -> Json:
    return ctx.need(intent, "setup_intent")


@listing("/v1/setup_intents", {"customer": text, "payment_method": text})
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = [equals(name, params[name]) for name in ("customer", "payment_method") if params.get(name)]
    return page(ctx, "setup_intent", params, "/v1/setup_intents", where)
