"""ports.Decider as plain Python: one dictionary, one use after another. It shares no line with the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime

from services.quota.domain import Decision, LimitState, Outcome, Refusal, Refused, Unknown, Use
from services.quota.errors import KeyReused, UnknownMeter

REASON = Refusal("message_quota_exceeded", 402, "The month's messages are used up.")


def next_month(now: datetime) -> datetime:
    return datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)


class ModelDecider:
    """Accounts have one meter, `messages`, with a limit by the calendar month."""

    def __init__(self, limits: dict[str, int | None]) -> None:
        self.limits = limits
        self.used = dict.fromkeys(limits, 0)
        self.answers: dict[tuple[str, str], tuple[str, int, Decision]] = {}

    def decide(self, uses: Sequence[Use], time_left_s: float | None) -> Awaitable[list[Outcome]]:
        async def answer() -> list[Outcome]:
            return [self._one(use) for use in uses]

        return answer()

    async def total(self, account_id: str) -> int:
        return self.used[account_id]

    def _one(self, use: Use) -> Outcome:
        if use.account_id not in self.limits:
            return Unknown()
        if use.key and not use.dry_run and (use.account_id, use.key) in self.answers:
            meter, amount, first = self.answers[use.account_id, use.key]
            if (meter, amount) != (use.meter, use.amount):
                return KeyReused()
            return Decision(first.tier, first.version, first.limits, replayed=True)
        if use.meter != "messages":
            return UnknownMeter(use.meter)
        limit, used = self.limits[use.account_id], self.used[use.account_id]
        reset = next_month(datetime.now(UTC))
        if limit is not None and used + use.amount > limit:
            wait = reset - datetime.now(UTC) if use.amount <= limit else None
            refused = Refused("messages", REASON, "https://pay.example/billing", "mailto:help@example.com", wait)
            return Decision("free", 1, [LimitState("messages", used, limit, reset)], refused)
        decision = Decision("free", 1, [LimitState("messages", used + use.amount, limit, reset)])
        if not use.dry_run:
            self.used[use.account_id] += use.amount
            if use.key:
                self.answers[use.account_id, use.key] = (use.meter, use.amount, decision)
        return decision
