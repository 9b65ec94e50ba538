"""What quota refuses to do, as named facts."""

from __future__ import annotations

from datetime import timedelta

from services.kit.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unauthenticated,
    Unavailable,
)


class UnknownMeter(InvalidArgument):
    def __init__(self, meter: str) -> None:
        super().__init__(
            "The account's plan has no meter of this name.", reason="UNKNOWN_METER", field="meter", meter=meter[:100]
        )


class CounterFull(FailedPrecondition):
    """The counter cannot hold the sum: it ends at 2^63 - 1."""

    def __init__(self, meter: str) -> None:
        super().__init__(
            "The counter of this meter cannot take so many units more.",
            reason="COUNTER_FULL",
            field="amount",
            meter=meter[:100],
        )


class KeyReused(AlreadyExists):
    def __init__(self) -> None:
        super().__init__(
            "This request_id was used for something else.", reason="IDEMPOTENCY_KEY_REUSED", field="request_id"
        )


class GrantReversed(FailedPrecondition):
    """The key was granted and taken back; it stays spent."""

    def __init__(self) -> None:
        super().__init__(
            "What this request_id was granted has been taken back. Use a new one.",
            reason="REVERSED",
            field="request_id",
        )


class GrantNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("Nothing was granted under this request_id.", reason="GRANT_NOT_FOUND", field="request_id")


class LeaseNotFound(NotFound):
    """It ended, it expired, it never was, or it is another account's: nobody is told which."""

    def __init__(self) -> None:
        super().__init__("There is no such live lease.", reason="LEASE_NOT_FOUND", field="lease_id")


class SettledTooMuch(InvalidArgument):
    def __init__(self, reserved: int) -> None:
        super().__init__(
            f"The lease holds {reserved} units in reserve; more than that needs a Consume of its own.",
            reason="MORE_THAN_RESERVED",
            field="amount",
        )


class CapNotOffered(InvalidArgument):
    def __init__(self, meter: str) -> None:
        super().__init__(
            "The account's plan has no cap on this meter.", reason="CAP_NOT_OFFERED", field="meter", meter=meter[:100]
        )


class NotSoldByUnit(InvalidArgument):
    def __init__(self, meter: str) -> None:
        super().__init__(
            "The account's plan has no price for units of this meter, so it cannot be capped in money.",
            reason="NOT_SOLD_BY_UNIT",
            field="overage_amount",
            meter=meter[:100],
        )


class AllowanceFull(FailedPrecondition):
    """The count cannot hold the sum: it ends at 2^63 - 1. `field` is the change that was asked for."""

    def __init__(self, field: str) -> None:
        super().__init__("So many cannot be counted.", reason="COUNTER_FULL", field=field)


class AccountNotFound(NotFound):
    def __init__(self) -> None:
        super().__init__("There is no such account.", reason="ACCOUNT_NOT_FOUND", field="account_id")


class ApiKeyRefused(Unauthenticated):
    """No account may use this key; the reason is API_KEY_MALFORMED, API_KEY_UNKNOWN or API_KEY_REVOKED."""

    reason = "API_KEY_UNKNOWN"

    @classmethod
    def malformed(cls) -> ApiKeyRefused:
        return cls("This is not an API key: check that it was copied whole.", reason="API_KEY_MALFORMED")

    @classmethod
    def revoked(cls) -> ApiKeyRefused:
        return cls("This API key was revoked.", reason="API_KEY_REVOKED")


class QueueFull(Unavailable):
    """More uses wait than this process takes on. Nothing was counted."""

    def __init__(self) -> None:
        super().__init__(
            "Too many decisions are waiting. Try again in a moment.",
            reason="QUEUE_FULL",
            retry_after=timedelta(milliseconds=200),
        )


class StoreUnavailable(Unavailable):
    """The database did not answer in time. Nothing was counted, or its answer was lost: the same key tells."""

    def __init__(self) -> None:
        super().__init__(
            "The decision could not be stored in time. Try again in a moment.",
            reason="STORE_UNAVAILABLE",
            retry_after=timedelta(seconds=1),
        )


class BillingUnavailable(Unavailable):
    """The account is new here, and billing, which knows it, does not answer. Nothing was counted."""

    def __init__(self) -> None:
        super().__init__(
            "What this account may use is not known yet. Try again in a moment.",
            reason="BILLING_UNAVAILABLE",
            retry_after=timedelta(seconds=1),
        )


class Expired(DeadlineExceeded):
    """The caller's deadline passed before the decision began. Nothing was counted."""

    def __init__(self) -> None:
        super().__init__("The deadline passed before it was this request's turn.", reason="EXPIRED_IN_QUEUE")
