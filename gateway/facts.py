"""What is known of the request in hand, for its log line and its answer. Lives in the ASGI scope."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Scope

_KEY = "tollway.facts"


@dataclass
class Facts:
    request_id: str
    account_id: str = ""
    error: str = ""  # why a 5xx; for the log only


def begin(scope: Scope, request_id: str) -> Facts:
    facts = scope[_KEY] = Facts(request_id)
    return facts


def of(scope: Scope) -> Facts:
    """The facts of the request; the same object in every copy of its scope."""
    facts: Facts = scope[_KEY]
    return facts
