"""admin import, contact, erase, late-usage: with the operator's token, from TOLLWAY_OPERATOR_TOKEN."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tollway.cli import output
from tollway.cli.admin_accounts import account_id, operator_api
from tollway.cli.api import Api
from tollway.cli.command import current
from tollway.cli.errors import USAGE, CliError

_Account = Annotated[str, typer.Argument(metavar="ACCOUNT", help="Its id (acct_…), or anything that finds only it.")]
_LATER = "Stripe does not answer right now; it is told as soon as it does."


def import_customers(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")] = False,
    customer: Annotated[str, typer.Option("--customer", metavar="CUS_ID", help="Only this one.")] = "",
    account: Annotated[
        str, typer.Option("--account", metavar="ACCOUNT", help="With --customer: bind it to this account.")
    ] = "",
    separate: Annotated[
        bool, typer.Option("--separate", help="With --customer: an account of its own, whatever was unclear.")
    ] = False,
    issuer: Annotated[
        str, typer.Option("--issuer", metavar="URL", help="With --identity-key: accounts belong to its identities.")
    ] = "",
    identity_key: Annotated[
        str, typer.Option("--identity-key", metavar="NAME", help="The metadata at Stripe that names the identity.")
    ] = "",
    after: Annotated[str, typer.Option("--after", metavar="TOKEN", help="Go on where an earlier run stopped.")] = "",
) -> None:
    """Make accounts for customers who subscribe at Stripe.

    Running it again makes no second one.

    Examples:
      tollway admin import --dry-run
      tollway admin import --customer cus_… --account acct_…
      tollway admin import --issuer https://id.example.com --identity-key org_id
    """
    found: dict[str, dict[str, Any]] = {}
    token: str | None = after or None
    with operator_api() as api:
        bound = account_id(api, account) if account else None
        try:
            while True:
                body: dict[str, Any] = {"dry_run": dry_run, "page_token": token, "customer_id": customer or None}
                body |= {"account_id": bound, "separate": separate}
                body |= {"issuer": issuer or None, "identity_key": identity_key or None}
                page = api.post("/v1/operator/import", body)
                for each in page["customers"]:
                    found.setdefault(each["customer_id"], each)  # one whose subscriptions lie on two pages is on both
                token = page["next_page_token"]
                if not token:
                    break
                _progress(f"{len(found)} customers")
        except (CliError, KeyboardInterrupt):
            _done_with_progress()
            _show(list(found.values()), dry_run)
            if token:
                output.note(f"It stopped. Go on with: tollway admin import --after {output.plain(token)}")
            raise
    _done_with_progress()
    _show(list(found.values()), dry_run)


def contact(
    account: _Account, email: Annotated[str, typer.Argument(help="Where its mail is to go from now on.")]
) -> None:
    """Change where an account's mail goes.

    Its customer at Stripe gets the address too.

    Example:
      tollway admin contact acct_… billing@example.com
    """
    with operator_api() as api:
        done = api.put(f"/v1/operator/accounts/{account_id(api, account)}/contact", {"email": email})
    if current.as_json:
        output.out_json(done)
        return
    output.out(f"Mail of {output.plain(done['id'])} goes to {output.plain(done['email'])}.")
    if not done["stripe_done"]:
        output.note(_LATER)


def erase(
    account: _Account,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase the personal data of an account, here and at Stripe. There is no way back.

    Ids, amounts and times of invoices stay. End its subscription first.

    Example:
      tollway admin erase acct_…
    """
    with operator_api() as api:
        chosen = account_id(api, account)
        shown = api.get(f"/v1/operator/accounts/{chosen}")["account"]
        if not yes:
            _confirm(shown)
        done = api.post(f"/v1/operator/accounts/{chosen}/erase")
    if current.as_json:
        output.out_json(done)
        return
    output.out(f"The personal data of {output.plain(done['id'])} was erased at {output.plain(done['erased_at'])}.")
    if shown["stripe_customer_id"]:
        state = "is deleted" if done["stripe_done"] else f"is still to be deleted: {_LATER}"
        output.out(f"Customer {output.plain(shown['stripe_customer_id'])} at Stripe {state}")
        output.note(
            "Stripe keeps invoices and payments with the names on them: for those, start a redaction job there."
        )


