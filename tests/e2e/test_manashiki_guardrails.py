"""Manashiki's "Download guardrails", sentence by sentence, through real processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from tests.e2e.manashiki import CONTACT, Org, developer, manashiki, sign_up, world
from tests.e2e.quickstart import typed
from tests.e2e.world import PROBLEM, Json, World, until
from tests.infra.stack import Stack

__all__ = ["manashiki", "world"]  # fixtures


def refused(answer: httpx.Response, status: int, reason: str) -> Json:
    """The problem document of a refusal, with what every one of them says."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    document: Json = answer.json()
    assert document["reason"] == reason
    assert document["code"] == ("payment_required" if status == 402 else reason)
    return document


async def hold(org: Org, count: int) -> list[str]:
    """So many downloads at once with the live key; their requestIds."""
    return list(await asyncio.gather(*(org.downloaded(org.live_key) for _ in range(count))))


async def kill_switch(world: World, enabled: bool, reason: str = "", meter: str | None = None) -> None:
    headers = {"Authorization": f"Bearer {world.stack.operator_token}"}
    body = {"enabled": enabled, "reason": reason, "meter": meter}
    answer = await world.gateway.put("/v1/operator/kill-switch", json=body, headers=headers)
    assert answer.status_code == 200, answer.text


async def test_live_state_of_the_guardrails_is_in_the_status_answer(world: World) -> None:
    org = await sign_up(world)
    await org.downloaded()
    assert await org.status() == {
        "tier": "free",
        "currentPeriodEnd": None,
        "stagingQuotaUsed": 1,
        "stagingQuotaLimit": 10,
        "liveDownloadsThisPeriod": 0,
        "customModelAllowed": False,
        "liveKeyIssuanceAllowed": False,
        "serviceKeyIssuanceAllowed": False,
        "downloadGuardrails": {
            "stagingQuota": {"used": 1, "limit": 10, "remaining": 9},
            "liveCap": {"used": 0, "limit": None, "remaining": None, "autoStop": True},
            "concurrency": {"active": 1, "limit": 25},
            "killSwitch": {"enabled": False, "reason": None},
            "supportContact": CONTACT,
        },
        "supportContactMailto": CONTACT,
    }
    await org.upgrade()
    status = await org.status()
    assert datetime.fromisoformat(status["currentPeriodEnd"]).timestamp() > await world.now()
    assert status["currentPeriodEnd"].endswith(".000Z")
    gates = ("customModelAllowed", "liveKeyIssuanceAllowed", "serviceKeyIssuanceAllowed")
    assert [status[gate] for gate in gates] == [True, True, True]


async def test_a_limit_of_null_means_unlimited(world: World) -> None:
    org = await developer(world)
    status = await org.status()
    assert (status["tier"], status["stagingQuotaLimit"]) == ("paid", None)
    guardrails = status["downloadGuardrails"]
    assert guardrails["stagingQuota"] == {"used": 0, "limit": None, "remaining": None}
    assert guardrails["liveCap"] == {"used": 0, "limit": None, "remaining": None, "autoStop": True}


async def test_the_11th_staging_download_is_402_with_usage_and_a_checkout_url(world: World) -> None:
    org = await sign_up(world)
    answers = await asyncio.gather(*(org.download() for _ in range(12)))
    assert Counter(answer.status_code for answer in answers) == {200: 10, 402: 2}
    document = refused(await org.download(), 402, "staging_quota_exceeded")
    assert (document["used"], document["limit"], document["remaining"]) == (10, 10, 0)
    assert document["checkoutUrl"] == org.billing_page
    assert "supportContact" not in document
    assert (await org.status())["stagingQuotaUsed"] == 10


async def test_upgrading_lifts_the_staging_quota_immediately_and_keeps_what_was_used(world: World) -> None:
    org = await sign_up(world)
    for _ in range(10):
        await org.downloaded()
    refused(await org.download(), 402, "staging_quota_exceeded")
    await org.upgrade()
    assert (await org.download()).status_code == 200
    status = await org.status()
    assert (status["stagingQuotaUsed"], status["stagingQuotaLimit"]) == (11, None)


