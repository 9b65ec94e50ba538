"""One account of each product, by the product's own routes, and what a person does on Stripe's pages."""

from __future__ import annotations

from tests.e2e.manashiki import Org
from tests.e2e.vatly import BUSINESS, Member, price_id, token
from tests.e2e.world import PAYS, Customer, Json, World


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

    async def taste(self, days: int) -> None:
        """A trial, as somebody in Stripe's dashboard gives it to who has a card."""
        await self.checkout()  # which makes the customer
        customer = await self.stripe_id()
        await self.world.stripe("POST", f"customers/{customer}", email="ada@example.com")
        card = await self.world.stripe("POST", "payment_methods/pm_card_visa/attach", customer=customer)
        form = {"items[0][price]": await price_id(self.world, BUSINESS), "default_payment_method": card["id"]}
        await self.world.stripe("POST", "subscriptions", customer=customer, trial_period_days=days, **form)

    async def receipts(self) -> list[str] | None:
        """Their texts; None where receipts go to an address that several share."""
        return None

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

    async def receipts(self) -> list[str] | None:
        return [mail["Text"] for mail in await self.world.mails(self.customer.email, "receipt")]

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

    async def end_with_refund(self) -> None:
        """By the policy: within seven days, and before the hundredth download."""
        answer = await self.org.call("POST", f"/v1/orgs/{self.org.slug}/billing/refund")
        assert (answer.status_code, answer.json().get("status")) == (200, "refunded"), answer.text

    async def receipts(self) -> list[str] | None:
        return [mail["Text"] for mail in await self.world.mails(self.org.customer.email, "receipt")]

    async def use(self, units: int) -> None:
        for _ in range(units):
            await self.org.downloaded()

    async def used(self) -> int:
        return int((await self.org.status())["stagingQuotaUsed"])
