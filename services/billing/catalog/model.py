"""What a catalog may say (DESIGN §3). Names defined once, numbers given per tier; references are checked here."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Count = Annotated[int, Field(ge=0, le=2**62, strict=True)]
Unlimited = Literal["unlimited"]
Days = Annotated[int, Field(ge=1, le=3660, strict=True)]
STATUSES = ("trialing", "active", "past_due", "unpaid", "paused", "incomplete", "incomplete_expired", "canceled")
PRICE = "price"  # lifecycle: the tier that the subscription's price sells
KEEP = "keep"  # lifecycle: the tier of the price last granted while active or trialing


def _decimal(value: str) -> str:
    if not re.fullmatch(r"\d{1,12}(\.\d{1,12})?", value):
        raise ValueError("expected a decimal number in quotes, such as '0.1'")
    return value


def _contact(value: str) -> str:
    if not re.fullmatch(r"mailto:[^\s@<>]+@[^\s@<>]+|https://\S+", value):
        raise ValueError("expected mailto:… or https://…")
    return value


def _mailbox(value: str) -> str:
    if len(value) > 254 or not re.fullmatch(
        r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", value
    ):
        raise ValueError("expected one plain address, such as billing@example.com")
    return value


DecimalText = Annotated[str, AfterValidator(_decimal)]
Contact = Annotated[str, AfterValidator(_contact)]
Mailbox = Annotated[str, AfterValidator(_mailbox)]
DisplayName = Annotated[str, StringConstraints(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f<>]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Product(_Part):
    """What is sold, and whom to ask about it."""

    name: DisplayName
    contact: Contact = Field(description="Whom customers write to: mailto: or https.")


class Brand(_Part):
    """How the seller shows itself in mails and on the billing page."""

    name: DisplayName | None = Field(None, description="Else the product's name.")
    color: Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")] = "#4f46e5"
    sender: Mailbox | None = Field(None, description="The address that mails come from; else TOLLWAY_MAIL_FROM.")


class Price(_Part):
    lookup_key: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,200}$")]
    interval: Literal["month", "year"]
    amount: Annotated[int, Field(ge=0, le=99_999_999, strict=True)] = Field(description="Whole minor units.")
    currency: Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")] = "usd"


class Overage(_Part):
    """What a unit beyond the included ones costs."""

    included: Count
    unit_price: DecimalText = Field(description="Minor units a unit, as a decimal string: '0.1' is a tenth of a cent.")
    currency: Annotated[str, StringConstraints(pattern=r"^[a-z]{3}$")] = "usd"

    @property
    def price(self) -> Decimal:
        return Decimal(self.unit_price)


@dataclass(frozen=True)
class MeteredPrice:
    """What sells a tier's units beyond the included ones, beside one of its base prices."""

    lookup_key: str
    interval: str
    meter: str
    included: int
    unit_price: str
    currency: str


class Refusal(_Part):
    """How a refusal is told: a reason for programs, an HTTP status, a sentence for people."""

    reason: Name
    status: Literal[402, 403, 429, 503]
    detail: Annotated[str, StringConstraints(min_length=1, max_length=300)]


class Meter(_Part):
    """Usage over time."""

    unit: Annotated[str, StringConstraints(min_length=1, max_length=30)] = Field(description="One of it: 'message'.")
    gate: Name | None = None
    gate_refusal: Refusal | None = None
    on_store_down: Literal["deny", "allow"] = "deny"
    suspended: Refusal | None = Field(None, description="The answer while an operator's kill switch covers it.")

    @model_validator(mode="after")
    def _gate_says_how(self) -> Self:
        if (self.gate is None) != (self.gate_refusal is None):
            raise ValueError("gate and gate_refusal come together")
        return self


class Limit(_Part):
    """One limit over one meter or several; each tier gives it a number or `unlimited`."""

    kind: Literal["rate", "quota", "cap", "concurrency"]
    meters: Annotated[list[Name], Field(min_length=1)]
    refusal: Refusal
    period: Literal["month", "billing_period", "lifetime"] | None = Field(None, description="Quotas and caps.")
    scope: Literal["account", "key"] = Field("account", description="Rates.")
    window_seconds: Annotated[int, Field(ge=1, le=86_400, strict=True)] | None = Field(
        None, description="Rates: the sliding window, 60 unless given. Concurrency: how long a lease lasts."
    )
    warn_percent: list[Annotated[int, Field(ge=1, le=100, strict=True)]] = []

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind in {"quota", "cap"} and self.period is None:
            raise ValueError(f"a {self.kind} needs a period: month, billing_period or lifetime")
        if self.kind in {"rate", "concurrency"} and self.period is not None:
            raise ValueError(f"a {self.kind} has no period")
        if self.kind == "concurrency" and self.window_seconds is None:
            raise ValueError("concurrency needs window_seconds: how long a lease lasts")
        return self


