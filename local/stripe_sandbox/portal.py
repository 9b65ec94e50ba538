"""The customer portal's sessions and configurations. Its page is `portal_page`."""

from __future__ import annotations

import secrets

from . import ids
from .context import Context
from .errors import absent_parameter, invalid
from .fields import apply, merged_metadata
from .lists import Condition, equals, page
from .params import array, boolean, choice, integer, metadata, record, text, url
from .routing import get, listing, post
from .store import Json

_ON = record({"enabled": boolean}, required=["enabled"])
_PRODUCT = record(
    {
        "product": text,
        "prices": array(text),
        "adjustable_quantity": record({"enabled": boolean, "minimum": integer, "maximum": integer}),
    },
    required=["product", "prices"],
)
_FLOW = record(
    {
        "type": text,
        "subscription_cancel": record({"subscription": text}),
        "subscription_update": record({"subscription": text}),
        "subscription_update_confirm": record(
            {"subscription": text, "items": array(record({"id": text, "price": text, "quantity": integer}))}
        ),
        "after_completion": record(
            {
                "type": choice("hosted_confirmation", "portal_homepage", "redirect"),
                "redirect": record({"return_url": url}, required=["return_url"]),
            },
            required=["type"],
        ),
    },
    required=["type"],
)
_FEATURES = record(
    {
        "customer_update": record({"enabled": boolean, "allowed_updates": array(text)}),
        "invoice_history": _ON,
        "payment_method_update": record({"enabled": boolean, "payment_method_configuration": text}),
        "subscription_cancel": record(
            {
                "enabled": boolean,
                "mode": choice("at_period_end", "immediately"),
                "proration_behavior": choice("always_invoice", "create_prorations", "none"),
                "cancellation_reason": record({"enabled": boolean, "options": array(text)}),
            }
        ),
        "subscription_pause": _ON,
        "subscription_update": record(
            {
                "enabled": boolean,
                "default_allowed_updates": array(text),
                "products": array(_PRODUCT),
                "proration_behavior": choice("always_invoice", "create_prorations", "none"),
                "schedule_at_period_end": record({"conditions": array(record({"type": text}, required=["type"]))}),
                "billing_cycle_anchor": text,
                "trial_update_behavior": text,
            }
        ),
    }
)
_PROFILE = record({"headline": text, "privacy_policy_url": url, "terms_of_service_url": url})
_SHARED = {
    "business_profile": _PROFILE,
    "default_return_url": url,
    "features": _FEATURES,
    "login_page": _ON,
    "metadata": metadata,
    "name": text,
}
_DEFAULT_FEATURES: Json = {
    "customer_update": {"allowed_updates": ["email", "address"], "enabled": False},
    "invoice_history": {"enabled": True},
    "payment_method_update": {"enabled": True, "payment_method_configuration": None},
    "subscription_cancel": {
        "cancellation_reason": {
            "enabled": False,
            "options": [
                "too_expensive",
                "missing_features",
                "switched_service",
                "unused",
                "customer_service",
                "too_complex",
                "low_quality",
                "other",
            ],
        },
        "enabled": True,
        "mode": "at_period_end",
        "proration_behavior": "none",
    },
    "subscription_pause": {"duration": {"interval_options": [], "type": "indefinite"}, "enabled": False},
    "subscription_update": {
        "billing_cycle_anchor": "unchanged",
        "default_allowed_updates": [],
        "enabled": False,
        "products": [],
        "proration_behavior": "none",
        "schedule_at_period_end": {"conditions": []},
        "trial_update_behavior": "end_trial",
    },
}


def _merged(base: Json, given: Json | None) -> Json:
    """The base with what is given, part by part; a flag or part that is given empty stays as it was."""
    result = dict(base)
    for key, value in (given or {}).items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            result[key] = _merged(base[key], value)
        elif value is not None or not isinstance(base.get(key), bool | dict):
            result[key] = value
    return result


def _with_products(features: Json) -> Json:
    for product in features["subscription_update"]["products"] or []:
        adjustable = product.get("adjustable_quantity") or {}
        product["adjustable_quantity"] = {"enabled": False, "maximum": None, "minimum": 0} | adjustable
    return features


def _make(ctx: Context, params: Json, *, default: bool) -> Json:
    now = ctx.now()
    configuration: Json = {
        "id": ids.new("bpc"),
        "object": "billing_portal.configuration",
        "active": True,
        "application": None,
        "business_profile": _merged(
            {"headline": None, "privacy_policy_url": None, "terms_of_service_url": None}, params.get("business_profile")
        ),
        "created": now,
        "default_return_url": params.get("default_return_url"),
        "features": _with_products(_merged(_DEFAULT_FEATURES, params.get("features"))),
        "is_default": default,
        "livemode": False,
        "login_page": {"enabled": False, "url": None},
        "metadata": merged_metadata({}, params.get("metadata") or {}),
        "name": params.get("name"),
        "updated": now,
    }
    return configuration


