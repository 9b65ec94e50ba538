"""An operator's switch over a meter, or over all: while it is thrown, every use of what it covers is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

ALL = ""  # the meter of the switch over every meter
KILL_SWITCH = "kill_switch"  # what a refusal by any of them names as its limit


@dataclass(frozen=True)
class KillSwitch:
    """How one stands. `reason` is the operator's words; `change_time` (UTC) None: it was never thrown."""

    meter: str
    enabled: bool
    reason: str
    change_time: datetime | None
