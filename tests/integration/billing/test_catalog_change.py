"""Claims about changing the catalog under accounts that exist (DESIGN §3), and about the list of changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from services.billing.application import plans
from services.billing.catalog import load_catalog
from services.billing.events import Announcer
from tests.integration.billing.conftest import Billing

SKYTALE = Path("catalogs/skytale.yaml").read_text()


def with_catalog(billing: Billing, tmp_path: Path, text: str) -> Billing:
    path = tmp_path / "changed.yaml"
    path.write_text(text)
    catalog = load_catalog(path)
    announcer = Announcer(catalog, "http://127.0.0.1:8080")
    return replace(billing, context=replace(billing.context, catalog=catalog, announcer=announcer))


async def test_a_new_number_reaches_exactly_the_accounts_of_its_tier(billing: Billing, tmp_path: Path) -> None:
    free = (await billing.sign_up()).account.id
    paid = (await billing.sign_up("b@example.com")).account.id
    subscription = billing.payments.pay(await billing.check_out(paid))
    await billing.hear_of(subscription.customer_id)
    await billing.settle()
    changed = with_catalog(billing, tmp_path, SKYTALE.replace("1_000_000", "2_000_000"))
    assert await plans.apply_catalog(changed.context) == 1
    assert (await billing.state(free)).entitlement.version == 1
    last = (await billing.announced("EntitlementsChanged"))[-1].entitlements
    assert (last.account_id, last.version, last.limits[0].limit) == (paid, 3, 2_000_000)
    assert await plans.apply_catalog(changed.context) == 0


async def test_a_tier_that_is_not_sold_any_more_is_kept_by_who_has_it(billing: Billing, tmp_path: Path) -> None:
    paid = (await billing.sign_up()).account.id
    subscription = billing.payments.pay(await billing.check_out(paid))
    await billing.hear_of(subscription.customer_id)
    await billing.settle()
    text = SKYTALE.replace("  pro:\n    name: Pro\n", "  pro:\n    name: Pro\n    grandfathered: true\n")
    # The price, too, is sold under another key from now on.
    changed = with_catalog(billing, tmp_path, text.replace("skytale_pro_month", "skytale_pro_2027"))
    await plans.apply_catalog(changed.context)
    await changed.hear_of(subscription.customer_id)
    await changed.settle()
    assert (await billing.state(paid)).entitlement.tier == "pro"


async def test_a_catalog_without_a_tier_that_was_sold_is_found_out(billing: Billing, tmp_path: Path) -> None:
    paid = (await billing.sign_up()).account.id
    subscription = billing.payments.pay(await billing.check_out(paid))
    await billing.hear_of(subscription.customer_id)
    await billing.settle()
    text = SKYTALE.replace("  pro:\n", "  plus:\n").replace("inherits: pro", "inherits: plus")
    assert await plans.missing_tiers(with_catalog(billing, tmp_path, text).context) == {"pro"}


async def test_paging_through_changes_shows_every_account_and_later_only_what_changed(billing: Billing) -> None:
    accounts = {(await billing.sign_up(f"a{n}@example.com")).account.id for n in range(7)}
    seen: set[str] = set()
    token, more = "", True
    while more:
        page = await plans.list_entitlements(3, token, billing.context)
        seen |= {each.account_id for each in page.entitlements}
        token, more = page.next_page_token, page.has_more
    assert seen == accounts
    late = (await billing.sign_up("late@example.com")).account.id
    page = await plans.list_entitlements(0, token, billing.context)
    assert late in {each.account_id for each in page.entitlements}


async def test_unknown_accounts_are_left_out_of_a_batch(billing: Billing) -> None:
    known = (await billing.sign_up()).account.id
    found = await plans.batch_get_entitlements([known, "acct_nobody"], billing.context)
    assert [each.account_id for each in found] == [known]


async def test_the_tables_are_what_the_migrations_make(billing: Billing) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from services.billing.storage.tables import metadata

    async with billing.engine.connect() as connection:
        different = await connection.run_sync(lambda c: compare_metadata(MigrationContext.configure(c), metadata))
    assert different == []
