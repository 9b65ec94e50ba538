"""Keys and identities through the whole system: what is issued works at every door, what is revoked at none."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import httpx

from tests.e2e.world import Customer, Json, World, until
from tollway.envoy.auth.v3 import external_auth_pb2 as pb
from tollway.envoy.auth.v3 import external_auth_pb2_grpc


async def at_envoy(world: World, secret: str) -> int:
    """What quota tells Envoy about a request with this key: 200 when it passes."""
    http = pb.AttributeContext.HttpRequest(path="/", headers={"authorization": f"Bearer {secret}"})
    attributes = pb.AttributeContext(
        request=pb.AttributeContext.Request(http=http), context_extensions={"meter": "messages"}
    )
    metadata = (("authorization", f"Bearer {world.env['TOLLWAY_RPC_TOKEN']}"),)
    async with grpc.aio.insecure_channel(world.stack.address("quota")) as channel:
        stub = external_auth_pb2_grpc.AuthorizationStub(channel)
        answer = await stub.Check(pb.CheckRequest(attributes=attributes), timeout=10, metadata=metadata)
    return answer.denied_response.status.code or 200


async def at_gateway(world: World, secret: str) -> int:
    bearer = {"Authorization": f"Bearer {secret}"}
    return (await world.gateway.post("/v1/usage", json={"meter": "messages"}, headers=bearer)).status_code


def keys_of(customer: Customer) -> str:
    return f"/v1/orgs/{customer.account['slug']}/keys"


async def issue(customer: Customer, name: str = "CI") -> Json:
    answer = await customer.post(keys_of(customer), {"kind": "live", "name": name})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def delete(world: World, path: str, secret: str) -> httpx.Response:
    return await world.gateway.delete(path, headers={"Authorization": f"Bearer {secret}"})


async def test_an_issued_key_opens_every_door_at_once_and_a_revoked_one_none(world: World) -> None:
    ada = await world.sign_up()
    made = await issue(ada)
    secret = made["api_key"]
    assert [await at_gateway(world, secret), await at_envoy(world, secret)] == [200, 200]
    answer = await delete(world, f"{keys_of(ada)}/{made['id']}", ada.key)
    assert (answer.status_code, answer.json()["status"]) == (200, "revoked")
    assert await at_gateway(world, secret) == 401
    began = time.monotonic()
    await until(lambda: at_envoy(world, secret), lambda status: status == 401)
    assert time.monotonic() - began < 2.5  # the event, not the age of quota's memory
    assert [await at_gateway(world, ada.key), await at_envoy(world, ada.key)] == [200, 200]


async def test_a_rotated_key_goes_on_for_its_overlap_and_not_longer(world: World) -> None:
    ada = await world.sign_up()
    made = await issue(ada)
    turned = await ada.post(f"{keys_of(ada)}/{made['id']}/rotate", {"overlap_seconds": 3600})
    assert turned.status_code == 201, turned.text
    old, new = made["api_key"], turned.json()["api_key"]
    for secret in (old, new):
        assert [await at_gateway(world, secret), await at_envoy(world, secret)] == [200, 200]
    await world.advance_to(await world.now() + 3700)
    assert await at_gateway(world, old) == 401
    await until(lambda: at_envoy(world, old), lambda status: status == 401)
    assert [await at_gateway(world, new), await at_envoy(world, new)] == [200, 200]


async def test_what_was_done_is_in_the_audit_log_with_who_did_it(world: World) -> None:
    ada = await world.subscriber()
    made = await issue(ada)
    await delete(world, f"{keys_of(ada)}/{made['id']}", ada.key)
    log = (await ada.get(f"/v1/orgs/{ada.account['slug']}/audit-log"))["entries"]
    assert [(entry["action"], entry["actor"]["kind"]) for entry in log] == [
        ("key.revoked", "key"),
        ("key.issued", "key"),
        ("tier.changed", "system"),
        ("key.issued", "system"),
        ("account.created", "system"),
    ]
    assert log[2]["details"] == {"previous": "free", "tier": "pro", "status": "active"}
    assert made["api_key"] not in str(log)
    (owner,) = (await ada.get(f"/v1/orgs/{ada.account['slug']}/members"))["members"]
    assert (owner["email"], owner["role"]) == (ada.email, "owner")


async def test_another_tenants_account_and_key_are_as_unknown_as_ones_that_never_were(world: World) -> None:
    ada, eve = await world.sign_up(), await world.sign_up("Eve")
    made = await issue(ada)
    theirs, unknown = ada.account["slug"], "nobody-at-all"
    for route in ("keys", "members", "audit-log"):
        answers = [
            await world.gateway.get(f"/v1/orgs/{slug}/{route}", headers=eve.bearer) for slug in (theirs, unknown)
        ]
        assert [answer.status_code for answer in answers] == [404, 404]
        bodies = [{**answer.json(), "instance": "", "request_id": ""} for answer in answers]
        assert bodies[0] == bodies[1]
    answers = [await delete(world, f"{keys_of(eve)}/{key}", eve.key) for key in (made["id"], "key_" + "0" * 32)]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "key_not_found")] * 2
    assert await at_gateway(world, made["api_key"]) == 200


async def test_a_billing_that_dies_while_it_issues_leaves_no_key_behind_and_the_retry_gets_one(world: World) -> None:
    ada = await world.sign_up()
    before, body = world.stack.restarts("billing"), {"kind": "live", "name": "CI"}
    world.stack.arm("billing.issue_key.before_commit")
    lost = await ada.post(keys_of(ada), body, **{"Idempotency-Key": "once"})
    assert lost.status_code in {503, 504}
    await asyncio.to_thread(world.stack.wait_restarted, "billing", before + 1)
    assert len((await ada.get(keys_of(ada)))["keys"]) == 1
    answers = [await ada.post(keys_of(ada), body, **{"Idempotency-Key": "once"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert len((await ada.get(keys_of(ada)))["keys"]) == 2
    assert await at_gateway(world, answers[0].json()["api_key"]) == 200


def tollway(world: World, home: Path, *words: str, key: str = "") -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLWAY_", "XDG_"))}
    environment = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "TOLLWAY_API_URL": world.stack.gateway_url,
        "TOLLWAY_CLERK_ISSUER": world.stack.issuer_url,
        "TOLLWAY_API_KEY": key,
        "NO_COLOR": "1",
    }
    command = [str(Path(sys.executable).with_name("tollway")), *words]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=60, check=False)


async def run(world: World, home: Path, *words: str, key: str = "") -> str:
    done = await asyncio.to_thread(tollway, world, home, *words, key=key)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_an_outside_token_has_an_account_on_first_sight_whose_keys_work(world: World, tmp_path: Path) -> None:
    org = f"org_{tmp_path.name.replace('_', '')}x{os.getpid()}"
    token = await run(world, tmp_path, "local", "token", "--org", org)
    bearer = {"Authorization": f"Bearer {token}"}
    (mine,) = (await world.gateway.get("/v1/orgs", headers=bearer)).json()["orgs"]
    assert mine["role"] == "admin"
    made = await world.gateway.post(
        f"/v1/orgs/{mine['slug']}/keys", json={"kind": "live", "name": "CI"}, headers=bearer
    )
    assert made.status_code == 201, made.text
    secret = made.json()["api_key"]
    assert [await at_gateway(world, secret), await at_envoy(world, secret)] == [200, 200]
    colleague = await run(world, tmp_path, "local", "token", "--org", org, "--role", "member", "--user", "user_bob")
    headers = {"Authorization": f"Bearer {colleague}"}
    path = f"/v1/orgs/{mine['slug']}/keys"
    assert (await world.gateway.get(path, headers=headers)).status_code == 200
    refused = await world.gateway.post(path, json={"kind": "live", "name": "x"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_role")
    log = (await world.gateway.get(f"/v1/orgs/{mine['slug']}/audit-log", headers=bearer)).json()["entries"]
    assert {entry["actor"]["id"] for entry in log} == {"user_dev"}


async def test_tokens_that_are_none_are_401(world: World, tmp_path: Path) -> None:
    good = await run(world, tmp_path, "local", "token")
    head, body, signature = good.split(".")
    late = await run(world, tmp_path, "local", "token", "--expires-in", "-60")
    for token, code in (
        (late, "token_expired"),
        (f"{head}.{body}.", "token_invalid"),
        (f"{head}.{body}.{signature[::-1]}", "token_invalid"),
        (f"eyJhbGciOiJub25lIn0.{body}.", "token_invalid"),
        (f"{good}=", "token_invalid"),
    ):
        answer = await world.gateway.get("/v1/orgs", headers={"Authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["code"]) == (401, code)


async def test_the_cli_lists_issues_rotates_and_revokes(world: World, tmp_path: Path) -> None:
    ada = await world.sign_up()
    issued = await run(world, tmp_path, "keys", "issue", "live", "--name", "CI", key=ada.key)
    key_id, secret = issued.split()[0], issued.rsplit(" ", 1)[1]
    assert await at_gateway(world, secret) == 200
    turned = await run(world, tmp_path, "keys", "rotate", key_id, "--overlap", "0s", key=ada.key)
    assert await at_gateway(world, secret) == 401
    successor = turned.split()[0]
    assert await at_gateway(world, turned.rsplit(" ", 1)[1]) == 200
    assert successor in await run(world, tmp_path, "keys", "revoke", successor, key=ada.key)
    listed = (await run(world, tmp_path, "keys", "list", key=ada.key)).splitlines()
    assert [line.split()[0] for line in listed[1:3]] == [successor, key_id]
    assert all(" revoked " in line for line in listed[1:3])
    assert " active " in listed[3]
    assert secret not in str(listed)