async def test_a_cap_that_is_reached_stops_live_downloads_with_402_and_whom_to_write_to(world: World) -> None:
    org = await developer(world)
    answer = await org.cap(3)
    assert answer.status_code == 200, answer.text
    # "Auto-stop is armed by default"
    assert {name: answer.json()[name] for name in ("limit", "used", "auto_stop")} == {
        "limit": 3,
        "used": 0,
        "auto_stop": True,
    }
    await hold(org, 3)
    stopped = await org.download(org.live_key)
    document = refused(stopped, 402, "live_download_cap_reached")
    assert (document["used"], document["limit"], document["remaining"]) == (3, 3, 0)
    assert document["supportContact"] == CONTACT
    assert "checkoutUrl" not in document
    assert int(stopped.headers["retry-after"]) > 0
    assert (await org.guardrails())["liveCap"] == {"used": 3, "limit": 3, "remaining": 0, "autoStop": True}
    assert (await org.download()).status_code == 200, "staging is not capped"


async def test_raising_or_removing_the_cap_ends_the_suspension(world: World) -> None:
    org = await developer(world)
    await org.cap(1)
    await org.downloaded(org.live_key)
    refused(await org.download(org.live_key), 402, "live_download_cap_reached")
    await org.cap(2)
    await org.downloaded(org.live_key)
    refused(await org.download(org.live_key), 402, "live_download_cap_reached")
    assert (await org.cap(None)).json()["limit"] is None
    await org.downloaded(org.live_key)
    assert (await org.status())["liveDownloadsThisPeriod"] == 3


async def test_without_auto_stop_a_cap_only_warns(world: World) -> None:
    org = await developer(world)
    await org.cap(1, auto_stop=False)
    await hold(org, 2)
    assert (await org.guardrails())["liveCap"] == {"used": 2, "limit": 1, "remaining": 0, "autoStop": False}


async def test_the_suspension_clears_when_the_next_billing_period_starts(world: World) -> None:
    org = await developer(world)
    await org.cap(1)
    await org.downloaded(org.live_key)
    refused(await org.download(org.live_key), 402, "live_download_cap_reached")
    ends = datetime.fromisoformat((await org.status())["currentPeriodEnd"]).astimezone(UTC)
    await world.advance_to(int(ends.timestamp()) + 1)
    await org.downloaded(org.live_key)
    await until(org.status, lambda status: datetime.fromisoformat(status["currentPeriodEnd"]) > ends)
    status = await org.status()
    assert (status["tier"], status["liveDownloadsThisPeriod"]) == ("paid", 1)
    assert status["downloadGuardrails"]["liveCap"]["limit"] == 1, "the cap stays set"


async def test_the_26th_download_at_once_is_429_until_a_lease_is_released(world: World) -> None:
    org = await developer(world)
    held = await hold(org, 24)
    held.append(await org.downloaded())  # a staging download holds a place too
    full = await org.download(org.live_key)
    document = refused(full, 429, "concurrent_download_limit_reached")
    assert document["supportContact"] == CONTACT
    assert 0 < int(full.headers["retry-after"]) <= 600
    assert 'qu="concurrent-requests"' in full.headers["ratelimit-policy"]
    assert (await org.guardrails())["concurrency"] == {"active": 25, "limit": 25}
    gone = await org.release(held[0], org.live_key)
    assert (gone.status_code, gone.content) == (204, b"")
    await org.downloaded(org.live_key)
    refused(await org.download(org.live_key), 429, "concurrent_download_limit_reached")
    assert (await org.status())["liveDownloadsThisPeriod"] == 25, "what was refused is not counted"


async def test_slots_free_up_after_ten_minutes_when_nobody_releases_them(world: World) -> None:
    org = await developer(world)
    await hold(org, 25)
    refused(await org.download(org.live_key), 429, "concurrent_download_limit_reached")
    await world.advance_to(await world.now() + 540)
    refused(await org.download(org.live_key), 429, "concurrent_download_limit_reached")
    await world.advance_to(await world.now() + 61)
    assert (await org.guardrails())["concurrency"]["active"] == 0
    await hold(org, 25)


async def test_a_lease_ends_once_and_only_by_its_own_organization(world: World) -> None:
    org, other = await sign_up(world), await sign_up(world, "Eve")
    held = await org.downloaded()
    for answer in (await other.release(held), await org.release("lease_" + "0" * 32), await org.release("no.lease")):
        assert (answer.status_code, answer.json()["code"]) == (404, "lease_not_found")
    assert (await org.release(held)).status_code == 204
    assert (await org.release(held)).status_code == 404


