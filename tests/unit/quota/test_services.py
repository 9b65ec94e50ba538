"""The edges of LeaseService, GuardrailService and Reverse: faults are named by their field, answers are translated."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import pytest
from google.protobuf.duration_pb2 import Duration

from services.kit.errors import InvalidArgument, TollwayError
from services.quota.domain import (
    Acquire,
    AdjustAllowance,
    Command,
    Kind,
    Lease,
    Outcome,
    SetCap,
    Unknown,
)
from services.quota.errors import AccountNotFound, GrantNotFound, LeaseNotFound
from services.quota.grpc_guardrails import GuardrailServicer, to_adjust_allowance, to_set_cap
from services.quota.grpc_leases import LeaseServicer, to_acquire
from services.quota.grpc_server import QuotaServicer
from services.quota.ports import StoredAccount
from tests.unit.quota.plans import World, limit, plan
from tollway.quota.v1 import guardrail_pb2, lease_pb2, quota_pb2

DAY = timedelta(hours=24)


class Call:
    """As much of a gRPC context as the servicers look at: no deadline."""

    def time_remaining(self) -> float | None:
        return None


@dataclass
class Directory:
    there: frozenset[str] = frozenset()

    async def learn(self, account_ids: Any) -> set[str]:
        return set(account_ids) & self.there


@dataclass
class WorldDecider:
    """The engine over one account, `acct_a`."""

    world: World
    asked: list[Command] = field(default_factory=list)

    def decide(self, commands: Sequence[Command], time_left_s: float | None, /) -> Awaitable[list[Outcome]]:
        async def answer() -> list[Outcome]:
            self.asked += commands
            known = [command for command in commands if command.account_id == "acct_a"]
            outcomes = iter(self.world.batch(*known).outcomes)
            return [next(outcomes) if command in known else Unknown() for command in commands]

        return answer()


class Rows:
    """A unit of work over one account's leases; the other reads are the world's."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.accounts = self
        self.leases = Leases(world)

    async def get(self, account_id: str, key_id: str = "", /) -> StoredAccount | None:
        if account_id != "acct_a":
            return None
        world = self.world
        rest = (world.counters, world.at, world.rates, world.leases, world.terms)
        return StoredAccount(1, world.plan, None, "", *rest)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


@dataclass
class Leases:
    world: World

    async def list(self, account_id: str, meter: str, after: tuple[Any, str] | None, limit: int) -> Sequence[Lease]:
        found = [
            lease
            for lease in self.world.leases.values()
            if lease.account_id == account_id
            and lease.expire_time > self.world.at
            and meter in ("", lease.meter)
            and (after is None or (lease.acquire_time, lease.id) > after)
        ]
        return sorted(found, key=lambda lease: (lease.acquire_time, lease.id))[:limit]


