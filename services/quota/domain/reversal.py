"""A grant is taken back, because the work behind it failed."""

from __future__ import annotations

from services.quota.domain.account import Account
from services.quota.domain.allowance import LEDGER_MARK
from services.quota.domain.command import Reverse
from services.quota.domain.decision import Decision
from services.quota.domain.period import Period, moment
from services.quota.domain.selling import sold, take_back
from services.quota.domain.work import Grant, Reversal, Work
from services.quota.errors import GrantNotFound


def reverse(command: Reverse, account: Account, work: Work) -> Reversal:
    """Its units leave every period that still runs, and its lease ends. Rates stay: they count attempts.

    What a lease was settled with is not touched. Raises GrantNotFound.
    """
    line = work.granted.get((account.id, command.key))
    if line is None or line.meter.startswith(LEDGER_MARK):
        raise GrantNotFound
    if line.reversed:
        return Reversal(line.meter, line.amount, replayed=True)
    before = sold(account, line.meter)
    _uncount(account, line, work)
    lease = line.answer.lease
    if lease is not None and account.live(lease.id) is not None:
        work.end(account, lease.id)
    work.reverse(line)
    work.changed[account.id] = account
    if sold(account, line.meter) != before:
        # Totals are looked for where the ledger has a line of late.
        answer = Decision(account.plan.tier, account.version, [])
        note = Grant(account.id, work.new_key(), LEDGER_MARK + line.meter, 0, answer, at=work.at)
        work.grant(note, remembers=False)
    return Reversal(line.meter, line.amount)


def _uncount(account: Account, line: Grant, work: Work) -> None:
    cells = account.counters.get(line.meter, {})
    for period, span in account.spans.items():
        cell = cells.get(period)
        if cell is None or cell[0] < span.start:
            continue  # what the cell counts is over
        if span.start == 0 or (line.at is not None and line.at >= moment(span.start)):
            # Not below zero: a period whose start was moved by a new subscription may have been begun without it.
            if period != Period.BILLING:
                cell[1] = max(0, cell[1] - line.amount)
            else:
                work.turn(account, line.meter)
                take_back(account, line.meter, line.amount)
