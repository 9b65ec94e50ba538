"""Pure decisions: no I/O and no clock of its own. The caller brings the state and the instant."""

from services.quota.domain.account import Account, Counters, Rates
from services.quota.domain.batch import Grant, Opened, Outcome, Settled, Unknown, Use, settle
from services.quota.domain.decision import Decision, LimitState, Refused, charge, decide
from services.quota.domain.kill_switch import ALL, KILL_SWITCH, KillSwitch
from services.quota.domain.period import Period, Span, billing_span, month_span
from services.quota.domain.plan import Kind, Limit, Meter, Plan, Refusal

__all__ = [
    "ALL",
    "KILL_SWITCH",
    "Account",
    "Counters",
    "Decision",
    "Grant",
    "KillSwitch",
    "Kind",
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
    "Settled",
    "Span",
    "Unknown",
    "Use",
    "billing_span",
    "charge",
    "decide",
    "month_span",
    "settle",
]
