"""Stripe's form encoding (`a[b][0]=c`) into nested values, checked against what a route accepts.

Stripe answers an unknown name with `parameter_unknown` and a missing one with `parameter_missing`; so does this.
An empty string means "unset" and arrives as None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl

from .errors import ApiError, absent_parameter, unknown_parameter

Params = dict[str, Any]
# Takes the raw value and the parameter's full name; returns the value or raises.
Kind = Callable[[Any, str], Any]

_NAME = re.compile(r"^([^\[\]]+)((?:\[[^\[\]]*\])*)$")
_PART = re.compile(r"\[([^\[\]]*)\]")


def parse_form(text: str) -> Params:
    """Nested dictionaries and lists from an urlencoded body or query.

    Raises an invalid_request_error for a name whose brackets do not match.
    """
    tree: Params = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        match = _NAME.match(name)
        if match is None:
            raise ApiError(f"Invalid parameter name: {name}", executed=False)
        path = [match[1], *_PART.findall(match[2])]
        node: Params = tree
        for step, following in pairwise(path):
            key = str(len(node)) if step == "" else step
            # `a[][b]=1&a[][c]=2` continues the last element until a name repeats in it.
            if step == "" and node:
                last = node[str(len(node) - 1)]
                if isinstance(last, dict) and following not in last:
                    key = str(len(node) - 1)
            child = node.setdefault(key, {})
            if not isinstance(child, dict):
                raise ApiError(f"Invalid parameter: {name}", param=name, executed=False)
            node = child
        node[str(len(node)) if path[-1] == "" else path[-1]] = value
    return {key: _listed(value) for key, value in tree.items()}


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdigit() for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(inner) for key, inner in value.items()}


def _bad(message: str, name: str, code: str | None = None) -> ApiError:
    return ApiError(message, param=name, code=code, executed=False)


def text(value: Any, name: str) -> str | None:
    if not isinstance(value, str):
        raise _bad(f"Invalid string: {name}", name)
    if len(value) > 5000:
        raise _bad(f"Invalid string: {name} must be at most 5000 characters", name)
    return value or None


def email(value: Any, name: str) -> str | None:
    address = text(value, name)
    if address is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", address):
        raise _bad(f"Invalid email address: {address}", name, "email_invalid")
    return address


def url(value: Any, name: str) -> str | None:
    address = text(value, name)
    if address is not None and not re.match(r"https?://[^/\s]+", address):
        raise _bad("Not a valid URL", name, "url_invalid")
    return address


def integer(value: Any, name: str) -> int | None:
    if value == "":
        return None
    if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,18}", value):
        raise _bad(f"Invalid integer: {value}", name, "parameter_invalid_integer")
    return int(value)


def boolean(value: Any, name: str) -> bool | None:
    if value == "":
        return None
    if value not in ("true", "false"):
        raise _bad(f"Invalid boolean: {value}", name)
    return bool(value == "true")


def decimal_text(value: Any, name: str) -> str | None:
    if value == "":
        return None
    if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,15}(\.\d{1,12})?", value):
        raise _bad(f"Invalid decimal: {value}", name)
    return value


def metadata(value: Any, name: str) -> dict[str, str] | None:
    """Up to 50 pairs; an empty value removes its key, an empty string all of them (None)."""
    if value == "":
        return None
    if not isinstance(value, dict):
        raise _bad("Invalid object", name)
    if len(value) > 50:
        raise _bad("Metadata can have up to 50 keys", name)
    for key, inner in value.items():
        if not isinstance(inner, str) or len(inner) > 500 or len(key) > 40:
            raise _bad("Metadata values are strings of at most 500 characters", f"{name}[{key}]")
    return dict(value)


def mapping(value: Any, name: str) -> Params | None:
    """An object whose own names are checked later."""
    if value == "":
        return None
    if not isinstance(value, dict):
        raise _bad("Invalid object", name)
    return value


def anything(value: Any, name: str) -> Any:
    return value


def choice(*allowed: str) -> Kind:
    def check(value: Any, name: str) -> str | None:
        if value == "":
            return None
        if value not in allowed:
            raise _bad(f"Invalid {name}: must be one of {', '.join(allowed)}", name)
        return str(value)

    return check


def now_or_time(value: Any, name: str) -> int | str | None:
    return "now" if value == "now" else integer(value, name)


def array(kind: Kind) -> Kind:
    def check(value: Any, name: str) -> list[Any]:
        if value == "":
            return []
        if not isinstance(value, list):
            raise _bad("Invalid array", name)
        found = [kind(inner, f"{name}[{i}]") for i, inner in enumerate(value)]
        if None in found:
            raise _bad("Invalid array: an element is empty", f"{name}[{found.index(None)}]")
        return found

    return check


def record(fields: Mapping[str, Kind], *, required: Iterable[str] = ()) -> Kind:
    needed = tuple(required)

    def check(value: Any, name: str) -> Params | None:
        if value == "":
            return None
        if not isinstance(value, dict):
            raise _bad("Invalid object", name)
        return checked(value, fields, needed, lambda key: f"{name}[{key}]")

    return check


def checked(
    values: Params,
    fields: Mapping[str, Kind],
    required: Iterable[str] = (),
    named: Callable[[str], str] = str,
) -> Params:
    """The values converted by their kinds; raises on unknown and missing names."""
    result: Params = {}
    for key, value in values.items():
        kind = fields.get(key)
        if kind is None:
            raise unknown_parameter(named(key))
        result[key] = kind(value, named(key))
    for key in required:
        if result.get(key) is None:
            raise absent_parameter(named(key))
    return result


TIME_RANGE: Kind = lambda value, name: (  # noqa: E731 - one expression, named like the other kinds
    record({"gt": integer, "gte": integer, "lt": integer, "lte": integer})(value, name)
    if isinstance(value, dict)
    else integer(value, name)
)

ADDRESS = record(dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), text))
SHIPPING = record({"address": ADDRESS, "name": text, "phone": text, "carrier": text, "tracking_number": text})
