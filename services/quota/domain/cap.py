"""A cap that an account sets on itself, in units or in money, beside the one that its catalog may have.

It is kept in the account's terms: `{"caps": {name of the limit: setting}}`, a setting being `{"limit": units,
"auto_stop": …}` or `{"amount": minor units as a decimal string, "meter": whose price it is, "auto_stop": …}`.
`reached` is the start of the period in which it was last announced as reached.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

from services.quota.domain.account import Account
from services.quota.domain.plan import Limit

UNITS_MAX = 2**63 - 1  # the contract's int64


def own_cap(account: Account, limit: Limit) -> dict[str, Any] | None:
    """The account's setting."""
    setting: dict[str, Any] | None = account.terms.get("caps", {}).get(limit.name)
    return setting


def own_units(account: Account, setting: dict[str, Any]) -> int | None:
    """What a setting comes to under the plan as it is now. None: its meter has no price any more, so nothing costs."""
    if (limit := setting.get("limit")) is not None:
        return int(limit)
    meter = account.plan.meters.get(setting["meter"])
    if meter is None or not meter.overage_unit_price:
        return None
    return money_units(setting["amount"], meter.overage_unit_price, meter.included_units)


@lru_cache(maxsize=4096)  # asked with every use of a capped meter
def money_units(amount: str, unit_price: str, included: int) -> int | None:
    """Units that `amount` buys, the included ones with them; never one more than it pays for. None: they are free."""
    price = Fraction(unit_price)
    return min(UNITS_MAX, included + Fraction(amount) // price) if price > 0 else None


def in_force(account: Account, limit: Limit) -> tuple[int | None, bool]:
    """What the cap comes to, and whether it refuses: the lower of the catalog's number and the account's own.

    A setting of the account without auto-stop refuses nothing; it is shown where the catalog has no number.
    """
    setting = own_cap(account, limit)
    units = None if setting is None else own_units(account, setting)
    if setting is None or units is None:
        return limit.limit, True
    if limit.limit is None:
        return units, bool(setting["auto_stop"])
    return (min(limit.limit, units) if setting["auto_stop"] else limit.limit), True
