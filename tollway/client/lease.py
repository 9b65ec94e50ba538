"""Holding a place, or units in reserve, while some work lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from tollway.client.connection import Connection, Res, check_text, check_units, log, new_request_id
from tollway.client.decision import Decision, Lease, LimitState
from tollway.client.errors import InvalidArgument, NotFound, QuotaError, Unavailable
from tollway.client.retry import retrying
from tollway.quota.v1 import lease_pb2 as pb

# Renewed when a third of its time has passed: the first renewal may fail and it still lives.
_RENEWALS = 3
# Said by the service before it begins. STORE_UNAVAILABLE is said too of what was committed, when the database's answer
# to that was lost.
_NOTHING_DONE = frozenset({"QUEUE_FULL", "EXPIRED_IN_QUEUE", "BILLING_UNAVAILABLE"})
_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(hours=24)


class Refused(Exception):
    """A limit refused the lease; nothing was counted and nothing is held. `decision` says which, and what to do."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(f"{decision.reason}: {decision.detail}")
        self.decision = decision


class HeldLease:
    """A lease that is renewed for as long as the block lasts.

    `lost` is set when it ended although it was renewed: somebody released it, or the service was away for as long as
    it lasts. It stays lost, and is renewed no more.
    """

    def __init__(self, lease: Lease, decision: Decision) -> None:
        self.decision = decision
        self.lost = asyncio.Event()
        self._lease = lease
        self._used: int | None = None

    @property
    def id(self) -> str:
        return self._lease.id

    @property
    def lease(self) -> Lease:
        """As it stood when it was acquired or renewed last."""
        return self._lease

    @property
    def used(self) -> int | None:
        """The units of the reserve that were really used: set it to 0 to what was reserved; None counts all of it.

        Setting it to anything else raises InvalidArgument.
        """
        return self._used

    @used.setter
    def used(self, units: int | None) -> None:
        if units is not None:
            check_units("used", units, 0, self._lease.reserved)
        self._used = units

    def renewed(self, lease: Lease) -> None:
        self._lease = lease


