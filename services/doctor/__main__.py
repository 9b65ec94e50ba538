"""`python -m services.doctor`: one JSON object a line, {check, state, detail, fix}; exit code 1 when one failed."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable
from dataclasses import asdict, replace
from importlib.metadata import version

import structlog

from services.doctor import databases, gateways, mail, sales, streams, surroundings
from services.doctor.finding import Finding, State
from services.doctor.stripes import Stripe
from services.doctor.surroundings import Surroundings

LIMIT_S = 20.0  # of each group of checks; what they connect to has limits of its own, below


async def examine() -> bool:
    """Prints what it finds, in one order, as soon as that order allows. True: nothing failed."""
    around, found = surroundings.read()
    found.append(_versions())
    groups = [("settings", _given(found)), *_groups(around)]
    tasks = [asyncio.create_task(_bounded(name, group)) for name, group in groups]
    healthy = True
    for task in tasks:
        for finding in await task:
            told = replace(finding, detail=around.redacted(finding.detail), fix=around.redacted(finding.fix))
            print(json.dumps(asdict(told), ensure_ascii=False), flush=True)
            healthy &= finding.state is not State.FAIL
    return healthy


def _groups(around: Surroundings) -> list[tuple[str, AsyncIterator[Finding]]]:
    groups: list[tuple[str, AsyncIterator[Finding]]] = []
    billing = around.billing
    if billing is not None:
        catalog, found = sales.read(billing)
        stripe = Stripe(billing)
        groups += [("catalog", _given(found)), ("Stripe", _closing(stripe, stripe.examine(catalog)))]
        if catalog is not None:
            groups.append(("catalog at Stripe", sales.examine(billing, catalog)))
    groups += [(f"database of {name}", databases.examine(name, dsn)) for name, dsn in around.dsns().items()]
    if around.nats_url:
        groups.append(("NATS", streams.examine(around.nats_url)))
    if around.notify is not None:
        groups.append(("mail server", _one(mail.examine(around.notify))))
    if billing is not None:
        groups.append(("gateway", gateways.examine(billing)))
    return groups


async def _bounded(name: str, group: AsyncIterator[Finding]) -> list[Finding]:
    """What a group found, within its time; an error of the doctor's own is a finding, too."""
    found: list[Finding] = []
    try:
        async with asyncio.timeout(LIMIT_S):
            async for finding in group:
                found.append(finding)
    except TimeoutError:
        found.append(Finding.fail(name, f"no answer within {LIMIT_S:g} s", "see that it runs and can be reached"))
    except Exception as error:
        found.append(
            Finding.fail(name, f"{type(error).__name__}: {error}", "this check does not know what to make of it")
        )
    return found


async def _given(found: list[Finding]) -> AsyncIterator[Finding]:
    for finding in found:
        yield finding


async def _one(finding: Awaitable[Finding]) -> AsyncIterator[Finding]:
    yield await finding


async def _closing(stripe: Stripe, group: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    try:
        async for finding in group:
            yield finding
    finally:
        await stripe.close()


def _versions() -> Finding:
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding.ok("versions", f"Python {python}, stripe {version('stripe')}, grpcio {version('grpcio')}")


def main() -> None:
    # Findings are the output; libraries have nothing to add, and might add an address with its password.
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(0 if asyncio.run(examine()) else 1)


if __name__ == "__main__":
    main()
