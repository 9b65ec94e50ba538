"""A year of each product on a moved clock: sign up, renew twelve times, fail and recover, fail for good, change the
plan, cancel, resume, come back, be refunded. At its end local state is Stripe's, and everything adds up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx

from tests.e2e.manashiki import Org
from tests.e2e.vatly import BUSINESS, SCALE, Member, price_id, token
from tests.e2e.world import FAILS_LATER, PAYS, Customer, Json, World
from tests.infra.servers import running_nats
from tests.infra.stack import Stack, running_stack
from tests.invariants import violations
from tollway.billing.v1 import events_pb2

_DAY = 86_400
_YEAR_IN_S = 60.0


class Buyer:
    """One account of a product, by the product's own routes."""

    keeps_past_due = True  # the tier while a payment is retried

    def __init__(self, world: World, account_id: str) -> None:
        self.world, self.account_id = world, account_id

    async def tier(self) -> str:
        raise NotImplementedError

    async def checkout(self) -> str:
        raise NotImplementedError

    async def portal(self) -> str:
        raise NotImplementedError

    async def use(self, units: int) -> None:
        raise NotImplementedError

    async def used(self) -> int:
        """In this month."""
        raise NotImplementedError

    # Stripe's pages, as a browser sends their forms

    async def buy(self) -> None:
        await self._card(await self.checkout(), PAYS)

    async def give_card(self, number: str) -> None:
        await self._card(f"{await self.portal()}/card", number)

    async def cancel(self) -> None:
        await self._post("cancel")

    async def resume(self) -> None:
        await self._post("resume")

    async def change(self, lookup_key: str) -> None:
        await self._post("change", price=await price_id(self.world, lookup_key))

    async def end_with_refund(self) -> None:
        """As somebody in Stripe's dashboard does it."""
        invoice = (await self.invoices())[0]["id"]
        answer = await self.world.sandbox.post("/_sandbox/refunds", json={"invoice": invoice})
        assert answer.status_code == 200, answer.text
        await self.world.stripe("DELETE", f"subscriptions/{await self._subscription()}")

    async def invoices(self) -> list[Json]:
        page = await self.world.stripe("GET", "invoices", customer=await self.stripe_id(), limit=100)
        return list(page["data"])

    async def stripe_id(self) -> str:
        query = "SELECT stripe_customer_id AS id FROM account WHERE id = $1"
        (row,) = await self.world.rows("billing", query, self.account_id)
        return str(row["id"])

    async def _subscription(self) -> str:
        """The newest one."""
        page = await self.world.stripe("GET", "subscriptions", customer=await self.stripe_id(), status="all")
        return str(page["data"][0]["id"])

    async def _card(self, page: str, number: str) -> None:
        form = {"email": "ada@example.com", "cardNumber": number, "cardExpiry": "12 / 34", "cardCvc": "123"}
        answer = await self.world.sandbox.post(page, data=form | {"billingName": "Ada Lovelace"})
        assert answer.status_code == 303, answer.text

    async def _post(self, step: str, **more: str) -> None:
        form = {"subscription": await self._subscription(), **more}
        answer = await self.world.sandbox.post(f"{await self.portal()}/{step}", data=form)
        assert answer.status_code == 303, answer.text


class SkytaleBuyer(Buyer):
    def __init__(self, customer: Customer) -> None:
        super().__init__(customer.world, customer.id)
        self.customer = customer

    @classmethod
    async def new(cls, world: World, name: str) -> SkytaleBuyer:
        return cls(await world.sign_up(name))

    async def tier(self) -> str:
        return await self.customer.plan()

    async def checkout(self) -> str:
        return await self.customer.checkout()

    async def portal(self) -> str:
        return await self.customer.portal()

    async def use(self, units: int) -> None:
        assert (await self.customer.send(units)).status_code == 200

    async def used(self) -> int:
        return int((await self.customer.messages())["used"])


