"""Errors are named facts. A service raises them anywhere; `kit.rpc` turns them into a gRPC status in one place.

`reason` is what programs act on (UPPER_SNAKE_CASE, `google.rpc.ErrorInfo`); the message is for people and never
carries a secret, SQL or a path.
"""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar


class TollwayError(Exception):
    """Base of every error that a caller is told about."""

    code: ClassVar[str] = "INTERNAL"  # the name of a gRPC status code
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        field: str = "",
        retry_after: timedelta | None = None,
        **metadata: str,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_reason = reason or self.reason
        self.field = field  # the request's field at fault, as the contract spells it
        self.retry_after = retry_after
        self.metadata = metadata


class InvalidArgument(TollwayError):
    code = "INVALID_ARGUMENT"
    reason = "INVALID_ARGUMENT"


class Unauthenticated(TollwayError):
    code = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"


class PermissionDenied(TollwayError):
    code = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"


class NotFound(TollwayError):
    code = "NOT_FOUND"
    reason = "NOT_FOUND"


class AlreadyExists(TollwayError):
    code = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"


class FailedPrecondition(TollwayError):
    code = "FAILED_PRECONDITION"
    reason = "FAILED_PRECONDITION"


class Aborted(TollwayError):
    """The same request is under way elsewhere; try again."""

    code = "ABORTED"
    reason = "ABORTED"


class ResourceExhausted(TollwayError):
    code = "RESOURCE_EXHAUSTED"
    reason = "RESOURCE_EXHAUSTED"


class Unavailable(TollwayError):
    """Nothing happened, or it is not known what did; a retry is right."""

    code = "UNAVAILABLE"
    reason = "UNAVAILABLE"


class DeadlineExceeded(TollwayError):
    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"
