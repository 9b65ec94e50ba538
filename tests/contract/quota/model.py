"""ports.Decider as plain Python: one dictionary, one use after another. It shares no line with the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime, timedelta

from services.quota.domain import Decision, LimitState, Outcome, Refusal, Refused, Unknown, Use
from services.quota.errors import KeyReused, UnknownMeter

MINUTE = timedelta(seconds=60)
TOO_FAST = Refusal("too_fast", 429, "Slow down.")
REASON = Refusal("message_quota_exceeded", 402, "The month's messages are used up.")


def next_month(now: datetime) -> datetime:
    return datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)


class ModelDecider:
    """Accounts have one meter, `messages`, with a limit by the calendar month.

    `rates`: of some accounts, units in any 60 s for the account and for each key. A decision's `reset` of a rate is
    left out; it depends on the instant.
    """

    def __init__(self, limits: dict[str, int | None], rates: dict[str, tuple[int, int]] | None = None) -> None:
        self.limits = limits
        self.rates = rates or {}
        self.granted: list[tuple[datetime, str, str, int]] = []
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
        now = datetime.now(UTC)
        reset = next_month(now)
        states = [LimitState("messages", used, limit, reset)]
        if use.account_id in self.rates:
            mine = [line for line in self.granted if line[1] == use.account_id and line[0] > now - MINUTE]
            of_key = [line for line in mine if line[2] == use.key_id]
            for name, lines, most in zip(
                ("per_key", "burst"), (of_key, mine), reversed(self.rates[use.account_id]), strict=True
            ):
                states.insert(0, LimitState(name, sum(line[3] for line in lines), most, None, MINUTE))
        binding = next(
            (each for each in states if each.limit is not None and each.used + use.amount > each.limit), None
        )
        if binding is not None:
            reason, pay = (TOO_FAST, "") if binding.window else (REASON, "https://pay.example/billing")
            wait = reset - now if use.amount <= (limit or 0) else None
            refused = Refused(binding.name, reason, pay, "mailto:help@example.com", wait)
            return Decision("free", 1, states, refused)
        for state in states:
            state.used += use.amount
        decision = Decision("free", 1, states)
        if not use.dry_run:
            self.used[use.account_id] += use.amount
            self.granted.append((now, use.account_id, use.key_id, use.amount))
            if use.key:
                self.answers[use.account_id, use.key] = (use.meter, use.amount, decision)
        return decision
