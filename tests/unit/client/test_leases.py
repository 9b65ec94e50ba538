"""What a block under a lease does with what it meets: renewals, failures, lost answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from tests.unit.client.fakes import Service, Time, Wired, refused, rpc_error
from tollway.client import InvalidArgument, NotFound, Refused, Unavailable
from tollway.quota.v1 import guardrail_pb2, lease_pb2
from tollway.quota.v1 import quota_pb2 as pb

AWAY = rpc_error(grpc.StatusCode.UNAVAILABLE, "connection refused")
GONE = rpc_error(
    grpc.StatusCode.NOT_FOUND, "There is no such live lease.", ErrorInfo(reason="LEASE_NOT_FOUND", domain="tollway")
)
BEGAN = datetime(2026, 4, 1, tzinfo=UTC)


def message(reserved: int = 0, lasts: timedelta = timedelta(minutes=10)) -> pb.Lease:
    lease = pb.Lease(id="lease_1", account_id="acct_1", meter="downloads", reserved=reserved)
    lease.acquire_time.FromDatetime(BEGAN)
    lease.expire_time.FromDatetime(BEGAN + lasts)
    return lease


def granted(reserved: int = 0, *, replayed: bool = False) -> lease_pb2.AcquireResponse:
    decision = pb.Decision(allowed=True, lease=message(reserved), replayed=replayed, overage_units=2)
    return lease_pb2.AcquireResponse(decision=decision)


RELEASED = lease_pb2.ReleaseResponse()
RENEWED = lease_pb2.RenewResponse(lease=message(lasts=timedelta(minutes=20)))


def kinds(service: Service) -> list[str]:
    return [type(request).__name__.removesuffix("Request") for request in service.requests]


class Patient(Time):
    """Sleeps only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = asyncio.Semaphore(0)
        self.asked: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.turns.acquire()


async def until(met: Any) -> None:
    async with asyncio.timeout(5):
        while not met():  # noqa: ASYNC110 - the fake has no event for each thing that is asked
            await asyncio.sleep(0)


async def test_a_lease_counts_holds_and_is_released_at_the_end() -> None:
    service = Service([granted(), RELEASED])
    async with Wired(service, Patient()).lease("acct_1", "downloads", 2, key_id="key_1") as lease:
        assert (lease.id, lease.decision.allowed, lease.decision.overage_units) == ("lease_1", True, 2)
        assert lease.lease.expires_at == BEGAN + timedelta(minutes=10)
        assert kinds(service) == ["Acquire"]
    asked = service.requests[0]
    assert (asked.amount, asked.reserve, asked.key_id, bool(asked.request_id)) == (2, 0, "key_1", True)
    assert kinds(service) == ["Acquire", "Release"]
    assert (service.requests[1].account_id, service.requests[1].lease_id) == ("acct_1", "lease_1")


async def test_a_reserve_is_settled_with_what_was_used_and_whole_if_nobody_says() -> None:
    for used, settled in ((None, 10), (3, 3), (0, 0)):
        service = Service([granted(10), lease_pb2.SettleResponse()])
        async with Wired(service, Patient()).lease("acct_1", "downloads", 0, reserve=10) as lease:
            lease.used = used
        assert kinds(service) == ["Acquire", "Settle"]
        assert service.requests[1].amount == settled


@pytest.mark.parametrize("error", [RuntimeError("the work failed"), asyncio.CancelledError()])
async def test_a_block_that_fails_or_is_cancelled_releases_its_reserve_and_tells_its_own_error(
    error: BaseException,
) -> None:
    service = Service([granted(10), RELEASED])
    with pytest.raises(type(error)) as caught:
        async with Wired(service, Patient()).lease("acct_1", "downloads", reserve=10):
            raise error
    assert caught.value is error
    assert kinds(service) == ["Acquire", "Release"]


