"""What the stories act with: customers over REST, Stripe's side through the sandbox, the mailbox, the databases."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx

from tests.infra.stack import Stack

T = TypeVar("T")
Json = dict[str, Any]

PROBLEM = "application/problem+json"
PAYS, DECLINED, FAILS_LATER = "4242424242424242", "4000000000000002", "4000000000000341"
# How long a story waits for what others do in the background; what must be quick is measured by the story itself.
PATIENCE_S = 20.0

_ROOT = Path(__file__).parents[2]
_LEAKS = re.compile(
    r"Traceback|File \"|\.py\b|site-packages|asyncpg|sqlalchemy|psycopg|grpc\.|aio_rpc|<class |object at 0x|Exception"
    r"|\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM)\b .*\b(?:FROM|VALUES|SET|WHERE)\b|postgresql|nats://"
    r"|/(?:usr|home|tmp|root|work|etc|var)/|[A-Z]:\\\\",
)


async def until(probe: Callable[[], Awaitable[T]], met: Callable[[T], bool], within: float = PATIENCE_S) -> T:
    """The first answer of `probe` that is `met`. Fails with the last one after `within` seconds."""
    deadline = time.monotonic() + within
    while not met(answer := await probe()):
        assert time.monotonic() < deadline, f"after {within:g} s it is still {answer!r}"
        await asyncio.sleep(0.02)
    return answer


def assert_nothing_inside_shows(response: httpx.Response) -> None:
    """No answer may look like a stack, SQL, or a path of this machine; a refusal is always a problem document."""
    text = response.text
    asked = f"{response.request.method} {response.request.url} → {response.status_code}"
    for secret in (str(_ROOT), os.path.expanduser("~/"), str(Path(os.sys.prefix))):  # type: ignore[attr-defined]
        assert secret not in text, f"{asked} tells a path: {text}"
    for name, value in response.headers.items():
        assert not _LEAKS.search(value), f"{asked} tells too much in {name}: {value}"
    if response.request.url.path == "/openapi.json":
        return
    found = _LEAKS.search(text)
    assert found is None, f"{asked} tells too much ({found[0]!r}): {text}"
    if response.status_code >= 400:
        assert response.headers["content-type"] == PROBLEM, asked
        document = response.json()
        assert document["status"] == response.status_code, asked
        assert {"type", "title", "detail", "instance", "code", "request_id"} <= document.keys(), asked


def rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def month_after(at: int) -> int:
    """One month later at the same day and time; for days that every month has."""
    moment = datetime.fromtimestamp(at, UTC)
    return int(moment.replace(year=moment.year + moment.month // 12, month=moment.month % 12 + 1).timestamp())


def next_middle_of_month(after: int) -> int:
    """Noon of the next 15th, so that a month from it has a day of its own in the next calendar month."""
    moment = datetime.fromtimestamp(after, UTC)
    middle = int(moment.replace(day=15, hour=12, minute=0, second=0, microsecond=0).timestamp())
    return middle if middle > after else month_after(middle)


class World:
    """One test's view of a running system. Close it when done."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.env = stack.env

        async def look(response: httpx.Response) -> None:
            await response.aread()
            assert_nothing_inside_shows(response)

        limits = httpx.Limits(max_connections=256, max_keepalive_connections=256)  # 200 at once are at once
        self.gateway = httpx.AsyncClient(
            base_url=stack.gateway_url, timeout=20, limits=limits, trust_env=False, event_hooks={"response": [look]}
        )
        self.sandbox = httpx.AsyncClient(base_url=stack.sandbox_url, timeout=60, trust_env=False)
        self.mailbox = httpx.AsyncClient(base_url=stack.mailbox_url, timeout=20, trust_env=False)
        self._key = {"Authorization": f"Bearer {self.env['STRIPE_API_KEY']}"}

    async def close(self) -> None:
        for client in (self.gateway, self.sandbox, self.mailbox):
            await client.aclose()

    async def sign_up(self, name: str = "Ada Lovelace") -> Customer:
        email = f"{re.sub('[^a-z]', '', name.lower())}-{uuid.uuid4().hex[:8]}@example.com"
        answer = await self.gateway.post("/v1/signup", json={"email": email, "name": name})
        assert answer.status_code == 201, answer.text
        return Customer(self, email, answer.json()["api_key"], answer.json()["account"])

    async def subscriber(self, name: str = "Ada Lovelace") -> Customer:
        """An account that has paid for pro, whose receipt has arrived."""
        customer = await self.sign_up(name)
        await customer.subscribe()
        return customer

    async def rows(self, service: str, query: str, *values: Any) -> list[Any]:
        connection = await asyncpg.connect(self.dsn(service))
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()

    def dsn(self, service: str) -> str:
        return self.stack.dsn(service).replace("postgresql+asyncpg://", "postgresql://")

    # Stripe's side

    async def stripe(self, method: str, path: str, **form: Any) -> Json:
        """A call to Stripe's API as the account's owner could make it in the dashboard."""
        query, data = (form, None) if method == "GET" else (None, form)
        answer = await self.sandbox.request(method, f"/v1/{path}", params=query, data=data, headers=self._key)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def events(self, customer: str, *types: str) -> list[Json]:
        """What Stripe announced of its customer, oldest first; only of these types, when there are any."""
        found: list[Json] = []
        query: Json = {"limit": 100}
        while True:
            page = await self.stripe("GET", "events", **query)
            found += page["data"]
            if not page["has_more"]:
                break
            query["starting_after"] = found[-1]["id"]
        theirs = [event for event in reversed(found) if event["data"]["object"].get("customer") == customer]
        return [event for event in theirs if not types or event["type"] in types]

    async def knobs(self, **faults: Any) -> None:
        answer = await self.sandbox.put("/_sandbox/faults", json=faults)
        assert answer.status_code == 200, answer.text

    async def drained(self) -> None:
        """Returns when no webhook is on its way any more."""
        answer = await self.sandbox.post("/_sandbox/deliveries/drain", params={"timeout": 30})
        assert answer.json()["drained"], answer.text

    async def now(self) -> int:
        """The business clock, in seconds since 1970."""
        return int((await self.sandbox.get("/_sandbox/clock")).json()["now"])

    async def advance_to(self, to: int) -> None:
        """Moves everybody's business clock, through all that falls due until then."""
        answer = await self.sandbox.post("/_sandbox/clock/advance", json={"to": to})
        assert answer.status_code == 200, answer.text
        await self.drained()

    def sign(self, payload: bytes, *, at: float | None = None, secret: str = "") -> str:
        """The Stripe-Signature header of a payload (https://docs.stripe.com/webhooks#verify-manually)."""
        moment = int(time.time() if at is None else at)
        key = (secret or self.env["STRIPE_WEBHOOK_SECRET"]).encode()
        return f"t={moment},v1={hmac.new(key, f'{moment}.'.encode() + payload, hashlib.sha256).hexdigest()}"

    async def deliver(self, event: Json, *, signature: str | None = None) -> httpx.Response:
        """Hands an event to the gateway as Stripe does."""
        payload = json.dumps(event).encode()
        given = self.sign(payload) if signature is None else signature
        headers = {"Stripe-Signature": given, "Content-Type": "application/json"}
        return await self.gateway.post("/webhooks/stripe", content=payload, headers=headers)

    # Mail

    async def mails(self, to: str, subject: str = "") -> list[Json]:
        """Mails to an address, oldest first, whole: Subject, Text, HTML, To."""
        answer = await self.mailbox.get("/api/v1/search", params={"query": f'to:"{to}"', "limit": 500})
        assert answer.status_code == 200, answer.text
        listed = [mail for mail in reversed(answer.json()["messages"]) if subject in mail["Subject"]]
        return [(await self.mailbox.get(f"/api/v1/message/{mail['ID']}")).json() for mail in listed]