class Leases(Connection):
    """The part of `tollway.client.Quota` that is about leases."""

    @contextlib.asynccontextmanager
    async def lease(
        self,
        account_id: str,
        meter: str,
        amount: int = 1,
        reserve: int = 0,
        duration: timedelta | None = None,
        request_id: str | None = None,
        key_id: str = "",
    ) -> AsyncIterator[HeldLease]:
        """Holds a lease for the length of an `async with` block. Arguments and errors are those of `acquire`.

        Renews it in the background. Afterwards, with a reserve, it is settled with what `used` says; without one, or
        when the block fails or is cancelled, it is released: its reserve is free again, and `amount` stays counted
        (see `reverse`). A release that does not reach the service is logged, for the lease ends by itself. Whoever is
        cancelled meanwhile leaves at once, and settlement or release go on in the background, for which `close` waits.

        Raises Refused before the block, and after it, where units in reserve have to be counted, NotFound if the lease
        was lost: they are not counted then, and never will be, so `consume` them.
        """
        renew = self._connected().Renew  # of this connection: a client that was closed does not connect again for it
        acquiring = asyncio.create_task(self.acquire(account_id, meter, amount, reserve, duration, request_id, key_id))
        try:
            decision = await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            self._go_on(self._undo(acquiring), "release of what came too late")
            raise
        if not decision or decision.lease is None:
            raise Refused(decision)
        held = HeldLease(decision.lease, decision)
        renewing = asyncio.create_task(self._keep(held, duration, renew), name=f"lease {held.id}")
        try:
            yield held
        except BaseException:
            renewing.cancel()
            await self._see_through(self._let_go(held.lease), f"release of {held.id}")
            raise
        renewing.cancel()
        await self._see_through(self._conclude(held), f"settlement of {held.id}")

    async def acquire(
        self,
        account_id: str,
        meter: str,
        amount: int = 1,
        reserve: int = 0,
        duration: timedelta | None = None,
        request_id: str | None = None,
        key_id: str = "",
    ) -> Decision:
        """Counts `amount` units (0 to 2^62) and holds a place and `reserve` units until the lease ends. A refusal is an
        answer; a grant's `lease` has the id. You renew and end it, or it ends after `duration` (1 s to 24 h; None: the
        catalog's). `request_id` as in `consume`: a repeat gets the first answer, its lease included, ended or not.

        Raises as `consume` does.
        """
        for name, value in (
            ("account_id", account_id),
            ("meter", meter),
            ("request_id", request_id or ""),
            ("key_id", key_id),
        ):
            check_text(name, value)
        check_units("amount", amount, 0)
        check_units("reserve", reserve, 0)
        request = pb.AcquireRequest(
            account_id=account_id,
            meter=meter,
            amount=amount,
            reserve=reserve,
            duration=_duration(duration),
            request_id=request_id or new_request_id(),
            key_id=key_id,
        )
        answer = await self._ask(self._connected().Acquire, request, request.request_id)
        return Decision.of(answer.decision, request.request_id)

    async def renew(self, account_id: str, lease_id: str, duration: timedelta | None = None) -> Lease:
        """Makes a live lease last `duration` from now, never shorter than it would. Raises NotFound when it ended."""
        _check(account_id, lease_id)
        request = pb.RenewRequest(account_id=account_id, lease_id=lease_id, duration=_duration(duration))
        return Lease.of((await self._ask(self._connected().Renew, request)).lease)

    async def settle(self, account_id: str, lease_id: str, amount: int) -> tuple[LimitState, ...]:
        """Ends a lease and counts `amount` units of its reserve. Answers the limits as they stand now, or nothing when
        only the answer of the call that ended it was lost. Raises NotFound when the lease had ended before.
        """
        _check(account_id, lease_id)
        check_units("amount", amount, 0)
        request = pb.SettleRequest(account_id=account_id, lease_id=lease_id, amount=amount)
        answer = await self._end(self._connected().Settle, request)
        return tuple(LimitState.of(state) for state in answer.limits) if answer is not None else ()

    async def release(self, account_id: str, lease_id: str) -> None:
        """Ends a lease: its place and its reserve are free. Raises NotFound when it had ended before."""
        _check(account_id, lease_id)
        await self._end(self._connected().Release, pb.ReleaseRequest(account_id=account_id, lease_id=lease_id))

    async def leases(self, account_id: str, meter: str = "") -> list[Lease]:
        """The account's live leases, oldest first; only those of one meter, when it is given."""
        check_text("account_id", account_id)
        check_text("meter", meter)
        found: list[Lease] = []
        token = ""
        method = self._connected().ListLeases
        while True:
            request = pb.ListLeasesRequest(account_id=account_id, meter=meter, page_size=1000, page_token=token)
            page = await self._ask(method, request)
            found += map(Lease.of, page.leases)
            if not (token := page.next_page_token):
                return found

    async def _end(self, method: Callable[..., Awaitable[Res]], request: Message) -> Res | None:
        """None: the lease is gone after a call of which nobody knows what it did, so that call has ended it."""
        in_doubt = False

        async def attempt(seconds: float) -> Res | None:
            nonlocal in_doubt
            try:
                return await self._call(method, request, seconds)
            except Unavailable as error:
                in_doubt = in_doubt or error.reason not in _NOTHING_DONE
                raise
            except NotFound:
                if in_doubt:
                    return None
                raise

        return await retrying(attempt, self._timeout_s, self._pace)

    async def _keep(
        self, held: HeldLease, duration: timedelta | None, renew: Callable[..., Awaitable[pb.RenewResponse]]
    ) -> None:
        """Renews until it is cancelled or the lease is lost: it ended, or all its time passed without a renewal."""
        clock = self._pace.clock
        lasts = (duration or held.lease.expires_at - held.lease.acquired_at).total_seconds()
        ends = clock() + lasts
        request = pb.RenewRequest(account_id=held.lease.account_id, lease_id=held.id, duration=_duration(duration))
        if not held.decision.replayed:  # a repeat's lease may be about to end
            await self._pace.sleep(lasts / _RENEWALS)
        while (left := ends - clock()) > 0:
            try:
                answer = await self._ask(renew, request, timeout_s=min(self._timeout_s, left))
            except NotFound:
                break
            except QuotaError as error:
                log.warning("the lease %s could not be renewed, which is tried again: %s", held.id, error.reason)
            else:
                held.renewed(Lease.of(answer.lease))
                ends = clock() + lasts
            await self._pace.sleep(min(lasts / _RENEWALS, max(0.0, ends - clock())))
        log.warning("the lease %s was lost while its work went on", held.id)
        held.lost.set()

    async def _conclude(self, held: HeldLease) -> None:
        """Counts what was used of the reserve, and frees the rest."""
        reserved = held.lease.reserved
        if reserved and not held.lost.is_set():
            await self.settle(held.lease.account_id, held.id, reserved if held.used is None else held.used)
            return
        # Also what is lost by our clock and may live by the service's: its units are not to be counted twice.
        await self._let_go(held.lease)
        if reserved and held.used != 0:
            raise NotFound("The lease was lost before its reserve was counted.", reason="LEASE_NOT_FOUND")

    async def _undo(self, acquiring: asyncio.Task[Decision]) -> None:
        """Frees what is granted to a caller who has left."""
        try:
            decision = await acquiring
        except QuotaError as error:
            log.warning("what a cancelled caller acquired, if anything, is left to end by itself: %s", error.reason)
            return
        if decision.lease is not None:
            await self._let_go(decision.lease)

    async def _let_go(self, lease: Lease) -> None:
        """Frees what is held. What went wrong is not the block's failure: the lease ends by its time."""
        try:
            await self.release(lease.account_id, lease.id)
        except NotFound:
            pass  # it had ended
        except QuotaError as error:
            log.warning("the lease %s is left to end by itself: %s", lease.id, error.reason)


def _duration(wanted: timedelta | None) -> Duration | None:
    if wanted is None:
        return None
    if not _SHORTEST <= wanted <= _LONGEST:
        raise InvalidArgument("duration must be at least 1 s and at most 24 h.", field="duration")
    message = Duration()
    message.FromTimedelta(wanted)
    return message


def _check(account_id: str, lease_id: str) -> None:
    check_text("account_id", account_id)
    check_text("lease_id", lease_id)
