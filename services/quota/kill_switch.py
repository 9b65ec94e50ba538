"""The use cases of operators: throw a kill switch, release it, see how they stand."""

from __future__ import annotations

import structlog

from services.kit.clock import Clock
from services.kit.errors import InvalidArgument
from services.quota.domain import ALL, KillSwitch
from services.quota.errors import UnknownMeter
from services.quota.events import to_kill_switch_changed
from services.quota.storage import QuotaUnitOfWork

# Events go to an account's subject. This one concerns all of them.
EVERYBODY = "all"

log = structlog.get_logger(__name__)


async def set_kill_switch(meter: str, enabled: bool, reason: str, uow: QuotaUnitOfWork, clock: Clock) -> KillSwitch:
    """In force on the next decision of every replica. Raises UnknownMeter, InvalidArgument (`reason`).

    `meter` is `ALL` or a meter that some account's plan has.
    """
    if enabled and not reason:
        raise InvalidArgument("Say why it is thrown.", field="reason")
    async with uow:
        if meter != ALL and not any(meter in plan.meters for plan in (await uow.plans.all()).values()):
            raise UnknownMeter(meter)
        switch = KillSwitch(meter, enabled, reason, clock.now())
        changed = await uow.switches.put(switch)
        if not changed:
            found = {each.meter: each for each in await uow.switches.list()}
            return found.get(meter) or KillSwitch(meter, enabled=False, reason="", change_time=None)
        uow.outbox.add(to_kill_switch_changed(switch), EVERYBODY)
        await uow.commit()
    # For whoever asks later who was refused and why: a line of the log outlives the switch.
    log.warning("kill_switch.changed", meter=meter or "all", enabled=enabled, reason=reason)
    return switch


async def list_kill_switches(uow: QuotaUnitOfWork) -> list[KillSwitch]:
    """The one over every meter first, thrown or not; then those of meters that were ever thrown, by name."""
    async with uow:
        found = {each.meter: each for each in await uow.switches.list()}
    found.setdefault(ALL, KillSwitch(ALL, enabled=False, reason="", change_time=None))
    return [found[meter] for meter in sorted(found)]