async def test_a_signed_url_works_as_long_as_its_lease_and_only_as_it_was_signed(world: World) -> None:
    org = await sign_up(world)
    granted = (await org.download(name="models/日本 語?#%.bin")).json()
    url = granted["url"]
    fetched = await world.gateway.get(url)
    assert (fetched.status_code, fetched.json()["object"]) == (200, "models/日本 語?#%.bin")
    for changed in (url.replace("models", "secret"), url.replace("expires=1", "expires=2"), url.split("?")[0]):
        answer = await world.gateway.get(changed)
        assert (answer.status_code, answer.json()["code"]) == (403, "download_url_invalid")
    lives = datetime.fromisoformat(granted["expiresAt"]).timestamp() - await world.now()
    assert 590 < lives <= 601
    later = (await org.download()).json()
    await org.release(granted["requestId"])
    assert (await world.gateway.get(url)).status_code == 410
    assert (await world.gateway.get(later["url"])).status_code == 200
    await world.advance_to(await world.now() + 601)
    assert (await world.gateway.get(later["url"])).status_code == 410


async def test_the_rate_of_one_key_is_429_and_leaves_the_others_alone(world: World) -> None:
    org = await developer(world)
    made = await org.call("POST", f"/v1/orgs/{org.slug}/keys", {"kind": "svc", "name": "ci"})
    assert made.status_code == 201, made.text
    for count in (20, 20, 20):
        held = await hold(org, count)
        await asyncio.gather(*(org.release(each) for each in held))
    slow = await org.download(org.live_key)
    document = refused(slow, 429, "download_rate_limit_reached")
    assert (document["used"], document["limit"]) == (60, 60)
    assert '"downloads_per_key";q=60;w=60' in slow.headers["ratelimit-policy"]
    assert 0 < int(slow.headers["retry-after"]) <= 60
    await org.downloaded(made.json()["api_key"])
    assert (await org.status())["liveDownloadsThisPeriod"] == 61


async def test_the_kill_switch_answers_503_for_all_and_shows_in_the_status(world: World) -> None:
    org = await developer(world)
    await kill_switch(world, True, "incident 4711")
    try:
        for key in (org.test_key, org.live_key):
            document = refused(await org.download(key), 503, "downloads_suspended")
            assert document["supportContact"] == CONTACT
        assert (await org.guardrails())["killSwitch"] == {"enabled": True, "reason": "incident 4711"}
    finally:
        await kill_switch(world, False)
    assert (await org.guardrails())["killSwitch"] == {"enabled": False, "reason": None}
    await org.downloaded(org.live_key)
    status = await org.status()
    assert (status["stagingQuotaUsed"], status["liveDownloadsThisPeriod"]) == (0, 1)


async def test_a_kill_switch_over_one_meter_leaves_the_other_alone(world: World) -> None:
    org = await developer(world)
    await kill_switch(world, True, "live bucket is down", "live_downloads")
    try:
        refused(await org.download(org.live_key), 503, "downloads_suspended")
        await org.downloaded()
        assert (await org.guardrails())["killSwitch"] == {"enabled": True, "reason": "live bucket is down"}
    finally:
        await kill_switch(world, False, meter="live_downloads")


