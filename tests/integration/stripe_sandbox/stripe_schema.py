"""Schemas of Stripe's objects, derived from the annotations of the installed stripe-python, and a check against them.

A field whose annotation is not Optional must be there; a field that no annotation names must not. Optional fields may
be absent or null. Where an annotation lists the values known today beside `str`, only those are taken: a value that
Stripe does not document is a slip of the sandbox.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import types
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any, ClassVar, ForwardRef, Literal, Union, get_args, get_origin

import stripe
from stripe._object_classes import get_object_class
from stripe._stripe_object import StripeObject, UntypedStripeObject

_NONE = type(None)
_LIST: dict[str, Any] = {"object": Literal["list"], "has_more": bool, "url": str, "total_count": Union[int, None]}  # noqa: UP007


@cache
def _names(module: str) -> dict[str, Any]:
    """What annotations of the module may name, the imports meant for type checkers included."""
    loaded = importlib.import_module(module)
    found = dict(vars(loaded))
    for node in ast.walk(ast.parse(inspect.getsource(loaded))):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("stripe")
            and ".params" not in node.module
        ):
            origin = importlib.import_module(node.module)
            found |= {a.asname or a.name: getattr(origin, a.name) for a in node.names if hasattr(origin, a.name)}
    return found


@cache
def _fields(cls: type) -> dict[str, Any]:
    own = {name: hint for base in reversed(cls.__mro__) for name, hint in _own(base)}
    return {name: hint for name, hint in own.items() if get_origin(hint) is not ClassVar and not name.startswith("_")}


def _own(cls: type) -> Iterator[tuple[str, Any]]:
    if issubclass(cls, StripeObject) and cls.__module__ != StripeObject.__module__:
        for name, hint in inspect.get_annotations(cls).items():
            if not name.isupper():
                yield name, _resolved(hint, cls)


def _resolved(hint: Any, cls: type) -> Any:
    """The hint with its forward references followed, as the class's module would."""
    if isinstance(hint, ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        return _resolved(eval(hint, _names(cls.__module__), {cls.__name__: cls, **vars(cls)}), cls)
    origin = get_origin(hint)
    if origin is None or origin is Literal:
        return hint
    arguments = tuple(_resolved(argument, cls) for argument in get_args(hint))
    return Union[arguments] if origin in (Union, types.UnionType) else origin[arguments]  # noqa: UP007


def violations(value: Any, hint: Any, path: str = "") -> Iterator[str]:
    """What in a decoded JSON value contradicts the hint, one sentence each."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Union:
        yield from _of_union(value, arguments, path)
    elif origin is Literal:
        if value not in arguments:
            yield f"{path}: {value!r} is none of the documented values"
    elif origin is list:
        if isinstance(value, list):
            for i, item in enumerate(value):
                yield from violations(item, arguments[0], f"{path}[{i}]")
        else:
            yield f"{path}: {value!r} is no list"
    elif inspect.isclass(origin or hint) and issubclass(origin or hint, StripeObject):
        yield from _of_object(value, origin or hint, arguments, path)
    elif hint is Decimal:
        if not (isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value)):
            yield f"{path}: {value!r} is no decimal string"
    elif hint in (int, bool, str, float):
        wanted = (int, float) if hint is float else (hint,)
        if type(value) not in wanted:
            yield f"{path}: {value!r} is no {hint.__name__}"
    elif hint is not Any:
        raise TypeError(f"{path}: no rule for {hint!r}")


def _of_union(value: Any, choices: tuple[Any, ...], path: str) -> Iterator[str]:
    if value is None and _NONE in choices:
        return
    choices = tuple(choice for choice in choices if choice is not _NONE)
    if any(get_origin(choice) is Literal for choice in choices):
        choices = tuple(choice for choice in choices if choice is not str)
    problems = [list(violations(value, choice, path)) for choice in choices]
    if all(problems):
        yield from min(problems, key=len) if not isinstance(value, dict) else problems[-1]


def _of_object(value: Any, cls: type, arguments: tuple[Any, ...], path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: {value!r} is no {cls.__name__}"
        return
    if issubclass(cls, UntypedStripeObject):
        for key, inner in value.items():
            yield from violations(inner, arguments[0] if arguments else Any, f"{path}.{key}")
        return
    fields: dict[str, Any] = _fields(cls)  # type: ignore[arg-type]  # classes are hashable
    if issubclass(cls, stripe.ListObject):
        fields = _LIST | {"data": list[arguments[0]]}  # type: ignore[valid-type]
    for name, hint in fields.items():
        if name in value:
            yield from violations(value[name], hint, f"{path}.{name}" if path else name)
        elif _NONE not in get_args(hint):
            yield f"{path}.{name} is missing".lstrip(".")
    for name in value.keys() - fields.keys():
        yield f"{path}.{name} is not a field of {cls.__name__}".lstrip(".")


def check(value: dict[str, Any]) -> None:
    """Raises AssertionError unless the object is what stripe-python says of its kind; of a list, each item."""
    if value["object"] == "list":
        for item in value["data"]:
            check(item)
        return
    cls = get_object_class("V1", value["object"])
    assert cls is not StripeObject, f"stripe-python knows no {value['object']}"
    found = [] if value.get("deleted") else list(violations(value, cls))
    if value["object"] == "event":
        check(value["data"]["object"])
    assert not found, f"{value['object']} {value.get('id')}: " + "; ".join(found)
