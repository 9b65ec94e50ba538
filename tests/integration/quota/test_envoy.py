"""A real Envoy in front of a real upstream, asking a real quota: with the files of deploy/envoy as they are."""

from __future__ import annotations

import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from local import ports
from local import postgres as local_postgres
from local.blocking import run_apart
from services.billing.domain.api_key import new_key
from tests.infra.servers import Templates
from tests.integration.quota import envoy_world
from tests.integration.quota.envoy_world import Front

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def front(templates: Templates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Shared by the tests: each opens accounts of its own."""
    folder = tmp_path_factory.mktemp("envoy")
    with templates.copy("quota") as dsn, envoy_world.front(folder, dsn, "ext_authz", "ratelimit") as running:
        yield running
    logs = "".join(path.read_text(errors="replace") for path in folder.glob("*.log"))
    assert not [key for key in running.billing.asked if key in logs], "a key is in a log"


@pytest.fixture
def account() -> str:
    return f"acct_{uuid.uuid4().hex[:12]}"


def test_a_counted_request_reaches_the_upstream_with_its_account(front: Front, account: str) -> None:
    key = front.billing.open_account(account, 5, tier="pro")
    answer = front.authorized("/things", key)
    assert answer.status_code == 200
    seen = answer.json()
    assert (seen["x-tollway-account-id"], seen["x-tollway-key-id"]) == (account, f"key_{account}")
    assert (seen["x-tollway-key-kind"], seen["x-tollway-tier"], seen["x-tollway-replayed"]) == ("live", "pro", "false")
    assert answer.headers["ratelimit-policy"] == '"messages";q=5'
    assert re.fullmatch(r'"messages";r=4;t=\d+', answer.headers["ratelimit"])


def test_at_the_limit_the_client_gets_402_and_the_upstream_nothing(front: Front, account: str) -> None:
    key = front.billing.open_account(account, 2)
    assert [front.authorized(f"/{account}", key).status_code for _ in range(2)] == [200, 200]
    answer = front.authorized(f"/{account}?secret=1", key)
    assert (answer.status_code, answer.headers["content-type"]) == (402, PROBLEM)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["ratelimit"].startswith('"messages";r=0;t=')
    assert int(answer.headers["retry-after"]) > 0
    problem = answer.json()
    assert problem.pop("request_id")
    assert problem.pop("resets_at").endswith("-01T00:00:00Z")
    assert problem == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Quota exceeded",
        "status": 402,
        "detail": "The month's messages are used up.",
        "instance": f"/{account}",
        "code": "message_quota_exceeded",
        "reason": "message_quota_exceeded",
        "meter": "messages",
        "used": 2,
        "limit": 2,
        "remaining": 0,
        "tier": "free",
        "violated-policies": ["messages"],
        "checkoutUrl": "https://pay.example/billing",
        "supportContact": "mailto:help@example.com",
    }
    assert front.product.served.count(f"/{account}") == 2


def test_without_a_key_that_somebody_owns_it_is_401(front: Front) -> None:
    stranger = new_key("sk_live_").secret
    mistyped = stranger[:-1] + ("0" if stranger[-1] != "0" else "1")
    for headers, code in (
        ({}, "unauthenticated"),
        ({"authorization": "Basic abc"}, "authorization_malformed"),
        ({"authorization": f"Bearer {stranger},Bearer {stranger}"}, "authorization_malformed"),
        ({"authorization": f"Bearer {mistyped}"}, "api_key_malformed"),
        ({"authorization": f"Bearer {stranger}"}, "api_key_unknown"),
        ({"authorization": f"Bearer {stranger}"}, "api_key_unknown"),
    ):
        answer = front.authorized("/refused", **headers)
        assert (answer.status_code, answer.headers["content-type"], answer.json()["code"]) == (401, PROBLEM, code)
        assert answer.headers["www-authenticate"].startswith('Bearer realm="tollway"')
    assert front.billing.asked.count(stranger) == 1  # "nobody's" is believed for a moment
    assert mistyped not in front.billing.asked
    assert "/refused" not in front.product.served


def test_a_route_says_how_many_units_a_request_is(front: Front, account: str) -> None:
    key = front.billing.open_account(account, 15)
    assert front.authorized("/bulk/import", key).headers["ratelimit"].startswith('"messages";r=5;')
    assert front.authorized("/bulk/import", key).status_code == 402
    assert front.authorized("/one", key).headers["ratelimit"].startswith('"messages";r=4;')
    assert front.authorized("/healthz").status_code == 200


def test_neither_request_ids_nor_untrusted_keys_make_a_request_free(front: Front, account: str) -> None:
    key = front.billing.open_account(account, 2)
    told = [
        front.authorized("/x", key, x_request_id="mine", idempotency_key="mine", x_tollway_replayed="true")
        for _ in range(3)
    ]
    assert [answer.status_code for answer in told] == [200, 200, 402]
    assert told[1].json()["x-tollway-replayed"] == "false"


def test_where_the_upstream_answers_repeats_a_repeated_key_is_counted_once(front: Front, account: str) -> None:
    key = front.billing.open_account(account, 2)
    told = [front.authorized("/orders/1", key, idempotency_key=mine) for mine in ("a", '"a"', "b", "a", "c")]
    assert [answer.status_code for answer in told] == [200, 200, 200, 200, 402]
    replayed = [answer.json()["x-tollway-replayed"] for answer in told[:4]]
    assert replayed == ["false", "true", "false", "true"]
    wrong = front.authorized("/orders/1", key, idempotency_key='"')
    assert (wrong.status_code, wrong.json()["code"]) == (422, "idempotency_key_invalid")


def test_what_a_client_says_of_itself_never_reaches_the_upstream(front: Front, account: str) -> None:
    key = front.billing.open_account(account)
    lies = {"x_tollway_account_id": "acct_other", "x_tollway_tier": "enterprise"}
    for seen in (front.authorized("/x", key, **lies).json(), front.limited("/x", key, **lies).json()):
        assert (seen["x-tollway-account-id"], seen["x-tollway-tier"]) == (account, "free")
    assert "x-tollway-account-id" not in front.authorized("/healthz", **lies).json()


def test_the_rate_limit_service_refuses_with_429_and_says_what_is_left(front: Front, account: str) -> None:
    key = front.billing.open_account(account, 12)
    first = front.limited("/bulk/import", key)
    assert (first.status_code, first.json()["x-tollway-account-id"]) == (200, account)
    assert (first.headers["x-ratelimit-limit"], first.headers["x-ratelimit-remaining"]) == ("12", "2")
    assert int(first.headers["x-ratelimit-reset"]) > 0
    assert first.headers["ratelimit"].startswith('"messages";r=2;t=')
    refused = front.limited("/bulk/import", key)
    assert (refused.status_code, refused.headers["content-type"]) == (429, PROBLEM)
    assert refused.headers["x-ratelimit-remaining"] == "2"
    problem = refused.json()
    assert (problem["code"], problem["used"], problem["remaining"]) == ("message_quota_exceeded", 10, 2)
    assert "status" not in problem
    assert front.limited("/one", key).headers["x-ratelimit-remaining"] == "1"


def test_the_rate_limit_service_lets_no_unknown_key_pass(front: Front) -> None:
    refused = front.limited("/stranger", new_key("sk_live_").secret)
    assert (refused.status_code, refused.json()["code"]) == (429, "api_key_unknown")
    assert front.limited("/stranger").status_code == 401
    # Envoy would make descriptors of an empty header, and of one that no message can hold.
    for header in (b"", b"\xff", b"Bearer \xff"):
        assert httpx.get(front.ratelimit + "/stranger", headers={b"authorization": header}).status_code == 401, header
    refused = front.limited("/stranger", authorization="Bearer")
    assert (refused.status_code, refused.json()["code"]) == (429, "api_key_malformed")
    assert "/stranger" not in front.product.served


def test_when_quota_itself_is_gone_envoy_refuses_with_503(tmp_path: Path, database: str, account: str) -> None:
    with envoy_world.front(tmp_path, database, "ext_authz", "ratelimit") as front:
        key = front.billing.open_account(account)
        assert front.authorized("/x", key).status_code == front.limited("/x", key).status_code == 200
        front.quota.child.send_signal(signal.SIGKILL)
        front.quota.child.wait()
        assert front.authorized("/x", key).status_code == front.limited("/x", key).status_code == 503
        assert front.product.served == ["/x", "/x"]


def test_while_the_database_is_away_the_client_is_told_503_in_time(tmp_path: Path, account: str) -> None:
    with local_postgres.running(tmp_path, ports.reserve(), "pw") as admin:
        run_apart(local_postgres.create_databases(admin, ["quota"]))
        with envoy_world.front(tmp_path, local_postgres.service_dsn(admin, "quota"), "ext_authz") as front:
            key, unseen = front.billing.open_account(account), front.billing.open_account(f"{account}2")
            assert front.authorized("/x", key).status_code == 200
            server = psutil.Process(int((tmp_path / "postgres" / "postmaster.pid").read_text().split()[0]))
            frozen = [server, *server.children(recursive=True)]
            for each in frozen:
                each.suspend()
            try:
                for one in (key, unseen):
                    began = time.monotonic()
                    answer = front.authorized("/x", one)
                    assert time.monotonic() - began < 8
                    assert (answer.status_code, answer.headers["content-type"]) == (503, PROBLEM)
                    assert answer.json()["code"] in {"store_unavailable", "deadline_exceeded"}
                    assert int(answer.headers["retry-after"]) >= 1
            finally:
                for each in frozen:
                    each.resume()
            assert until(lambda: front.authorized("/x", key), 200).status_code == 200
            assert until(lambda: front.authorized("/x", unseen), 200).status_code == 200


def until(ask: Callable[[], httpx.Response], status: int, within: float = 20.0) -> httpx.Response:
    deadline = time.monotonic() + within
    while (answer := ask()).status_code != status:
        assert time.monotonic() < deadline, answer.text
    return answer