class Services:
    """The three servicers over one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.decider = WorldDecider(world)
        asked: Any = (self.decider, Directory())
        rows: Any = lambda: Rows(world)  # noqa: E731
        self.leases = LeaseServicer(*asked, rows)
        self.guardrails = GuardrailServicer(*asked)
        self.quota = QuotaServicer(*asked, rows)
        self.call: Any = Call()


@pytest.fixture
def services() -> Services:
    slots = limit("slots", 2, meters=("messages", "calls"), kind=Kind.CONCURRENCY, window=timedelta(seconds=90))
    quotas = (limit(most=10), limit("cap", None, kind=Kind.CAP))
    return Services(World(plan(*quotas, slots, price="0.5", included=4, allowances={"models": 5})))


def acquiring(**changes: Any) -> lease_pb2.AcquireRequest:
    return lease_pb2.AcquireRequest(**{"account_id": "acct_a", "meter": "messages", **changes})


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"account_id": ""}, "account_id"),
        ({"account_id": "a" * 256}, "account_id"),
        ({"meter": ""}, "meter"),
        ({"meter": "\x1fmodels"}, "meter"),
        ({"amount": -1}, "amount"),
        ({"amount": 2**62 + 1}, "amount"),
        ({"reserve": -1}, "reserve"),
        ({"reserve": 2**62 + 1}, "reserve"),
        ({"request_id": "\x1emine"}, "request_id"),
        ({"key_id": "k" * 256}, "key_id"),
        ({"duration": Duration()}, "duration"),
        ({"duration": Duration(nanos=999_999_999)}, "duration"),
        ({"duration": Duration(seconds=86_400, nanos=1000)}, "duration"),
        ({"duration": Duration(seconds=-1)}, "duration"),
        ({"duration": Duration(seconds=2**62)}, "duration"),
        ({"duration": Duration(seconds=5, nanos=-1)}, "duration"),
    ],
)
def test_a_fault_of_an_acquire_is_named_by_its_field(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_acquire(acquiring(**changes))
    assert caught.value.field == name


def test_the_bounds_of_an_acquire_are_taken_and_every_lease_has_an_id_of_its_own() -> None:
    asked = acquiring(amount=2**62, reserve=2**62, duration=Duration(seconds=86_400), request_id="r", key_id="k")
    first, second = to_acquire(asked), to_acquire(asked)
    assert first == Acquire("acct_a", "messages", 2**62, 2**62, first.lease_id, DAY, "r", "k")
    assert first.lease_id != second.lease_id
    assert to_acquire(acquiring(duration=Duration(seconds=1))).duration == timedelta(seconds=1)
    assert to_acquire(acquiring()).duration is None


@pytest.mark.parametrize("amount", ["", ".5", "5.", "-1", "1e3", "1,5", "٣", "1" * 16, "0." + "1" * 13, "NaN"])
def test_money_is_a_plain_decimal(amount: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_set_cap(guardrail_pb2.SetCapRequest(account_id="acct_a", meter="messages", overage_amount=amount))
    assert caught.value.field == "overage_amount"


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"account_id": ""}, "account_id"), ({"meter": ""}, "meter"), ({"limit": -1}, "limit")],
)
def test_a_fault_of_a_cap_is_named_by_its_field(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        to_set_cap(guardrail_pb2.SetCapRequest(**{"account_id": "acct_a", "meter": "messages", **changes}))
    assert caught.value.field == name


def test_a_cap_is_units_money_or_none() -> None:
    def read(**changes: Any) -> SetCap:
        return to_set_cap(guardrail_pb2.SetCapRequest(account_id="acct_a", meter="messages", **changes))

    assert read(limit=0, auto_stop=True) == SetCap("acct_a", "messages", 0, "", auto_stop=True)
    assert read(overage_amount="12.50") == SetCap("acct_a", "messages", None, "12.50", auto_stop=False)
    assert read() == SetCap("acct_a", "messages", None, "", auto_stop=False)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"account_id": "", "set": 1}, "account_id"),
        ({"allowance": "", "set": 1}, "allowance"),
        ({"allowance": "a\x1f", "set": 1}, "allowance"),
        ({}, "change"),
        ({"set": -1}, "set"),
        ({"add": 0}, "add"),
        ({"remove": 0}, "remove"),
        ({"add": 2**62 + 1}, "add"),
        ({"add": 1, "request_id": "\n"}, "request_id"),
    ],
)
def test_a_fault_of_an_allowance_is_named_by_its_field(changes: dict[str, Any], name: str) -> None:
    fields = {"account_id": "acct_a", "allowance": "models", **changes}
    with pytest.raises(InvalidArgument) as caught:
        to_adjust_allowance(guardrail_pb2.AdjustAllowanceRequest(**fields))
    assert caught.value.field == name


def test_an_allowance_is_set_added_to_or_removed_from() -> None:
    def read(**changes: Any) -> AdjustAllowance:
        return to_adjust_allowance(
            guardrail_pb2.AdjustAllowanceRequest(account_id="acct_a", allowance="models", **changes)
        )

    assert read(set=0) == AdjustAllowance("acct_a", "models", "set", 0)
    assert read(add=2**62, request_id="r") == AdjustAllowance("acct_a", "models", "add", 2**62, "r")
    assert read(remove=1) == AdjustAllowance("acct_a", "models", "remove", 1)


async def test_a_lease_lives_from_acquire_to_settle(services: Services) -> None:
    leases, call = services.leases, services.call
    decision = (await leases.Acquire(acquiring(amount=5, reserve=3), call)).decision
    assert decision.allowed
    assert decision.overage_units == 1
    lease = decision.lease
    assert (lease.account_id, lease.meter, lease.reserved) == ("acct_a", "messages", 3)
    named = {"account_id": "acct_a", "lease_id": lease.id}
    renewed = (await leases.Renew(lease_pb2.RenewRequest(**named, duration=Duration(seconds=120)), call)).lease
    assert renewed.expire_time.seconds == lease.acquire_time.seconds + 120
    settled = await leases.Settle(lease_pb2.SettleRequest(**named, amount=2), call)
    assert [(state.name, state.used) for state in settled.limits] == [("messages", 7), ("cap", 7), ("slots", 0)]
    for gone in (
        leases.Renew(lease_pb2.RenewRequest(**named), call),
        leases.Settle(lease_pb2.SettleRequest(**named), call),
        leases.Release(lease_pb2.ReleaseRequest(**named), call),
    ):
        with pytest.raises(LeaseNotFound) as caught:
            await gone
        assert (caught.value.code, caught.value.error_reason) == ("NOT_FOUND", "LEASE_NOT_FOUND")


async def test_a_refused_acquire_is_an_answer_without_a_lease(services: Services) -> None:
    decision = (await services.leases.Acquire(acquiring(reserve=11), services.call)).decision
    assert not decision.allowed
    assert decision.binding_limit == "messages"
    assert not decision.HasField("lease")


async def test_a_released_lease_frees_its_reserve(services: Services) -> None:
    lease = (await services.leases.Acquire(acquiring(reserve=10), services.call)).decision.lease
    await services.leases.Release(lease_pb2.ReleaseRequest(account_id="acct_a", lease_id=lease.id), services.call)
    assert (await services.leases.Acquire(acquiring(reserve=10), services.call)).decision.allowed


@pytest.mark.parametrize("name", ["account_id", "lease_id"])
async def test_a_lease_is_named_by_account_and_id(services: Services, name: str) -> None:
    named = {"account_id": "acct_a", "lease_id": "lease_1", name: ""}
    leases, call = services.leases, services.call
    for asked in (
        leases.Renew(lease_pb2.RenewRequest(**named), call),
        leases.Settle(lease_pb2.SettleRequest(**named), call),
        leases.Release(lease_pb2.ReleaseRequest(**named), call),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await asked
        assert caught.value.field == name
    with pytest.raises(InvalidArgument) as caught:
        await leases.Settle(lease_pb2.SettleRequest(account_id="acct_a", lease_id="lease_1", amount=-1), call)
    assert caught.value.field == "amount"
    asked_for = lease_pb2.RenewRequest(account_id="acct_a", lease_id="lease_1", duration=Duration())
    with pytest.raises(InvalidArgument) as caught:
        await leases.Renew(asked_for, call)
    assert caught.value.field == "duration"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_pages_of_leases_hold_each_live_one_once_oldest_first(services: Services, size: int) -> None:
    services.world.plan = plan()
    ids = []
    for index in range(5):
        services.world.at += timedelta(microseconds=index % 2)  # some in the same instant
        ids.append((await services.leases.Acquire(acquiring(), services.call)).decision.lease.id)
    await services.leases.Acquire(acquiring(meter="calls"), services.call)
    await services.leases.Acquire(acquiring(duration=Duration(seconds=1)), services.call)
    services.world.at += timedelta(seconds=1)
    found, token = [], ""
    while True:
        request = lease_pb2.ListLeasesRequest(account_id="acct_a", meter="messages", page_size=size, page_token=token)
        page = await services.leases.ListLeases(request, services.call)
        assert len(page.leases) <= size
        found += page.leases
        token = page.next_page_token
        if not token:
            break
    assert sorted(lease.id for lease in found) == sorted(ids)
    times = [lease.acquire_time.ToNanoseconds() for lease in found]
    assert times == sorted(times)


@pytest.mark.parametrize("token", ["x", ".", "1", "1.", ".lease_1", "-1.lease_1", "9" * 18 + ".lease_1", "1.\n"])
async def test_a_page_token_that_is_not_ours_is_named(services: Services, token: str) -> None:
    request = lease_pb2.ListLeasesRequest(account_id="acct_a", page_token=token)
    with pytest.raises(InvalidArgument) as caught:
        await services.leases.ListLeases(request, services.call)
    assert caught.value.field == "page_token"


async def test_an_account_without_leases_has_none_and_a_stranger_is_not_found(services: Services) -> None:
    page = await services.leases.ListLeases(lease_pb2.ListLeasesRequest(account_id="acct_a"), services.call)
    assert (list(page.leases), page.next_page_token) == ([], "")
    with pytest.raises(AccountNotFound):
        await services.leases.ListLeases(lease_pb2.ListLeasesRequest(account_id="acct_x"), services.call)
    request = lease_pb2.ListLeasesRequest(account_id="acct_a", page_size=-1)
    with pytest.raises(InvalidArgument) as caught:
        await services.leases.ListLeases(request, services.call)
    assert caught.value.field == "page_size"


async def test_every_command_on_a_stranger_is_not_found(services: Services) -> None:
    named = {"account_id": "acct_x", "lease_id": "lease_1"}
    for asked in (
        services.leases.Acquire(acquiring(account_id="acct_x"), services.call),
        services.leases.Release(lease_pb2.ReleaseRequest(**named), services.call),
        services.quota.Reverse(quota_pb2.ReverseRequest(account_id="acct_x", request_id="r"), services.call),
        services.guardrails.SetCap(guardrail_pb2.SetCapRequest(account_id="acct_x", meter="messages"), services.call),
        services.guardrails.AdjustAllowance(
            guardrail_pb2.AdjustAllowanceRequest(account_id="acct_x", allowance="models", set=1), services.call
        ),
    ):
        with pytest.raises(AccountNotFound):
            await asked


async def test_a_grant_is_reversed_by_its_request_id(services: Services) -> None:
    use = quota_pb2.ConsumeRequest(account_id="acct_a", meter="messages", amount=4, request_id="r")
    assert (await services.quota.Consume(use, services.call)).decision.allowed
    asked = quota_pb2.ReverseRequest(account_id="acct_a", request_id="r")
    first = await services.quota.Reverse(asked, services.call)
    assert (first.meter, first.amount, first.replayed) == ("messages", 4, False)
    assert (await services.quota.Reverse(asked, services.call)).replayed
    with pytest.raises(TollwayError) as spent:
        await services.quota.Consume(use, services.call)
    assert (spent.value.code, spent.value.error_reason) == ("FAILED_PRECONDITION", "REVERSED")
    with pytest.raises(GrantNotFound) as caught:
        await services.quota.Reverse(quota_pb2.ReverseRequest(account_id="acct_a", request_id="x"), services.call)
    assert (caught.value.code, caught.value.error_reason) == ("NOT_FOUND", "GRANT_NOT_FOUND")
    with pytest.raises(InvalidArgument) as unnamed:
        await services.quota.Reverse(quota_pb2.ReverseRequest(account_id="acct_a"), services.call)
    assert unnamed.value.field == "request_id"


async def test_a_cap_in_money_is_answered_in_units(services: Services) -> None:
    request = guardrail_pb2.SetCapRequest(account_id="acct_a", meter="messages", overage_amount="1.2", auto_stop=True)
    cap = (await services.guardrails.SetCap(request, services.call)).cap
    assert (cap.name, cap.limit, cap.remaining, cap.auto_stop) == ("cap", 6, 6, True)
    assert cap.kind == quota_pb2.LIMIT_KIND_CAP


async def test_usage_shows_caps_live_leases_reserves_and_allowances(services: Services) -> None:
    guardrails, call = services.guardrails, services.call
    await guardrails.SetCap(guardrail_pb2.SetCapRequest(account_id="acct_a", meter="messages", limit=8), call)
    await guardrails.AdjustAllowance(
        guardrail_pb2.AdjustAllowanceRequest(account_id="acct_a", allowance="seats", add=2), call
    )
    await services.leases.Acquire(acquiring(amount=1, reserve=4), call)
    usage = await services.quota.GetUsage(quota_pb2.GetUsageRequest(account_id="acct_a"), call)
    messages = {meter.meter: meter for meter in usage.meters}["messages"]
    assert messages.used == 1
    assert [(state.name, state.used, state.limit, state.auto_stop) for state in messages.limits] == [
        ("messages", 5, 10, False),
        ("cap", 5, 8, False),
        ("slots", 1, 2, False),
    ]
    held = [(each.name, each.held, each.HasField("limit")) for each in usage.allowances]
    assert held == [("models", 0, True), ("seats", 2, False)]
