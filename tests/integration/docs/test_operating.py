"""docs/operating.md: the statements that it shows fit the databases."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import pytest

from tests.infra.servers import Templates

ROOT = Path(__file__).parents[3]
STATEMENT = re.compile(r"-- (billing|quota|notify)[^\n]*\n(.*?)(?=-- (?:billing|quota|notify)|\Z)", re.DOTALL)


def statements() -> list[tuple[str, str]]:
    """Each statement of the page's SQL blocks with the service whose database it is for."""
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "operating.md").read_text(), re.DOTALL)
    found = []
    for block in blocks:
        named = STATEMENT.findall(block)
        assert named, f"which database is this for?\n{block}"
        found += [
            (service, " ".join(each.split())) for service, text in named for each in text.split(";") if each.strip()
        ]
    return found


@pytest.mark.parametrize(("service", "statement"), statements())
async def test_a_statement_of_the_page_runs_on_the_database_that_it_names(
    templates: Templates, service: str, statement: str
) -> None:
    with templates.copy(service) as dsn:
        connection = await asyncpg.connect(dsn.replace("+asyncpg", ""))
        try:
            if statement.startswith("INSERT INTO usage_total"):
                account = (
                    "INSERT INTO account (id, slug, name, email, create_time) VALUES ('acct_…', 'a', 'A', 'a@b', now())"
                )
                await connection.execute(account)
                for _ in range(2):  # the second time it meets the row of the first
                    await connection.execute(statement)
                assert await connection.fetchval("SELECT sent FROM usage_total") == 312
            else:
                await connection.execute(statement)
        finally:
            await connection.close()


def test_the_page_shows_statements_for_every_database() -> None:
    assert {service for service, _ in statements()} == {"billing", "quota", "notify"}
