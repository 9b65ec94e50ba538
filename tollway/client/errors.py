"""What quota's service can fail with, by name. `reason` is what programs act on; the message is for people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

DOMAIN = "tollway"
DETAILS = "grpc-status-details-bin"


class QuotaError(Exception):
    """Base of every error here; raised itself for a status that has no class of its own.

    `reason` is UPPER_SNAKE_CASE (`google.rpc.ErrorInfo`), `field` the request's field at fault or "", `retry_after`
    the service's own wish or None. `request_id` is the id that the failed call carried ("" if none): to learn what
    became of it, call again with the same id.
    """

    reason_of_class: ClassVar[str] = "INTERNAL"

    def __init__(
        self, message: str, *, reason: str = "", field: str = "", retry_after: timedelta | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.reason_of_class
        self.field = field
        self.retry_after = retry_after
        self.request_id = ""


class InvalidArgument(QuotaError):
    """A field has a value that is not accepted: `field` names it. An unknown meter has reason UNKNOWN_METER."""

    reason_of_class = "INVALID_ARGUMENT"


class NotFound(QuotaError):
    """There is no such account, no such live lease (LEASE_NOT_FOUND), or no such grant (GRANT_NOT_FOUND)."""

    reason_of_class = "NOT_FOUND"


class KeyReused(QuotaError):
    """The request_id was used before, for another meter or amount."""

    reason_of_class = "ALREADY_EXISTS"


class FailedPrecondition(QuotaError):
    """The counter cannot hold so many units (2^63 - 1), or what the request_id stood for was taken back (REVERSED)."""

    reason_of_class = "FAILED_PRECONDITION"


class Unauthenticated(QuotaError):
    """The service does not accept our token."""

    reason_of_class = "UNAUTHENTICATED"


class PermissionDenied(QuotaError):
    """Our credentials may not do this."""

    reason_of_class = "PERMISSION_DENIED"


class ResourceExhausted(QuotaError):
    """The message is larger than the service takes. A limit's refusal is a `Decision`, never this."""

    reason_of_class = "RESOURCE_EXHAUSTED"


class Unavailable(QuotaError):
    """The service, or its store, did not answer although it was asked again until the deadline.

    Either nothing was counted, or the answer was lost: a later call with the same `request_id` counts once at most.
    """

    reason_of_class = "UNAVAILABLE"


class DeadlineExceeded(Unavailable):
    """The last attempt got no answer in its time."""

    reason_of_class = "DEADLINE_EXCEEDED"


class Closed(Unavailable):
    """The client was closed while the call waited."""

    reason_of_class = "CLOSED"


_BY_CODE: dict[grpc.StatusCode, type[QuotaError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: KeyReused,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    # Nobody here cancels a call and then reads its status: the server did, when it stopped.
    grpc.StatusCode.CANCELLED: Unavailable,
}
_BY_NUMBER: dict[int, type[QuotaError]] = {code.value[0]: kind for code, kind in _BY_CODE.items()}

# Said when the status is not the service's own: gRPC's text names hosts and files.
_TOLD: dict[type[QuotaError], str] = {
    Unavailable: "The quota service does not answer.",
    DeadlineExceeded: "The quota service took too long.",
    Unauthenticated: "The quota service does not accept our token.",
    ResourceExhausted: "The quota service refused the amount of data.",
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> QuotaError:
    """The named error that a call's status carries."""
    kind = _BY_CODE.get(error.code(), QuotaError)
    try:
        info, field, retry_after = _read(error.trailing_metadata() or ())
    except (DecodeError, ValueError, OverflowError):  # whatever stands between may write what nobody can read
        info, field, retry_after = None, "", None
    if info is None or info.domain != DOMAIN:
        return kind(_TOLD.get(kind, "The quota service failed."), retry_after=retry_after)
    return kind(error.details() or info.reason, reason=info.reason, field=field, retry_after=retry_after)


def _read(metadata: Iterable[tuple[str, str | bytes]]) -> tuple[ErrorInfo | None, str, timedelta | None]:
    """Who says why, the field at fault, and the wish. Raises DecodeError, ValueError, OverflowError."""
    info: ErrorInfo | None = None
    field, retry_after = "", None
    for key, value in metadata:
        if key != DETAILS:
            continue
        for detail in Status.FromString(value if isinstance(value, bytes) else value.encode()).details:
            if detail.Is(ErrorInfo.DESCRIPTOR):
                info = ErrorInfo.FromString(detail.value)
            elif detail.Is(BadRequest.DESCRIPTOR):
                violations = BadRequest.FromString(detail.value).field_violations
                field = violations[0].field if violations else ""
            elif detail.Is(RetryInfo.DESCRIPTOR):
                retry_after = RetryInfo.FromString(detail.value).retry_delay.ToTimedelta()
    return info, field, retry_after


def from_code(code: int, reason: str, message: str, field: str) -> QuotaError:
    """The named error of one place in a batch; `code` is a google.rpc.Code."""
    return _BY_NUMBER.get(code, QuotaError)(message, reason=reason, field=field)
