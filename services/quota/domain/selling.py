"""The counter of the billing period, and how much of it is sold there.

Its cell is [start of the period, units used in it, how many of those are not sold in it, end of the period]. Not sold
is what was used while the plan did not sell the meter, and what was counted in another period before. The period
follows the subscription, so one that was left before its end may come back: when another subscription ends, or a debt
is paid. Until after their ends the cells of those are kept in the account's terms: `{"left": {meter: [cell, …]}}`. A
cell that was left has, after its end, the microseconds between which it was counted, in pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.quota.domain.period import Period, billing_span, moment, month_span

if TYPE_CHECKING:
    from services.quota.domain.account import Account

Cell = list[int]
MOST_LEFT = 4  # cells of a meter, and pairs of a cell
_BILLING = Period.BILLING.value
_TAKEN_BACK_S = 3 * 86_400  # by then nothing can be taken back any more that was counted in a period


def is_sold(account: Account, meter: str) -> bool:
    """By the plan as it is now."""
    rules = account.plan.rules.get(meter)
    return rules is not None and rules.sold


def last_cell(account: Account, meter: str) -> Cell | None:
    """Of the period that was counted last."""
    cell, running = account.counters.get(meter, {}).get(_BILLING), account.spans[_BILLING]
    if cell is None:
        return None
    if len(cell) >= 4:
        # A release that knew nothing of it may have taken units back.
        if cell[2] > cell[1]:
            cell[2] = cell[1]
        if cell[0] == running.start and cell[3] != running.end:
            return [*cell[:3], running.end or 0, *cell[4:]]  # another interval, which begins as the one before did
        return cell
    # Of a release that kept start and use alone.
    start, used = cell
    if account.anchor is None or not account.interval:
        span = month_span(moment(start))
    else:
        span = billing_span(account.anchor, account.interval, moment(start))
    return [start, used, 0 if is_sold(account, meter) else used, span.end or 0]


def tells_sold(account: Account, meter: str) -> bool:
    """False for a cell of a release that did not, under a plan that does not sell: it may have been sold before."""
    cell = account.counters.get(meter, {}).get(_BILLING)
    return cell is not None and (len(cell) >= 4 or is_sold(account, meter))


def is_left(account: Account, meter: str) -> bool:
    """Whether another period runs than the one that was counted last."""
    cell, span = account.counters.get(meter, {}).get(_BILLING), account.spans[_BILLING]
    # One that has not begun was counted by a clock that was set back: it must not be found over when it begins.
    return cell is not None and cell[0] != span.start and (span.end is None or cell[0] < span.end)


def present_cell(account: Account, meter: str) -> Cell:
    """Of the period that runs."""
    cell = last_cell(account, meter)
    if cell is not None and not is_left(account, meter):
        return cell
    span, used, unsold, counted = account.spans[_BILLING], 0, 0, list[int]()
    for each in left_cells(account, meter):
        if each[0] == span.start:
            _, used, unsold, _, *counted = each
    if cell is not None and cell[0] > span.start:
        # The anchor moved back (a subscription ended): all of it lies in the present period, too.
        used, unsold = used + cell[1], unsold + cell[1]
    return [span.start, used, unsold, span.end or 0, *counted]


def sold(account: Account, meter: str) -> int:
    """Units sold in the period that runs."""
    _, used, unsold, *_ = present_cell(account, meter)
    return used - unsold


def turn(account: Account, meter: str) -> Cell:
    """Counts in the period that runs, from now on."""
    old, new = last_cell(account, meter), present_cell(account, meter)
    if old is not None and is_left(account, meter):
        _leave(account, meter, old, new)
    account.counters.setdefault(meter, {})[_BILLING] = new
    return new


def take_back(account: Account, meter: str, amount: int, at: int) -> Cell | None:
    """Units that were counted at microsecond `at`, from the period that ran then, if it has not ended by time; from
    what is sold there first, where the plan sells. Returns the cell of which less is sold now.
    """
    cell = turn(account, meter)
    left = next((each for each in left_cells(account, meter) if _was_counted(each, at)), None)
    if left is None:
        counted = at >= _began(account, meter, cell) or _was_counted(cell, at)
        return cell if counted and _take(cell, amount, sold_first=is_sold(account, meter)) else None
    if left[0] > cell[0]:
        _take(cell, min(amount, cell[2]), sold_first=False)  # it has those, too, as not sold here
    return left if _runs_on(account, left) and _take(left, amount, sold_first=True) else None


def is_over(account: Account, meter: str) -> bool:
    """Whether all that was counted is of periods that have ended by time."""
    cell = last_cell(account, meter)
    if cell is None or (is_left(account, meter) and not _runs_on(account, cell)):
        return not left_cells(account, meter)
    return False


def _runs_on(account: Account, cell: Cell) -> bool:
    return cell[3] > account.at.timestamp()


def _began(account: Account, meter: str, cell: Cell) -> int:
    """The microsecond since which this cell is counted, and no other."""
    return max([cell[0] * 1_000_000, *(each[-1] for each in left_cells(account, meter))])


def _was_counted(cell: Cell, at: int) -> bool:
    return any(began <= at < left for began, left in zip(cell[4::2], cell[5::2], strict=True))


def _take(cell: Cell, amount: int, *, sold_first: bool) -> bool:
    """Never below zero. Whether less is sold now."""
    before = cell[1] - cell[2]
    cell[1] = max(0, cell[1] - amount)
    cell[2] = min(cell[2], cell[1]) if sold_first else max(0, cell[2] - amount)
    return cell[1] - cell[2] != before


def _leave(account: Account, meter: str, old: Cell, new: Cell) -> None:
    start, used, unsold, end, *counted = old
    counted += [_began(account, meter, old), account.now]
    left, again = [], 0
    for each in left_cells(account, meter):
        if each[0] != new[0]:
            left.append(each)
        elif each[0] > start:
            again = min(each[1], unsold)  # the old one has those, too: it came after them
    left = [each for each in left if each[3] + _TAKEN_BACK_S > account.at.timestamp()]
    if left or end > new[0]:
        left.append([start, used - again, unsold - again, end, *counted[-2 * MOST_LEFT :]])
    left = left[-MOST_LEFT:]
    others = {name: cells for name, cells in account.terms.pop("left", {}).items() if name != meter}
    if left:
        others[meter] = left
    if others:
        account.terms["left"] = others


def left_cells(account: Account, meter: str) -> list[Cell]:
    """Of periods that were left before their ends."""
    cells: list[Cell] = account.terms.get("left", {}).get(meter, []) if account.terms else []
    return cells
