"""`tollway`: the commands, and how they are called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from tollway.cli import (
    account,
    admin_accounts,
    billing,
    caps,
    catalog,
    change,
    events,
    keys,
    kill_switch,
    local,
    notify,
    output,
    reconcile,
    refund,
    usage,
)
from tollway.cli import version as release
from tollway.cli.command import with_options
from tollway.cli.errors import EXIT_CODES, FAILED

app = typer.Typer(
    name="tollway",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
    rich_markup_mode=None if os.environ.get("NO_COLOR") else "rich",
)
billing_app = typer.Typer(invoke_without_command=True, epilog=EXIT_CODES)
admin_app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)
events_app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)
keys_app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)
caps_app = typer.Typer(invoke_without_command=True, epilog=EXIT_CODES)
switch_app = typer.Typer(invoke_without_command=True, epilog=EXIT_CODES)
catalog_app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)
local_app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)
notify_app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)


def _version(wanted: bool) -> None:
    if wanted:
        output.out(f"tollway {release()}")
        raise typer.Exit


@app.callback()
@with_options
def tollway(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Plans, billing and usage from the command line.

    Start with: tollway signup EMAIL --name NAME, then tollway plans, then tollway billing upgrade TIER.
    """


@billing_app.callback()
@with_options
def billing_status(context: typer.Context) -> None:
    """Show the plan, its status, and when it renews or ends; upgrade; open the portal."""
    if context.invoked_subcommand is None:
        billing.status()


@events_app.callback()
@with_options
def events_group() -> None:
    """Follow what the services announce."""


@keys_app.callback()
@with_options
def keys_group() -> None:
    """List, issue, rotate and revoke API keys."""


@caps_app.callback()
@with_options
def caps_group(context: typer.Context) -> None:
    """Show, set and clear the caps that the account sets on itself.

    Examples: tollway caps, tollway caps set live_downloads 5000, tollway caps clear live_downloads
    """
    if context.invoked_subcommand is None:
        caps.show()


@admin_app.callback()
@with_options
def admin_group() -> None:
    """What operators do, with TOLLWAY_OPERATOR_TOKEN."""


@switch_app.callback()
@with_options
def switch_group(context: typer.Context) -> None:
    """Show, throw and release kill switches.

    Examples: tollway admin kill-switch, … on "incident 4711", … off, … on "bucket is down" --meter live_downloads
    """
    if context.invoked_subcommand is None:
        kill_switch.show()


@catalog_app.callback()
@with_options
def catalog_group() -> None:
    """Check a price list, and put it on sale at Stripe."""


@notify_app.callback()
@with_options
def notify_group() -> None:
    """See what became of mails, send one again, look at them before customers do."""


@local_app.callback()
@with_options
def local_group() -> None:
    """What only an installation on this machine can do."""


_COMMANDS: dict[str, Callable[..., Any]] = {
    "signup": account.signup,
    "login": account.login,
    "logout": account.logout,
    "whoami": account.whoami,
    "token": account.token,
    "plans": usage.plans,
    "usage": usage.usage,
    "reconcile": reconcile.reconcile,
}
_BILLING: dict[str, Callable[..., Any]] = {
    "upgrade": billing.upgrade,
    "portal": billing.portal,
    "preview": change.preview,
    "change": change.change,
    "cancel": change.cancel,
    "resume": change.resume,
    "refund": refund.refund,
}
_ADMIN: dict[str, Callable[..., Any]] = {
    "accounts": admin_accounts.accounts,
    "explain": admin_accounts.explain,
    "override": admin_accounts.override,
}
_CAPS: dict[str, Callable[..., Any]] = {"set": caps.set_cap, "clear": caps.clear}
_SWITCH: dict[str, Callable[..., Any]] = {"on": kill_switch.on, "off": kill_switch.off}
_KEYS: dict[str, Callable[..., Any]] = {
    "list": keys.list_keys,
    "issue": keys.issue,
    "rotate": keys.rotate,
    "revoke": keys.revoke,
}
_LOCAL: dict[str, Callable[..., Any]] = {"token": local.token, "advance": local.advance, "status": local.status}
_NOTIFY: dict[str, Callable[..., Any]] = {
    "list": notify.list_messages,
    "show": notify.show,
    "resend": notify.resend,
    "preview": notify.preview,
}
for name, function in _COMMANDS.items():
    app.command(name, epilog=EXIT_CODES)(with_options(function))
for name, function in _BILLING.items():
    billing_app.command(name, epilog=EXIT_CODES)(with_options(function))
for name, function in _ADMIN.items():
    admin_app.command(name, epilog=EXIT_CODES)(with_options(function))
for name, function in _KEYS.items():
    keys_app.command(name, epilog=EXIT_CODES)(with_options(function))
for name, function in _CAPS.items():
    caps_app.command(name, epilog=EXIT_CODES)(with_options(function))
for name, function in _SWITCH.items():
    switch_app.command(name, epilog=EXIT_CODES)(with_options(function))
events_app.command("list", epilog=EXIT_CODES)(with_options(reconcile.list_events))
events_app.command("show", epilog=EXIT_CODES)(with_options(reconcile.show))
events_app.command("replay", epilog=EXIT_CODES)(with_options(reconcile.replay))
events_app.command("tail", epilog=EXIT_CODES)(with_options(events.tail))
app.add_typer(billing_app, name="billing")
app.add_typer(keys_app, name="keys")
app.add_typer(caps_app, name="caps")
admin_app.add_typer(switch_app, name="kill-switch")
app.add_typer(admin_app, name="admin")
for name, function in {"check": catalog.check, "push": catalog.push}.items():
    catalog_app.command(name, epilog=EXIT_CODES)(with_options(function))
for name, function in _LOCAL.items():
    local_app.command(name, epilog=EXIT_CODES)(with_options(function))
for name, function in _NOTIFY.items():
    notify_app.command(name, epilog=EXIT_CODES)(with_options(function))
app.add_typer(notify_app, name="notify")
app.add_typer(catalog_app, name="catalog")
app.add_typer(local_app, name="local")
app.add_typer(events_app, name="events")


def main() -> None:
    """The console script."""
    try:
        app()
    except Exception as error:
        if os.environ.get("TOLLWAY_DEBUG"):
            raise
        output.note(f"error: {type(error).__name__}: {output.plain(error)}")
        output.note("next:  this is a fault of the program; TOLLWAY_DEBUG=1 shows where")
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