def late_usage(
    account: Annotated[str, typer.Option("--account", metavar="ACCOUNT", help="Only this one's.")] = "",
) -> None:
    """List use that came too late for its period's invoice.

    It reached Stripe after that invoice was final, and is on the next one.

    Example:
      tollway admin late-usage
    """
    with operator_api() as api:
        chosen = account_id(api, account) if account else ""
        found = api.get(f"/v1/operator/late-usage?account_id={quote(chosen)}")
    if current.as_json:
        output.out_json(found)
        return
    if not found["usage"]:
        output.out("No use came late.")
        return
    rows = [
        (
            each["account_id"],
            each["meter"],
            each["period_start"],
            each["period_end"],
            output.number(each["used"]),
            output.number(each["sent"]),
        )
        for each in found["usage"]
    ]
    output.table(("ACCOUNT", "METER", "PERIOD START", "PERIOD END", "USED", "SENT"), rows, right=frozenset({4, 5}))


def _show(found: list[dict[str, Any]], dry_run: bool) -> None:
    if current.as_json:
        output.out_json({"customers": found})
        return
    rows = []
    for each in found:
        said = each["message"] or ""
        if each["unknown_price_ids"]:
            said = f"The catalog does not know its price {', '.join(each['unknown_price_ids'])}: no tier yet."
        outcome = each["outcome"].replace("_", " ")
        if dry_run and each["outcome"] == "imported":
            outcome = "would be imported"
        rows.append((each["customer_id"], each["email"] or "-", outcome, each["account_id"] or "-", said))
    if rows:
        output.table(("CUSTOMER", "EMAIL", "OUTCOME", "ACCOUNT", ""), rows)
    counts = {name: sum(each["outcome"] == name for each in found) for name in ("imported", "already_ours", "skipped")}
    done = "would be imported" if dry_run else "imported"
    output.out(f"{counts['imported']} {done}, {counts['already_ours']} already ours, {counts['skipped']} skipped.")


def _confirm(shown: dict[str, Any]) -> None:
    """Raises CliError unless a person at a terminal types the account's slug."""
    if not sys.stdin.isatty():
        raise CliError("this cannot be undone, and there is nobody to ask", code=USAGE, next_step="repeat with --yes")
    told = f"{output.plain(shown['id'])}, {output.plain(shown['name'])}, {output.plain(shown['email'] or 'no address')}"
    output.note(f"This erases the personal data of {told} for good.")
    if typer.prompt(f"Type {output.plain(shown['slug'])} to go on", err=True).strip() != shown["slug"]:
        raise CliError("nothing was erased", code=USAGE)


def _progress(text: str) -> None:
    """Where a person looks on, one line that is written over; else nothing."""
    if sys.stderr.isatty() and not current.as_json:
        sys.stderr.write(f"\r{text} …")
        sys.stderr.flush()


def _done_with_progress() -> None:
    if sys.stderr.isatty() and not current.as_json:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def pages(api: Api, path: str, body: dict[str, Any], counted: str) -> int:
    """Asks page after page; how many of `counted` there were in all."""
    total = 0
    token: str | None = None
    while True:
        page = api.post(path, body | {"page_token": token})
        total += int(page[counted])
        token = page["next_page_token"]
        if not token:
            _done_with_progress()
            return total
        _progress(f"{total} {counted}")


def checked_time(text: str) -> str | None:
    """An RFC 3339 time, or a day as its first moment in UTC. Raises CliError for other text."""
    if not text:
        return None
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return f"{text}T00:00:00Z"
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT[0-9:.]{5,15}(Z|[+-]\d\d:\d\d)", text):
        raise CliError(f"not a time: {text}", code=USAGE, next_step="try 2026-04-01 or 2026-04-01T12:00:00Z")
    return text
