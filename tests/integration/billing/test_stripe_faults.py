"""Stripe answers 429 or 5xx, or not at all, during any call of ours: a clear refusal, nothing half made, and the next
try goes through. Each story is played once in calm, which tells its calls, and then with each fault at each call."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import stripe

from services.billing.application import (
    plans,
    refunds,
    subscriptions,
)
from services.billing.errors import StripeUnavailable
from tests.infra.processes import Sandbox, running_sandbox
from tests.infra.servers import Templates
from tests.integration.billing.at_sandbox import Shop, open_shop
from tests.integration.billing.stripe_stories import (
    DEEP,
    FAULTS,
    STORIES,
    Story,
    checks_out,
    newcomer,
    one_customer_and_one_page,
)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the library's tries, and for syncs and others that these tests run by hand."""
    monkeypatch.setattr(stripe.HTTPXClient, "_sleep_time_seconds", lambda self, tries: 0.001)
    monkeypatch.setattr(subscriptions, "WAIT", timedelta(0))
    monkeypatch.setattr(refunds, "WAIT", timedelta(0))


@pytest.fixture(scope="module")
def installations(
    templates: Templates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], tuple[Sandbox, str]]]:
    """A sandbox and a database for each catalog, made when they are first needed."""
    with ExitStack() as stack:

        @cache
        def made(catalog: str) -> tuple[Sandbox, str]:
            sandbox = stack.enter_context(running_sandbox(tmp_path_factory.mktemp(Path(catalog).stem)))
            return sandbox, stack.enter_context(templates.copy("billing"))

        yield made


@asynccontextmanager
async def opened(
    installations: Callable[[str], tuple[Sandbox, str]], catalog: str, **settings: float
) -> AsyncIterator[Shop]:
    sandbox, dsn = installations(catalog)
    async with open_shop(dsn, sandbox, catalog, **settings) as shop:
        await plans.push_catalog(shop.context)
        try:
            yield shop
        finally:
            await shop.faults()


async def _calls(shop: Shop, story: Story) -> list[str]:
    """What the story asks Stripe, in order."""
    account_id = await story.begin(shop)
    shop.payments.made.clear()
    await story.act(shop, account_id)
    made = list(shop.payments.made)
    await story.holds(shop, account_id)
    return made


_ASKED: set[str] = set()  # by the stories that were played
_PLAYED: set[str] = set()


@pytest.mark.parametrize("name", STORIES)
async def test_a_fault_at_any_call_is_a_clear_refusal_and_the_next_try_goes_through(
    installations: Callable[[str], tuple[Sandbox, str]], name: str
) -> None:
    story = STORIES[name]
    async with opened(installations, story.catalog) as shop:
        calls = await _calls(shop, story)
        assert calls, "nothing is asked of Stripe: nothing is tested"
        _PLAYED.add(name)
        _ASKED.update(calls)
        for (number, call), fault in itertools.product(enumerate(calls), FAULTS if DEEP else story.faults):
            if not DEEP and len(calls) > 15 and number % 3:
                continue  # a push looks and makes the same way for each thing
            print(f"{fault} at {call}")
            account_id = await story.begin(shop)
            await shop.faults(FAULTS[fault] | {"skip": number})
            with suppress(StripeUnavailable):  # any other error is no clear refusal
                await story.act(shop, account_id)
            await shop.faults()
            await shop.delays_are_over()
            await story.act(shop, account_id)
            await story.holds(shop, account_id)
            _ASKED.update(shop.payments.made)


@pytest.mark.parametrize("after", [False, True])
async def test_a_stripe_that_never_answers_is_told_before_the_callers_patience_ends(
    installations: Callable[[str], tuple[Sandbox, str]], after: bool
) -> None:
    async with opened(installations, "vatly.yaml", patience_s=1.5) as shop:
        account_id = await newcomer(shop)
        for path in ("/v1/customers", "/v1/checkout/sessions"):
            await shop.faults({"status": "hang", "path": path, "after": after})
            with pytest.raises(StripeUnavailable):
                await shop.check_out(account_id, "business")
            await shop.faults()
        await one_customer_and_one_page(shop, account_id)


async def test_a_customer_that_a_failed_attempt_made_all_the_same_is_found(
    installations: Callable[[str], tuple[Sandbox, str]],
) -> None:
    async with opened(installations, "vatly.yaml") as shop:
        account_id = await newcomer(shop)
        await shop.faults({"status": 500, "path": "/v1/customers"})
        with pytest.raises(StripeUnavailable):
            await shop.check_out(account_id, "business")
        await shop.faults()
        async with shop.context.unit_of_work() as uow:
            email = (await uow.accounts.get(account_id)).email
        made = await shop.post("customers", email=email, **{"metadata[tollway_account_id]": account_id})
        await shop.check_out(account_id, "business")
        assert await shop.customer(account_id) == made["id"]
        await one_customer_and_one_page(shop, account_id)


async def test_an_email_that_changed_between_two_tries_stops_nobody_from_buying(
    installations: Callable[[str], tuple[Sandbox, str]],
) -> None:
    async with opened(installations, "vatly.yaml") as shop:
        account_id = await newcomer(shop)
        await shop.faults({"status": "cut", "path": "/v1/customers", "next": 3, "after": True})
        with pytest.raises(StripeUnavailable):
            await shop.check_out(account_id, "business")
        await shop.faults()
        async with shop.context.unit_of_work() as uow:
            await uow.connection.exec_driver_sql(
                f"UPDATE account SET name = 'Countess Lovelace' WHERE id = '{account_id}'"
            )
            await uow.commit()
        with pytest.raises(StripeUnavailable):  # the key stands for the call with the old name
            await shop.check_out(account_id, "business")
        await checks_out(shop, account_id)
        await one_customer_and_one_page(shop, account_id)


def _calls_of_ours() -> set[str]:
    """Every call that the code names."""
    found: set[str] = set()
    for file in Path("services/billing").glob("stripe*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"_call", "_change", "_pages"}:
                names = [each.value for each in node.args[:2] if isinstance(each, ast.Constant)]
                found |= {str(name) for name in names if re.fullmatch(r"[a-z_.]+", str(name))}
    return found


def test_the_stories_make_every_call_of_ours() -> None:
    if STORIES.keys() != _PLAYED:
        pytest.skip("it needs all the stories of this file to be played before")
    assert _calls_of_ours() - _ASKED == set()
