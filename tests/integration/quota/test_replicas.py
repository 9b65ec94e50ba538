"""Two replicas on one database, sixteen clients, kill -9 at any moment: DESIGN §11.1 to 4, during it and afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from services.quota.domain.leasing import SETTLED
from tests import invariants_quota
from tests.contract.quota.test_commands import guarded
from tests.evidence import Evidence
from tests.integration.quota import lanes, world
from tollway.billing.v1 import entitlement_pb2, events_pb2
from tollway.quota.v1 import guardrail_pb2, guardrail_pb2_grpc, lease_pb2, lease_pb2_grpc, quota_pb2, quota_pb2_grpc

RUN_S = 30.0
CLIENTS = 16
SLOTS = 4
HOT = ("hot_a", "hot_b")
SPREAD = tuple(f"spread_{n}" for n in range(12))
PLACES = ("quota.lane.opened", "quota.lane.before_commit", "quota.lane.after_commit")
# Between the instant that a decision is dated with and the one at which a client knows that it has been asked for.
BEHIND = timedelta(seconds=0.5)
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


def plan(account_id: str, version: int, quota: int | None, slots: int) -> entitlement_pb2.Entitlements:
    """Everything at once: two rates, a quota, a cap, slots, a price."""
    message = guarded(account_id, quota=quota, slots=slots)
    message.version = version
    rates = world.entitlements(account_id, burst=60, per_key=25, window_s=2).limits[1:]
    message.limits.extend(rates)
    return message


@dataclass
class HeldLease:
    """What clients know of one. Until `until` it certainly lived, by what they were told and have asked for."""

    account_id: str
    id: str
    version: int
    begun: datetime
    until: datetime
    reserved: int
    ending: bool = False
    ends: int = 0

    def end_is_asked_for(self) -> None:
        # Before it is asked: afterwards nobody knows when it ended.
        if not self.ending:
            self.ending, self.until = True, min(self.until, datetime.now(UTC) - BEHIND)


@dataclass
class Call:
    """A key, and what it was last told."""

    account_id: str
    amount: int
    decision: quota_pb2.Decision | None = None
    reversing: bool = False
    reversed: bool = False


@dataclass
class Clients:
    engine: AsyncEngine
    channels: list[grpc.aio.Channel]
    story: random.Random
    until: float
    calls: dict[str, Call] = field(default_factory=dict)
    leases: dict[str, HeldLease] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)  # lease → units, as told
    plans: dict[tuple[str, int], entitlement_pb2.Entitlements] = field(default_factory=dict)
    unkeyed: Counter[str] = field(default_factory=Counter)  # told, or not known
    answered: Counter[str] = field(default_factory=Counter)

    async def ask(self, stub: type[Any], method: str, request: Any) -> Any:
        """Once, of either replica. None: nobody knows what came of it."""
        try:
            return await getattr(stub(self.story.choice(self.channels)), method)(request, timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _AWAY:
                raise
            return None

    async def until_told(self, stub: type[Any], method: str, request: Any) -> Any:
        """Asks until there is an answer. Raises the error that is one."""
        deadline = time.monotonic() + 60
        while (answer := await self.ask(stub, method, request)) is None:
            assert time.monotonic() < deadline, f"{method} has had no answer for a minute"
            await asyncio.sleep(0.05)  # a client's backoff
        self.answered[method] += 1
        return answer

    async def work(self, name: str) -> None:
        number = 0
        while time.monotonic() < self.until:
            number += 1
            account_id = self.story.choice(HOT if self.story.random() < 0.6 else SPREAD)
            kinds = (self.consume, self.consume_unkeyed, self.acquire, self.of_lease, self.reverse, self.set_cap)
            [act] = self.story.choices(kinds, weights=(8, 2, 4, 4, 2, 0.3))
            await act(account_id, f"{name}-{number}")

    async def consume(self, account_id: str, key: str) -> None:
        amount = self.story.randint(1, 3)
        call = self.calls[key] = Call(account_id, amount)
        request = quota_pb2.ConsumeRequest(
            account_id=account_id,
            meter="messages",
            amount=amount,
            request_id=key,
            key_id=self.story.choice(["key_1", "key_2"]),
        )
        call.decision = (await self.until_told(quota_pb2_grpc.QuotaServiceStub, "Consume", request)).decision
        if call.decision.allowed and self.story.random() < 0.1:
            try:
                again = (await self.until_told(quota_pb2_grpc.QuotaServiceStub, "Consume", request)).decision
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
                assert call.reversing, "nobody has asked to take it back"
            else:
                assert (again.replayed, again.limits) == (True, call.decision.limits)

    async def consume_unkeyed(self, account_id: str, _: str) -> None:
        request = quota_pb2.ConsumeRequest(account_id=account_id, meter="messages", amount=1)
        answer = await self.ask(quota_pb2_grpc.QuotaServiceStub, "Consume", request)
        self.unkeyed["unknown" if answer is None else "allowed" if answer.decision.allowed else "refused"] += 1

    async def acquire(self, account_id: str, key: str) -> None:
        call = self.calls[key] = Call(account_id, 1)
        request = lease_pb2.AcquireRequest(
            account_id=account_id, meter="messages", amount=1, reserve=self.story.randint(0, 3), request_id=key
        )
        request.duration.FromTimedelta(timedelta(seconds=self.story.choice([1, 1, 2, 3, 20])))
        answer = await self.until_told(lease_pb2_grpc.LeaseServiceStub, "Acquire", request)
        call.decision = answer.decision
        if answer.decision.allowed:
            lease = answer.decision.lease
            times = lease.acquire_time.ToDatetime(UTC), lease.expire_time.ToDatetime(UTC)
            held = HeldLease(account_id, lease.id, answer.decision.version, *times, lease.reserved)
            self.leases[lease.id] = held

    async def of_lease(self, account_id: str, _: str) -> None:
        """Of any client's lease: several may be at the same one."""
        held = [each for each in self.leases.values() if each.account_id == account_id][-6:]
        if not held:
            return
        lease = self.story.choice(held)
        asked, stub = {"account_id": account_id, "lease_id": lease.id}, lease_pb2_grpc.LeaseServiceStub
        what = self.story.choice(["Renew", "Settle", "Release"])
        with contextlib.suppress(grpc.aio.AioRpcError):  # NOT_FOUND: it ended, by whomever
            if what == "Renew":
                renewal = lease_pb2.RenewRequest(**asked)  # type: ignore[arg-type]
                renewal.duration.FromSeconds(2)
                answer = await self.until_told(stub, what, renewal)
                if not lease.ending:
                    lease.until = max(lease.until, answer.lease.expire_time.ToDatetime(UTC))
                return
            lease.end_is_asked_for()
            if what == "Settle":
                amount = self.story.randint(0, lease.reserved)
                await self.until_told(stub, what, lease_pb2.SettleRequest(**asked, amount=amount))  # type: ignore[arg-type]
                self.settled[lease.id] = amount
            else:
                await self.until_told(stub, what, lease_pb2.ReleaseRequest(**asked))  # type: ignore[arg-type]
            lease.ends += 1

    async def reverse(self, account_id: str, _: str) -> None:
        mine = [
            (key, call)
            for key, call in self.calls.items()
            if call.account_id == account_id and call.decision is not None and call.decision.allowed
        ][-10:]
        if not mine:
            return
        key, call = self.story.choice(mine)
        assert call.decision is not None
        if call.decision.HasField("lease"):
            self.leases[call.decision.lease.id].end_is_asked_for()
        call.reversing = True
        request = quota_pb2.ReverseRequest(account_id=account_id, request_id=key)
        answer = await self.until_told(quota_pb2_grpc.QuotaServiceStub, "Reverse", request)
        assert answer.amount == call.amount
        call.reversed = True

    async def set_cap(self, account_id: str, _: str) -> None:
        request = guardrail_pb2.SetCapRequest(account_id=account_id, meter="messages", auto_stop=True)
        request.limit = self.story.choice([150, 400, 100_000])
        answer = await self.until_told(guardrail_pb2_grpc.GuardrailServiceStub, "SetCap", request)
        assert answer.cap.limit == request.limit

    async def change_plans(self) -> None:
        """What billing sends: more, less, and slots that come and go on the first hot account."""
        version = 1
        while time.monotonic() < self.until:
            version += 1
            account_id = self.story.choice([*HOT, *HOT, *SPREAD])
            slots = self.story.choice([SLOTS - 2, SLOTS]) if account_id == HOT[0] else SLOTS
            quota = self.story.choice([300, 1000, 3000, None])
            message = self.plans[account_id, version] = plan(account_id, version, quota, slots)
            await world.put(self.engine, message)
            await asyncio.sleep(self.story.uniform(0.05, 0.4))

    async def watch(self) -> int:
        """The table at any moment: whatever lives fits the most slots that any plan had."""
        looks = 0
        statement = text(
            "SELECT account_id, count(*) FROM lease WHERE expire_time > clock_timestamp() GROUP BY account_id"
        )
        async with self.engine.connect() as connection:
            while time.monotonic() < self.until:
                for account_id, live in await connection.execute(statement):
                    assert live <= SLOTS, f"{account_id} holds {live} leases at once"
                await connection.rollback()
                looks += 1
                await asyncio.sleep(0.03)
        return looks