async def test_a_refusal_is_raised_with_its_decision_before_the_block() -> None:
    service = Service([lease_pb2.AcquireResponse(decision=refused(429).decision)])
    with pytest.raises(Refused) as caught:
        async with Wired(service).lease("acct_1", "downloads"):
            pytest.fail("the block ran")
    assert caught.value.decision.http_status == 429
    assert kinds(service) == ["Acquire"]


async def test_it_is_renewed_at_every_third_of_its_time_while_the_block_runs() -> None:
    time = Patient()
    service = Service([granted(), RENEWED, RENEWED, RELEASED])
    async with Wired(service, time).lease("acct_1", "downloads") as lease:
        for renewals in (1, 2):
            time.turns.release()
            await until(lambda expected=renewals: len(service.requests) == 1 + expected)
        await until(lambda: lease.lease.expires_at == BEGAN + timedelta(minutes=20))
    assert time.asked[:2] == [200.0, 200.0]
    assert kinds(service) == ["Acquire", "Renew", "Renew", "Release"]


async def test_a_repeats_lease_is_renewed_at_once_for_it_may_be_about_to_end() -> None:
    service = Service([granted(replayed=True), RENEWED, RELEASED])
    async with Wired(service, Patient()).lease("acct_1", "downloads", request_id="job-1"):
        await until(lambda: len(service.requests) == 2)
    assert kinds(service) == ["Acquire", "Renew", "Release"]


async def lose(used: int | None) -> None:
    """A block whose lease is gone while it runs."""
    time = Patient()
    service = Service([granted(10), GONE])
    try:
        async with Wired(service, time).lease("acct_1", "downloads", reserve=10) as lease:
            lease.used = used
            time.turns.release()
            await asyncio.wait_for(lease.lost.wait(), 5)
    finally:
        assert kinds(service) == ["Acquire", "Renew", "Release"]


@pytest.mark.parametrize("used", [None, 4])
async def test_a_lost_lease_is_told_to_the_block_and_units_in_reserve_are_not_lost_in_silence(used: int | None) -> None:
    with pytest.raises(NotFound) as caught:
        await lose(used)
    assert caught.value.reason == "LEASE_NOT_FOUND"


async def test_of_a_lost_lease_of_which_nothing_was_used_nothing_has_to_be_counted() -> None:
    await lose(0)


async def test_a_lease_that_was_not_renewed_for_its_whole_time_is_lost_and_renewed_no_more() -> None:
    time = Time()
    service = Service([granted(10), AWAY])
    began = time.now

    async def work() -> None:
        async with Wired(service, time).lease("acct_1", "downloads", reserve=10) as lease:
            await asyncio.wait_for(lease.lost.wait(), 5)
            assert time.now == pytest.approx(began + 600)
            renewals = len(service.requests)
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(service.requests) == renewals

    with pytest.raises(NotFound) as caught:
        await work()
    assert caught.value.reason == "LEASE_NOT_FOUND"
    assert "Settle" not in kinds(service)


async def test_a_renewal_that_succeeds_in_time_gives_the_lease_its_whole_time_again() -> None:
    time = Time()
    began = time.now

    def renew(_: Any, __: float) -> lease_pb2.RenewResponse:
        if time.now < began + 300:
            raise AWAY
        return RENEWED

    async with Wired(Service([granted(), renew]), time).lease("acct_1", "downloads") as lease:
        await until(lambda: time.now > began + 2000)
        assert not lease.lost.is_set()


async def test_details_that_nobody_can_read_do_not_end_the_renewals() -> None:
    time = Patient()
    garbage = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, None, grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff\xff")), "Odd."
    )
    service = Service([granted(), garbage, GONE])
    async with Wired(service, time).lease("acct_1", "downloads") as lease:
        time.turns.release()
        time.turns.release()
        await asyncio.wait_for(lease.lost.wait(), 5)


