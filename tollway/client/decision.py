"""What quota answers, as frozen values. Times are UTC; units are whole numbers; None where there is no limit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from tollway.quota.v1 import quota_pb2 as pb

# What a catalog may choose from; anything else would not read as a refusal.
_REFUSED = frozenset({402, 403, 429, 503})

Kind = Literal["rate", "quota", "cap", "concurrency"]
_KINDS: dict[pb.LimitKind.ValueType, Kind] = {
    pb.LIMIT_KIND_RATE: "rate",
    pb.LIMIT_KIND_QUOTA: "quota",
    pb.LIMIT_KIND_CAP: "cap",
    pb.LIMIT_KIND_CONCURRENCY: "concurrency",
}


@dataclass(frozen=True)
class LimitState:
    """One limit after the decision. `limit` and `remaining` are None when unlimited, `resets_at` when never.

    `kind` is quota, rate, cap or concurrency. A rate has its `window`; a cap with `auto_stop` refuses, one without it
    only warns; `used` of concurrency are the leases that live now.
    """

    name: str
    used: int
    limit: int | None
    remaining: int | None
    resets_at: datetime | None
    kind: Kind = "quota"
    window: timedelta | None = None
    auto_stop: bool = False

    @classmethod
    def of(cls, state: pb.LimitState) -> LimitState:
        window = state.window.ToTimedelta() if state.HasField("window") else None
        return cls(
            name=state.name,
            used=state.used,
            limit=_limit_of(state),
            remaining=_remaining_of(state),
            resets_at=_reset_of(state),
            kind=_KINDS.get(state.kind) or ("quota" if window is None else "rate"),
            window=window,
            auto_stop=state.auto_stop,
        )


@dataclass(frozen=True)
class Lease:
    """A hold with an expiry: a place, `reserved` units, or both. When it has expired it is gone."""

    id: str
    account_id: str
    meter: str
    reserved: int
    acquired_at: datetime
    expires_at: datetime
    key_id: str = ""

    @classmethod
    def of(cls, lease: pb.Lease) -> Lease:
        return cls(
            id=lease.id,
            account_id=lease.account_id,
            meter=lease.meter,
            reserved=lease.reserved,
            acquired_at=lease.acquire_time.ToDatetime(tzinfo=UTC),
            expires_at=lease.expire_time.ToDatetime(tzinfo=UTC),
            key_id=lease.key_id,
        )


@dataclass(frozen=True)
class Reversal:
    """What was taken back. `replayed`: it had been before; nothing changed now."""

    meter: str
    amount: int
    replayed: bool


@dataclass(frozen=True)
class Decision:
    """An answer to `consume`. True in a condition exactly when it is `allowed`.

    Allowed: the units are counted, durably; `http_status` is 200 and the refusal's words are "". Refused: nothing was
    counted; `reason`, `http_status` (402, 403, 429 or 503) and `detail` are the catalog's, `binding_limit` names the
    limit, `retry_after` is set if waiting alone helps. `replayed`: this `request_id` was granted before, which is also
    what a retry inside the client meets when only the answer was lost.
    """

    allowed: bool
    request_id: str
    reason: str = ""
    http_status: int = 200
    detail: str = ""
    binding_limit: str = ""
    limits: tuple[LimitState, ...] = ()  # in the order of decision
    retry_after: timedelta | None = None
    replayed: bool = False
    tier: str = ""
    version: int = 0
    billing_url: str = ""
    support_contact: str = ""
    overage_units: int = 0  # of this use, beyond those that the plan includes
    unverified: bool = False  # allowed without the store, which was away: nothing was counted
    lease: Lease | None = None  # what `acquire` granted

    def __bool__(self) -> bool:
        # So that `if await quota.consume(…)` cannot let everybody through.
        return self.allowed

    @property
    def binding(self) -> LimitState | None:
        """The limit that refused, as it stands."""
        return next((state for state in self.limits if self.binding_limit and state.name == self.binding_limit), None)

    @classmethod
    def of(cls, message: pb.Decision, request_id: str) -> Decision:
        told = message.refusal
        if message.allowed:
            reason, status, detail = "", 200, ""
        else:
            reason = told.reason or "quota_exceeded"
            status = told.http_status if told.http_status in _REFUSED else 429
            detail = told.detail or "A limit of the plan is reached."
        return cls(
            allowed=message.allowed,
            request_id=request_id,
            reason=reason,
            http_status=status,
            detail=detail,
            binding_limit=message.binding_limit,
            limits=tuple(LimitState.of(state) for state in message.limits),
            retry_after=message.retry_after.ToTimedelta() if message.HasField("retry_after") else None,
            replayed=message.replayed,
            tier=message.tier,
            version=message.version,
            billing_url=told.billing_url,
            support_contact=told.support_contact,
            overage_units=message.overage_units,
            unverified=message.unverified,
            lease=Lease.of(message.lease) if message.HasField("lease") else None,
        )


@dataclass(frozen=True)
class MeterUsage:
    """One meter in the period that runs now; `limit` and `remaining` are those of the tightest quota over it."""

    meter: str
    used: int
    limit: int | None
    remaining: int | None
    resets_at: datetime | None
    limits: tuple[LimitState, ...]


@dataclass(frozen=True)
class Usage:
    """What an account has used of each meter of its plan."""

    account_id: str
    tier: str
    version: int
    meters: tuple[MeterUsage, ...]

    def meter(self, name: str) -> MeterUsage:
        """Raises KeyError for a meter that the plan does not have."""
        for each in self.meters:
            if each.meter == name:
                return each
        raise KeyError(name)

    @classmethod
    def of(cls, message: pb.GetUsageResponse) -> Usage:
        meters = (
            MeterUsage(
                meter=meter.meter,
                used=meter.used,
                limit=_limit_of(meter),
                remaining=_remaining_of(meter),
                resets_at=_reset_of(meter),
                limits=tuple(LimitState.of(state) for state in meter.limits),
            )
            for meter in message.meters
        )
        return cls(message.account_id, message.tier, message.version, tuple(meters))


_State = pb.LimitState | pb.MeterUsage


def _limit_of(state: _State) -> int | None:
    return state.limit if state.HasField("limit") else None


def _remaining_of(state: _State) -> int | None:
    return state.remaining if state.HasField("remaining") else None


def _reset_of(state: _State) -> datetime | None:
    return state.reset_time.ToDatetime(tzinfo=UTC) if state.HasField("reset_time") else None
