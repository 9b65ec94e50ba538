"""Stripe's price ids and their tiers, remembered for ever; and ids of single objects at Stripe."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.billing.storage.tables import price_tier, stripe_object


class Prices:
    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def remember(self, price_id: str, lookup_key: str, tier: str, *, on_sale: bool) -> None:
        """Notes the price's tier. With `on_sale` it takes the lookup key over from an older price."""
        if on_sale:
            others = update(price_tier).where(price_tier.c.lookup_key == lookup_key, price_tier.c.price_id != price_id)
            await self._connection.execute(others.values(on_sale=False))
        statement = insert(price_tier).values(price_id=price_id, lookup_key=lookup_key, tier=tier, on_sale=on_sale)
        keep = statement.on_conflict_do_update(
            index_elements=["price_id"], set_={"on_sale": price_tier.c.on_sale | statement.excluded.on_sale}
        )
        await self._connection.execute(keep)

    async def tiers(self, price_ids: Collection[str]) -> dict[str, str]:
        statement = select(price_tier.c.price_id, price_tier.c.tier).where(price_tier.c.price_id.in_(price_ids))
        return {row[0]: row[1] for row in (await self._connection.execute(statement)).all()}

    async def of_lookup_keys(self, lookup_keys: Collection[str]) -> set[str]:
        """Every price id that a lookup key ever named."""
        statement = select(price_tier.c.price_id).where(price_tier.c.lookup_key.in_(lookup_keys))
        return set((await self._connection.execute(statement)).scalars())

    async def on_sale(self) -> dict[str, str]:
        """Lookup key → price id."""
        statement = select(price_tier.c.lookup_key, price_tier.c.price_id).where(price_tier.c.on_sale)
        return {row[0]: row[1] for row in (await self._connection.execute(statement)).all()}

    async def known_tiers(self) -> set[str]:
        return set((await self._connection.execute(select(price_tier.c.tier).distinct())).scalars())

    async def portal_configuration(self) -> str:
        """Empty until the catalog was pushed: Stripe's default applies then."""
        statement = select(stripe_object.c.id).where(stripe_object.c.kind == "portal_configuration")
        return (await self._connection.execute(statement)).scalar_one_or_none() or ""

    async def set_portal_configuration(self, object_id: str) -> None:
        statement = insert(stripe_object).values(kind="portal_configuration", id=object_id)
        await self._connection.execute(statement.on_conflict_do_update(index_elements=["kind"], set_={"id": object_id}))
