"""A year of each product on a moved clock: sign up, renew twelve times, fail and recover, fail for good, change the
plan, cancel, resume, come back, be refunded. At its end local state is Stripe's, and everything adds up."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.buyers import Buyer, ManashikiBuyer, SkytaleBuyer, VatlyBuyer
from tests.e2e.vatly import BUSINESS, SCALE
from tests.e2e.world import FAILS_LATER, PAYS, World
from tests.infra.servers import running_nats
from tests.infra.stack import Stack, running_stack
from tests.invariants import violations
from tollway.billing.v1 import events_pb2

_DAY = 86_400
_UNPAID = {"open", "uncollectible", "void"}
_YEAR_IN_S = 60.0


def _limit_s() -> float:
    """A minute; as many times longer as the machine has other work than ours, which keeps two cores busy."""
    return _YEAR_IN_S * max(1.0, os.getloadavg()[0] / (2 * (os.cpu_count() or 1)))


class Year:
    """The clock of one installation, and the stories that happen by it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.begin = 0

    async def start(self) -> None:
        await self.settle()
        self.begin = await self.world.now()

    async def day(self, number: int) -> None:
        """Comes to this day of the year, through all that falls due before."""
        await self._advance(self.begin + number * _DAY - await self.world.now())

    async def settle(self) -> None:
        """What was just done has reached everybody."""
        await self._advance(0)

    async def _advance(self, seconds: int) -> None:
        url = f"http://127.0.0.1:{self.world.env['TOLLWAY_CLOCK_PORT']}/advance"
        async with httpx.AsyncClient(timeout=90, trust_env=False) as clock:
            answer = await clock.post(url, json={"seconds": seconds})
        last = answer.text.splitlines()[-1]
        assert '"arrived": true' in last, last


async def tiers_of(buyer: Buyer) -> list[str]:
    """Every tier that was announced for it, in order."""
    moves = await _announced(buyer, events_pb2.TierChanged)
    return [move.tier for move in sorted(moves, key=lambda move: move.version)]


async def adds_up(person: Buyer) -> None:
    """What was announced and mailed of a person's invoices is what Stripe charged and failed to charge."""
    invoices = {invoice["id"]: invoice for invoice in await person.invoices()}
    charged = {each["id"]: each["amount_paid"] for each in invoices.values() if each["status"] == "paid"}
    paid = await _announced(person, events_pb2.InvoicePaid)
    assert sorted((each.invoice.id, each.invoice.amount_paid) for each in paid) == sorted(charged.items())
    failed = await _announced(person, events_pb2.InvoicePaymentFailed)
    attempts = [(each.invoice.id, each.attempt_count) for each in failed]
    assert len(attempts) == len(set(attempts)), "an attempt fails once"
    assert all(count <= invoices[invoice]["attempt_count"] for invoice, count in attempts)
    # Billed and not paid: all of it was told, up to the last attempt.
    owed = {each["id"]: each["attempt_count"] for each in invoices.values() if each["status"] in _UNPAID}
    tried = {invoice: count for invoice, count in owed.items() if count}
    assert {invoice: max(c for i, c in attempts if i == invoice) for invoice in tried} == tried

    query = "SELECT kind, subject_id FROM messages WHERE account_id = $1 AND state = 'sent'"
    sent = [(row["kind"], row["subject_id"]) for row in await person.world.rows("notify", query, person.account_id)]
    with_money = sorted(invoice for invoice, amount in charged.items() if amount)
    assert sorted(subject for kind, subject in sent if kind == "receipt") == with_money
    assert sorted(subject for kind, subject in sent if kind == "payment_failed") == sorted({i for i, _ in attempts})
    texts = await person.receipts()
    for invoice in with_money if texts is not None else []:
        number, amount = invoices[invoice]["number"], f"${invoices[invoice]['amount_paid'] / 100:.2f}"
        assert [text for text in texts or [] if number in text and amount in text], f"no receipt tells {number}"


async def _announced(person: Buyer, kind: Any) -> list[Any]:
    query = "SELECT data FROM outbox WHERE account_id = $1 AND type = $2"
    rows = await person.world.rows("billing", query, person.account_id, kind.DESCRIPTOR.full_name)
    return [kind.FromString(row["data"]) for row in rows]


@contextmanager
def running(product: str, postgres: str, folder: Path) -> Iterator[Stack]:
    given = {"CATALOG": f"catalogs/{product}.yaml"}
    with running_nats(folder) as nats, running_stack(folder, postgres=postgres, nats=nats, env=given) as stack:
        yield stack


