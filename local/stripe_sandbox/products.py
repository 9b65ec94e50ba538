"""Products: what is sold."""

from __future__ import annotations

from . import ids
from .context import Context
from .errors import ApiError, invalid
from .fields import apply, merged_metadata
from .lists import Condition, equals, page
from .params import array, boolean, choice, mapping, metadata, record, text, url
from .routing import delete, get, listing, post
from .store import Json

_SHARED = {
    "name": text,
    "active": boolean,
    "description": text,
    "images": array(url),
    "metadata": metadata,
    "shippable": boolean,
    "statement_descriptor": text,
    "tax_code": text,
    "unit_label": text,
    "url": url,
    "marketing_features": array(record({"name": text}, required=["name"])),
}
_NAMES = (
    "name",
    "active",
    "description",
    "images",
    "shippable",
    "statement_descriptor",
    "tax_code",
    "unit_label",
    "url",
    "marketing_features",
)


def make(ctx: Context, params: Json) -> Json:
    now = ctx.now()
    product: Json = {
        "id": params.get("id") or ids.new("prod"),
        "object": "product",
        "active": True,
        "created": now,
        "default_price": None,
        "description": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": merged_metadata({}, params.get("metadata") or {}),
        "name": params["name"],
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": None,
        "updated": now,
        "url": None,
    }
    product |= {name: params[name] for name in _NAMES if params.get(name) is not None}
    return ctx.create(product, "product.created")


@post(
    "/v1/products", {**_SHARED, "id": text, "type": choice("good", "service"), "default_price_data": mapping}, ["name"]
)
def create(ctx: Context, params: Json) -> Json:
    if params.get("id") and ctx.store.get(params["id"]):
        raise invalid(f"Product already exists: {params['id']}", "id", "resource_already_exists")
    product = make(ctx, params)
    if params.get("default_price_data") is not None:
        from .params import checked
        from .prices import PRICE_DATA, make_price

        given = checked(params["default_price_data"], PRICE_DATA, ["currency"], lambda k: f"default_price_data[{k}]")
        price = make_price(ctx, given | {"product": product["id"]})
        product["default_price"] = price["id"]
        ctx.save(product)
    return product


@get("/v1/products/{product}")
def retrieve(ctx: Context, params: Json, product: str) -> Json:
    return ctx.need(product, "product")


@post("/v1/products/{product}", {**_SHARED, "default_price": text})
def update(ctx: Context, params: Json, product: str) -> Json:
    before = ctx.need(product, "product")
    if params.get("default_price"):
        ctx.need(params["default_price"], "price", param="default_price")
    after = apply(before, params, (*_NAMES, "default_price"))
    if after["name"] is None:
        raise invalid("You must provide a name.", "name", "parameter_invalid_empty")
    if after != before:
        after["updated"] = ctx.now()
    return ctx.save(after, "product.updated", before)


@listing("/v1/products", {"active": boolean, "ids": array(text), "shippable": boolean, "url": text})
def listed(ctx: Context, params: Json) -> Json:
    where: list[Condition] = [
        equals(name, params[name]) for name in ("active", "shippable", "url") if params.get(name) is not None
    ]
    if params.get("ids"):
        where.append((f"id IN ({', '.join('?' * len(params['ids']))})", params["ids"]))
    return page(ctx, "product", params, "/v1/products", where)


@delete("/v1/products/{product}")
def remove(ctx: Context, params: Json, product: str) -> Json:
    found = ctx.need(product, "product")
    if any(price["product"] == product for price in ctx.store.all("price")):
        raise ApiError("This product cannot be deleted because it has one or more user-created prices.")
    ctx.store.remove(product)
    ctx.emit("product.deleted", found)
    return {"id": product, "object": "product", "deleted": True}
