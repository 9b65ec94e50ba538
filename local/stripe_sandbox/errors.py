"""Stripe's errors, as its API answers them (https://docs.stripe.com/api/errors)."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer of Stripe's error envelope.

    `keep` says that what the request wrote before failing stays, as a declined charge does.
    `executed` says that the request had begun, so that its answer belongs to its idempotency key.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        keep: bool = False,
        executed: bool = True,
        **more: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.keep = keep
        self.executed = executed
        self.more = more

    def body(self, request_id: str | None) -> dict[str, Any]:
        error: dict[str, Any] = {}
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.code.replace('_', '-')}"
        error["message"] = self.message
        if self.param is not None:
            error["param"] = self.param
        error |= self.more
        if request_id is not None:
            error["request_log_url"] = f"https://dashboard.stripe.com/test/logs/{request_id}"
        error["type"] = self.kind
        return {"error": error}


def missing(kind: str, object_id: str, param: str = "id", status: int = 404) -> ApiError:
    """No such object: 404 when the path names it, 400 when a parameter does."""
    return ApiError(f"No such {kind}: '{object_id}'", status=status, code="resource_missing", param=param)


def unknown_parameter(name: str) -> ApiError:
    return ApiError(f"Received unknown parameter: {name}", code="parameter_unknown", param=name, executed=False)


def absent_parameter(name: str) -> ApiError:
    return ApiError(f"Missing required param: {name}.", code="parameter_missing", param=name, executed=False)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(message, param=param, code=code)


def declined(message: str, *, code: str, decline_code: str | None = None, keep: bool = False, **more: Any) -> ApiError:
    if decline_code is not None:
        more["decline_code"] = decline_code
    return ApiError(message, status=402, kind="card_error", code=code, keep=keep, **more)
