"""A grant is taken back, because the work behind it failed."""

from __future__ import annotations

from services.quota.domain.account import Account
from services.quota.domain.allowance import LEDGER_MARK
from services.quota.domain.announcement import total_of
from services.quota.domain.command import Reverse
from services.quota.domain.decision import PLAIN, Decision
from services.quota.domain.period import moment
from services.quota.domain.rate import instant
from services.quota.domain.selling import is_over, take_back
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
    _uncount(account, line, work)
    lease = line.answer.lease
    if lease is not None and account.live(lease.id) is not None:
        work.end(account, lease.id)
    work.reverse(line)
    work.changed[account.id] = account
    return Reversal(line.meter, line.amount)


def _uncount(account: Account, line: Grant, work: Work) -> None:
    cells = account.counters.get(line.meter, {})
    for period in PLAIN:
        start, cell = account.spans[period].start, cells.get(period)
        # What the cell counts is over if it began before.
        if cell is not None and cell[0] >= start and (start == 0 or (line.at is not None and line.at >= moment(start))):
            cell[1] = max(0, cell[1] - line.amount)
    if line.at is None or is_over(account, line.meter):
        return
    work.turn(account, line.meter)
    if (changed := take_back(account, line.meter, line.amount, instant(line.at))) is not None:
        # Told at once, for its period may be over before the totals are looked for; those are where the ledger has a
        # line of late.
        work.announcements.append(total_of(account, line.meter, changed))
        answer = Decision(account.plan.tier, account.version, [])
        note = Grant(account.id, work.new_key(), LEDGER_MARK + line.meter, 0, answer, at=work.at)
        work.grant(note, remembers=False)
