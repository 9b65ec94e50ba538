"""What the ASGI middleware and the gRPC interceptor share: ask once, and settle what to do without an answer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from tollway.client.decision import Decision
from tollway.client.errors import InvalidArgument, NotFound, Unavailable
from tollway.client.quota import Quota

OnUnavailable = Literal["deny", "allow"]
# An account's id, also with the id of the API key that the use came with; None passes uncounted.
Caller = str | tuple[str, str] | None
Account = Caller | Awaitable[Caller]
RETRY_AFTER = timedelta(seconds=1)  # when the service named no time

log = logging.getLogger("tollway.client")


@dataclass(frozen=True)
class Blocked:
    """No decision, and no passage: 503 when quota does not answer, 403 for an account that it does not know."""

    http_status: int
    reason: str  # snake_case
    detail: str
    retry_after: timedelta | None = None


class Gate:
    def __init__(self, quota: Quota, meter: str, amount: int, on_unavailable: OnUnavailable) -> None:
        if on_unavailable not in ("deny", "allow"):
            raise ValueError(f"on_unavailable is 'deny' or 'allow', not {on_unavailable!r}")
        self.quota = quota
        self.meter = meter
        self.amount = amount
        self.on_unavailable = on_unavailable

    async def ask(self, account: Account) -> Decision | Blocked | None:
        """None: passes without a decision, because it belongs to no account, or by policy while quota is away.

        Raises what is the operator's to mend: a meter that the plan lacks, a token that is not accepted.
        """
        caller: Caller = await account if inspect.isawaitable(account) else account
        if caller is None:
            return None
        account_id, key_id = (caller, "") if isinstance(caller, str) else caller
        try:
            # The caller's own Idempotency-Key is not used: whoever repeats one would use the service for nothing.
            return await self.quota.consume(account_id, self.meter, self.amount, key_id=key_id)
        except Unavailable as error:
            if self.on_unavailable == "allow":
                # The only trace of what was not counted, unless the answer alone was lost.
                log.warning(
                    "%d of %s by %s passed without a decision: %s", self.amount, self.meter, account_id, error.reason
                )
                return None
            return Blocked(
                503,
                error.reason.lower(),
                "Whether your plan allows this could not be decided. Try again in a moment.",
                error.retry_after or RETRY_AFTER,
            )
        except NotFound as error:
            return _stranger(error)
        except InvalidArgument as error:
            if error.field != "account_id":
                raise
            return _stranger(error)  # no account can have such an id


def _stranger(error: NotFound | InvalidArgument) -> Blocked:
    reason = error.reason.lower() if isinstance(error, NotFound) else "account_not_found"
    return Blocked(403, reason, "There is no account for these credentials.")
