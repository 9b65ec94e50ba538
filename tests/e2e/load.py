"""Customers that sign up, turn keys, use and pay while the system is being hurt, and remember what they were told.

A customer retries what was not answered, with the same Idempotency-Key, as a good client does. An answer other than
the expected one, "not now" or "not in time" is an error of the system, whatever happens to it.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import httpx

from tests.evidence import Told, Use
from tests.infra.stack import Stack

METER = "messages"
PATIENCE_S = 90.0


class Refused(AssertionError):
    """The system gave an answer that no crash excuses."""


@dataclass
class Client:
    """Calls of the gateway and, as a paying browser would, of Stripe."""

    stack: Stack
    told: Told
    random: random.Random
    retries: int = 0

    def __post_init__(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)  # the gateway dies too
        self._gateway = httpx.AsyncClient(
            base_url=self.stack.gateway_url, timeout=8, limits=limits, trust_env=False, follow_redirects=False
        )
        auth = (self.stack.env["STRIPE_API_KEY"], "")
        self._stripe = httpx.AsyncClient(base_url=self.stack.sandbox_url, auth=auth, timeout=30, trust_env=False)

    async def close(self) -> None:
        await self._gateway.aclose()
        await self._stripe.aclose()

    async def ask(
        self, method: str, path: str, want: int, body: Any = None, *, key: str = "", api_key: str = ""
    ) -> Any:
        """The answer's JSON, as soon as there is one. Raises Refused for another status than `want`, 503 or 504."""
        headers = {"Idempotency-Key": key} if key else {}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = await self._gateway.request(method, path, json=body, headers=headers)
            except httpx.TransportError as error:
                said = repr(error)
            else:
                if answer.status_code == want:
                    return answer.json()
                said = f"{answer.status_code} {answer.text}"
                if answer.status_code not in {503, 504}:
                    raise Refused(f"{method} {path}: {said}")
            if time.monotonic() > deadline:
                raise Refused(f"{method} {path}: no answer for {PATIENCE_S:.0f} s, last {said}")
            self.retries += 1
            await asyncio.sleep(self.random.uniform(0.05, 0.3))  # a client's backoff

    async def sign_up(self, name: str) -> tuple[str, str]:
        """The account's id and its API key."""
        body = {"email": f"{name}@example.com", "name": name}
        made = await self.ask("POST", "/v1/signup", 201, body, key=f"signup-{name}")
        account_id, api_key = made["account"]["id"], made["api_key"]
        self.told.keys[account_id] = api_key
        self.told.tiers[account_id] = "free"
        return account_id, api_key

    async def turn_keys(self, name: str, account_id: str, api_key: str) -> None:
        """Issues a key, rotates it without an overlap, and revokes the new one: both have ended then."""
        (org,) = (await self.ask("GET", "/v1/orgs", 200, api_key=api_key))["orgs"]
        path, body = f"/v1/orgs/{org['slug']}/keys", {"kind": "live", "name": name}
        made = await self.ask("POST", path, 201, body, key=f"issue-{name}", api_key=api_key)
        again = f"{path}/{made['id']}/rotate"
        turned = await self.ask("POST", again, 201, {"overlap_seconds": 0}, key=f"rotate-{name}", api_key=api_key)
        gone = await self.ask("DELETE", f"{path}/{turned['id']}", 200, api_key=api_key)
        if gone["status"] != "revoked":
            raise Refused(f"a key was revoked and is {gone}")
        self.told.ended |= {made["api_key"]: account_id, turned["api_key"]: account_id}

    async def use(self, account_id: str, api_key: str, key: str) -> None:
        amount = self.random.randint(1, 5)
        body = {"meter": METER, "amount": amount}
        counted = await self.ask("POST", "/v1/usage", 200, body, key=key, api_key=api_key)
        if counted["amount"] != amount or counted["meter"] != METER:
            raise Refused(f"asked for {amount} {METER}, was told {counted}")
        self.told.uses.append(Use(account_id, key, METER, amount))

    async def check_out(self, api_key: str) -> str:
        """The id of the session that the checkout page shows."""
        body = {"tier": "pro"}
        answer = await self.ask("POST", "/v1/billing/checkout", 200, body, api_key=api_key)
        return str(answer["checkout_url"]).rpartition("/")[2]

    async def pay(self, account_id: str, session: str, card: str = "tok_visa") -> bool:
        """Pays as Stripe's page does. False when the card was declined."""
        form = {"type": "card", "card[token]": card}
        method = (await self._stripe.post("/v1/payment_methods", data=form)).raise_for_status().json()
        answer = await self._stripe.post(f"/v1/payment_pages/{session}/confirm", data={"payment_method": method["id"]})
        if answer.status_code == 402:
            return False
        answer.raise_for_status()
        self.told.tiers[account_id] = "pro"
        return True

    async def plan(self, api_key: str) -> str:
        return str((await self.ask("GET", "/v1/billing", 200, api_key=api_key))["plan"])

    async def limit(self, api_key: str) -> int:
        """The limit that quota enforces now."""
        usage = await self.ask("GET", "/v1/usage", 200, api_key=api_key)
        return int(usage["meters"][0]["limit"])


async def live(client: Client, name: str, *, pays: bool = True, declined: bool = False, uses: int = 4) -> str:
    """One customer's life; returns the account's id."""
    account_id, api_key = await client.sign_up(name)
    await client.turn_keys(name, account_id, api_key)
    for number in range(uses):
        await client.use(account_id, api_key, f"{name}-before-{number}")
    if pays:
        session = await client.check_out(api_key)
        if declined and await client.pay(account_id, session, "tok_chargeDeclined"):
            raise Refused("a declined card paid")
        if not await client.pay(account_id, session):
            raise Refused("a good card was declined")
    for number in range(uses):
        await client.use(account_id, api_key, f"{name}-after-{number}")
    return account_id