@asynccontextmanager
async def opened(stack: Stack) -> AsyncIterator[World]:
    world = World(stack)
    try:
        yield world
    finally:
        await world.close()


async def live_a_year(
    year: Year, new: Callable[[World, str], Awaitable[Buyer]], paid: str, over: str, better: str = ""
) -> None:
    """`paid`: the tier that is bought; `over`: the tier of what has ended; `better`: the tier to upgrade to."""
    names = ("Steady", "Recovers", "Never", "Leaver", "Refunded", *(["Mover", "Taster"] if better else []))
    people = {name: await new(year.world, name) for name in names}
    steady, recovers, never = (people[name] for name in ("Steady", "Recovers", "Never"))
    leaver, refunded, mover = people["Leaver"], people["Refunded"], people.get("Mover")
    began = time.monotonic()
    for name, person in people.items():
        assert await person.tier() == "free"
        await (person.taste(14) if name == "Taster" else person.buy())
    await year.start()
    assert {name: await person.tier() for name, person in people.items()} == dict.fromkeys(people, paid)

    await year.day(5)
    await refunded.end_with_refund()
    await year.day(10)
    assert await refunded.tier() == over
    await leaver.cancel()
    if mover:
        await mover.change(SCALE)
    await year.day(15)
    assert await leaver.tier() == paid, "cancelled is paid for until the end"
    await leaver.resume()
    if mover:
        assert await mover.tier() == better
    await year.day(20)
    for person in (recovers, never):
        await person.give_card(FAILS_LATER)
    await year.day(33)
    late = paid if steady.keeps_past_due else "past_due"
    assert [await recovers.tier(), await never.tier()] == [late, late]
    assert [await leaver.tier(), await steady.tier()] == [paid, paid]
    await recovers.give_card(PAYS)
    await leaver.cancel()
    await year.settle()
    assert await recovers.tier() == paid
    await year.day(50)
    assert await never.tier() == over, "after the last try it is over"
    if mover:
        await mover.change(BUSINESS)
    await recovers.cancel()
    await year.day(65)
    assert [await leaver.tier(), await recovers.tier()] == [over, over]
    await leaver.buy()
    if mover:
        assert await mover.tier() == paid
        await mover.cancel()
    await year.settle()
    assert await leaver.tier() == paid
    await steady.use(3)
    assert await steady.used() == 3
    await year.day(100)
    assert await steady.used() == 0, "another month"
    await leaver.cancel()
    await year.day(367)
    await steady.use(2)
    await year.settle()
    took = time.monotonic() - began

    assert await steady.used() == 2
    past_due = [] if steady.keeps_past_due else ["past_due"]
    wanted = {
        "Steady": [paid],
        "Recovers": [paid, *past_due, *([paid] if past_due else []), over],
        "Never": [paid, *past_due, over],
        "Leaver": [paid, over, paid, over],
        "Refunded": [paid, over],
        "Mover": [paid, better, paid, over],
        "Taster": [paid],
    }
    assert {name: await tiers_of(person) for name, person in people.items()} == {
        name: ["free", *wanted[name]] for name in names
    }
    for name, person in people.items():
        await adds_up(person)
        failed = {each.invoice.id for each in await _announced(person, events_pb2.InvoicePaymentFailed)}
        assert len(failed) == (1 if name in {"Recovers", "Never"} else 0), name
        amounts = [invoice["amount_paid"] for invoice in await person.invoices() if invoice["status"] == "paid"]
        if name == "Steady":
            assert len(amounts) == 13, "bought, and renewed twelve times"
            assert len(set(amounts)) == 1
        if name == "Taster":
            assert amounts == [2900] * 12 + [0], "a trial of two weeks, and what followed"
    assert await violations(year.world.stack) == []
    assert took < _limit_s(), f"the year took {took:.1f} s"


async def test_a_year_of_skytale_ends_as_stripe_says(postgres: str, tmp_path: Path) -> None:
    with running("skytale", postgres, tmp_path) as stack:
        async with opened(stack) as world:
            await live_a_year(Year(world), SkytaleBuyer.new, paid="pro", over="free")


async def test_a_year_of_vatly_ends_as_stripe_says(postgres: str, tmp_path: Path) -> None:
    with running("vatly", postgres, tmp_path) as stack:
        async with opened(stack) as world:
            await live_a_year(Year(world), VatlyBuyer.new, paid="business", over="free", better="scale")


async def test_a_year_of_manashiki_ends_as_stripe_says(postgres: str, tmp_path: Path) -> None:
    with running("manashiki", postgres, tmp_path) as stack:
        async with opened(stack) as world:
            await live_a_year(Year(world), ManashikiBuyer.new, paid="paid", over="canceled")