async def test_a_repeated_idempotency_key_is_the_same_download_and_counts_once(world: World) -> None:
    org = await sign_up(world)
    once = {"Idempotency-Key": "job-1"}
    answers = await asyncio.gather(*(org.download(**once) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert len({answer.text for answer in answers}) == 1
    other = await org.download(name="models/other.bin", **once)
    assert (other.status_code, other.json()["code"], other.json()["field"]) == (
        *(422, "idempotency_key_reused"),
        "Idempotency-Key",
    )
    status = await org.status()
    assert (status["stagingQuotaUsed"], status["downloadGuardrails"]["concurrency"]["active"]) == (1, 1)


async def test_a_canceled_organization_gets_402_subscription_inactive_and_ten_staging_downloads(world: World) -> None:
    org = await developer(world)
    for _ in range(3):
        await org.downloaded()
    (subscription,) = await org.customer.subscriptions()
    await world.stripe("DELETE", f"subscriptions/{subscription['id']}")
    await world.drained()
    await org.becomes("canceled")
    status = await org.status()
    gates = ("customModelAllowed", "liveKeyIssuanceAllowed", "serviceKeyIssuanceAllowed")
    assert [status[gate] for gate in gates] == [False, False, False]
    assert (status["stagingQuotaUsed"], status["stagingQuotaLimit"]) == (3, 10)
    document = refused(await org.download(org.live_key), 402, "subscription_inactive")
    assert document["supportContact"] == CONTACT
    assert document["checkoutUrl"] == org.billing_page
    for _ in range(7):
        await org.downloaded()
    refused(await org.download(), 402, "staging_quota_exceeded")


async def test_usage_shows_caps_concurrency_and_what_is_held(world: World) -> None:
    org = await developer(world)
    await org.cap(5)
    await org.downloaded(org.live_key)
    usage = await org.usage()
    (live,) = (meter for meter in usage["meters"] if meter["meter"] == "live_downloads")
    shown = {limit["kind"]: (limit["used"], limit["limit"], limit["auto_stop"]) for limit in live["limits"]}
    assert (live["used"], shown["cap"], shown["concurrency"]) == (1, (1, 5, True), (1, 25, None))
    assert {each["name"]: each["limit"] for each in usage["allowances"]} == {
        "custom_models": 5,
        "storage_gb": 10,
    }


async def test_checkout_answers_url_and_session_id_and_nothing_else(world: World) -> None:
    org = await sign_up(world)
    opened = await org.call("POST", f"/v1/orgs/{org.slug}/billing/checkout")
    assert (opened.status_code, set(opened.json())) == (200, {"url", "sessionId"})
    assert opened.json()["sessionId"].startswith("cs_")
    for tier, code in (("enterprise", "contact_sales"), ("past_due", "unknown_tier"), ("canceled", "unknown_tier")):
        refused_tier = await org.call("POST", f"/v1/orgs/{org.slug}/billing/checkout", {"tier": tier})
        assert (refused_tier.status_code, refused_tier.json()["code"]) == (422, code)


async def test_live_and_service_keys_are_issued_once_it_is_paid_and_not_before(world: World) -> None:
    org = await sign_up(world)
    keys = f"/v1/orgs/{org.slug}/keys"
    for kind in ("live", "svc"):
        answer = await org.call("POST", keys, {"kind": kind, "name": "CI"})
        assert (answer.status_code, answer.json()["reason"]) == (402, "key_issuance_not_allowed")
    assert (await org.call("POST", keys, {"kind": "test", "name": "second"})).status_code == 402, "one test key"
    await org.upgrade()
    made = [await org.call("POST", keys, {"kind": "svc", "name": f"svc {count}"}) for count in range(6)]
    assert [answer.status_code for answer in made] == [201] * 5 + [402]
    assert made[0].json()["api_key"].startswith("mk_svc_")
    assert org.live_key.startswith("mk_live_")


async def test_while_past_due_keys_work_and_new_ones_are_402_until_the_invoice_is_paid(world: World) -> None:
    org = await developer(world)
    (subscription,) = await org.customer.subscriptions()
    card = await world.stripe(
        "POST", "payment_methods/pm_card_chargeCustomerFail/attach", customer=subscription["customer"]
    )
    await world.stripe("POST", f"subscriptions/{subscription['id']}", default_payment_method=card["id"])
    ends = datetime.fromisoformat((await org.status())["currentPeriodEnd"])
    await world.advance_to(int(ends.timestamp()) + 7200)
    await org.becomes("past_due")
    grace_end = (await org.call("GET", f"/v1/orgs/{org.slug}/billing")).json()["grace_end"]
    assert timedelta(days=7) <= datetime.fromisoformat(grace_end) - ends < timedelta(days=7, hours=3)
    status = await org.status()
    assert (status["liveKeyIssuanceAllowed"], status["serviceKeyIssuanceAllowed"]) == (False, False)
    assert status["customModelAllowed"] is True
    assert status["stagingQuotaLimit"] is None
    await org.downloaded(org.live_key)
    refused_key = await org.call("POST", f"/v1/orgs/{org.slug}/keys", {"kind": "live", "name": "another"})
    assert (refused_key.status_code, refused_key.json()["reason"]) == (402, "key_issuance_not_allowed")
    owed = next(invoice for invoice in await org.customer.invoices() if invoice["status"] == "open")
    assert (await org.customer.pay(owed["hosted_invoice_url"])).status_code == 303
    await org.becomes("paid")
    assert "grace_end" not in (await org.call("GET", f"/v1/orgs/{org.slug}/billing")).json()
    answer = await org.call("POST", f"/v1/orgs/{org.slug}/keys", {"kind": "live", "name": "another"})
    assert answer.status_code == 201


async def test_the_cli_shows_usage_sets_caps_and_operators_throw_the_switch(world: World, tmp_path: Path) -> None:
    org = await developer(world)
    operator = {"TOLLWAY_OPERATOR_TOKEN": world.stack.operator_token}
    said = await tollway(world, tmp_path, org.test_key, "caps", "set", "live_downloads", "4")
    assert said.startswith("live_downloads: 0 of 4 used, then it stops, resets ")
    await org.downloaded(org.live_key)
    lines = (await tollway(world, tmp_path, org.test_key, "usage")).splitlines()
    cap = next(line for line in lines if line.startswith("  your cap"))
    assert "1 / 4 25% resets " in " ".join(cap.split())
    assert any(line.startswith("  at once") and "1 / 25" in line for line in lines)
    assert (await tollway(world, tmp_path, org.test_key, "caps", "clear", "live_downloads")).endswith(
        "no cap (1 used)."
    )
    await tollway(world, tmp_path, org.test_key, "admin", "kill-switch", "on", "incident 4711", **operator)
    try:
        refused(await org.download(), 503, "downloads_suspended")
        assert "incident 4711" in await tollway(world, tmp_path, org.test_key, "admin", "kill-switch", **operator)
    finally:
        await tollway(world, tmp_path, org.test_key, "admin", "kill-switch", "off", **operator)
    await org.downloaded()


async def tollway(world: World, home: Path, key: str, *words: str, **more: str) -> str:
    """What the CLI says to a person with this key."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLWAY_", "XDG_"))}
    environment = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "TOLLWAY_API_URL": world.stack.gateway_url,
        "TOLLWAY_API_KEY": key,
        "COLUMNS": "100",
    }
    command = [str(Path(sys.executable).with_name("tollway")), *words]
    done = await asyncio.to_thread(
        subprocess.run, command, env=kept | environment | more, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


async def test_a_portal_before_the_first_checkout_is_409_no_customer(world: World) -> None:
    org = await sign_up(world)
    answer = await org.call("POST", f"/v1/orgs/{org.slug}/billing/portal")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_customer")
    await org.upgrade()
    opened = await org.call("POST", f"/v1/orgs/{org.slug}/billing/portal")
    assert (opened.status_code, list(opened.json())) == (200, ["url"])
    again = await org.call("POST", f"/v1/orgs/{org.slug}/billing/checkout")
    assert (again.status_code, again.json()["code"]) == (409, "already_subscribed")


async def test_a_cap_that_cannot_be_is_refused_naming_the_field_and_another_tenants_is_unknown(world: World) -> None:
    org, other = await developer(world), await sign_up(world, "Eve")
    path = f"/v1/orgs/{org.slug}/caps"
    for meter, body, code, field in (
        ("live_downloads", {"limit": -1}, "validation_failed", "limit"),
        ("live_downloads", {"limit": "5"}, "validation_failed", "limit"),
        ("live_downloads", {}, "validation_failed", "limit"),
        ("live_downloads", {"limit": 5, "auto_stop": 1}, "validation_failed", "auto_stop"),
        ("staging_downloads", {"limit": 5}, "cap_not_offered", "meter"),
        ("messages", {"limit": 5}, "unknown_meter", "meter"),
    ):
        answer = await org.call("PUT", f"{path}/{meter}", body)
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, code, field)
    for route, method in (("caps/live_downloads", "PUT"), ("billing/status", "GET"), ("billing/checkout", "POST")):
        body = {"limit": 5} if method == "PUT" else None
        answer = await other.call(method, f"/v1/orgs/{org.slug}/{route}", body)
        assert (answer.status_code, answer.json()["code"]) == (404, "account_not_found")


async def test_the_quick_start_runs_as_it_stands(manashiki: Stack, tmp_path: Path) -> None:
    assert await typed("quickstart-manashiki.md", manashiki, tmp_path) >= 5