@pytest.mark.parametrize("reserve", [0, 10])
async def test_a_block_that_is_cancelled_again_at_every_step_is_released(reserve: int) -> None:
    service = Service([granted(reserve), RELEASED])
    quota = Wired(service, Patient())
    with anyio.move_on_after(0.01) as scope:
        async with quota.lease("acct_1", "downloads", reserve=reserve):
            await anyio.sleep(5)
    assert scope.cancelled_caught
    await quota.close()
    assert kinds(service) == ["Acquire", "Release"]


async def test_a_client_that_is_closed_while_it_is_cancelled_releases_first() -> None:
    service = Service([granted(), RELEASED])
    with anyio.move_on_after(0.01):
        async with Wired(service, Patient()) as quota, quota.lease("acct_1", "downloads"):
            await anyio.sleep(5)
    await until(lambda: kinds(service) == ["Acquire", "Release"])


async def cancelled_while_settling(service: Service, answering: asyncio.Event, used: int | None = None) -> None:
    """`answering` lets the service answer, once the caller has left."""
    quota = Wired(service)

    async def work() -> None:
        async with quota.lease("acct_1", "downloads", reserve=10) as lease:
            lease.used = used

    working = asyncio.create_task(work())
    await until(lambda: kinds(service) == ["Acquire", "Settle"])
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    answering.set()
    await quota.close()


async def test_a_block_that_ended_well_is_settled_though_its_caller_is_cancelled_meanwhile() -> None:
    answering = asyncio.Event()
    service = Service([granted(10), answering, AWAY, lease_pb2.SettleResponse()])
    await cancelled_while_settling(service, answering, 4)
    assert [(type(each).__name__, each.amount) for each in service.requests[1:]] == [("SettleRequest", 4)] * 2


async def test_a_settlement_that_fails_after_its_caller_was_cancelled_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answering = asyncio.Event()
    await cancelled_while_settling(Service([granted(10), answering, GONE]), answering)
    assert "settlement of lease_1 failed" in caplog.text


async def test_what_is_granted_to_a_caller_that_was_cancelled_meanwhile_is_released() -> None:
    answering = asyncio.Event()
    service = Service([answering, AWAY, granted(), RELEASED])
    quota = Wired(service)
    acquiring = asyncio.create_task(quota.lease("acct_1", "downloads").__aenter__())
    await until(lambda: kinds(service) == ["Acquire"])
    acquiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    answering.set()
    await quota.close()
    assert kinds(service) == ["Acquire", "Acquire", "Release"]


@pytest.mark.parametrize("answer", [AWAY, lease_pb2.AcquireResponse(decision=refused(429).decision)])
async def test_a_caller_that_was_cancelled_and_granted_nothing_leaves_nothing_behind(answer: Any) -> None:
    answering = asyncio.Event()
    service = Service([answering, answer, answer])
    quota = Wired(service, Time())
    acquiring = asyncio.create_task(quota.lease("acct_1", "downloads").__aenter__())
    await until(lambda: kinds(service) == ["Acquire"])
    acquiring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await acquiring
    answering.set()
    await quota.close()
    assert set(kinds(service)) == {"Acquire"}


@pytest.mark.parametrize("units", [11, -1, 1.0, True, "3"])
async def test_units_that_are_not_held_cannot_be_used_and_the_block_that_says_so_releases(units: Any) -> None:
    service = Service([granted(10), RELEASED])

    async def work() -> None:
        async with Wired(service, Patient()).lease("acct_1", "downloads", 0, reserve=10) as lease:
            lease.used = units

    with pytest.raises(InvalidArgument) as caught:
        await work()
    assert caught.value.field == "used"
    assert kinds(service) == ["Acquire", "Release"]


async def test_a_release_that_finds_nothing_or_nobody_is_not_the_blocks_failure() -> None:
    for answer in (GONE, AWAY):
        service = Service([granted(), answer])
        async with Wired(service, Time()).lease("acct_1", "downloads", duration=timedelta(hours=1)):
            pass
        assert kinds(service)[-1] == "Release"