class VatlyBuyer(Buyer):
    def __init__(self, member: Member, account_id: str, user: str) -> None:
        super().__init__(member.world, account_id)
        self.member, self.user = member, user

    @classmethod
    async def new(cls, world: World, name: str) -> VatlyBuyer:
        user = f"user_{name.lower().replace(' ', '_')}"
        member = Member(world, await token(world, user))
        await member.subscription()  # which makes the account
        await member.issue_key()
        query = "SELECT account_id FROM outside_identity WHERE external_id = $1"
        (row,) = await world.rows("billing", query, user)
        return cls(member, row["account_id"], user)

    async def tier(self) -> str:
        return str((await self.member.subscription())["tier"])

    async def checkout(self) -> str:
        return str((await self.member.checkout(BUSINESS)).json()["data"]["url"])

    async def portal(self) -> str:
        return await self.member.portal()

    async def use(self, units: int) -> None:
        assert (await self.member.validate(units)).status_code == 200

    async def used(self) -> int:
        (meter,) = (await self.member.usage())["meters"]
        (quota,) = (limit for limit in meter["limits"] if limit["name"] == "requests_per_month")
        return int(quota["used"])


class ManashikiBuyer(Buyer):
    keeps_past_due = False

    def __init__(self, org: Org) -> None:
        super().__init__(org.world, org.customer.id)
        self.org = org

    @classmethod
    async def new(cls, world: World, name: str) -> ManashikiBuyer:
        return cls(Org(await world.sign_up(name)))

    async def tier(self) -> str:
        return str((await self.org.status())["tier"])

    async def checkout(self) -> str:
        answer = await self.org.call("POST", f"/v1/orgs/{self.org.slug}/billing/checkout")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["url"])

    async def portal(self) -> str:
        answer = await self.org.call("POST", f"/v1/orgs/{self.org.slug}/billing/portal")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["url"])

    async def use(self, units: int) -> None:
        for _ in range(units):
            await self.org.downloaded()

    async def used(self) -> int:
        return int((await self.org.status())["stagingQuotaUsed"])


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
    name = events_pb2.TierChanged.DESCRIPTOR.full_name
    query = "SELECT data FROM outbox WHERE account_id = $1 AND type = $2"
    moves = [
        events_pb2.TierChanged.FromString(row["data"])
        for row in await buyer.world.rows("billing", query, buyer.account_id, name)
    ]
    moves.sort(key=lambda move: move.version)
    return [move.tier for move in moves]


async def mails_of(buyer: Buyer) -> Counter[str]:
    rows = await buyer.world.rows(
        "notify", "SELECT kind FROM messages WHERE account_id = $1 AND state = 'sent'", buyer.account_id
    )
    return Counter(row["kind"] for row in rows)


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
    names = ("Steady", "Recovers", "Never", "Leaver", "Refunded", *(["Mover"] if better else []))
    people = {name: await new(year.world, name) for name in names}
    steady, recovers, never = (people[name] for name in ("Steady", "Recovers", "Never"))
    leaver, refunded, mover = people["Leaver"], people["Refunded"], people.get("Mover")
    began = time.monotonic()
    for person in people.values():
        assert await person.tier() == "free"
        await person.buy()
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
    }
    assert {name: await tiers_of(person) for name, person in people.items()} == {
        name: ["free", *wanted[name]] for name in names
    }
    for name, person in people.items():
        invoices = await person.invoices()
        charged = [invoice for invoice in invoices if invoice["status"] == "paid" and invoice["amount_paid"]]
        mails = await mails_of(person)
        assert mails["receipt"] == len(charged), name
        assert mails["payment_failed"] == (1 if name in {"Recovers", "Never"} else 0), name
        if name == "Steady":
            assert len(charged) == 13, "bought, and renewed twelve times"
            assert len({invoice["amount_paid"] for invoice in charged}) == 1
    assert await violations(year.world.stack) == []
    assert took < _YEAR_IN_S, f"the year took {took:.1f} s"


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
