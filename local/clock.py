"""`python -m local.clock`: moves the business clock of a local installation, one due thing at a time.

Everybody's business clock is wall time plus one offset in a file, which the Stripe sandbox writes (docs/adr/0003). This
process steps it: to the next instant at which the sandbox has something to do, then it waits until webhooks, outboxes,
consumers and mails have drained, and so on. So what comes of one instant has happened before the next one begins, as in
real time. It listens on loopback only; with the real Stripe, whose clock nobody moves, it refuses.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import nats.errors
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from local.drain import Pipes
from local.settings import CLOCK_PORT

_HOST = "127.0.0.1"
LONGEST_S = 3660 * 86_400
DRAIN_S = 30.0  # at one instant; what takes longer is stuck, and stays visible there
_BROKEN = (OSError, httpx.HTTPError, asyncpg.PostgresError, asyncpg.InterfaceError, nats.errors.Error, TimeoutError)

Json = dict[str, Any]


class Refused(Exception):
    """What was asked for cannot be: one sentence for the person."""


def rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Clock:
    """The sandbox's clock, moved for everybody. `env` is the installation's environment."""

    def __init__(self, env: Mapping[str, str]) -> None:
        if env.get("TOLLWAY_LOCAL") != "1":
            raise Refused("the clock moves in local mode only")
        self._env = env
        self._lock = asyncio.Lock()

    def _sandbox(self) -> httpx.AsyncClient:
        base, key = self._env.get("STRIPE_API_BASE"), self._env.get("STRIPE_API_KEY")
        if not base or not key or not self._env.get("TOLLWAY_CLOCK_FILE"):
            raise Refused("this installation uses the real Stripe, whose clock nobody moves; unset STRIPE_API_KEY")
        return httpx.AsyncClient(base_url=base, auth=(key, ""), timeout=60, trust_env=False)

    async def status(self) -> Json:
        """The time, how far it is from wall time, when the next thing falls due, and what is on its way now."""
        async with self._sandbox() as sandbox, Pipes(self._env, sandbox) as pipes:
            told = await _read(sandbox)
            waiting = await pipes.waiting(_instant(told["now"]))
            due = told["next_due"]
            return {
                "now": rfc3339(told["now"]),
                "offset_seconds": told["offset"],
                "next_due": None if due is None else rfc3339(due),
                "waiting": waiting,
            }

    async def advance(self, seconds: int) -> AsyncIterator[Json]:
        """Moves by so many seconds, and yields each instant at which something happened: `now`, and Stripe's `events`.
        The last has `arrived`. Raises Refused where something does not drain; the clock then stands at that instant,
        and another call goes on from there."""
        if self._lock.locked():
            raise Refused("the clock is being moved already")
        async with self._lock, self._sandbox() as sandbox, Pipes(self._env, sandbox) as pipes:
            told = await _read(sandbox)
            to, seen = int(told["now"]) + seconds, await _newest(sandbox)
            await _settle(pipes, told["now"])  # what happened before belongs to before
            arrived = False
            while not arrived:
                due = told["next_due"]
                target = to if due is None or due > to else int(due)
                step = {"seconds": max(0, target - told["now"])}
                answer = await sandbox.post("/_sandbox/clock/advance", json=step)
                if answer.status_code != 200:
                    raise Refused(f"the sandbox could not do what fell due at {rfc3339(target)}; its log says why")
                await _settle(pipes, answer.json()["now"])
                told = await _read(sandbox)  # what drained may have made something new fall due
                events, seen = await _since(sandbox, seen)
                arrived = target == to and (told["next_due"] is None or told["next_due"] > to)
                if events or arrived:
                    yield {
                        "now": rfc3339(told["now"]),
                        "offset_seconds": told["offset"],
                        "events": events,
                        "arrived": arrived,
                    }


async def _read(sandbox: httpx.AsyncClient) -> Json:
    answer = await sandbox.get("/_sandbox/clock")
    answer.raise_for_status()
    told: Json = answer.json()
    return told


def _instant(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


async def _settle(pipes: Pipes, now: int) -> None:
    if waiting := await pipes.drained(_instant(now), DRAIN_S):
        listed = ", ".join(f"{count} {place}" for place, count in waiting.items())
        raise Refused(f"after {DRAIN_S:g} s at {rfc3339(now)} there still wait: {listed}")


async def _newest(sandbox: httpx.AsyncClient) -> str:
    page = (await sandbox.get("/v1/events", params={"limit": 1})).raise_for_status().json()
    return str(page["data"][0]["id"]) if page["data"] else ""


async def _since(sandbox: httpx.AsyncClient, seen: str) -> tuple[list[str], str]:
    """The types of the events after `seen`, oldest first, and the newest id."""
    found: list[Json] = []
    while True:
        asked: dict[str, str] = {"limit": "100"} | ({"ending_before": seen} if seen else {})
        page = (await sandbox.get("/v1/events", params=asked)).raise_for_status().json()
        found += reversed(page["data"])
        seen = found[-1]["id"] if found else seen
        if not page["has_more"] or not page["data"]:
            return [str(event["type"]) for event in found], seen


def application(clock: Clock, port: int) -> Starlette:
    def refused(text: str, status: int) -> JSONResponse:
        return JSONResponse({"error": text}, status)

    async def status(_: Request) -> Response:
        try:
            return JSONResponse(await clock.status(), headers={"Cache-Control": "no-store"})
        except Refused as error:
            return refused(str(error), 409)
        except _BROKEN as error:
            return refused(f"a part does not answer: {type(error).__name__}", 503)

    async def advance(request: Request) -> Response:
        # A web page that a developer visits must not be able to ask, whatever name it has for this machine.
        if request.headers.get("host") not in {f"{_HOST}:{port}", f"localhost:{port}"}:
            return refused("ask at 127.0.0.1", 403)
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return refused("send JSON with Content-Type: application/json", 415)
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError):
            return refused("this is no JSON", 422)
        seconds = body.get("seconds") if isinstance(body, dict) and body.keys() == {"seconds"} else None
        if type(seconds) is not int or not 0 <= seconds <= LONGEST_S:
            return refused(f"seconds: a whole number from 0 to {LONGEST_S} is expected; time moves forward only", 422)

        async def told() -> AsyncIterator[bytes]:
            try:
                async for line in clock.advance(seconds):
                    yield json.dumps(line).encode() + b"\n"
            except Refused as error:
                yield json.dumps({"error": str(error)}).encode() + b"\n"
            except _BROKEN as error:
                yield json.dumps({"error": f"a part does not answer: {type(error).__name__}"}).encode() + b"\n"

        return StreamingResponse(told(), media_type="application/x-ndjson", headers={"Cache-Control": "no-store"})

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[Route("/", status), Route("/advance", advance, methods=["POST"]), Route("/healthz", healthz)]
    )


def main() -> None:
    port = int(os.environ.get("TOLLWAY_CLOCK_PORT") or CLOCK_PORT)
    try:
        clock = Clock(os.environ)
    except Refused as error:
        sys.exit(f"clock: {error}")
    uvicorn.run(
        application(clock, port),
        host=_HOST,
        port=port,
        log_level=os.environ.get("TOLLWAY_LOG_LEVEL", "info").lower(),
        access_log=False,
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