class Tier(_Part):
    name: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    description: Annotated[str, StringConstraints(max_length=300)] = ""
    inherits: Name | None = None
    prices: list[Price] = []
    contract: bool = Field(False, description="Sold by people: checkout answers contact_sales.")
    grandfathered: bool = Field(False, description="Not sold any more; who has it keeps it.")
    listed: bool = Field(True, description="False: a state that accounts come into, not one that anybody chooses.")
    gates: dict[Name, bool] = {}
    allowances: dict[Name, Count | Unlimited] = {}
    limits: dict[Name, Count | Unlimited] = {}
    overage: dict[Name, Overage] = {}
    audit_retention_days: Days | None = Field(None, description="Else the ancestor's, else the policy's.")


class KeyKind(_Part):
    prefix: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,8}(_[a-z]{2,10})+_$")]
    scopes: Annotated[list[Name], Field(min_length=1)]
    meter: Name | None = Field(None, description="The meter that requests with such a key drive, when there is one.")
    gate: Name | None = Field(None, description="The gate that issuing one needs.")
    gate_refusal: Refusal | None = Field(None, description="While it is closed; else 402 `<gate>_required`.")
    allowance: Name | None = Field(None, description="The allowance that counts them.")
    allowance_refusal: Refusal | None = Field(None, description="Used up; else 402 `<allowance>_allowance_used`.")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.gate_refusal and not self.gate) or (self.allowance_refusal and not self.allowance):
            raise ValueError("a refusal comes with the gate or allowance that it is for")
        if self.prefix.startswith("ses_"):
            raise ValueError("a prefix that begins with ses_ would look like a session's token")
        return self


class Refund(_Part):
    """When the base fee is given back: once per account, from the start of the first paid subscription."""

    days: Days
    limit: Name = Field(description="The lifetime quota that counts what was used; it may be unlimited.")
    fewer_than: Annotated[int, Field(ge=1, le=2**62, strict=True)] = Field(description="Units used of it.")


class Policies(_Part):
    audit_retention_days: Days = 30
    grace_days: Annotated[int, Field(ge=0, le=90, strict=True)] = 0
    trial_days: Annotated[int, Field(ge=0, le=730, strict=True)] = 0
    promotion_codes: bool = False
    refund: Refund | None = Field(None, description="Without one nothing is refunded by policy.")
    automatic_tax: bool = False
    redirect_origins: list[Annotated[str, StringConstraints(pattern=r"^https?://[a-z0-9.-]+(:\d{1,5})?$")]] = []