def default_configuration(ctx: Context) -> Json:
    for configuration in ctx.store.all("billing_portal.configuration"):
        if configuration["is_default"]:
            return configuration
    return ctx.create(_make(ctx, {}, default=True))


@post("/v1/billing_portal/configurations", _SHARED, ["features"])
def create_configuration(ctx: Context, params: Json) -> Json:
    return ctx.create(_make(ctx, params, default=False), "billing_portal.configuration.created")


@get("/v1/billing_portal/configurations/{configuration}")
def retrieve_configuration(ctx: Context, params: Json, configuration: str) -> Json:
    return ctx.need(configuration, "billing_portal.configuration")


@post("/v1/billing_portal/configurations/{configuration}", {**_SHARED, "active": boolean})
def update_configuration(ctx: Context, params: Json, configuration: str) -> Json:
    before = ctx.need(configuration, "billing_portal.configuration")
    after = apply(before, params, ("active", "default_return_url", "name"))
    after["business_profile"] = _merged(before["business_profile"], params.get("business_profile"))
    after["features"] = _with_products(_merged(before["features"], params.get("features")))
    after["updated"] = ctx.now()
    return ctx.save(after, "billing_portal.configuration.updated", before)


@listing("/v1/billing_portal/configurations", {"active": boolean, "is_default": boolean})
def listed_configurations(ctx: Context, params: Json) -> Json:
    where: list[Condition] = [
        equals(name, params[name]) for name in ("active", "is_default") if params.get(name) is not None
    ]
    return page(ctx, "billing_portal.configuration", params, "/v1/billing_portal/configurations", where)


@post(
    "/v1/billing_portal/sessions",
    {"customer": text, "configuration": text, "return_url": url, "locale": text, "flow_data": _FLOW},
    ["customer"],
)
def create_session(ctx: Context, params: Json) -> Json:
    customer = ctx.need(params["customer"], "customer", param="customer")
    if params.get("configuration"):
        configuration = ctx.need(params["configuration"], "billing_portal.configuration", param="configuration")
    else:
        configuration = default_configuration(ctx)
    session_id = ids.new("bps")
    token = f"test_{secrets.token_urlsafe(32)}"
    session: Json = {
        "id": session_id,
        "object": "billing_portal.session",
        "configuration": configuration["id"],
        "created": ctx.now_of(customer),
        "customer": customer["id"],
        "customer_account": None,
        "flow": _flow(ctx, params.get("flow_data"), customer),
        "livemode": False,
        "locale": params.get("locale"),
        "on_behalf_of": None,
        "return_url": params.get("return_url") or configuration["default_return_url"],
        "url": f"{ctx.base_url}/p/session/{session_id}/{token}",
        "_token": token,
    }
    return ctx.create(session, "billing_portal.session.created")


def _flow(ctx: Context, given: Json | None, customer: Json) -> Json | None:
    if not given:
        return None
    kind = given.get("type")
    if kind not in _FLOWS:
        raise invalid(f"This sandbox knows the flows {', '.join(_FLOWS)}.", "flow_data[type]")
    chosen: dict[str, Json | None] = dict.fromkeys(_FLOWS)
    if kind != "payment_method_update":
        chosen[kind] = _flow_target(ctx, kind, given.get(kind) or {}, customer)
    after = given.get("after_completion") or {}
    if after.get("type") == "redirect" and not after.get("redirect"):
        name = "flow_data[after_completion][redirect]"
        raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
    return {
        "after_completion": {
            "hosted_confirmation": None,
            "redirect": after.get("redirect"),
            "type": after.get("type") or "portal_homepage",
        },
        "customer_update": None,
        "subscription_cancel": chosen["subscription_cancel"],
        "subscription_pause": None,
        "subscription_update": chosen["subscription_update"],
        "subscription_update_confirm": chosen["subscription_update_confirm"],
        "type": kind,
    }


_FLOWS = ("payment_method_update", "subscription_cancel", "subscription_update", "subscription_update_confirm")


def _flow_target(ctx: Context, kind: str, given: Json, customer: Json) -> Json:
    """The subscription that a flow is about, the customer's own; of a confirmation its one item and new price too."""
    name = f"flow_data[{kind}][subscription]"
    if not given.get("subscription"):
        raise absent_parameter(name)
    subscription = ctx.need(given["subscription"], "subscription", param=name)
    if subscription["customer"] != customer["id"]:
        raise invalid(f"No such subscription: '{given['subscription']}'", name, "resource_missing")
    if kind == "subscription_cancel":
        return {"retention": None, "subscription": subscription["id"]}
    if kind == "subscription_update":
        return {"subscription": subscription["id"]}
    items = given.get("items") or []
    name = f"flow_data[{kind}][items]"
    if len(items) != 1 or not items[0].get("price"):
        raise invalid("Give one item with its new price.", name)
    ctx.need(items[0]["price"], "price", param=f"{name}[0][price]")
    item = {"id": items[0].get("id"), "price": items[0]["price"], "quantity": items[0].get("quantity") or 1}
    return {"discounts": None, "items": [item], "subscription": subscription["id"]}