async def test_a_settlement_whose_answer_was_lost_is_done_when_the_lease_is_gone() -> None:
    late = rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert await Wired(Service([late, GONE])).settle("acct_1", "lease_1", 3) == ()
    with pytest.raises(NotFound):
        await Wired(Service([GONE])).settle("acct_1", "lease_1", 3)


def said(reason: str) -> grpc.aio.AioRpcError:
    return rpc_error(grpc.StatusCode.UNAVAILABLE, "Not now.", ErrorInfo(reason=reason, domain="tollway"))


@pytest.mark.parametrize("reason", ["QUEUE_FULL", "EXPIRED_IN_QUEUE", "BILLING_UNAVAILABLE"])
async def test_a_lease_that_is_gone_after_the_service_said_it_did_nothing_ended_before(reason: str) -> None:
    with pytest.raises(NotFound):
        await Wired(Service([said(reason), GONE])).settle("acct_1", "lease_1", 3)
    assert await Wired(Service([said(reason), AWAY, said(reason), GONE])).settle("acct_1", "lease_1", 3) == ()


async def test_a_store_that_was_silent_may_have_ended_the_lease() -> None:
    assert await Wired(Service([said("STORE_UNAVAILABLE"), GONE])).settle("acct_1", "lease_1", 3) == ()


async def test_every_page_of_leases_is_read() -> None:
    pages = [
        lease_pb2.ListLeasesResponse(leases=[message()], next_page_token="lease_1"),
        lease_pb2.ListLeasesResponse(leases=[message(5)]),
    ]
    service = Service(list(pages))
    found = await Wired(service).leases("acct_1", "downloads")
    assert [lease.reserved for lease in found] == [0, 5]
    assert [request.page_token for request in service.requests] == ["", "lease_1"]


async def test_reversal_and_caps_are_asked_again_until_they_are_answered() -> None:
    service = Service([AWAY, pb.ReverseResponse(meter="downloads", amount=3)])
    taken = await Wired(service).reverse("acct_1", "job-1")
    assert (taken.meter, taken.amount, taken.replayed) == ("downloads", 3, False)
    state = pb.LimitState(name="cap", used=1, limit=5, remaining=4, kind=pb.LIMIT_KIND_CAP, auto_stop=True)
    service = Service([AWAY, guardrail_pb2.SetCapResponse(cap=state)])
    cap = await Wired(service).set_cap("acct_1", "downloads", 5)
    assert (cap.kind, cap.limit, cap.auto_stop) == ("cap", 5, True)
    service = Service([guardrail_pb2.SetCapResponse(cap=pb.LimitState(name="cap"))])
    await Wired(service).set_cap("acct_1", "downloads", None)
    assert service.requests[0].WhichOneof("cap") is None


async def test_what_cannot_be_is_refused_before_it_is_sent() -> None:
    quota = Wired(Service([AWAY]))
    wrong: list[tuple[str, Any]] = [
        ("amount", quota.acquire("acct_1", "downloads", -1)),
        ("reserve", quota.acquire("acct_1", "downloads", reserve=2**62 + 1)),
        ("duration", quota.acquire("acct_1", "downloads", duration=timedelta(milliseconds=1))),
        ("duration", quota.renew("acct_1", "lease_1", timedelta(days=2))),
        ("amount", quota.settle("acct_1", "lease_1", -1)),
        ("limit", quota.set_cap("acct_1", "downloads", -1)),
    ]
    for field, call in wrong:
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert caught.value.field == field


async def test_a_service_that_stays_away_raises_with_the_id_to_ask_again_with() -> None:
    with pytest.raises(Unavailable) as caught:
        await Wired(Service([AWAY]), Time()).acquire("acct_1", "downloads", request_id="job-1")
    assert caught.value.request_id == "job-1"


async def test_the_key_that_a_use_came_with_is_sent() -> None:
    service = Service([pb.ConsumeResponse(decision=pb.Decision(allowed=True))])
    await Wired(service).consume("acct_1", "downloads", key_id="key_7")
    assert service.requests[0].key_id == "key_7"
