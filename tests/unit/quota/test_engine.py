"""The engine and a plain model of it, side by side through random stories (DESIGN §11.1 to 4).

Between batches only what `settle` says is to be written is kept, and everything goes through JSON and the ledger's
bytes: so what it says is enough to store.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.kit.errors import TollwayError
from services.quota.answers import from_ledger, to_message
from services.quota.domain import (
    LEDGER_MARK,
    Account,
    Acquire,
    AdjustAllowance,
    Command,
    Decision,
    Grant,
    Kind,
    Lease,
    Limit,
    Meter,
    Opened,
    Period,
    Plan,
    Refusal,
    Release,
    Renew,
    Reverse,
    SetCap,
    Settle,
    Settled,
    Use,
    rate,
    settle,
)
from tests.contract.quota.comparing import plain
from tests.contract.quota.model import Model, ModelAccount
from tests.unit.quota.plans import CLOSED

START = datetime(2027, 12, 29, 23, 59, 50, tzinfo=UTC)
ACCOUNTS = ("acct_a", "acct_b")
METERS = ("messages", "calls")
# Bounds of limits and how they may be drawn up; a plan has some of them, each with a number or none.
SKELETON = {
    "burst": (Kind.RATE, ("messages", "calls"), Period.MONTH, timedelta(seconds=60), False),
    "per_key": (Kind.RATE, ("messages",), Period.MONTH, timedelta(seconds=10), True),
    "monthly": (Kind.QUOTA, ("messages",), Period.MONTH, None, False),
    "both": (Kind.QUOTA, ("messages", "calls"), Period.LIFETIME, None, False),
    "billed": (Kind.QUOTA, ("calls",), Period.BILLING, None, False),
    "cap": (Kind.CAP, ("calls",), Period.BILLING, None, False),
    "cap_both": (Kind.CAP, ("messages", "calls"), Period.MONTH, None, False),
    "slots": (Kind.CONCURRENCY, ("messages", "calls"), Period.MONTH, timedelta(seconds=90), False),
}

amounts = st.integers(0, 9)
keys = st.sampled_from(["", "", "k1", "k2", "k3", "k4", "k5"])
meters = st.sampled_from([*METERS, *METERS, *METERS, "nonsense"])
accounts = st.sampled_from(["acct_a", "acct_a", "acct_a", "acct_b", "acct_x"])
key_ids = st.sampled_from(["", "key_1"])
durations = st.none() | st.sampled_from([timedelta(seconds=1), timedelta(seconds=30), timedelta(hours=24)])
leases = st.sampled_from([f"lease_{n}" for n in range(6)])  # counted back from the newest
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Use, accounts, meters, st.integers(1, 9), keys, st.booleans(), key_ids),
    st.builds(Use, accounts, meters, st.integers(1, 9), keys),
    st.builds(Acquire, accounts, meters, amounts, amounts, st.just(""), durations, keys, key_ids),
    st.builds(Renew, accounts, leases, durations),
    st.builds(Settle, accounts, leases, amounts),
    st.builds(Release, accounts, leases),
    st.builds(Reverse, accounts, st.sampled_from(["k1", "k2", "k3", "k4", "k5"])),
    st.builds(SetCap, accounts, meters, st.none() | st.integers(0, 30), st.just(""), st.booleans()),
    st.builds(SetCap, accounts, meters, st.none(), st.sampled_from(["0", "2.5", "3.10", "3.1"]), st.booleans()),
    st.builds(
        AdjustAllowance,
        accounts,
        st.sampled_from(["seats", "models"]),
        st.sampled_from(["set", "add", "remove"]),
        st.integers(1, 4),
        keys,
    ),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    limits = []
    for name in draw(st.sets(st.sampled_from(sorted(SKELETON)))):
        kind, spans, period, window, per_key = SKELETON[name]
        most = draw(st.none() | st.integers(0, 30 if kind is not Kind.CONCURRENCY else 3))
        warn = tuple(draw(st.sampled_from([(), (50,), (80, 100), (1, 33, 100)]))) if kind is not Kind.RATE else ()
        refusal = Refusal(f"{name}_reached", 429 if kind in (Kind.RATE, Kind.CONCURRENCY) else 402, "No.")
        limits.append(Limit(name, spans, kind, most, period, refusal, window, per_key, warn))
    known = draw(st.sampled_from([METERS, METERS, METERS, ("messages",)]))
    gate = draw(st.sampled_from(["", "", "live"]))
    prices = {meter: draw(st.sampled_from(["", "0", "0.3", "1.25"])) for meter in known}
    included = draw(st.integers(0, 10))
    found = {m: Meter(m, gate, CLOSED, overage_unit_price=prices[m], included_units=included) for m in known}
    gates = {"live": draw(st.sampled_from([True, True, False]))}
    allowances = {name: draw(st.integers(0, 5)) for name in draw(st.sets(st.sampled_from(["seats", "models"])))}
    return Plan("tier", found, tuple(limits), gates, "https://pay.example", "mailto:help@example.com", allowances)


class Tables:
    """Rows as a database would keep them."""

    def __init__(self) -> None:
        self.counters: dict[str, str] = defaultdict(lambda: "{}")
        self.terms: dict[str, str] = defaultdict(lambda: "{}")
        self.rates: dict[tuple[str, str, str], bytes] = {}
        self.leases: dict[tuple[str, str], Lease] = {}
        self.ledger: dict[tuple[str, str], tuple[str, int, bytes, str, datetime | None, bool]] = {}

    def save(self, settled: Settled) -> None:
        for account in settled.changed.values():
            self.counters[account.id] = json.dumps(account.counters)
            self.terms[account.id] = json.dumps(account.terms)
            for (name, key_id), log in account.rates.items():
                self.rates[account.id, name, key_id] = rate.pack(log)
        for lease in settled.opened:
            assert (lease.account_id, lease.id) not in self.leases
            self.leases[lease.account_id, lease.id] = lease
        for lease in settled.renewed:
            assert self.leases[lease.account_id, lease.id].expire_time < lease.expire_time
            self.leases[lease.account_id, lease.id] = lease
        for who in settled.ended:
            del self.leases[who]  # there, and ended once
        for who in settled.reversed:
            assert not self.ledger[who][-1]
            self.ledger[who] = (*self.ledger[who][:-1], True)
        for line in settled.grants:
            assert (line.account_id, line.key) not in self.ledger
            answer = to_message(line.answer).SerializeToString()
            self.ledger[line.account_id, line.key] = (
                line.meter,
                line.amount,
                answer,
                line.key_id,
                line.at,
                line.reversed,
            )

    def open(self, known: dict[str, ModelAccount], asked: list[Command], at: datetime, switches: set[str]) -> Opened:
        opened = Opened(at, {}, {}, frozenset(switches))
        for name, each in known.items():
            opened.accounts[name] = Account(
                name,
                each.version,
                each.plan,
                each.anchor,
                each.interval,
                json.loads(self.counters[name]),
                at,
                {(n, k): rate.unpack(log) for (owner, n, k), log in self.rates.items() if owner == name},
                {lease.id: lease for lease in self.leases.values() if lease.account_id == name},
                json.loads(self.terms[name]),
            )
        for command in asked:
            who = (command.account_id, command.key)
            if command.key and who in self.ledger:
                meter, amount, answer, key_id, when, back = self.ledger[who]
                opened.granted[who] = Grant(*who, meter, amount, from_ledger(answer), key_id, when, back)
        return opened


class Engine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.tables = Tables()
        self.model = Model()
        self.at = START
        self.switches: set[str] = set()
        self.names = 0
        self.acquired = 0

    @initialize(
        of=plans(),
        anchor=st.sampled_from([None, datetime(2027, 8, 31, 10, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC), START]),
        interval=st.sampled_from(["month", "year"]),
    )
    def begin(self, of: Plan, anchor: datetime | None, interval: str) -> None:
        for name in ACCOUNTS:
            self.model.accounts[name] = ModelAccount(name, of, 1, anchor, interval if anchor else "")

    @rule(
        passed=st.one_of(
            st.timedeltas(timedelta(0), timedelta(seconds=100)),
            st.timedeltas(timedelta(0), timedelta(days=40)),
            st.sampled_from([timedelta(seconds=10), timedelta(seconds=60), timedelta(seconds=90)]),
        )
    )
    def wait(self, passed: timedelta) -> None:
        self.at += passed

    @rule(period=st.sampled_from([Period.MONTH, Period.BILLING]), tick=st.sampled_from([0, -1]))
    def wait_for_the_end_of_a_period(self, period: Period, tick: int) -> None:
        end = self.model.accounts["acct_a"].span(period, self.at)[1]
        assert end is not None
        self.at = max(self.at, end + timedelta(microseconds=tick))

    @rule(of=plans(), who=st.sampled_from(ACCOUNTS))
    def change_plan(self, of: Plan, who: str) -> None:
        account = self.model.accounts[who]
        account.plan, account.version = of, account.version + 1

    @rule(thrown=st.sets(st.sampled_from(["", "messages"]), max_size=1))
    def throw_switches(self, thrown: set[str]) -> None:
        self.switches = thrown

    @rule(batch=st.lists(commands, min_size=1, max_size=8))
    def decide(self, batch: list[Command]) -> None:
        asked = [self._named(command) for command in batch]
        opened = self.tables.open(self.model.accounts, asked, self.at, self.switches)
        before = {name: self._shown(each) for name, each in opened.accounts.items()}
        settled = settle(asked, opened, self._new_key)
        self.model.announced.clear()
        expected = [self.model.decide(command, self.at, self.switches) for command in asked]
        for command, got, due in zip(asked, settled.outcomes, expected, strict=True):
            assert (command, plain(got)) == (command, plain(due))
        assert settled.announcements == self.model.announced
        for name, each in opened.accounts.items():
            if name not in settled.changed:
                assert self._shown(each) == before[name]
        assert {line.account_id for line in settled.grants} <= settled.changed.keys()
        self._check_grants(asked, settled)
        self.tables.save(settled)

    @invariant()
    def counters_are_the_ledger(self) -> None:
        for name in self.model.accounts:
            told: dict[str, int] = defaultdict(int)
            for (owner, _), (meter, amount, _, _, _, back) in self.tables.ledger.items():
                if owner == name and not back and not meter.startswith(LEDGER_MARK):
                    told[meter] += amount
            counters = json.loads(self.tables.counters[name])
            assert {meter: cells["lifetime"][1] for meter, cells in counters.items() if cells["lifetime"][1]} == {
                meter: total for meter, total in told.items() if total
            }

    @invariant()
    def live_leases_are_the_models(self) -> None:
        for name, account in self.model.accounts.items():
            stored = {lease.id: lease for lease in self.tables.leases.values() if lease.account_id == name}
            assert {k: v for k, v in stored.items() if v.expire_time > self.at} == {
                k: v for k, v in account.leases.items() if v.expire_time > self.at
            }

    def _check_grants(self, asked: list[Command], settled: Settled) -> None:
        """Whoever was let in was within the limits in force, with slots and reserve."""
        for command, outcome in zip(asked, settled.outcomes, strict=True):
            if not isinstance(command, (Use, Acquire)) or not isinstance(outcome, Decision):
                continue
            if outcome.refused is not None or outcome.replayed:
                continue
            slot, reserve = (1, command.reserve) if isinstance(command, Acquire) else (0, 0)
            # What is not asked of a limit is not refused by it, even when a lower plan left more used than it allows.
            asks = {Kind.RATE: command.amount, Kind.CONCURRENCY: slot}
            for state in outcome.limits:
                if state.limit is None or (state.kind is Kind.CAP and not state.auto_stop):
                    continue
                if asks.get(state.kind, command.amount + reserve):
                    assert state.used <= state.limit

    def _named(self, command: Command) -> Command:
        if isinstance(command, Acquire):
            self.acquired += 1
            return replace(command, lease_id=f"lease_{self.acquired}")
        if isinstance(command, (Renew, Settle, Release)):
            back = int(command.lease_id.removeprefix("lease_"))
            return replace(command, lease_id=f"lease_{self.acquired - back}")
        return replace(command)

    def _new_key(self) -> str:
        self.names += 1
        return f"\x1f{self.names}"

    def _shown(self, account: Account) -> tuple[Any, ...]:
        return (json.dumps(account.counters), json.dumps(account.terms), repr(account.rates), dict(account.leases))


Engine.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
TestEngine = Engine.TestCase


def test_a_failed_command_leaves_its_neighbours_alone() -> None:
    of = Plan("tier", {"messages": Meter("messages", "", CLOSED)}, (), {})
    batch: list[Command] = [
        Use("acct_a", "nonsense", 1),
        Release("acct_a", "lease_1"),
        Reverse("acct_a", "k"),
        Use("acct_a", "messages", 1, "k"),
    ]
    opened = Opened(START, {"acct_a": Account("acct_a", 1, of, None, "", {}, START)}, {})
    outcomes = settle(batch, opened, str).outcomes
    with pytest.raises(TollwayError):
        raise outcomes[2]  # type: ignore[misc]
    assert isinstance(outcomes[3], Decision)
    assert outcomes[3].allowed