class Catalog(_Part):
    """A whole catalog. `tiers` keeps its order: it is the order of the price table."""

    version: Literal[1]
    product: Product
    brand: Brand = Brand()
    default_tier: Name = Field(description="The tier of accounts without a subscription.")
    meters: dict[Name, Meter] = {}
    limits: dict[Name, Limit] = {}
    gates: list[Name] = []
    allowances: list[Name] = []
    tiers: Annotated[dict[Name, Tier], Field(min_length=1)]
    lifecycle: dict[str, str]
    key_kinds: Annotated[dict[Name, KeyKind], Field(min_length=1)]
    policies: Policies = Policies()

    @model_validator(mode="after")
    def _refers_to_what_exists(self) -> Self:
        problems = [*self._tier_problems(), *self._name_problems()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _tier_problems(self) -> list[str]:
        problems = []
        if self.default_tier not in self.tiers:
            problems.append(f"default_tier: no tier is named {self.default_tier}")
        for status in STATUSES:
            if status not in self.lifecycle:
                problems.append(f"lifecycle: {status} is missing, expected price, keep or a tier")
        for status, outcome in self.lifecycle.items():
            if status not in STATUSES:
                problems.append(f"lifecycle: {status} is no status of Stripe's ({', '.join(STATUSES)})")
            if outcome not in {PRICE, KEEP, *self.tiers}:
                problems.append(f"lifecycle.{status}: {outcome} is neither price, keep nor a tier")
        lookup_keys: set[str] = set()
        for name, tier in self.tiers.items():
            if tier.contract and tier.prices:
                problems.append(f"tiers.{name}: a contract tier has no prices")
            if tier.prices and not tier.listed:
                problems.append(f"tiers.{name}.listed: a tier with prices is for sale")
            for price in tier.prices:
                if price.lookup_key in lookup_keys:
                    problems.append(f"tiers.{name}.prices: {price.lookup_key} is used twice")
                lookup_keys.add(price.lookup_key)
            seen, parent = {name}, tier.inherits
            while parent is not None:
                if parent not in self.tiers:
                    problems.append(f"tiers.{name}.inherits: no tier is named {parent}")
                    break
                if parent in seen:
                    problems.append(f"tiers.{name}.inherits: goes in a circle")
                    break
                seen.add(parent)
                parent = self.tiers[parent].inherits
        return problems

    def _name_problems(self) -> list[str]:
        known: dict[str, set[str]] = {
            "meter": set(self.meters),
            "limit": set(self.limits),
            "gate": set(self.gates),
            "allowance": set(self.allowances),
        }
        uses: list[tuple[str, str, str]] = []
        for name, meter in self.meters.items():
            uses += [("gate", meter.gate, f"meters.{name}.gate")] if meter.gate else []
        for name, limit in self.limits.items():
            uses += [("meter", meter_name, f"limits.{name}.meters") for meter_name in limit.meters]
        for name, tier in self.tiers.items():
            uses += [("gate", gate, f"tiers.{name}.gates") for gate in tier.gates]
            uses += [("allowance", allowance, f"tiers.{name}.allowances") for allowance in tier.allowances]
            uses += [("limit", limit_name, f"tiers.{name}.limits") for limit_name in tier.limits]
            uses += [("meter", meter_name, f"tiers.{name}.overage") for meter_name in tier.overage]
        prefixes: dict[str, str] = {}
        problems = []
        if refund := self.policies.refund:
            uses.append(("limit", refund.limit, "policies.refund.limit"))
            counted = self.limits.get(refund.limit)
            if counted is not None and (counted.kind, counted.period) != ("quota", "lifetime"):
                problems.append("policies.refund.limit: expected a quota whose period is lifetime")
        for name, kind in self.key_kinds.items():
            uses += [("meter", kind.meter, f"key_kinds.{name}.meter")] if kind.meter else []
            uses += [("gate", kind.gate, f"key_kinds.{name}.gate")] if kind.gate else []
            uses += [("allowance", kind.allowance, f"key_kinds.{name}.allowance")] if kind.allowance else []
            if kind.prefix in prefixes:
                problems.append(f"key_kinds.{name}.prefix: {kind.prefix} is also {prefixes[kind.prefix]}'s")
            prefixes[kind.prefix] = name
        problems += [f"{where}: no {noun} is named {name}" for noun, name, where in uses if name not in known[noun]]
        return problems

    def fingerprint(self, tier: str) -> str:
        """SHA-256 over what the tier resolves to: texts and other tiers do not change it."""
        return self._fingerprints[tier]

    @property
    def fingerprints(self) -> list[str]:
        return list(self._fingerprints.values())

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        shared = [self.model_dump(mode="json", include={"meters", "limits", "gates"}), self.product.contact]
        return {
            name: hashlib.sha256(
                json.dumps(
                    [shared, *self._grants(name)],
                    sort_keys=True,
                ).encode()
            ).hexdigest()
            for name in self.tiers
        }

    def _grants(self, tier: str) -> list[object]:
        grants = {"gates", "allowances", "limits", "overage"}
        return [tier, *(each.model_dump(mode="json", include=grants) for each in self.lineage(tier))]

    def lineage(self, tier: str) -> list[Tier]:
        """The tier and what it inherits, the farthest ancestor first."""
        chain: list[Tier] = []
        name: str | None = tier
        while name is not None:
            chain.append(self.tiers[name])
            name = self.tiers[name].inherits
        return chain[::-1]

    def tier_of_lookup_key(self, lookup_key: str) -> str | None:
        for name, tier in self.tiers.items():
            if any(price.lookup_key == lookup_key for price in tier.prices):
                return name
        return None

    def metered_prices(self, tier: str, price: Price) -> list[MeteredPrice]:
        """What is sold by the unit to who pays this price of the tier."""
        sold: dict[str, Overage] = {}
        for each in self.lineage(tier):
            sold |= each.overage
        return [
            MeteredPrice(
                f"{price.lookup_key}_{meter}", price.interval, meter, each.included, each.unit_price, each.currency
            )
            for meter, each in sold.items()
        ]

    @property
    def base_lookup_keys(self) -> list[str]:
        return [price.lookup_key for tier in self.tiers.values() for price in tier.prices]

    def gate_open(self, tier: str, gate: str) -> bool:
        return next((t.gates[gate] for t in reversed(self.lineage(tier)) if gate in t.gates), False)

    def allowance(self, tier: str, name: str) -> int | None:
        """How many may be held at once; None: any number."""
        found = next((t.allowances[name] for t in reversed(self.lineage(tier)) if name in t.allowances), None)
        return found if isinstance(found, int) else None

    def audit_retention(self, tier: str) -> timedelta:
        days = (t.audit_retention_days for t in reversed(self.lineage(tier)))
        return timedelta(days=next((d for d in days if d is not None), self.policies.audit_retention_days))

    @property
    def brand_name(self) -> str:
        return self.brand.name or self.product.name

    @property
    def first_key_kind(self) -> str:
        """The kind that a sign-up issues."""
        return next(iter(self.key_kinds))
