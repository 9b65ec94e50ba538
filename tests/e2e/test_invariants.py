"""The checks themselves: a healthy system passes, and each check sees a violation that is planted in what it reads."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from services.billing.domain.api_key import hash_key
from tests import invariants
from tests.e2e.load import Client, live
from tests.evidence import Evidence, Told, gather
from tests.infra.stack import Stack
from tests.invariants import judge
from tollway.billing.v1 import events_pb2
from tollway.quota.v1 import quota_pb2

_seen: dict[str, tuple[Evidence, Told]] = {}


@pytest.fixture
async def seen(own_stack: Stack) -> tuple[Evidence, Told]:
    """What a system with one who pays and one who does not holds, to spoil at will."""
    if not _seen:
        told = Told()
        client = Client(own_stack, told, random.Random(1))
        await live(client, "payer")
        await live(client, "other", pays=False)
        await client.close()
        assert await invariants.healed(own_stack, told) == []
        _seen["it"] = await gather(own_stack.env, own_stack.folder / "state", own_stack.log), told
    return copy.deepcopy(_seen["it"])


def _payers_invoice(evidence: Evidence) -> dict[str, object]:
    return next(row for row in evidence.billing["invoice"] if row["amount_paid"])


def _grants_too_much(evidence: Evidence, told: Told) -> None:
    line = evidence.quota["idem"][0]
    decision = quota_pb2.Decision.FromString(line["answer"])
    decision.limits[0].used = decision.limits[0].limit + 1
    line["answer"] = decision.SerializeToString()


def _decides_on_another_limit(evidence: Evidence, told: Told) -> None:
    line = evidence.quota["idem"][0]
    decision = quota_pb2.Decision.FromString(line["answer"])
    decision.limits[0].limit += 1
    line["answer"] = decision.SerializeToString()


def _counts_one_more(evidence: Evidence, told: Told) -> None:
    row = next(row for row in evidence.quota["account"] if row["counters"] != "{}")
    counters = json.loads(row["counters"])
    counters["messages"]["month"][1] += 1
    row["counters"] = json.dumps(counters)


def _loses_a_counter(evidence: Evidence, told: Told) -> None:
    row = next(row for row in evidence.quota["account"] if row["counters"] != "{}")
    counters = json.loads(row["counters"])
    del counters["messages"]["billing"]
    row["counters"] = json.dumps(counters)


def _grants_a_key_twice(evidence: Evidence, told: Told) -> None:
    evidence.quota["idem"].append(dict(evidence.quota["idem"][0]))


def _counts_what_nobody_was_told(evidence: Evidence, told: Told) -> None:
    told.uses.pop()


def _forgets_a_receipt(evidence: Evidence, told: Told) -> None:
    evidence.notify["messages"].clear()


def _has_two_receipts(evidence: Evidence, told: Told) -> None:
    evidence.notify["messages"].append(dict(evidence.notify["messages"][0]))


def _sends_a_mail_twice(evidence: Evidence, told: Told) -> None:
    evidence.mails.append(dict(evidence.mails[0]))


def _sends_nothing(evidence: Evidence, told: Told) -> None:
    evidence.mails.clear()


def _keeps_a_refund_to_itself(evidence: Evidence, told: Told) -> None:
    refund = events_pb2.InvoiceRefunded(account_id=evidence.billing["account"][0]["id"], refund_id="re_1", amount=1)
    row = {**evidence.stream[0], "id": "evt_refund", "type": refund.DESCRIPTOR.full_name}
    evidence.stream.append({**row, "data": refund.SerializeToString()})


def _announces_a_payment_twice(evidence: Evidence, told: Told) -> None:
    row = next(row for row in evidence.billing["outbox"] if row["type"].endswith(".InvoicePaid"))
    evidence.billing["outbox"].append({**row, "id": "evt_twice"})


def _drops_an_announcement(evidence: Evidence, told: Told) -> None:
    outbox = evidence.billing["outbox"]
    outbox.remove(next(row for row in outbox if row["type"].endswith(".EntitlementsChanged")))


def _forgets_a_tier_change(evidence: Evidence, told: Told) -> None:
    outbox = evidence.billing["outbox"]
    outbox.remove(next(row for row in outbox if row["type"].endswith(".TierChanged")))


def _publishes_what_never_was(evidence: Evidence, told: Told) -> None:
    evidence.stream.append({**evidence.stream[0], "id": "evt_made_up"})


def _publishes_something_else(evidence: Evidence, told: Told) -> None:
    evidence.stream[0]["data"] += b"\x00"


def _loses_a_published_event(evidence: Evidence, told: Told) -> None:
    del evidence.stream[0]


def _keeps_an_event_back(evidence: Evidence, told: Told) -> None:
    evidence.billing["outbox"][0]["publish_time"] = None


def _leaves_a_mark(evidence: Evidence, told: Told) -> None:
    evidence.billing["billing_sync"][0]["wanted"] += 1


def _buries_an_event(evidence: Evidence, told: Told) -> None:
    evidence.dead.append("tollway_dead.quota.billing.TierChanged.acct_1")


def _has_an_old_version(evidence: Evidence, told: Told) -> None:
    max(evidence.quota["account"], key=lambda row: row["version"])["version"] -= 1


def _does_not_know_an_account(evidence: Evidence, told: Told) -> None:
    evidence.quota["account"].pop()


def _goes_back_in_versions(evidence: Evidence, told: Told) -> None:
    line = evidence.quota["idem"][0]
    decision = quota_pb2.Decision.FromString(line["answer"])
    decision.version += 7
    early = min(each["decide_time"] for each in evidence.quota["idem"]) - timedelta(hours=1)
    line |= {"answer": decision.SerializeToString(), "decide_time": early}


def _differs_from_stripe(evidence: Evidence, told: Told) -> None:
    evidence.subscriptions[0]["cancel_at_period_end"] = True


def _differs_in_an_amount(evidence: Evidence, told: Told) -> None:
    evidence.billing["invoice"][0]["amount_due"] += 1


def _keeps_a_tier_too_long(evidence: Evidence, told: Told) -> None:
    for each in evidence.subscriptions:
        each["status"] = "canceled"
    for row in evidence.billing["subscription"]:
        row["status"] = "canceled"


def _leaves_a_webhook_pending(evidence: Evidence, told: Told) -> None:
    evidence.billing["webhook_event"][0]["status"] = "pending"


def _loses_a_webhook(evidence: Evidence, told: Told) -> None:
    evidence.billing["webhook_event"].pop()


def _mixes_accounts_up(evidence: Evidence, told: Told) -> None:
    invoice = _payers_invoice(evidence)
    invoice["account_id"] = next(row["id"] for row in evidence.billing["account"] if row["id"] != invoice["account_id"])


def _writes_an_event_to_another_account(evidence: Evidence, told: Told) -> None:
    one, other = (row["id"] for row in evidence.billing["account"][:2])
    next(row for row in evidence.billing["outbox"] if row["account_id"] == one)["account_id"] = other


def _lets_a_revoked_key_go_on(evidence: Evidence, told: Told) -> None:
    next(row for row in evidence.quota["api_key"] if row["end_time"])["end_time"] = None


def _gives_a_key_to_somebody_else(evidence: Evidence, told: Told) -> None:
    row = evidence.quota["api_key"][0]
    row["account_id"] = next(each["id"] for each in evidence.billing["account"] if each["id"] != row["account_id"])


def _logs_a_session(evidence: Evidence, told: Told) -> None:
    evidence.logs["gateway.log"] += "ses_" + "a1" * 16 + "b"


def _logs_a_webhook_secret(evidence: Evidence, told: Told) -> None:
    evidence.logs["billing.log"] += "whsec_" + "a1" * 12


def _logs_a_token(evidence: Evidence, told: Told) -> None:
    evidence.logs["gateway.log"] += "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhY2N0In0.c2lnbmF0dXJl"


def _logs_the_rpc_token(evidence: Evidence, told: Told) -> None:
    evidence.logs["quota.log"] += evidence.secrets[0]


def _publishes_a_key(evidence: Evidence, told: Told) -> None:
    evidence.stream[-1]["data"] += b"sk_live_" + b"x" * 30


def _forgets_a_key(evidence: Evidence, told: Told) -> None:
    rows, given = evidence.billing["api_key"], hash_key(next(iter(told.keys.values())))
    rows.remove(next(row for row in rows if bytes(row["hash"]) == given))


def _forgets_that_a_key_was_revoked(evidence: Evidence, told: Told) -> None:
    for place, end in (("billing", "revoke_time"), ("quota", "end_time")):
        for row in getattr(evidence, place)["api_key"]:
            row[end] = None


def _forgets_a_use(evidence: Evidence, told: Told) -> None:
    evidence.quota["idem"].pop()


def _forgets_who_paid(evidence: Evidence, told: Told) -> None:
    next(row for row in evidence.billing["entitlement"] if row["tier"] == "pro")["tier"] = "free"


@pytest.mark.parametrize(
    ("plant", "number"),
    [
        (_grants_too_much, 1),
        (_decides_on_another_limit, 1),
        (_counts_one_more, 2),
        (_loses_a_counter, 2),
        (_counts_what_nobody_was_told, 2),
        (_grants_a_key_twice, 3),
        (_forgets_a_receipt, 6),
        (_has_two_receipts, 6),
        (_sends_a_mail_twice, 6),
        (_sends_nothing, 6),
        (_keeps_a_refund_to_itself, 6),
        (_announces_a_payment_twice, 6),
        (_drops_an_announcement, 7),
        (_forgets_a_tier_change, 7),
        (_publishes_what_never_was, 7),
        (_publishes_something_else, 7),
        (_loses_a_published_event, 7),
        (_keeps_an_event_back, 8),
        (_leaves_a_mark, 8),
        (_buries_an_event, 8),
        (_has_an_old_version, 9),
        (_does_not_know_an_account, 9),
        (_goes_back_in_versions, 9),
        (_differs_from_stripe, 10),
        (_differs_in_an_amount, 10),
        (_keeps_a_tier_too_long, 10),
        (_leaves_a_webhook_pending, 12),
        (_loses_a_webhook, 12),
        (_mixes_accounts_up, 13),
        (_writes_an_event_to_another_account, 13),
        (_lets_a_revoked_key_go_on, 13),
        (_gives_a_key_to_somebody_else, 13),
        (_logs_a_session, 14),
        (_logs_a_webhook_secret, 14),
        (_logs_a_token, 14),
        (_logs_the_rpc_token, 14),
        (_publishes_a_key, 14),
        (_forgets_a_key, 15),
        (_forgets_that_a_key_was_revoked, 15),
        (_forgets_a_use, 15),
        (_forgets_who_paid, 15),
    ],
)
async def test_a_violation_is_seen_by_its_number(
    seen: tuple[Evidence, Told], plant: Callable[[Evidence, Told], None], number: int
) -> None:
    evidence, told = seen
    plant(evidence, told)
    assert f"{number}:" in {line.split(" ")[0] for line in judge(evidence, told)}


async def test_a_healthy_system_violates_nothing_and_was_looked_at(seen: tuple[Evidence, Told]) -> None:
    evidence, told = seen
    assert judge(evidence, told) == []
    assert set(told.tiers.values()) == {"free", "pro"}
    assert len(told.uses) == 16
    for rows in (evidence.stream, evidence.mails, evidence.invoices, evidence.events, evidence.quota["idem"]):
        assert rows