async def kill_now_and_then(
    replicas: list[world.Process], start: Any, story: random.Random, until: float
) -> Counter[str]:
    """A replica at a time, at a named place or anywhere; then there is a new one in its place."""
    kills: Counter[str] = Counter()
    while time.monotonic() < until:
        await asyncio.sleep(story.uniform(0.8, 2.5))
        index = story.randrange(len(replicas))
        victim, place = replicas[index], story.choice([*PLACES, "anywhere"])
        if place != "anywhere":
            victim.arm(place, passes=story.randint(0, 30))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2):
                    while victim.child.poll() is None:
                        await asyncio.sleep(0.01)
        if victim.child.poll() is None:
            place = "anywhere"
            victim.child.kill()
        assert await asyncio.to_thread(victim.child.wait, 10) == -signal.SIGKILL
        (victim.failpoints / place).unlink(missing_ok=True)
        for armed in victim.failpoints.iterdir():
            armed.unlink()
        kills[place] += 1
        replicas[index] = start(victim.port)
    return kills


@pytest.mark.parametrize("seed", [20261122])
async def test_no_limit_is_overrun_and_nothing_told_is_lost_whatever_is_killed(
    tmp_path: Path, database: str, seed: int
) -> None:
    story = random.Random(seed)
    async with world.tables(database) as engine, contextlib.AsyncExitStack() as stack:
        first = {(name, 1): plan(name, 1, 1000, SLOTS) for name in (*HOT, *SPREAD)}
        await world.put(engine, *first.values())

        def start(port: int | None = None) -> world.Process:
            return stack.enter_context(world.process(tmp_path, database, port=port))

        replicas = [start(), start()]
        options = (("grpc.min_reconnect_backoff_ms", 100), ("grpc.initial_reconnect_backoff_ms", 50))
        options = (*options, ("grpc.max_reconnect_backoff_ms", 300))
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(each.address, options=options))
            for each in replicas
        ]
        await asyncio.wait_for(asyncio.gather(*(channel.channel_ready() for channel in channels)), 30)
        until = time.monotonic() + RUN_S
        clients = Clients(engine, list(channels), story, until, plans=dict(first))
        for name in (*HOT, *SPREAD):
            await clients.consume_unkeyed(name, "")
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(clients.work(f"client{number}"))
            tasks.create_task(clients.change_plans())
            watched = tasks.create_task(clients.watch())
            killed = tasks.create_task(kill_now_and_then(replicas, start, random.Random(seed + 1), until))
        print(f"kills {dict(killed.result())}, answers {dict(clients.answered)}, looks {watched.result()}")
        assert killed.result().total() >= 4
        assert sum(call.decision is not None and call.decision.allowed for call in clients.calls.values()) > 200
        await asyncio.wait_for(asyncio.gather(*(channel.channel_ready() for channel in channels)), 30)
        await _check_what_was_told(clients)
        _check_leases(clients)
        evidence = await _evidence(clients)
    found = [
        complaint
        for check in (
            invariants_quota.no_grant_exceeded_its_limit,
            invariants_quota.no_burst_exceeded_its_rate,
            invariants_quota.counters_equal_the_ledger,
            invariants_quota.a_key_has_one_answer,
            invariants_quota.leases_keep_to_their_limits,
        )
        for complaint in check(evidence)
    ]
    assert found == []


