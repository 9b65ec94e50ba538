"""The documented test cards (https://docs.stripe.com/testing): what each does, and the names that stand for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .errors import ApiError, declined

_GENERIC = "Your card was declined."
_CONFIRM = "Your card was declined. This transaction requires authentication."


@dataclass(frozen=True)
class Card:
    number: str
    brand: str = "visa"
    funding: str = "credit"
    country: str = "US"
    # How a charge of it fails; None for a card that pays.
    code: str | None = None
    decline_code: str | None = None
    message: str = _GENERIC
    # Whether saving it to a customer succeeds although charging it fails.
    attaches: bool = True
    # Whether its bank asks the person to confirm (3D Secure): each time ("always"), or until they have set it up. On
    # the pages they are asked; off session nobody is there to answer.
    authenticates: str | None = None
    # What follows a charge of it: the reason of a dispute, or "inquiry".
    disputes: str | None = None
    # What becomes of a refund to it after a while: "pending" succeeds then, "fails" failed then.
    refund: str | None = None

    @property
    def last4(self) -> str:
        return self.number[-4:]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.number.encode()).hexdigest()[:16]

    def refusal(self, *, on_session: bool) -> ApiError | None:
        """The error of charging it; None when it pays. On session the person is there to confirm."""
        if self.authenticates and not on_session:
            return declined(_CONFIRM, code="authentication_required", decline_code="authentication_required")
        if self.code is None:
            return None
        return declined(self.message, code=self.code, decline_code=self.decline_code)


def _decline(number: str, decline_code: str, message: str = _GENERIC) -> Card:
    return Card(number, code="card_declined", decline_code=decline_code, message=message, attaches=False)


_FUNDS = "Your card has insufficient funds."
_EXPIRED = "Your card has expired."
_CVC = "Your card's security code is incorrect."
_PROCESSING = "An error occurred while processing your card. Try again in a little bit."

CARDS = {
    card.number: card
    for card in (
        Card("4242424242424242"),
        Card("4000056655665556", funding="debit"),
        Card("5555555555554444", "mastercard"),
        Card("2223003122003222", "mastercard"),
        Card("5200828282828210", "mastercard", "debit"),
        Card("5105105105105100", "mastercard", "prepaid"),
        Card("378282246310005", "amex"),
        Card("371449635398431", "amex"),
        Card("6011111111111117", "discover"),
        Card("6011000990139424", "discover"),
        Card("3056930009020004", "diners"),
        Card("36227206271667", "diners"),
        Card("3566002020360505", "jcb"),
        Card("6200000000000005", "unionpay"),
        Card("4000002500001001", "visa", country="FR"),
        Card("4000002760000016", "visa", country="DE"),
        Card("4000008260000000", "visa", country="GB"),
        Card("4000003920000003", "visa", country="JP"),
        Card("4000001240000000", "visa", country="CA"),
        Card("4000000360000006", "visa", country="AU"),
        Card("4000000760000002", "visa", country="BR"),
        _decline("4000000000000002", "generic_decline"),
        _decline("4000000000009995", "insufficient_funds", _FUNDS),
        _decline("4000000000009987", "lost_card"),
        _decline("4000000000009979", "stolen_card"),
        _decline("4000000000006975", "card_velocity_exceeded"),
        _decline("4100000000000019", "fraudulent"),
        Card("4000000000000069", code="expired_card", message=_EXPIRED, attaches=False),
        Card("4000000000000127", code="incorrect_cvc", message=_CVC, attaches=False),
        Card("4000000000000119", code="processing_error", message=_PROCESSING, attaches=False),
        Card("4000000000000341", code="card_declined", decline_code="generic_decline"),
        Card("4000000000000259", disputes="fraudulent"),
        Card("4000000000002685", disputes="product_not_received"),
        Card("4000000000001976", disputes="inquiry"),
        Card("4000000000007726", refund="pending"),
        Card("4000000000005126", refund="fails"),
        Card("4000000000003220", authenticates="always"),
        Card("4000000000003063", authenticates="always"),
        Card("4000002500003155", authenticates="until_set_up"),
        Card("4000002760003184", authenticates="always", country="DE"),
    )
}

# Stripe's names after `pm_card_` and `tok_`.
_NAMES = {
    "visa": "4242424242424242",
    "visa_debit": "4000056655665556",
    "mastercard": "5555555555554444",
    "mastercard_debit": "5200828282828210",
    "mastercard_prepaid": "5105105105105100",
    "amex": "378282246310005",
    "discover": "6011111111111117",
    "diners": "3056930009020004",
    "jcb": "3566002020360505",
    "unionpay": "6200000000000005",
    "us": "4242424242424242",
    "fr": "4000002500001001",
    "de": "4000002760000016",
    "gb": "4000008260000000",
    "jp": "4000003920000003",
    "ca": "4000001240000000",
    "au": "4000000360000006",
    "br": "4000000760000002",
    "chargedeclined": "4000000000000002",
    "visa_chargedeclined": "4000000000000002",
    "chargedeclinedinsufficientfunds": "4000000000009995",
    "visa_chargedeclinedinsufficientfunds": "4000000000009995",
    "chargedeclinedlostcard": "4000000000009987",
    "visa_chargedeclinedlostcard": "4000000000009987",
    "chargedeclinedstolencard": "4000000000009979",
    "visa_chargedeclinedstolencard": "4000000000009979",
    "chargedeclinedvelocitylimitexceeded": "4000000000006975",
    "chargedeclinedexpiredcard": "4000000000000069",
    "chargedeclinedincorrectcvc": "4000000000000127",
    "chargedeclinedprocessingerror": "4000000000000119",
    "radarblock": "4100000000000019",
    "chargecustomerfail": "4000000000000341",
    "createdispute": "4000000000000259",
    "createdisputeproductnotreceived": "4000000000002685",
    "createdisputeinquiry": "4000000000001976",
    "pendingrefund": "4000000000007726",
    "refundfail": "4000000000005126",
    "threedsecure2required": "4000000000003220",
    "threedsecurerequired": "4000000000003063",
    "authenticationrequired": "4000002760003184",
    "authenticationrequiredonsetup": "4000002500003155",
}


def named(token: str) -> Card | None:
    """The card that `pm_card_visa`, `tok_visa` and their like stand for."""
    for prefix in ("pm_card_", "tok_"):
        if token.startswith(prefix):
            name = token.removeprefix(prefix)
            number = _NAMES.get(name.lower()) or _NAMES.get(name.replace("visa_", "").lower())
            return CARDS[number] if number else None
    return None


def passes_luhn(number: str) -> bool:
    total = 0
    for i, digit in enumerate(reversed(number)):
        value = int(digit) * (2 if i % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def of_number(number: str) -> Card:
    """The card of a number typed by a person. Raises card_error as Stripe does for numbers that are none.

    A real number is refused, as in test mode.
    """
    digits = number.replace(" ", "").replace("-", "")
    if not digits.isdigit() or not 12 <= len(digits) <= 19 or not passes_luhn(digits):
        raise declined("Your card number is invalid.", code="incorrect_number", param="number")
    card = CARDS.get(digits)
    if card is None:
        raise declined(
            "Your card was declined. Your request was in test mode, but used a non test card. For a list of valid test"
            " cards, visit: https://stripe.com/docs/testing.",
            code="card_declined",
            decline_code="test_mode_live_card",
        )
    return card
