"""`python -m local.up`: the whole system on 127.0.0.1, in the foreground. Ctrl-C stops it. `make run` is this."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import yaml

from local import settings as local_settings
from local.parts import all_parts
from local.ports import is_free, reserve
from local.settings import CLERK_PORT, CLOCK_PORT, LocalSettings, SettingsError
from local.state import State, StateError, default_folder
from local.supervisor import Fatal, Supervisor, stop_signals

_BEGAN = time.monotonic()


def main() -> int:
    state = State(default_folder())
    try:
        state.hold()
        settings = local_settings.load(state, _given())
    except (StateError, SettingsError) as error:
        print(f"tollway cannot start: {error}", file=sys.stderr)
        return 1
    return asyncio.run(_run(settings, state))


def _given() -> dict[str, str]:
    """The environment. A second installation need not know of a stand-in that it may never use: that one gives way."""
    given = dict(os.environ)
    for variable, port in (("TOLLWAY_CLERK_PORT", CLERK_PORT), ("TOLLWAY_CLOCK_PORT", CLOCK_PORT)):
        if not given.get(variable) and not is_free(port):
            given[variable] = str(reserve())
    return given


async def _run(settings: LocalSettings, state: State) -> int:
    environment = local_settings.process_environment(settings)
    state.write_env({**settings.environment, "TOLLWAY_API_URL": settings.gateway_url})
    supervisor = Supervisor(
        all_parts(settings, state),
        environment,
        state,
        max_deaths=settings.max_deaths,
        longest_delay_s=settings.longest_delay_s,
    )
    asked = asyncio.Event()
    asked_at = 0.0

    def on_signal() -> None:
        nonlocal asked_at
        if not asked.is_set():
            asked_at = time.monotonic()
        elif time.monotonic() - asked_at > 1:  # sooner, it is the same wish: make passes on what its group got
            supervisor.kill()
        asked.set()

    loop = asyncio.get_running_loop()
    for number in stop_signals():
        loop.add_signal_handler(number, on_signal)

    supervisor.say(f"tollway: catalog {settings.catalog}, state and logs in {state.folder}")
    working = asyncio.create_task(_work(supervisor, settings))
    stopping = asyncio.create_task(asked.wait())
    failure: str | None = None
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    except Fatal as error:
        failure = str(error)
    finally:
        began = time.monotonic()
        if failure is None:
            supervisor.say("\nstopping …")
        stopping.cancel()
        working.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
        await supervisor.stop()
    if failure is not None:
        print(f"tollway stopped: {failure}", file=sys.stderr, flush=True)
        return 1
    supervisor.say(f"stopped after {time.monotonic() - began:.1f} s; the state is kept in {state.folder}")
    return 0


async def _work(supervisor: Supervisor, settings: LocalSettings) -> None:
    await supervisor.start()
    supervisor.say(f"\nready after {time.monotonic() - _BEGAN:.1f} s\n\n{_next_steps(settings)}")
    await supervisor.watch()


def _next_steps(settings: LocalSettings) -> str:
    api = settings.gateway_url
    mailbox = f"http://127.0.0.1:{settings.ports['mailbox']}"
    if settings.real_stripe:
        stripe = f"  stripe listen --forward-to {api}/webhooks/stripe   brings the real Stripe's events here"
    else:
        sandbox = f"http://127.0.0.1:{settings.ports['sandbox']}"
        stripe = f"  {sandbox}   the Stripe sandbox; 4242 4242 4242 4242 pays, 4000 0000 0000 0002 is declined"
    return f"""\
  {api}   the API; {api}/docs describes it
  {api}/dash   the billing page; the link to sign in arrives as a mail
  {mailbox}   every mail that is sent
{stripe}

Try it, by the CLI:

  export TOLLWAY_API_URL={api}
  .venv/bin/tollway signup bob@example.com --name Bob
  .venv/bin/tollway billing upgrade {_sold_tier(settings.catalog)}
  .venv/bin/tollway billing

or with curl:

  curl -s {api}/v1/signup -H 'Content-Type: application/json' \\
    -d '{{"email": "ada@example.com", "name": "Ada"}}'
  export KEY=…   # the api_key of the answer
  curl -s {api}/v1/billing -H "Authorization: Bearer $KEY"
  curl -s {api}/v1/billing/checkout -H "Authorization: Bearer $KEY" \\
    -H 'Content-Type: application/json' -d '{{"tier": "{_sold_tier(settings.catalog)}"}}'
  curl -s {api}/v1/usage -H "Authorization: Bearer $KEY"
  curl -s {api}/v1/orgs -H "Authorization: Bearer $KEY"   # its slug; then /v1/orgs/SLUG/keys, /members, /audit-log
{_outside(settings)}{_time(settings)}
Ctrl-C stops everything."""


def _sold_tier(catalog: Path) -> str:
    """The first tier with a price. The catalog has been checked by billing."""
    tiers = yaml.safe_load(catalog.read_text())["tiers"]
    return next((name for name, tier in tiers.items() if tier.get("prices")), "TIER")


def _outside(settings: LocalSettings) -> str:
    if not settings.clerk_is_ours:
        return ""
    issuer = settings.environment["TOLLWAY_CLERK_ISSUER"]
    return f"""
or as somebody whom an identity provider vouches for:

  export TOLLWAY_CLERK_ISSUER={issuer}
  curl -s {settings.gateway_url}/v1/orgs -H "Authorization: Bearer $(.venv/bin/tollway local token --org acme)"
"""


def _time(settings: LocalSettings) -> str:
    if settings.real_stripe:
        return ""
    return f"""
or next month, for everybody here:

  export TOLLWAY_CLOCK_PORT={settings.ports["clock"]}
  .venv/bin/tollway local advance 35d
"""


if __name__ == "__main__":
    sys.exit(main())