async def _check_what_was_told(clients: Clients) -> None:
    """2: the ledger is what clients were told, and the counters are the ledger."""
    lines = await lanes.rows(clients.engine, "SELECT account_id, key, meter, amount, reversed FROM idem")
    ledger = {(line[0], line[1]): line[2:] for line in lines}
    assert len(ledger) == len(lines)
    for key, call in clients.calls.items():
        if call.decision is None:
            continue
        line = ledger.get((call.account_id, key))
        if not call.decision.allowed:
            assert line is None, f"{key} was refused, and is in the ledger"
        else:
            assert line == ("messages", call.amount, call.reversed), f"{key} was granted; its line is {line}"
    unkeyed = sum(str(key).startswith("\x1f") and line[0] == "messages" for (_, key), line in ledger.items())
    told = clients.unkeyed["allowed"]
    assert told <= unkeyed <= told + clients.unkeyed["unknown"]
    for lease_id, amount in clients.settled.items():
        line = ledger.get((clients.leases[lease_id].account_id, SETTLED + lease_id))
        assert line == (("messages", amount, False) if amount else None)
    for account_id in (*HOT, *SPREAD):
        counted, written = await lanes.totals(clients.engine, account_id)
        assert counted == written, account_id


def _check_leases(clients: Clients) -> None:
    """4: at the instant of every grant, those that certainly lived had room beside it; and each ended once."""
    for lease in clients.leases.values():
        assert lease.ends <= 1, f"{lease.id} ended {lease.ends} times"
        others = [each for each in clients.leases.values() if each.account_id == lease.account_id]
        live = sum(each.begun <= lease.begun < each.until or each is lease for each in others)
        limits = clients.plans[lease.account_id, lease.version].limits
        [slots] = [each.limit for each in limits if each.name == "slots"]
        assert live <= slots, f"{lease.account_id}: {live} leases lived when {slots} were allowed"


async def _evidence(clients: Clients) -> Evidence:
    """As the system's own checks want it, with what billing would have announced."""
    quota = {}
    async with clients.engine.connect() as connection:
        for table in ("account", "plan", "idem", "lease"):
            found = await connection.execute(text(f"SELECT * FROM {table}"))
            quota[table] = [dict(row) for row in found.mappings()]
    for row in quota["account"]:
        row["counters"] = json.dumps(row["counters"])  # the engine has read it, asyncpg alone does not
    outbox = [
        {
            "type": events_pb2.EntitlementsChanged.DESCRIPTOR.full_name,
            "account_id": account_id,
            "data": events_pb2.EntitlementsChanged(entitlements=message).SerializeToString(),
        }
        for (account_id, _), message in clients.plans.items()
    ]
    nothing: dict[str, Any] = {"notify": {}, "stream": [], "dead": [], "subscriptions": [], "invoices": []}
    nothing |= {"events": [], "undelivered": {}, "mails": [], "logs": {}, "catalog": Path(), "secrets": []}
    return Evidence(billing={"outbox": outbox}, quota=quota, read_time=datetime.now(UTC), **nothing)