class Customer:
    """An account that a person signed up for, with the key that the answer showed once."""

    def __init__(self, world: World, email: str, key: str, account: Json) -> None:
        self.world = world
        self.email = email
        self.key = key
        self.account = account
        self.id: str = account["id"]
        self._uses = itertools.count()

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def get(self, path: str) -> Json:
        answer = await self.world.gateway.get(path, headers=self.bearer)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return await self.world.gateway.post(path, json=body, headers={**self.bearer, **headers})

    async def billing(self) -> Json:
        return await self.get("/v1/billing")

    async def plan(self) -> str:
        return str((await self.billing())["plan"])

    async def messages(self) -> Json:
        """The meter `messages` as GET /v1/usage shows it: used, limit, remaining, resets_at."""
        (meter,) = (meter for meter in (await self.get("/v1/usage"))["meters"] if meter["meter"] == "messages")
        return dict(meter)

    async def send(self, amount: int = 1, *, token: str = "", key: str = "") -> httpx.Response:
        """Counts messages."""
        headers = {"Authorization": f"Bearer {token or self.key}"} | ({"Idempotency-Key": key} if key else {})
        body = {"meter": "messages", "amount": amount}
        return await self.world.gateway.post("/v1/usage", json=body, headers=headers)

    async def token(self) -> str:
        answer = await self.post("/v1/auth/token")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def checkout(self, tier: str = "pro") -> str:
        answer = await self.post("/v1/billing/checkout", {"tier": tier})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["checkout_url"])

    async def portal(self) -> str:
        answer = await self.post("/v1/billing/portal")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["portal_url"])

    async def pay(self, page: str, card: str = PAYS) -> httpx.Response:
        """Sends the form of the checkout page, or of an invoice's page, as a browser does."""
        form = {"email": self.email, "cardNumber": card, "cardExpiry": "12 / 34", "cardCvc": "123"}
        return await self.world.sandbox.post(page, data=form | {"billingName": "Ada Lovelace"})

    async def subscribe(self) -> None:
        """Pays for pro, and waits until everyone has heard: the key, the quota, the mailbox."""
        answer = await self.pay(await self.checkout())
        assert answer.status_code == 303, answer.text
        await self.becomes("pro")
        await self.receipts(1)

    async def becomes(self, tier: str, within: float = PATIENCE_S) -> Json:
        """Waits until billing and quota both act on the tier; the billing status then."""
        found = await until(self.billing, lambda billing: billing["plan"] == tier, within)
        await until(lambda: self.get("/v1/usage"), lambda usage: usage["tier"] == tier, within)
        return found

    async def receipts(self, count: int) -> list[Json]:
        """Waits for so many receipts."""
        return await until(lambda: self.world.mails(self.email, "receipt"), lambda mails: len(mails) >= count)

    async def stripe_id(self) -> str:
        """Stripe's customer of this account; the account's id is in its metadata."""
        page = await self.world.stripe("GET", "customers", email=self.email)
        assert len(page["data"]) == 1, page
        return str(page["data"][0]["id"])

    async def subscriptions(self) -> list[Json]:
        page = await self.world.stripe("GET", "subscriptions", customer=await self.stripe_id(), status="all")
        return list(page["data"])

    async def invoices(self) -> list[Json]:
        page = await self.world.stripe("GET", "invoices", customer=await self.stripe_id())
        return list(page["data"])
