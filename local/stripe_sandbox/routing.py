"""Which function answers which method and path, and which parameters it accepts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .params import TIME_RANGE, Kind, Params, anything, array, checked, integer, text

Handler = Callable[..., dict[str, Any]]

PAGING: dict[str, Kind] = {"limit": integer, "starting_after": text, "ending_before": text, "created": TIME_RANGE}


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    handler: Handler
    fields: Mapping[str, Kind]
    required: tuple[str, ...]
    # Not all parameters of paths that Stripe publishes nowhere are known: unknown ones are passed over.
    lenient: bool = False
    parts: tuple[str, ...] = field(default=())

    def check(self, raw: Params) -> Params:
        if self.lenient:
            raw = {name: value for name, value in raw.items() if name in self.fields}
        return checked(raw, self.fields, self.required)


class Router:
    def __init__(self) -> None:
        self._static: dict[tuple[str, str], Route] = {}
        self._dynamic: dict[tuple[str, int], list[Route]] = {}

    def add(
        self, method: str, path: str, fields: Mapping[str, Kind], required: Iterable[str], lenient: bool
    ) -> Callable[[Handler], Handler]:
        def register(handler: Handler) -> Handler:
            accepted = {"expand": array(text), **fields}
            parts = tuple(path.strip("/").split("/"))
            route = Route(method, path, handler, accepted, tuple(required), lenient, parts)
            if "{" in path:
                self._dynamic.setdefault((method, len(parts)), []).append(route)
            else:
                self._static[(method, path)] = route
            return handler

        return register

    def __iter__(self) -> Iterator[Route]:
        yield from self._static.values()
        for several in self._dynamic.values():
            yield from several

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        path = path.rstrip("/")
        if (route := self._static.get((method, path))) is not None:
            return route, {}
        parts = path.strip("/").split("/")
        for route in self._dynamic.get((method, len(parts)), ()):
            values: dict[str, str] = {}
            for want, have in zip(route.parts, parts, strict=True):
                if want.startswith("{"):
                    values[want[1:-1]] = have
                elif want != have:
                    break
            else:
                return route, values
        return None


routes = Router()


def get(
    path: str, fields: Mapping[str, Kind] | None = None, required: Iterable[str] = ()
) -> Callable[[Handler], Handler]:
    return routes.add("GET", path, fields or {}, required, False)


def listing(path: str, fields: Mapping[str, Kind] | None = None) -> Callable[[Handler], Handler]:
    return routes.add("GET", path, {**PAGING, **(fields or {})}, (), False)


def post(
    path: str, fields: Mapping[str, Kind] | None = None, required: Iterable[str] = (), *, lenient: bool = False
) -> Callable[[Handler], Handler]:
    return routes.add("POST", path, fields or {}, required, lenient)


def delete(path: str, fields: Mapping[str, Kind] | None = None) -> Callable[[Handler], Handler]:
    return routes.add("DELETE", path, fields or {}, (), False)


__all__ = ["PAGING", "Handler", "Route", "anything", "delete", "get", "listing", "post", "routes"]
