"""DESIGN §11 as checks over a whole system: each function cites its number and yields one line per violation.

`await violations(stack)` after an end-to-end run; `python -m tests.invariants [STATE]` for a system that runs.
The checks suppose that the system has healed; `healed` waits until they all hold, or says what never did.
Not seen from outside: 4 and 5 (nothing here leases or meters yet), 11 (billing's own tests replay the webhook log),
and that a version and its event share a transaction, of which only "both, exactly once" remains visible.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from services.billing.catalog import load_catalog
from services.billing.domain.api_key import hash_key
from services.billing.domain.entitlement import Entitlement, resolve
from services.billing.domain.subscription import Subscription
from services.billing.stripe import invoice_of, subscription_of
from services.notify import events as mail_events
from services.notify import samples
from services.notify.storage import SENDING
from tests.evidence import Evidence, Row, Told, gather
from tests.invariants_quota import (
    a_key_has_one_answer,
    announced_snapshots,
    counters_equal_the_ledger,
    leases_keep_to_their_limits,
    no_burst_exceeded_its_rate,
    no_grant_exceeded_its_limit,
    quota_has_billings_version,
)
from tollway.billing.v1 import events_pb2
from tollway.billing.v1.recipient_pb2 import Recipient

FINAL = {"applied", "ignored", "ignored_foreign", "dead"}
# Handed to the mail server this long ago and not recorded: whoever did it is gone, and it will be `unknown`.
_LEFT_SENDING = timedelta(seconds=10)
# How the Message-IDs of messages that have a row begin; mails to sign in with leave none.
_OF_MESSAGES = tuple({f"{notice.kind.replace('_', '-')}." for notice in samples.of().values()})

# Wherever it begins: in a protobuf the byte before may look like a letter.
_SECRET = re.compile(
    r"(?:sk|rk|mk|vk)_(?:live|test|svc)_[A-Za-z0-9]{16,}"
    r"|ses_[A-Za-z0-9]{33}"
    r"|whsec_[A-Za-z0-9+/=]{16,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


# Quota's column and billing's.
_OF_A_KEY = (("account_id", "account_id"), ("key_id", "id"), ("kind", "kind"), ("end_time", "revoke_time"))


class System(Protocol):
    """What is asked of `tests.infra.stack.Stack`."""

    folder: Path
    log: Path

    @property
    def env(self) -> dict[str, str]: ...


async def violations(stack: System, told: Told | None = None) -> list[str]:
    """One line per violation; empty when the system is as it should be."""
    return judge(await gather(stack.env, stack.folder / "state", stack.log), told or Told())


async def healed(stack: System, told: Told | None = None, *, within: float = 60.0) -> list[str]:
    """Waits until nothing is violated and returns []; after `within` seconds, what still is."""
    deadline = time.monotonic() + within
    while True:
        try:
            found = await violations(stack, told)
        except Exception as error:  # a part is still on its way back
            found = [f"the system cannot be read: {error!r}"]
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.5)  # between looks at a whole system there is no one thing to await


def judge(evidence: Evidence, told: Told) -> list[str]:
    found = [line for check in CHECKS for line in check(evidence)]
    return found + list(answered_is_there(evidence, told))


def _announced(evidence: Evidence, message: Any) -> list[Any]:
    name = message.DESCRIPTOR.full_name
    return [message.FromString(row["data"]) for row in evidence.billing["outbox"] if row["type"] == name]


def a_paid_invoice_has_one_receipt(evidence: Evidence) -> Iterator[str]:
    """6: one InvoicePaid, one row, one mail. `unknown` stands for one mail or none (notify's invariant 2)."""
    ours = {account["stripe_customer_id"]: account for account in evidence.billing["account"]}
    ours.pop(None, None)
    rows = defaultdict(list)
    for row in evidence.notify["messages"]:
        rows[row["kind"], row["subject_id"]].append(row)
    mails = Counter(str(mail["MessageID"]).strip("<>") for mail in evidence.mails)
    announced = Counter(event.invoice.id for event in _announced(evidence, events_pb2.InvoicePaid))
    for invoice in evidence.invoices:
        if invoice["customer"] not in ours or invoice["status"] != "paid" or not invoice["amount_paid"]:
            continue
        since = ours[invoice["customer"]]["import_time"]
        if since is not None and invoice["status_transitions"]["paid_at"] <= since.timestamp():
            continue  # paid before the account came here
        if announced[invoice["id"]] != 1:
            yield f"6: invoice {invoice['id']} is paid and was announced {announced[invoice['id']]} times"
        receipts = rows["receipt", invoice["id"]]
        if len(receipts) != 1:
            yield f"6: invoice {invoice['id']} is paid and has {len(receipts)} receipts"
    for (kind, subject), of_one in rows.items():
        if len(of_one) > 1:
            yield f"6: {len(of_one)} rows for {kind} of {subject}"
        for row in of_one:
            resent = sum(each["message_id"] == row["id"] for each in evidence.notify["resends"])
            yield from _one_mail(row, mails[row["message_id"].strip("<>")], resent, evidence.read_time)
    ids = Counter(row["message_id"] for row in evidence.notify["messages"])
    yield from (f"6: Message-ID {name} belongs to {count} messages" for name, count in ids.items() if count > 1)
    known = {row["message_id"].strip("<>") for row in evidence.notify["messages"]}
    for name in mails:
        if name.startswith(_OF_MESSAGES) and name not in known:
            yield f"6: mail {name} was sent and no row knows it"


def each_event_to_tell_of_has_its_message(evidence: Evidence) -> Iterator[str]:
    """6, for every kind of mail: an event that leads to one has its row, sent or not, with why."""
    rows = {(row["kind"], row["subject_id"]) for row in evidence.notify["messages"]}
    erased = {row["account_id"] for row in evidence.notify["erased_accounts"]}
    for event in evidence.stream:
        if event["type"] not in mail_events.BY_TYPE:
            continue
        message = mail_events.BY_TYPE[event["type"]].FromString(event["data"])
        account_id = mail_events.account_of(message)
        notice = mail_events.to_notice(message, Recipient(account_id=account_id))
        if account_id not in erased and (notice.kind, notice.subject_id) not in rows:
            yield f"6: {event['type']} {event['id']} has no message {notice.kind} of {notice.subject_id}"


def _one_mail(row: Row, sent: int, resent: int, now: datetime) -> Iterator[str]:
    what = f"{row['kind']} of {row['subject_id']}"
    if row["state"] == "sending" and row["claim_until"] - SENDING + _LEFT_SENDING < now:
        allowed = {0, 1}
    elif row["state"] in {"pending", "sending"}:
        yield f"6: {what} is not settled: {row['state']} {row['error']}"
        return
    else:
        allowed = {"sent": {1}, "unknown": {0, 1}}.get(row["state"], {0})
    # Each time it was sent again may have brought one more.
    if not min(allowed) <= sent <= max(allowed) + resent:
        yield f"6: {what} is {row['state']} and {sent} mails were sent"


def each_version_is_announced_once(evidence: Evidence) -> Iterator[str]:
    """7, at the source: versions 1 to n each have one EntitlementsChanged; TierChanged goes with a new tier."""
    snapshots = announced_snapshots(evidence)
    moves = Counter((event.account_id, event.version) for event in _announced(evidence, events_pb2.TierChanged))
    for row in evidence.billing["entitlement"]:
        account_id, newest = row["account_id"], row["version"]
        previous = ""
        for version in range(1, newest + 1):
            found = snapshots.get((account_id, version), [])
            if len(found) != 1:
                yield f"7: account {account_id}: version {version} was announced {len(found)} times"
                previous = "?"
                continue
            if "?" not in (previous, found[0].tier):
                expected = 1 if found[0].tier != previous else 0
                if moves[account_id, version] != expected:
                    yield f"7: account {account_id}: version {version} has {moves[account_id, version]} TierChanged"
            previous = found[0].tier
        if found and (found[0].tier, found[0].status) != (row["tier"], row["status"]):
            yield f"7: account {account_id}: version {newest} was announced as {found[0].tier}, it is {row['tier']}"
    versions = {row["account_id"]: row["version"] for row in evidence.billing["entitlement"]}
    for account_id, version in snapshots:
        if version > versions.get(account_id, 0):
            yield f"7: account {account_id}: version {version} was announced and does not exist"


def what_is_published_is_in_the_outbox(evidence: Evidence) -> Iterator[str]:
    """7, at the stream: published ⊆ outbox, byte for byte; and what is marked published is in the stream."""
    rows = {row["id"]: row for row in evidence.billing["outbox"]}
    for event in evidence.stream:
        if not event["type"].startswith("tollway.billing."):
            continue
        row = rows.get(event["id"])
        if row is None:
            yield f"7: event {event['id']} ({event['subject']}) is in the stream and not in the outbox"
        elif any(row[name] != event[name] for name in ("type", "subject", "data")):
            yield f"7: event {event['id']} is not what the outbox says"
    there = {event["id"] for event in evidence.stream}
    for row in rows.values():
        if row["publish_time"] is not None and row["id"] not in there:
            yield f"7: event {row['id']} ({row['subject']}) is marked published and not in the stream"


def the_outbox_is_drained(evidence: Evidence) -> Iterator[str]:
    """8, with every mark worked off and nothing buried."""
    for row in evidence.billing["outbox"]:
        if row["publish_time"] is None:
            yield f"8: event {row['id']} ({row['subject']}) waits in the outbox"
    for row in evidence.billing["billing_sync"]:
        if row["wanted"] > row["done"]:
            yield f"8: account {row['account_id']} waits to be read from Stripe: {row['error'] or 'no error yet'}"
    yield from (f"8: an event was buried: {subject}" for subject in evidence.dead)


def local_state_is_stripes(evidence: Evidence) -> Iterator[str]:
    """10: subscriptions and invoices field by field, and the entitlement that follows from them."""
    at_stripe = {each["id"]: subscription_of(each) for each in evidence.subscriptions}
    invoices = {each["id"]: invoice_of(each) for each in evidence.invoices}
    local = {row["id"]: row for row in evidence.billing["subscription"]}
    erased = {row["id"] for row in evidence.billing["account"] if row["erase_time"] is not None}
    customers = {account["stripe_customer_id"]: account["id"] for account in evidence.billing["account"]}
    customers.pop(None, None)
    of_account: dict[str, list[Subscription]] = defaultdict(list)
    for each in at_stripe.values():
        if each.customer_id in customers:
            of_account[customers[each.customer_id]].append(each)
            if each.id not in local:
                yield f"10: subscription {each.id} is at Stripe and not here"
    for rows, fresh, kind in (
        (local.values(), at_stripe, "subscription"),
        (evidence.billing["invoice"], invoices, "invoice"),
    ):
        for row in rows:
            if (read := fresh.get(row["id"])) is None:
                yield f"10: {kind} {row['id']} is here and not at Stripe"
                continue
            for name in (each.name for each in fields(read)):
                if name == "customer_email" and row["account_id"] in erased:
                    continue
                if row[name] != getattr(read, name):
                    yield f"10: {kind} {row['id']}: {name} is {row[name]!r}, at Stripe {getattr(read, name)!r}"
    catalog = load_catalog(evidence.catalog)
    prices = {row["price_id"]: row["tier"] for row in evidence.billing["price_tier"]}
    names = [each.name for each in fields(Entitlement)]
    for row in evidence.billing["entitlement"]:
        state = Entitlement(**{name: row[name] for name in names})
        # Those that are over are deleted in the transaction that ends them.
        agreed = next((o["tier"] for o in evidence.billing["override"] if o["account_id"] == state.account_id), "")
        read = of_account[state.account_id]
        follows = resolve(catalog, state, read, prices, override_tier=agreed).entitlement
        if follows.version != state.version:
            yield f"10: account {state.account_id} is {state.tier}/{state.status}, Stripe says {follows.tier}"


def keys_end_everywhere(evidence: Evidence) -> Iterator[str]:
    """13, for keys: whose a key is and when it ends, quota says as billing does."""
    issued = {bytes(row["hash"]): row for row in evidence.billing["api_key"]}
    for row in evidence.quota["api_key"]:
        key = issued.get(bytes(row["hash"]))
        if key is None:
            yield f"13: quota's key {row['key_id']} is not billing's"
        elif any(row[theirs] != key[ours] for theirs, ours in _OF_A_KEY):
            yield f"13: key {key['id']} ends at {key['revoke_time']}, in quota at {row['end_time']}, or is another's"


def every_webhook_has_a_final_status(evidence: Evidence) -> Iterator[str]:
    """12: one row per event that was taken, and a final status."""
    stored = {row["id"]: row for row in evidence.billing["webhook_event"]}
    for row in stored.values():
        if row["status"] not in FINAL:
            yield f"12: event {row['id']} ({row['type']}) is {row['status']}"
        elif row["status"] == "dead":
            yield f"12: event {row['id']} ({row['type']}) was given up"
    for event in evidence.events:
        why = evidence.undelivered.get(event["id"], "delivered")
        if event["id"] not in stored and why == "delivered":
            yield f"12: event {event['id']} ({event['type']}) was taken and not stored"
        elif why == "pending":
            yield f"12: event {event['id']} ({event['type']}) waits to be delivered"


def accounts_agree(evidence: Evidence) -> Iterator[str]:
    """13: a row's account is its parent's, in each database and across them."""
    billing = evidence.billing
    accounts = {row["id"]: row for row in billing["account"]}
    owners = {row["stripe_customer_id"]: row["id"] for row in billing["account"]}
    owners.pop(None, None)
    for table in ("api_key", "entitlement", "subscription", "invoice", "checkout", "billing_sync", "outbox"):
        for row in billing[table]:
            if row["account_id"] not in accounts:
                yield f"13: {table}: {row['account_id']} is no account"
    for table in ("subscription", "invoice", "webhook_event"):
        for row in billing[table]:
            if row["account_id"] is not None and owners.get(row["customer_id"]) != row["account_id"]:
                yield f"13: {table} {row['id']}: customer {row['customer_id']} is not account {row['account_id']}'s"
    subscribers = {row["id"]: row["account_id"] for row in billing["subscription"]}
    for row in billing["invoice"]:
        if row["subscription_id"] and subscribers.get(row["subscription_id"]) != row["account_id"]:
            yield f"13: invoice {row['id']} is of account {row['account_id']}, its subscription of another"
    for row in billing["outbox"]:
        message = getattr(events_pb2, row["type"].rpartition(".")[2]).FromString(row["data"])
        inner = getattr(message, "entitlements", None) or getattr(message, "invoice", None) or message
        if not row["account_id"] == inner.account_id == row["subject"].rpartition(".")[2]:
            yield f"13: event {row['id']} is of account {inner.account_id} and of {row['account_id']}"
    for row in evidence.quota["account"]:
        if row["id"] not in accounts:
            yield f"13: quota's account {row['id']} is not billing's"
    held = {row["id"] for row in evidence.quota["account"]}
    for line in evidence.quota["idem"]:
        if line["account_id"] not in held:
            yield f"13: ledger: {line['account_id']} is no account"
    theirs = {
        row["id"]: row["account_id"]
        for table in ("invoice", "subscription", "charge_reversal")
        for row in billing[table]
    }
    for row in evidence.notify["messages"]:
        # `<what it is about>:<when>`; of a limit, what it is about is the account.
        about = row["subject_id"].partition(":")[0]
        if theirs.get(about, about) != row["account_id"]:
            yield f"13: message {row['id']} is of account {row['account_id']}, {about} is another's"


def nothing_shows_a_secret(evidence: Evidence) -> Iterator[str]:
    """14: by pattern, and by the installation's own values."""
    places = {f"log {name}": text for name, text in evidence.logs.items()}
    places |= {f"stream event {event['id']}": event["data"].decode("latin-1") for event in evidence.stream}
    places |= {f"outbox row {row['id']}": row["data"].decode("latin-1") for row in evidence.billing["outbox"]}
    places |= {
        f"message {row['id']}": row["event_data"].decode("latin-1") + row["error"]
        for row in evidence.notify["messages"]
    }
    places |= {f"mark of {row['account_id']}": row["error"] for row in evidence.billing["billing_sync"]}
    for place, text in places.items():
        if (match := _SECRET.search(text)) is not None:
            yield f"14: {place} shows {match.group()[:12]}…"
        elif any(secret in text for secret in evidence.secrets):
            yield f"14: {place} shows a secret of this installation"


def answered_is_there(evidence: Evidence, told: Told) -> Iterator[str]:
    """15, and the rest of 2: what a client was told OK is there, and no more than it was told."""
    hashes = {bytes(row["hash"]): row["account_id"] for row in evidence.billing["api_key"]}
    for account_id, key in told.keys.items():
        if hashes.get(hash_key(key)) != account_id:
            yield f"15: account {account_id}: its key was given out and is not stored"
        for name, text in evidence.logs.items():
            if key in text:
                yield f"14: log {name} shows the key of account {account_id}"
    ends = {bytes(row["hash"]): (row["account_id"], row["revoke_time"]) for row in evidence.billing["api_key"]}
    for key, account_id in told.ended.items():
        owner, end = ends.get(hash_key(key), ("", None))
        if owner != account_id or end is None:
            yield f"15: account {account_id}: one of its keys was revoked and goes on"
    tiers = {row["account_id"]: row["tier"] for row in evidence.billing["entitlement"]}
    for account_id, tier in told.tiers.items():
        if tiers.get(account_id) != tier:
            yield f"15: account {account_id}: paid for {tier} and is {tiers.get(account_id, 'unknown')}"
    ledger = {
        (line["account_id"], line["key"]): (line["meter"], line["amount"])
        for line in evidence.quota["idem"]
        if line["account_id"] in told.keys
    }
    counted = {(use.account_id, use.key): (use.meter, use.amount) for use in told.uses}
    for place, use in counted.items():
        if ledger.get(place) != use:
            yield f"15: account {place[0]}: use {place[1]!r} was answered OK and the ledger has {ledger.get(place)}"
    if told.uses:
        for account_id, key in ledger.keys() - counted.keys():
            yield f"2: account {account_id}: use {key!r} was counted and nobody was told"


CHECKS = (
    no_burst_exceeded_its_rate,
    no_grant_exceeded_its_limit,
    counters_equal_the_ledger,
    a_key_has_one_answer,
    leases_keep_to_their_limits,
    a_paid_invoice_has_one_receipt,
    each_event_to_tell_of_has_its_message,
    each_version_is_announced_once,
    what_is_published_is_in_the_outbox,
    the_outbox_is_drained,
    quota_has_billings_version,
    local_state_is_stripes,
    every_webhook_has_a_final_status,
    accounts_agree,
    keys_end_everywhere,
    nothing_shows_a_secret,
)


def main() -> int:
    state = Path(sys.argv[1] if len(sys.argv) > 1 else ".tollway")
    lines = (state / "env").read_text().splitlines()
    env = {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}
    if "STRIPE_API_BASE" not in env:
        print("this compares with the sandbox; with the real Stripe use `tollway reconcile`", file=sys.stderr)
        return 2
    found = judge(asyncio.run(gather(env, state)), Told())
    print("\n".join(found) if found else f"{len(CHECKS)} checks, no violation")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
