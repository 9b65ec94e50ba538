"""`tollway`: the commands, and how they are called."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from tollway.cli import (
    account,
    admin_accounts,
    admin_customers,
    audit,
    billing,
    caps,
    catalog,
    change,
    doctor,
    events,
    events_again,
    invoices,
    keys,
    kill_switch,
    local,
    notify,
    orgs,
    output,
    reconcile,
    refund,
    usage,
)
from tollway.cli import version as release
from tollway.cli.command import current, with_options
from tollway.cli.connection import Org
from tollway.cli.errors import EXIT_CODES, FAILED, INTERRUPTED, USAGE, CliError

app = typer.Typer(
    name="tollway",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
    rich_markup_mode=None,  # rich would cost --help a third of its time, and boxes wrap badly
)


def _group(*, acts_alone: bool = False) -> typer.Typer:
    """A command with subcommands. `acts_alone`: it does something without one."""
    return typer.Typer(
        no_args_is_help=not acts_alone, invoke_without_command=acts_alone, epilog=EXIT_CODES, rich_markup_mode=None
    )


billing_app = _group(acts_alone=True)
orgs_app = _group()
admin_app = _group()
events_app = _group()
keys_app = _group()
caps_app = _group(acts_alone=True)
switch_app = _group(acts_alone=True)
catalog_app = _group()
local_app = _group()
notify_app = _group()


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

    Examples:
      tollway signup ada@example.com --name Ada
      tollway plans
      tollway billing upgrade pro
      tollway usage

    Shell completion: tollway --install-completion
    """


@billing_app.callback()
@with_options
def billing_status(context: typer.Context, org: Org = "") -> None:
    """Show the plan; upgrade, change, cancel; portal, invoices.

    Examples:
      tollway billing
      tollway billing upgrade pro
      tollway billing portal
    """
    current.org = org
    if context.invoked_subcommand is None:
        billing.status()


@orgs_app.callback()
@with_options
def orgs_group() -> None:
    """List and select your accounts; make another one."""


@events_app.callback()
@with_options
def events_group() -> None:
    """Follow what the services announce, and what Stripe sent."""


@keys_app.callback()
@with_options
def keys_group() -> None:
    """List, issue, rotate and revoke API keys."""


@caps_app.callback()
@with_options
def caps_group(context: typer.Context, org: Org = "") -> None:
    """Show, set and clear the caps that an account sets on itself.

    Examples:
      tollway caps
      tollway caps set live_downloads 5000
      tollway caps clear live_downloads
    """
    current.org = org
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

    Examples:
      tollway admin kill-switch
      tollway admin kill-switch on "incident 4711"
      tollway admin kill-switch on "bucket is down" --meter live_downloads
      tollway admin kill-switch off
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
    """See what became of mails; send one again; preview."""


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
    "audit": audit.audit,
    "doctor": doctor.doctor,
    "reconcile": reconcile.reconcile,
}
_BILLING: dict[str, Callable[..., Any]] = {
    "status": billing.status,
    "upgrade": billing.upgrade,
    "portal": billing.portal,
    "preview": change.preview,
    "change": change.change,
    "cancel": change.cancel,
    "resume": change.resume,
    "refund": refund.refund,
    "invoices": invoices.invoices,
}
_ORGS: dict[str, Callable[..., Any]] = {
    "list": orgs.list_orgs,
    "select": orgs.select,
    "create": orgs.create,
    "members": orgs.members,
}
_ADMIN: dict[str, Callable[..., Any]] = {
    "accounts": admin_accounts.accounts,
    "explain": admin_accounts.explain,
    "override": admin_accounts.override,
    "import": admin_customers.import_customers,
    "contact": admin_customers.contact,
    "erase": admin_customers.erase,
    "late-usage": admin_customers.late_usage,
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
for name, function in _ORGS.items():
    orgs_app.command(name, epilog=EXIT_CODES)(with_options(function))
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
events_app.command("republish", epilog=EXIT_CODES)(with_options(events_again.republish))
events_app.command("snapshot", epilog=EXIT_CODES)(with_options(events_again.snapshot))
events_app.command("tail", epilog=EXIT_CODES)(with_options(events.tail))
app.add_typer(billing_app, name="billing")
app.add_typer(orgs_app, name="orgs")
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
        code = app(prog_name="tollway", standalone_mode=False)
    except TyperException as error:
        code = _wrong_usage(error)
    except (typer.Abort, KeyboardInterrupt):
        output.note("")
        code = INTERRUPTED
    except Exception as error:
        if os.environ.get("TOLLWAY_DEBUG"):
            raise
        step = "this is a fault of the program; TOLLWAY_DEBUG=1 shows where"
        output.show_error(CliError(f"{type(error).__name__}: {error}", next_step=step), as_json=_wants_json())
        code = FAILED
    sys.exit(code or 0)


def _wrong_usage(error: TyperException) -> int:
    """What cannot be read as a command, in the form that every other error has."""
    context = getattr(error, "ctx", None)
    told = error.format_message()
    if context is not None and told == context.get_help():  # a group without its subcommand: its help is the answer
        output.note(told)
        return USAGE
    step = f"{context.command_path} --help" if context is not None else "tollway --help"
    output.show_error(CliError(told.rstrip("."), code=USAGE, next_step=step), as_json=_wants_json())
    return USAGE


def _wants_json() -> bool:
    return current.as_json or "--json" in sys.argv[1:]


if __name__ == "__main__":
    main()
