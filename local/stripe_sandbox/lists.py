"""Stripe's list objects, pagination and `expand`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ApiError, missing
from .store import Json, public

if TYPE_CHECKING:
    from .context import Context

Condition = tuple[str, list[Any]]
# Sub-lists that Stripe leaves out unless `expand` names them.
INCLUDED_ON_REQUEST = {
    "checkout.session": ("line_items",),
    "invoice": ("payments",),
    "charge": ("refunds",),
    "price": ("tiers",),
}
_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def inline(data: list[Json], url: str) -> Json:
    """A list that an object carries whole."""
    return {"object": "list", "data": data, "has_more": False, "url": url}


def equals(path: str, value: Any) -> Condition:
    """A condition on a field of the body; the column where there is one."""
    if path in ("customer", "ref", "created"):
        return f"{path} = ?", [value]
    if isinstance(value, bool):
        value = int(value)
    return f"json_extract(body, '$.{path}') = ?", [value]


def time_range(column: str, value: int | dict[str, int]) -> list[Condition]:
    if isinstance(value, int):
        return [(f"{column} = ?", [value])]
    return [(f"{column} {_COMPARISONS[key]} ?", [bound]) for key, bound in value.items()]


def page(ctx: Context, kind: str, params: Json, url: str, conditions: list[Condition] | None = None) -> Json:
    """A list object by Stripe's rules: 10 by default, at most 100, newest first."""
    where = list(conditions or [])
    limit = params.get("limit")
    limit = 10 if limit is None else limit
    if not 1 <= limit <= 100:
        raise ApiError(
            f"Invalid integer: {limit} must be between 1 and 100", param="limit", code="parameter_invalid_integer"
        )
    for cursor in ("starting_after", "ending_before"):
        if params.get(cursor) and ctx.store.get(params[cursor], kind) is None:
            raise missing(kind, params[cursor], cursor, 400)
    if params.get("created") is not None:
        where += time_range("created", params["created"])
    data, more = ctx.store.page(
        kind, where, limit=limit, after=params.get("starting_after"), before=params.get("ending_before")
    )
    return {"object": "list", "data": data, "has_more": more, "url": url}


def render(ctx: Context, obj: Json, expand: list[str]) -> Json:
    """The object as answered: own fields stripped, asked fields expanded, unasked sub-lists left out."""
    tree: Json = {}
    for path in expand:
        if path.count(".") > 3 + path.startswith("data."):
            raise ApiError("You cannot expand more than 4 levels of a property.", param="expand")
        node = tree
        for step in path.split("."):
            node = node.setdefault(step, {})
    return _expanded(ctx, obj, tree, "")


def _expanded(ctx: Context, obj: Json, tree: Json, path: str) -> Json:
    hidden = INCLUDED_ON_REQUEST.get(obj.get("object", ""), ())
    shown = {key: value for key, value in public(obj).items() if key not in hidden or key in tree}
    if obj.get("object") == "list" and "data" not in tree:
        shown["data"] = [_expanded(ctx, item, {}, path) for item in obj["data"]]
    for key, inner in tree.items():
        name = f"{path}.{key}" if path else key
        if key not in shown:
            raise ApiError(f"This property cannot be expanded ({name}).", param="expand[0]")
        shown[key] = _expand_value(ctx, shown[key], inner, name)
    return shown


def _expand_value(ctx: Context, value: Any, tree: Json, path: str) -> Any:
    if isinstance(value, str):
        found = ctx.store.get(value)
        if found is None:
            raise ApiError(f"This property cannot be expanded ({path}).", param="expand[0]")
        return _expanded(ctx, found, tree, path)
    if isinstance(value, list):
        return [_expand_value(ctx, item, tree, path) for item in value]
    if isinstance(value, dict):
        return _expanded(ctx, value, tree, path)
    return value
