"""What billing refuses, by name. The contract in protos/tollway/billing/v1 lists which call fails with which."""

from __future__ import annotations

from services.kit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)


class AccountNotFound(NotFound):
    reason = "ACCOUNT_NOT_FOUND"


class AccountErased(FailedPrecondition):
    """Its personal data was erased: nothing of it is changed any more."""

    reason = "ACCOUNT_ERASED"


class SubscriptionRunning(FailedPrecondition):
    reason = "SUBSCRIPTION_RUNNING"


class RefundUnderWay(FailedPrecondition):
    reason = "REFUND_UNDER_WAY"


class ApiKeyMalformed(Unauthenticated):
    reason = "API_KEY_MALFORMED"


class ApiKeyUnknown(Unauthenticated):
    reason = "API_KEY_UNKNOWN"


class ApiKeyRevoked(Unauthenticated):
    reason = "API_KEY_REVOKED"


class KeyNotFound(NotFound):
    reason = "KEY_NOT_FOUND"


class KeyEnded(FailedPrecondition):
    """It was revoked, or a rotation has set its end."""

    reason = "KEY_ENDED"


class UnknownKeyKind(InvalidArgument):
    reason = "UNKNOWN_KEY_KIND"


class KeyRefused(FailedPrecondition):
    """The tier does not let the account have another key of this kind: the reason is the catalog's, in capitals."""


class SessionInvalid(Unauthenticated):
    reason = "SESSION_INVALID"


class SignInLinkInvalid(Unauthenticated):
    """It is unknown, was used, or its time is over."""

    reason = "SIGN_IN_LINK_INVALID"


class SignInLinkOtherBrowser(Unauthenticated):
    """The link is good, in the browser that asked for it."""

    reason = "SIGN_IN_LINK_OTHER_BROWSER"


class SignInRateLimited(ResourceExhausted):
    reason = "SIGN_IN_RATE_LIMITED"


class SessionRequired(PermissionDenied):
    """A person has to do this; a key, or a session that is one, is not enough."""

    reason = "SESSION_REQUIRED"


class UserNotFound(NotFound):
    reason = "USER_NOT_FOUND"


class DeviceLoginNotFound(NotFound):
    reason = "DEVICE_LOGIN_NOT_FOUND"


class DeviceLoginDecided(FailedPrecondition):
    reason = "DEVICE_LOGIN_DECIDED"


class DeviceLoginRefused(FailedPrecondition):
    """A poll that gets no session; the reason is RFC 8628's, in capitals."""


class DeviceLoginRateLimited(ResourceExhausted):
    reason = "DEVICE_LOGIN_RATE_LIMITED"


class DeviceCodeRateLimited(ResourceExhausted):
    reason = "DEVICE_CODE_RATE_LIMITED"


class SignUpRateLimited(ResourceExhausted):
    reason = "SIGN_UP_RATE_LIMITED"


class IdempotencyKeyReused(AlreadyExists):
    reason = "IDEMPOTENCY_KEY_REUSED"


class UnknownTier(InvalidArgument):
    reason = "UNKNOWN_TIER"


class UnknownPrice(InvalidArgument):
    reason = "UNKNOWN_PRICE"


class ContactSales(InvalidArgument):
    reason = "CONTACT_SALES"


class RedirectNotAllowed(InvalidArgument):
    reason = "REDIRECT_NOT_ALLOWED"


class AlreadySubscribed(FailedPrecondition):
    reason = "ALREADY_SUBSCRIBED"


class NoSubscription(FailedPrecondition):
    reason = "NO_SUBSCRIPTION"


class PlanUnchanged(FailedPrecondition):
    reason = "PLAN_UNCHANGED"


class PaymentDeclined(FailedPrecondition):
    """Stripe could not charge the customer's card. Nothing changed."""

    reason = "PAYMENT_DECLINED"


class NoCustomer(FailedPrecondition):
    reason = "NO_CUSTOMER"


class PriceNotPushed(FailedPrecondition):
    """The catalog's prices are not at Stripe yet: the operator has to push it."""

    reason = "CATALOG_NOT_PUSHED"


class RefundRefused(FailedPrecondition):
    """No refund is due; the reason is one of domain.refund's."""


class EventNotFound(NotFound):
    reason = "EVENT_NOT_FOUND"


class SignatureInvalid(InvalidArgument):
    reason = "SIGNATURE_INVALID"


class LivemodeMismatch(InvalidArgument):
    reason = "LIVEMODE_MISMATCH"


class EventMalformed(InvalidArgument):
    reason = "EVENT_MALFORMED"


class StripeUnavailable(Unavailable):
    """Stripe did not answer, or answered 429 or 5xx. Nothing is known to have happened there."""

    reason = "STRIPE_UNAVAILABLE"
