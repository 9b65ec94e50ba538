"""docs/operating.md, "Backup and restore", gone through: billing's database comes back from before."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import asyncpg

from local import postgres as local_postgres
from local.blocking import run_apart
from tests.e2e.world import Customer, World, until
from tests.infra.servers import running_nats
from tests.infra.stack import Stack, running_stack

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()


def shown(first_words: str) -> str:
    """A line of the page's shell blocks."""
    lines = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    (found,) = [line for line in lines if line.startswith(first_words)]
    return found


def by_hand(line: str, stack: Stack, folder: Path) -> None:
    """Runs a line of the page on billing's database, with PostgreSQL's own programs."""
    environment = {
        "PATH": f"{local_postgres.binaries()}:/usr/bin:/bin",
        "BILLING_URL": stack.dsn("billing").replace("+asyncpg", ""),
    }
    done = subprocess.run(["sh", "-ec", line], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def statement(stack: Stack, sql: str) -> None:
    connection = await asyncpg.connect(stack.dsn("billing").replace("+asyncpg", ""))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def before(stack: Stack) -> tuple[Customer, Customer]:
    """One who has paid, and one who has not."""
    world = World(stack)
    try:
        return await world.subscriber(), await world.sign_up("Grace Hopper")
    finally:
        await world.close()


async def since(stack: Stack, payer: Customer, free: Customer) -> Customer:
    """What a restore to before this will lose or find again: an end, a payment, a new account."""
    world = World(stack)
    try:
        for each in (payer, free):
            each.world = world
        (subscription,) = await payer.subscriptions()
        for flag in (True, False):  # versions that quota sees, and that the restored database has to come to again
            await world.stripe("POST", f"subscriptions/{subscription['id']}", cancel_at_period_end=str(flag).lower())
            await until(payer.billing, lambda billing, flag=flag: billing["cancel_at_period_end"] is flag)
        await world.stripe("DELETE", f"subscriptions/{subscription['id']}")
        await payer.becomes("free")
        await free.subscribe()
        return await world.sign_up("Too Late")
    finally:
        await world.close()


async def afterwards(stack: Stack, payer: Customer, free: Customer, late: Customer) -> None:
    world = World(stack)
    try:
        for each in (payer, free, late):
            each.world = world
        operator = {"Authorization": f"Bearer {stack.operator_token}"}
        repaired = await world.gateway.post("/v1/operator/reconcile", json={"dry_run": False}, headers=operator)
        assert repaired.status_code == 200, repaired.text
        await payer.becomes("free")
        await payer.subscribe()  # quota has seen higher versions than the backup had
        await free.becomes("pro")
        lost = await world.gateway.get("/v1/billing", headers=late.bearer)
        assert lost.status_code == 401
        assert len(await world.mails(free.email, "receipt")) == 1  # the invoice was announced anew, and mailed once
    finally:
        await world.close()


def test_a_billing_database_from_before_follows_stripe_again_and_quota_believes_it(
    postgres: str, tmp_path: Path
) -> None:
    with running_nats(tmp_path) as nats, running_stack(tmp_path, postgres=postgres, nats=nats) as stack:
        payer, free = run_apart(before(stack))
        by_hand(shown("pg_dump "), stack, tmp_path)
        late = run_apart(since(stack, payer, free))
        stack.stop()
        by_hand(shown("pg_restore "), stack, tmp_path)
        (ahead,) = re.findall(r"-- billing\n\s*(UPDATE entitlement [^;]*;)", PAGE)
        run_apart(statement(stack, ahead))
        stack.start()
        run_apart(afterwards(stack, payer, free, late))
