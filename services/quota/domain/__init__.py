"""Pure decisions: no I/O and no clock of its own. The caller brings the state and the instant."""

from services.quota.domain.account import Account, Counters, Rates, Terms
from services.quota.domain.allowance import LEDGER_MARK, Adjusted, AllowanceState, allowance_states
from services.quota.domain.announcement import (
    Announcement,
    CapReached,
    UsageRecorded,
    UsageThresholdReached,
    ended_period,
    mark_ended,
    recorded,
)
from services.quota.domain.batch import settle
from services.quota.domain.command import (
    Acquire,
    AdjustAllowance,
    Command,
    Release,
    Renew,
    Reverse,
    SetCap,
    Settle,
    Use,
)
from services.quota.domain.decision import Decision, LimitState, Refused, charge, decide, limit_states
from services.quota.domain.kill_switch import ALL, KILL_SWITCH, KillSwitch
from services.quota.domain.lease import Lease
from services.quota.domain.leasing import SETTLED
from services.quota.domain.period import Period, Span, billing_span, month_span
from services.quota.domain.plan import Kind, Limit, Meter, Plan, Refusal
from services.quota.domain.work import Grant, Opened, Outcome, Reversal, Settled, Unknown

__all__ = [
    "ALL",
    "KILL_SWITCH",
    "LEDGER_MARK",
    "SETTLED",
    "Account",
    "Acquire",
    "AdjustAllowance",
    "Adjusted",
    "AllowanceState",
    "Announcement",
    "CapReached",
    "Command",
    "Counters",
    "Decision",
    "Grant",
    "KillSwitch",
    "Kind",
    "Lease",
    "Limit",
    "LimitState",
    "Meter",
    "Opened",
    "Outcome",
    "Period",
    "Plan",
    "Rates",
    "Refusal",
    "Refused",
    "Release",
    "Renew",
    "Reversal",
    "Reverse",
    "SetCap",
    "Settle",
    "Settled",
    "Span",
    "Terms",
    "Unknown",
    "UsageRecorded",
    "UsageThresholdReached",
    "Use",
    "allowance_states",
    "billing_span",
    "charge",
    "decide",
    "ended_period",
    "limit_states",
    "mark_ended",
    "month_span",
    "recorded",
    "settle",
]
